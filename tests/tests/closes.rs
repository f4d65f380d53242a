//! Closing channels, and where the coins end.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use longhand_proto::command::payment::State;
use longhand_tests::{Owner, World, settle, until};

/// An owner with a channel that it opened from its own wallet, and has paid with.
async fn owner_with_own_channel(world: &World) -> (Owner, Vec<u8>) {
    let alice = world.owner("alice", 1).await;
    alice.attach();
    world.fund(&alice.node, 1_000_000).await;
    let channel = world.open(&alice.node, &world.hub, 500_000, 0).await;
    let invoice = world.hub.invoice(100_000_000, "bread", 3600).await.unwrap();
    assert_eq!(alice.pay(&invoice).await.state(), State::Succeeded);
    (alice, channel)
}

async fn mine_until_settled(world: &World, owner: &Owner) {
    world
        .mine_until("everything is back on chain", async || {
            settle().await;
            let overview = owner.overview().await;
            overview.channels == 0 && overview.closing_sat == 0 && overview.onchain_pending_sat == 0
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cooperative_close_pays_each_side_its_balance() {
    let world = World::new().await;
    let (alice, channel) = owner_with_own_channel(&world).await;
    let before = alice.overview().await;
    alice.close(&channel, false).await;
    until("the close is negotiated", async || {
        alice.overview().await.channels == 0
    })
    .await;
    mine_until_settled(&world, &alice).await;
    let after = alice.overview().await.onchain_sat;
    let balance = before.onchain_sat + 400_000;
    assert!(
        after <= balance && after > balance - 500,
        "{after} of {balance}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_closes_a_channel_and_leaves_at_once_has_closed_it() {
    let world = World::new().await;
    let (alice, channel) = owner_with_own_channel(&world).await;
    alice.close(&channel, false).await;
    alice.node.detach().await;
    assert_eq!(alice.overview().await.channels, 0);
    mine_until_settled(&world, &alice).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forced_close_is_swept_to_the_owners_wallet() {
    let world = World::new().await;
    let (alice, channel) = owner_with_own_channel(&world).await;
    let before = alice.overview().await.onchain_sat + 400_000;
    alice.close(&channel, true).await;
    mine_until_settled(&world, &alice).await;
    let after = alice.overview().await.onchain_sat;
    assert!(
        after <= before && after > before - 10_000,
        "{after} of {before}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_peer_closes_while_the_phone_is_away_the_balance_is_swept_when_it_is_back() {
    let world = World::new().await;
    let (alice, channel) = owner_with_own_channel(&world).await;
    let before = alice.overview().await.onchain_sat + 400_000;
    alice.node.signer_lost();
    until("the peers are gone", async || {
        alice.overview().await.peers == 0
    })
    .await;
    let close = longhand_proto::command::CloseChannel {
        channel_id: channel,
        force: true,
    };
    longhand_tests::ask(
        &world.hub,
        longhand_proto::command::command::Command::CloseChannel(close),
    )
    .await;
    world
        .mine_until("the close is seen", async || {
            settle().await;
            alice.overview().await.closing_sat > 0 && alice.overview().await.channels == 0
        })
        .await;
    world.mine(10).await;
    alice.attach();
    mine_until_settled(&world, &alice).await;
    let after = alice.overview().await.onchain_sat;
    assert!(
        after <= before && after > before - 10_000,
        "{after} of {before}"
    );
}
