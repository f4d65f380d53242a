//! Several ways to one host, of which some let a connection begin and go no further.

use std::sync::{Arc, Mutex};

use crate::common::{Host, paired, phone, serve};
use async_trait::async_trait;
use longhand_link::{Carrier, Dial, LinkError, Rendezvous, accept, connect};

/// Dials one host. What comes to it by `stalls://` is relayed until the host has answered once.
struct Network {
    host: Arc<Host>,
    dialled: Mutex<Vec<String>>,
}

#[async_trait]
impl Dial for Network {
    async fn dial(&self, address: &str, _: &Rendezvous) -> Result<Carrier, LinkError> {
        self.dialled.lock().unwrap().push(address.to_owned());
        let (near, far) = Carrier::pair();
        let host = self.host.clone();
        if address.starts_with("stalls://") {
            tokio::spawn(stall(far, host));
        } else {
            tokio::spawn(async move { accept(far, &*host).await.map(drop) });
        }
        Ok(near)
    }
}

/// Relays the phone's first record and the host's answer, and then nothing.
async fn stall(mut phone: Carrier, host: Arc<Host>) {
    let (mut near, far) = Carrier::pair();
    let accepting = tokio::spawn(async move { accept(far, &*host).await.map(drop) });
    let first = phone.stream.recv().await.unwrap().unwrap();
    near.sink.send(first).await.unwrap();
    let answer = near.stream.recv().await.unwrap().unwrap();
    phone.sink.send(answer).await.unwrap();
    while let Ok(Some(_)) = phone.stream.recv().await {}
    accepting.abort();
}

#[tokio::test(start_paused = true)]
async fn a_way_that_answers_and_stalls_does_not_keep_the_phone_from_the_others() {
    let (host, commands, credentials) = paired();
    serve(commands);
    let network = Network {
        host: Arc::new(host),
        dialled: Mutex::default(),
    };
    let (conversation, signing) = phone();
    serve(signing);
    let addresses = ["stalls://a", "works://b"].map(str::to_owned);
    let connecting = connect(&addresses, &credentials, &network, &conversation);
    let (link, way) = connecting.await.unwrap();
    assert_eq!(way, 1);
    assert_eq!(*network.dialled.lock().unwrap(), addresses);
    let answer = link.request("command", vec![1, 2, 3]).await;
    assert_eq!(answer.unwrap(), [3, 2, 1]);
}
