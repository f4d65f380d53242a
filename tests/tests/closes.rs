//! Closing channels, and where the coins end.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use bitcoin::Transaction;
use longhand_proto::command::CloseChannel;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::payment::State;
use longhand_store::MemoryStore;
use longhand_store::testing::FailingStore;
use longhand_tests::{Owner, World, settle, try_ask, until};

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

/// BOLT 3: what tells a commitment from an agreed close.
fn is_commitment(tx: &Transaction) -> bool {
    let sequence = tx.input[0].sequence.to_consensus_u32();
    sequence >> 24 == 0x80 && tx.lock_time.to_consensus_u32() >> 24 == 0x20
}

fn commitments_in_blocks_since(world: &World, height: u32) -> Vec<Transaction> {
    let blocks = (height..=world.devnet.tip().height)
        .map(|height| world.devnet.hash_at(height).unwrap())
        .map(|hash| world.devnet.block(&hash).unwrap());
    let txs = blocks.flat_map(|block| block.txdata);
    txs.filter(is_commitment).collect()
}

/// Asks again as a phone does whose node answered that it could not store.
async fn close_in_the_end(owner: &Owner, channel: &[u8]) {
    let close = CloseChannel {
        channel_id: channel.to_vec(),
        force: false,
    };
    while let Reply::Error(error) = try_ask(&owner.node, Kind::CloseChannel(close.clone())).await {
        let is_again = ["STORE_FAILED", "NODE_RESTARTED"].contains(&error.code.as_str());
        assert!(is_again, "{}: {}", error.code, error.message);
    }
}

/// Found by `longhand-sim --scenario close --seed 1 --at store:5:after` and `store:5:unheard`: the write that ends the
/// channel is kept, and the node gone before it has sent the transaction and its last word to the peer. Here it is every
/// write of the hub and of the owner's node.
#[tokio::test(flavor = "multi_thread")]
async fn an_agreed_close_is_sent_though_a_node_dies_at_any_write_and_nobody_closes_by_force() {
    let store = Arc::new(FailingStore::new(Arc::new(MemoryStore::default())));
    let world = World::on(store.clone()).await;
    let alice = world.owner("alice", 1).await;
    alice.attach();
    world.fund(&alice.node, 1_000_000).await;
    for write in 1.. {
        let channel = world.open(&alice.node, &world.hub, 100_000, 0).await;
        let height = world.devnet.tip().height;
        let dies_at = store.commits() + write;
        store.lose_answer(dies_at);
        close_in_the_end(&alice, &channel).await;
        until("the agreed transaction is sent", async || {
            !world.devnet.mempool().is_empty()
        })
        .await;
        let has_died = store.commits() >= dies_at;
        until("the peer is back", async || {
            alice.overview().await.peers == 1
        })
        .await;
        settle().await;
        let sent = world.devnet.mempool();
        assert!(!sent.iter().any(is_commitment), "write {write}: {sent:?}");
        world
            .mine_until("both have seen it", async || {
                settle().await;
                let (hub, alice) = (world.hub.overview().await.unwrap(), alice.overview().await);
                hub.channels == 0 && alice.channels == 0 && hub.closing_sat + alice.closing_sat == 0
            })
            .await;
        world.mine(6).await;
        assert_eq!(
            commitments_in_blocks_since(&world, height),
            [],
            "write {write}"
        );
        if !has_died {
            assert!(write > 4, "a close has more writes than {write}");
            return;
        }
    }
}
