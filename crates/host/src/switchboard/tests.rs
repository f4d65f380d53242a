#![allow(clippy::unwrap_used, clippy::expect_used)]

use bitcoin::secp256k1::{Secp256k1, SecretKey};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::*;
use crate::network::{WakeCall, WakeError, WakeUrl};

const HUB: u8 = 1;
const ANN: u8 = 2;
const BOB: u8 = 3;
const ELSEWHERE: u8 = 4;

fn id(n: u8) -> PublicKey {
    SecretKey::from_slice(&[n; 32])
        .unwrap()
        .public_key(&Secp256k1::new())
}

/// A network on which one address answers, and all others are silent.
struct OneAddress;

const ADDRESS: &str = "peer.example:9735";

#[async_trait]
impl Network for OneAddress {
    async fn dial(&self, peer: PeerDial<'_>) -> std::io::Result<Box<dyn PeerStream>> {
        match peer.address {
            ADDRESS => Ok(Box::new(tokio::io::duplex(1).0)),
            _ => std::future::pending().await,
        }
    }

    async fn wake(&self, _: &WakeUrl, _: &WakeCall) -> Result<(), WakeError> {
        Ok(())
    }
}

/// A switchboard with Ann's line and Bob's.
fn switchboard() -> Arc<Switchboard> {
    let limit = Duration::from_secs(10);
    let network = Arc::new(OneAddress);
    let switchboard = Switchboard::new(id(HUB), network, limit, Arc::new(Tasks::new()));
    switchboard.add(id(ANN));
    switchboard.add(id(BOB));
    Arc::new(switchboard)
}

/// A node that takes connections.
fn open(switchboard: &Switchboard, n: u8) -> mpsc::UnboundedReceiver<Box<dyn PeerStream>> {
    let (taken, connections) = mpsc::unbounded_channel();
    let accept = move |_, stream| drop(taken.send(stream));
    switchboard.open(id(n), Arc::new(accept));
    connections
}

async fn dial(
    switchboard: &Arc<Switchboard>,
    from: u8,
    to: u8,
) -> std::io::Result<Box<dyn PeerStream>> {
    switchboard.dialer(id(from)).dial(id(to), "").await
}

async fn refused(switchboard: &Arc<Switchboard>, from: u8, to: u8) -> String {
    dial(switchboard, from, to).await.err().unwrap().to_string()
}

#[tokio::test]
async fn the_hub_and_an_owners_node_are_joined_whoever_dials() {
    let switchboard = switchboard();
    let mut hub = open(&switchboard, HUB);
    let mut ann = open(&switchboard, ANN);
    for (from, to, connections) in [(ANN, HUB, &mut hub), (HUB, ANN, &mut ann)] {
        let mut near = dial(&switchboard, from, to).await.unwrap();
        let mut far = connections.try_recv().unwrap();
        near.write_all(b"act one").await.unwrap();
        let mut read = [0; 7];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"act one");
    }
}

#[tokio::test]
async fn a_line_that_is_closed_is_refused_until_it_is_opened() {
    let switchboard = switchboard();
    assert_eq!(
        refused(&switchboard, ANN, HUB).await,
        "the hub does not run"
    );
    let mut hub = open(&switchboard, HUB);
    dial(&switchboard, ANN, HUB).await.unwrap();
    hub.try_recv().unwrap();

    let away = "the owner's phone is away";
    assert_eq!(refused(&switchboard, HUB, ANN).await, away);
    let mut ann = open(&switchboard, ANN);
    dial(&switchboard, HUB, ANN).await.unwrap();
    ann.try_recv().unwrap();
    switchboard.hang_up(id(ANN));
    assert_eq!(refused(&switchboard, HUB, ANN).await, away);
}

#[tokio::test]
async fn two_owners_nodes_are_never_joined() {
    let switchboard = switchboard();
    let mut bob = open(&switchboard, BOB);
    let refused = refused(&switchboard, ANN, BOB).await;
    assert!(refused.contains("open channels with the hub"), "{refused}");
    assert!(bob.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_peer_outside_is_dialled_for_as_long_as_the_limit() {
    let switchboard = switchboard();
    let dialer = switchboard.dialer(id(HUB));
    dialer.dial(id(ELSEWHERE), ADDRESS).await.unwrap();
    let silent = dialer.dial(id(ELSEWHERE), "silent:1").await.err().unwrap();
    assert_eq!(silent.kind(), ErrorKind::TimedOut);
}

#[tokio::test]
async fn dialling_ends_when_the_host_stops() {
    let switchboard = switchboard();
    switchboard.tasks.begin_stop();
    let dialer = switchboard.dialer(id(HUB));
    let refused = dialer.dial(id(ELSEWHERE), "silent:1").await.err().unwrap();
    assert_eq!(refused.to_string(), "the host is stopping");
}

#[tokio::test]
async fn a_closed_switchboard_holds_no_node() {
    let switchboard = switchboard();
    let mut before = open(&switchboard, HUB);
    switchboard.close();
    let mut after = open(&switchboard, ANN);
    for connections in [&mut before, &mut after] {
        let gone = connections.try_recv().err().unwrap();
        assert_eq!(gone, mpsc::error::TryRecvError::Disconnected);
    }
}
