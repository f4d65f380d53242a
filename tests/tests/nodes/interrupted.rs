//! A payment interrupted at every step, both ways: at each write of the node's store, and at each batch of the phone,
//! before and after.
//!
//! A turn that is not committed never happened: the node is loaded again from what is stored, its peer reestablishes,
//! and the payment ends. A phone that died comes back with its ledger, and gets the batch again.

use std::sync::Arc;

use longhand_proto::Code;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::payment::State;
use longhand_proto::command::{AwaitPayment, NewAddress, Pay};
use longhand_store::testing::FailingStore;
use longhand_store::{MemoryStore, StoreError};
use longhand_testkit::nodes::{Owner, World, try_ask, usable};
use longhand_testkit::phone::{Loss, Phone};
use longhand_testkit::until;

/// More writes than a payment has on either side.
const WRITES: u64 = 14;

async fn world_with_failing_store() -> (World, Owner, Arc<FailingStore>) {
    let world = World::new().await;
    let store = Arc::new(FailingStore::new(Arc::new(MemoryStore::default())));
    let phone = Phone::new(1);
    let node = world.start_on(store.clone(), "alice", &phone).await;
    let alice = Owner {
        name: "alice".into(),
        phone,
        node,
    };
    alice.attach();
    world
        .open(&world.hub, &alice.node, 2_000_000, 1_000_000_000)
        .await;
    (world, alice, store)
}

#[derive(Clone, Copy)]
enum Fault {
    Refused,
    AnswerLost,
}

fn arm(store: &FailingStore, write: u64, fault: Fault) {
    let at = store.commits() + write;
    match fault {
        Fault::Refused => store.refuse(at, StoreError::Full),
        Fault::AnswerLost => store.lose_answer(at),
    }
}

/// Pays, and repeats the command, as a phone does when its node answers that it could not store.
async fn pay_in_the_end(node: &longhand_node::Node, bolt11: &str) -> State {
    loop {
        let pay = Pay {
            bolt11: bolt11.into(),
            ..Pay::default()
        };
        match try_ask(node, Kind::Pay(pay)).await {
            Reply::Payment(payment) => return payment.state(),
            Reply::Error(error) => assert!(
                error.is_one_of(&[
                    Code::DiskFull,
                    Code::StoreFailed,
                    Code::NoRoute,
                    Code::PeerAway,
                    Code::InsufficientFunds
                ]),
                "{}: {}",
                error.code,
                error.message
            ),
            reply => panic!("{reply:?}"),
        }
        until("the channel is usable again", async || {
            usable(node).await == 1
        })
        .await;
    }
}

async fn every_write_while_paying(fault: Fault) {
    let (world, alice, store) = world_with_failing_store().await;
    for write in 1..=WRITES {
        let invoice = world
            .hub
            .invoice(1_000_000 + write, "tea", 3600)
            .await
            .unwrap();
        alice.phone.intend_pay(&invoice);
        arm(&store, write, fault);
        assert_eq!(
            pay_in_the_end(&alice.node, &invoice).await,
            State::Succeeded,
            "write {write}"
        );
        until("the channel is usable again", async || {
            usable(&alice.node).await == 1
        })
        .await;
    }
    assert_eq!(alice.overview().await.channels, 1);
}

async fn every_write_while_being_paid(fault: Fault) {
    let (world, alice, store) = world_with_failing_store().await;
    for write in 1..=WRITES {
        let invoice = alice.invoice(1_000_000 + write).await;
        let hash: lightning_invoice::Bolt11Invoice = invoice.parse().unwrap();
        arm(&store, write, fault);
        assert_eq!(
            pay_in_the_end(&world.hub, &invoice).await,
            State::Succeeded,
            "write {write}"
        );
        loop {
            let payment_hash = hash.payment_hash().0.to_vec();
            match try_ask(
                &alice.node,
                Kind::AwaitPayment(AwaitPayment { payment_hash }),
            )
            .await
            {
                Reply::Payment(payment) => break assert_eq!(payment.state(), State::Succeeded),
                Reply::Error(_) => {}
                reply => panic!("{reply:?}"),
            }
        }
        until("the channel is usable again", async || {
            usable(&alice.node).await == 1
        })
        .await;
    }
    assert_eq!(alice.overview().await.channels, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_at_any_write_of_a_payment_loses_nothing() {
    every_write_while_paying(Fault::Refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_is_lost_at_any_point_of_a_payment_loses_nothing() {
    every_write_while_paying(Fault::AnswerLost).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_at_any_write_of_an_incoming_payment_loses_nothing() {
    every_write_while_being_paid(Fault::Refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_whose_answer_is_lost_at_any_point_of_an_incoming_payment_loses_nothing() {
    every_write_while_being_paid(Fault::AnswerLost).await;
}

/// More batches than a payment has on either side.
const BATCHES: u64 = 7;

async fn every_batch(loss: Loss, incoming: bool) {
    let world = World::new().await;
    let alice = world.owner("alice", 1).await;
    alice.attach();
    let _coming_back = alice.keep_coming_back();
    world
        .open(&world.hub, &alice.node, 2_000_000, 1_000_000_000)
        .await;
    for batch in 1..=BATCHES {
        let amount_msat = 1_000_000 + batch;
        let (payer, invoice) = if incoming {
            (&world.hub, alice.invoice(amount_msat).await)
        } else {
            let invoice = world.hub.invoice(amount_msat, "tea", 3600).await.unwrap();
            alice.phone.intend_pay(&invoice);
            (&alice.node, invoice)
        };
        alice.phone.lose(batch, loss);
        assert_eq!(
            pay_in_the_end(payer, &invoice).await,
            State::Succeeded,
            "batch {batch}"
        );
        until("the channel is usable again", async || {
            usable(&alice.node).await == 1 && usable(&world.hub).await == 1
        })
        .await;
    }
    assert_eq!(alice.overview().await.channels, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_lost_before_any_batch_of_a_payment_loses_nothing() {
    every_batch(Loss::BeforeItIsRead, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_dies_after_any_ledger_write_of_a_payment_loses_nothing() {
    every_batch(Loss::AfterItIsKept, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_lost_before_any_batch_of_an_incoming_payment_loses_nothing() {
    every_batch(Loss::BeforeItIsRead, true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_dies_after_any_ledger_write_of_an_incoming_payment_loses_nothing() {
    every_batch(Loss::AfterItIsKept, true).await;
}

#[tokio::test]
async fn a_phone_that_leaves_while_the_disk_is_full_is_not_attached_again() {
    let (_world, alice, store) = world_with_failing_store().await;
    store.refuse(store.commits() + 1, StoreError::Full);
    // In one turn, which has a change of the wallet to write.
    let address = try_ask(&alice.node, Kind::NewAddress(NewAddress {}));
    let ((), reply) = tokio::join!(alice.node.detach(), address);
    let Reply::Error(error) = reply else {
        panic!("the turn was not committed: {reply:?}");
    };
    assert_eq!(error.code, Code::DiskFull);
    let overview = alice.overview().await;
    assert_eq!(overview.state, longhand_node::State::Dormant);
    assert_eq!(overview.peers, 0);
}
