#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use longhand_node::PeerStream;
use tokio::sync::mpsc;

use super::*;
use crate::config::LinkConfig;
use crate::network::{PeerDial, WakeError, WakeUrl};
use crate::owners::OwnerRecord;
use crate::phones::conversation;
use crate::registration::tests::registration;

const ANN: OwnerId = OwnerId([1; 16]);

/// A push service that passes on each call.
struct Push(mpsc::UnboundedSender<WakeCall>);

#[async_trait]
impl Network for Push {
    async fn dial(&self, _: PeerDial<'_>) -> std::io::Result<Box<dyn PeerStream>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    async fn wake(&self, _: &WakeUrl, call: &WakeCall) -> Result<(), WakeError> {
        self.0.send(call.clone()).unwrap();
        Ok(())
    }
}

/// Ann's node, whose phone is away.
struct World {
    wakes: Arc<Wakes>,
    ann: Arc<HostedNode>,
    calls: mpsc::UnboundedReceiver<WakeCall>,
    failed_back: Arc<AtomicUsize>,
}

impl World {
    fn new() -> World {
        let record = OwnerRecord {
            id: ANN,
            wake_url: Some("https://push.example/ann".into()),
            registration: Some(registration(1)),
            tor_service: Some(0),
            ..OwnerRecord::ann()
        };
        let (conversation, _) = conversation(&LinkConfig::default()).unwrap();
        let ann = Arc::new(HostedNode::new(record, conversation));
        let nodes = Arc::new(HostedNodes::default());
        nodes.add(ann.clone());
        let (called, calls) = mpsc::unbounded_channel();
        let failed_back = Arc::new(AtomicUsize::new(0));
        let failed = failed_back.clone();
        let wakes = Wakes::new(
            &HostConfig::default(),
            Arc::new(Push(called)),
            Box::new(move |_| {
                failed.fetch_add(1, Ordering::Relaxed);
            }),
            nodes,
            Metrics::new(),
            Arc::new(Tasks::new()),
        );
        World {
            wakes: Arc::new(wakes),
            ann,
            calls,
            failed_back,
        }
    }

    fn node_id(&self) -> PublicKey {
        self.ann.record().node_id().unwrap()
    }

    fn held(&self, deadline_height: u32) {
        let node_id = self.node_id();
        self.wakes.payments_held(&[PeerNeeded {
            node_id,
            deadline_height,
        }]);
    }

    /// How often the hub was to fail back what it holds.
    fn failed_back(&self) -> usize {
        self.failed_back.load(Ordering::Relaxed)
    }

    /// Returns when all tasks wait, for a message or for the clock.
    async fn settle(&self) {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_phone_is_called_for_a_held_payment_until_it_is_failed_back() {
    let mut world = World::new();
    world.held(200);
    let call = world.calls.recv().await.unwrap();
    assert_eq!(call.reason, WakeReason::Payment);
    assert_eq!((call.node_id, call.deadline_height), (world.node_id(), 200));

    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(world.failed_back(), 1);
    while world.calls.try_recv().is_ok() {}
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(world.calls.try_recv().is_err(), "it is called no more");
}

#[tokio::test(start_paused = true)]
async fn a_held_payment_is_failed_back_at_its_deadline() {
    let world = World::new();
    world.held(200);
    world.wakes.at_height(199);
    assert_eq!(world.failed_back(), 0);
    world.wakes.at_height(200);
    assert_eq!(world.failed_back(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_payment_that_was_forwarded_is_not_failed_back_and_the_next_has_all_its_time() {
    let world = World::new();
    world.held(200);
    tokio::time::sleep(Duration::from_secs(59)).await;
    world.wakes.forwarded(&[world.node_id()]);
    world.held(200);
    tokio::time::sleep(Duration::from_secs(59)).await;
    assert_eq!(world.failed_back(), 0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.failed_back(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_phone_is_called_for_an_htlc_near_its_deadline_and_not_after_it() {
    let mut world = World::new();
    for (height, is_called) in [(127, false), (200, false), (128, true)] {
        world.wakes.htlc_in_flight(&world.ann, height, 200);
        world.settle().await;
        assert_eq!(world.calls.try_recv().is_ok(), is_called, "at {height}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_is_there_is_not_called() {
    let mut world = World::new();
    world.ann.attached.send_replace(true);
    world.held(200);
    world.wakes.htlc_in_flight(&world.ann, 199, 200);
    world.settle().await;
    assert!(world.calls.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_host_that_stops_neither_calls_nor_fails_back() {
    let mut world = World::new();
    world.held(200);
    world.calls.recv().await.unwrap();
    world.wakes.stop();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(world.calls.try_recv().is_err());
    assert_eq!(world.failed_back(), 0);
}
