//! Two owners and a hub: channels, payments both ways.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use longhand_proto::command::payment::State;
use longhand_tests::World;

#[tokio::test(flavor = "multi_thread")]
async fn two_owners_pay_each_other_through_the_hub() {
    let world = World::new().await;
    let alice = world.owner("alice", 1).await;
    let bob = world.owner("bob", 2).await;
    alice.attach();
    bob.attach();
    world
        .open(&world.hub, &alice.node, 1_000_000, 400_000_000)
        .await;
    world.open(&world.hub, &bob.node, 1_000_000, 0).await;

    let invoice = bob.invoice(50_000_000).await;
    let payment = alice.pay(&invoice).await;
    assert_eq!(payment.state(), State::Succeeded, "{payment:?}");

    let invoice = alice.invoice(20_000_000).await;
    let payment = bob.pay(&invoice).await;
    assert_eq!(payment.state(), State::Succeeded, "{payment:?}");
}
