//! Two owners and a hub: channels, payments both ways.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use longhand_proto::command::payment::State;
use longhand_testkit::nodes::{Owner, World, pay};
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
