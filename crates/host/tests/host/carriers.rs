//! A host on several carriers at once, one of which it has not got from the link's crate.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::common::{config, create_owner};
use async_trait::async_trait;
use longhand_chain::ChainError;
use longhand_host::{Host, HostConfig, HostError};
use longhand_link::{
    Address, Carrier, Carriers, Credentials, DialOptions, Dialer, LinkError, Listen, Listener,
    Rendezvous, connect,
};
use longhand_proto::Code;
use longhand_testkit::failing_source::FailingSource;
use longhand_testkit::host::operator;
use longhand_testkit::link_phone::LinkPhone;
use tokio::sync::mpsc;

/// Carriers inside this process: `memory://NAME?room=KEY`, without a port. Phones need not know the key.
#[derive(Clone, Default)]
struct Memory {
    places: Arc<Mutex<HashMap<String, mpsc::Sender<Carrier>>>>,
}

struct MemoryListener {
    name: String,
    arriving: mpsc::Receiver<Carrier>,
}

#[async_trait]
impl Dialer for Memory {
    async fn dial(
        &self,
        address: &Address,
        _: &DialOptions,
        _: &Rendezvous,
    ) -> Result<Carrier, LinkError> {
        let unreachable = |reason: &str| LinkError::Unreachable {
            address: address.to_string(),
            reason: reason.into(),
        };
        let place = self
            .places
            .lock()
            .unwrap()
            .get(address.authority())
            .cloned();
        let place = place.ok_or_else(|| unreachable("nobody listens"))?;
        let (phone_end, host_end) = Carrier::pair();
        let arrived = place.send(host_end).await;
        arrived.map_err(|_| unreachable("nobody listens any more"))?;
        Ok(phone_end)
    }
}

#[async_trait]
impl Listen for Memory {
    async fn listen(&self, address: &Address) -> Result<Box<dyn Listener>, LinkError> {
        if address.parameter("room") != Some("7") {
            return Err(LinkError::Address {
                address: address.to_string(),
                reason: "give it the room".into(),
            });
        }
        let (place, arriving) = mpsc::channel(8);
        let name = address.authority().to_owned();
        self.places.lock().unwrap().insert(name.clone(), place);
        Ok(Box::new(MemoryListener { name, arriving }))
    }
}

#[async_trait]
impl Listener for MemoryListener {
    fn addresses(&self) -> Vec<Address> {
        vec![Address::new("memory", &self.name).unwrap()]
    }

    async fn accept(&mut self) -> Option<Carrier> {
        self.arriving.recv().await
    }
}

fn not_there() -> ChainError {
    ChainError::Unreachable {
        url: "nowhere".into(),
        reason: "nothing listens".into(),
    }
}

/// A host on these carriers; its chain source is down.
async fn host(config: HostConfig, carriers: &Carriers) -> Result<Host, HostError> {
    FailingSource(not_there)
        .start_host_on(config, carriers)
        .await
}

#[tokio::test]
async fn a_phone_attaches_through_each_listener_of_a_host() {
    let dir = tempfile::tempdir().unwrap();
    let carriers = Carriers::default().with(&["memory"], Memory::default());
    let mut config = config(&dir);
    config.link.listen = vec!["grpc://127.0.0.1:0".into(), "memory://here?room=7".into()];
    let host = host(config.clone(), &carriers).await.unwrap();
    let code = create_owner(&mut operator(&host, &config).await.unwrap(), "ann").await;

    // The port that the system chose, and nothing that only the host needs to know.
    let [grpc, websocket, memory] = &code.addresses[..] else {
        panic!("one address for each carrier, not {:?}", code.addresses);
    };
    assert!(
        grpc.starts_with("grpc://127.0.0.1:") && !grpc.ends_with(":0"),
        "{grpc}"
    );
    assert_eq!(*websocket, grpc.replace("grpc", "ws"));
    assert_eq!(memory, "memory://here");

    let options = DialOptions {
        carriers,
        ..DialOptions::default()
    };
    let phone = LinkPhone::new(code.clone());
    let over_memory = phone.dial_at(memory, &options).await.unwrap();
    let paired = phone.pair_over(over_memory).await.unwrap();
    let over_grpc = phone.dial_at(grpc, &options).await.unwrap();
    phone.attach_over(over_grpc).await.unwrap();
    assert_eq!(paired.closed().await.code.to_string(), Code::Replaced);
    let over_memory = phone.dial_at(memory, &options).await.unwrap();
    let attached = phone.attach_over(over_memory).await.unwrap();

    host.stop().await;
    assert_eq!(attached.closed().await.code.to_string(), Code::Shutdown);
}

#[tokio::test]
async fn a_phone_that_does_not_know_a_carrier_takes_the_hosts_other_address() {
    let dir = tempfile::tempdir().unwrap();
    let carriers = Carriers::default().with(&["memory"], Memory::default());
    let mut config = config(&dir);
    config.link.listen = vec!["memory://here?room=7".into(), "grpc://127.0.0.1:0".into()];
    let host = host(config.clone(), &carriers).await.unwrap();
    let code = create_owner(&mut operator(&host, &config).await.unwrap(), "ann").await;
    let phone = LinkPhone::new(code.clone());
    let credentials = Credentials::Pair {
        phone: phone.key.clone(),
        code: Box::new(code.clone()),
    };
    let options = DialOptions::default();
    let paired = connect(&code.addresses, &credentials, &options, &phone.conversation);
    let (_link, way) = paired.await.unwrap();
    assert_eq!(way, 1);
    host.stop().await;
}

#[tokio::test]
async fn an_address_that_no_carrier_takes_stops_the_start() {
    let cases = [
        ("memory://here?room=7", "of no carrier"),
        (
            "grpc://127.0.0.1:0?certificate=c.pem",
            "grpc has no parameters",
        ),
        ("grpcs://127.0.0.1:0", "add ?certificate=PATH&key=PATH"),
        (
            "grpcs://127.0.0.1:0?certificate=c.pem&key=k.pem&ca=x",
            "and no other",
        ),
    ];
    for (address, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir);
        config.link.listen = vec!["grpc://127.0.0.1:0".into(), address.into()];
        let refused = host(config, &Carriers::default()).await.err().unwrap();
        assert_eq!(refused.code(), Code::Config);
        let line = refused.to_string();
        assert!(
            line.contains("link.listen") && line.contains(expected),
            "{line}"
        );
    }
}

#[tokio::test]
async fn a_certificate_that_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.link.listen = vec!["grpcs://127.0.0.1:0?certificate=/no/such.pem&key=/no/key".into()];
    let refused = host(config, &Carriers::default()).await.err().unwrap();
    assert_eq!(refused.code(), Code::File);
    assert!(refused.to_string().contains("/no/such.pem"), "{refused}");
}
