//! A host inside the test: without sockets and in virtual time, on a devnet and a store that outlive it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::address::NetworkUnchecked;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Address, Amount};
use longhand_chain::Devnet;
use longhand_host::{Host, HostConfig, Joined, Network, Operator, WakeCall, WakeError};
use longhand_link::{Carrier, LinkError, PairingCode};
use longhand_node::PeerStream;
use longhand_phone::{Dial, Secrets, Vault, Words};
use longhand_proto::command::command::Command as Body;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::operator::*;
use longhand_store::testing::FailingStore;
use longhand_store::{MemoryStore, Store};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Phone, hand_in, registration};

pub const FRONT_DOOR: &str = "grpc://wallet.example:443";
pub const PUSH: &str = "https://push.example/ann";

/// A use that a host made of its network.
#[derive(Debug, PartialEq)]
pub enum Told {
    Dial(String),
    Join(PublicKey, PublicKey),
    Wake(String, WakeCall),
}

/// Reports all of it to the test. Peers are other hosts; one without a host never answers.
pub struct Telling {
    told: mpsc::UnboundedSender<Told>,
    peer: Option<Arc<Host>>,
}

#[async_trait]
impl Network for Telling {
    async fn dial(&self, _: PublicKey, address: &str) -> std::io::Result<Box<dyn PeerStream>> {
        let _ = self.told.send(Told::Dial(address.into()));
        let Some(peer) = &self.peer else {
            return std::future::pending().await;
        };
        let (near, far) = tokio::io::duplex(1024);
        peer.accept_peer(Box::new(far));
        Ok(Box::new(near))
    }

    fn join(&self, from: PublicKey, to: PublicKey) -> std::io::Result<Joined> {
        let _ = self.told.send(Told::Join(from, to));
        let (near, far) = tokio::io::duplex(1024);
        Ok((Box::new(near), Box::new(far)))
    }

    async fn wake(&self, url: &str, call: &WakeCall) -> Result<(), WakeError> {
        let _ = self.told.send(Told::Wake(url.into(), call.clone()));
        Ok(())
    }
}

pub type Heard = mpsc::UnboundedReceiver<Told>;

/// All that a host is restarted on.
pub struct World {
    pub devnet: Devnet,
    pub store: Arc<dyn Store>,
    pub dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> World {
        World {
            devnet: Devnet::in_process(110).unwrap(),
            store: Arc::new(MemoryStore::new()),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn on_a_failing_disk() -> (World, Arc<FailingStore>) {
        let disk = Arc::new(FailingStore::new(Arc::new(MemoryStore::new())));
        let world = World {
            store: disk.clone(),
            ..World::new()
        };
        (world, disk)
    }

    /// A host whose hub runs.
    pub async fn host(&self, peer: Option<Arc<Host>>) -> (Host, Heard) {
        let (host, heard) = self.begin(peer).await;
        let operator = host.operator();
        until(async || operator.hub_balance().await.is_ok()).await;
        (host, heard)
    }

    /// A host whose nodes are being started.
    pub async fn begin(&self, peer: Option<Arc<Host>>) -> (Host, Heard) {
        self.host_on(self.store.clone(), peer).await
    }

    /// As [`World::begin`], on another store.
    pub async fn host_on(&self, store: Arc<dyn Store>, peer: Option<Arc<Host>>) -> (Host, Heard) {
        let mut config = HostConfig {
            data_dir: self.dir.path().join("host"),
            ..HostConfig::default()
        };
        config.link.addresses = vec![FRONT_DOOR.into()];
        let (told, heard) = mpsc::unbounded_channel();
        let network = Arc::new(Telling { told, peer });
        let source = Arc::new(self.devnet.direct_source());
        let host = Host::embed(config, store, source, network).await.unwrap();
        (host, heard)
    }

    pub async fn mine(&self, operator: &Operator, blocks: u32) {
        self.devnet.mine_to_wallet(blocks).unwrap();
        let height = self.devnet.tip().height;
        until(async || operator.status().await.unwrap().block_height == height).await;
    }

    pub async fn fund_hub(&self, operator: &Operator) {
        for _ in 0..2 {
            let address = operator.hub_address().await.unwrap().address;
            let address: Address<NetworkUnchecked> = address.parse().unwrap();
            let coin = Amount::from_sat(10_000_000);
            self.devnet.faucet(&address.assume_checked(), coin).unwrap();
        }
        self.mine(operator, 1).await;
        until(async || {
            let balance = operator.hub_balance().await.unwrap();
            balance.onchain_confirmed_sat == 20_000_000
        })
        .await;
    }
}

/// Looks again and again, in virtual time.
pub async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let late = Instant::now() + Duration::from_secs(600);
    while !is_so().await {
        assert!(Instant::now() < late, "it never came to be");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub async fn create_owner(operator: &Operator, name: &str, wake_url: &str) -> PairingCode {
    let request = CreateOwnerRequest {
        name: name.into(),
        wake_url: wake_url.into(),
        ..CreateOwnerRequest::default()
    };
    let code = operator.create_owner(request).await.unwrap();
    code.code.parse().unwrap()
}

/// A paired phone whose node runs.
pub async fn registered(host: &Host, name: &str, seed: u8) -> Phone {
    let mut phone = Phone::new(create_owner(&host.operator(), name, "").await);
    phone.sign_with(seed);
    phone.pair_inside(host).await.unwrap();
    match phone.command(Body::Register(registration(seed))).await {
        Reply::Registered(registered) => {
            assert_eq!(registered.node_id, registration(seed).node_id);
        }
        other => panic!("must be registered, not {other:?}"),
    }
    phone
}

pub async fn node(operator: &Operator, owner: &str) -> NodeView {
    let owner = owner.into();
    operator.get_node(GetNodeRequest { owner }).await.unwrap()
}

pub fn hub_id(status: &StatusReply) -> PublicKey {
    PublicKey::from_slice(&status.hub_node_id).unwrap()
}

/// A door into a host that may be gone.
#[derive(Clone)]
pub struct Door(pub Arc<Mutex<Option<Host>>>);

#[async_trait]
impl Dial for Door {
    async fn dial(&self, addresses: &[String]) -> Result<Carrier, LinkError> {
        assert_eq!(addresses, [FRONT_DOOR]);
        match &*self.0.lock().unwrap() {
            Some(host) => Ok(hand_in(host)),
            None => Err(LinkError::Unreachable {
                address: FRONT_DOOR.into(),
                reason: "the host is gone".into(),
            }),
        }
    }
}

/// A whole phone with a channel from the hub, half of it its own.
pub async fn phone_with_channel(
    world: &World,
    operator: &Operator,
    door: &Door,
    name: &str,
    wake_url: &str,
) -> longhand_phone::Phone {
    let secrets = Secrets::generate(bitcoin::Network::Regtest, Words::Twelve).unwrap();
    let dir = world.dir.path().join(name);
    let vault = Vault::create(&dir, secrets, &"test".to_owned().into(), Some(1)).unwrap();
    let phone = longhand_phone::Phone::new(vault, door.clone()).unwrap();
    let code = create_owner(operator, name, wake_url).await;
    phone.pair(&code.to_text().unwrap()).await.unwrap();
    let open = HubOpenChannelRequest {
        owner: name.into(),
        amount_sat: 1_000_000,
        push_msat: 500_000_000,
        ..HubOpenChannelRequest::default()
    };
    operator.hub_open_channel(open).await.unwrap();
    until(async || !world.devnet.mempool().is_empty()).await;
    world.mine(operator, 6).await;
    until(async || node(operator, name).await.usable_channels == 1).await;
    phone
}
