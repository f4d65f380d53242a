//! Two owners and a hub: channels, payments both ways.

use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::payment::State;
use longhand_proto::command::{GetPayment, ListPayments};
use longhand_testkit::nodes::{Owner, World, ask, pay, usable};
use longhand_testkit::until;

/// Alice and Bob, each with a channel of the hub's and something to send.
async fn two_owners() -> (World, Owner, Owner) {
    let world = World::new().await;
    let alice = world.owner("alice", 1).await;
    let bob = world.owner("bob", 2).await;
    alice.attach();
    bob.attach();
    world
        .open(&world.hub, &alice.node, 1_000_000, 400_000_000)
        .await;
    world
        .open(&world.hub, &bob.node, 1_000_000, 400_000_000)
        .await;
    (world, alice, bob)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_owners_pay_each_other_through_the_hub() {
    let (_world, alice, bob) = two_owners().await;
    let invoice = bob.invoice(50_000_000).await;
    let payment = alice.pay(&invoice).await;
    assert_eq!(payment.state(), State::Succeeded, "{payment:?}");

    let invoice = alice.invoice(20_000_000).await;
    let payment = bob.pay(&invoice).await;
    assert_eq!(payment.state(), State::Succeeded, "{payment:?}");
}

/// A second payment of an invoice leaves the payee no HTLC for which the phone would have to come.
#[tokio::test(flavor = "multi_thread")]
async fn an_invoice_that_is_paid_again_is_given_back_at_once() {
    let (world, alice, bob) = two_owners().await;
    // Invoices of an owner, whose preimages are on the phone, and of the hub, which has its own.
    let of_bob = bob.invoice(50_000_000).await;
    let of_hub = world.hub.invoice(50_000_000, "tea", 3_600).await.unwrap();
    assert_eq!(alice.pay(&of_bob).await.state(), State::Succeeded);
    assert_eq!(alice.pay(&of_hub).await.state(), State::Succeeded);

    let again = pay(&world.hub, &of_bob).await;
    assert_eq!(again.state(), State::Failed, "{again:?}");
    let again = bob.pay(&of_hub).await;
    assert_eq!(again.state(), State::Failed, "{again:?}");

    until("no HTLC is left", async || {
        bob.overview().await.pending_htlcs == 0
    })
    .await;
    let received = bob.overview().await.lightning_msat;
    assert_eq!(received, 450_000_000);
}

/// The history is in the store: a node that was started again finds there what it has paid, and pays it no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_started_again_knows_what_it_has_paid() {
    let (world, mut alice, bob) = two_owners().await;
    let invoice = bob.invoice(50_000_000).await;
    let paid = alice.pay(&invoice).await;
    assert_eq!(paid.state(), State::Succeeded);
    alice.node.stop().await;
    alice.node = world.start("alice", &alice.phone).await;

    let get = Kind::GetPayment(GetPayment {
        payment_hash: paid.payment_hash.clone(),
    });
    let Reply::FoundPayment(found) = ask(&alice.node, get).await else {
        panic!("no payment")
    };
    assert_eq!(found.payment.as_ref(), Some(&paid));
    let list = Kind::ListPayments(ListPayments::default());
    let Reply::Payments(list) = ask(&alice.node, list).await else {
        panic!("no payments")
    };
    assert_eq!(list.payments, std::slice::from_ref(&paid));

    alice.attach();
    until("alice's channel is usable", async || {
        usable(&alice.node).await == 1
    })
    .await;
    assert_eq!(alice.pay(&invoice).await, paid);
}
