//! A peer that broadcasts a revoked commitment while the phone sleeps.

use std::sync::Arc;

use bitcoin::Network;
use longhand_node::{Keys, Node, NodeConfig, Services};
use longhand_proto::command::CloseChannel;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::payment::State;
use longhand_proto::signer::signer_op::Op;
use longhand_store::{Batch, MemoryStore, Store, Write};
use longhand_testkit::nodes::{Owner, World, ask, settle};
use longhand_testkit::until;

/// A copy of the hub's entries as they are now, in another store.
async fn copy_of_the_hub(world: &World) -> Arc<dyn Store> {
    let entries = world.store.load("hub").await.unwrap();
    let copy = MemoryStore::default();
    let writes = entries
        .into_iter()
        .map(|(key, value)| Write::Put(key, value))
        .collect();
    let batch = Batch {
        namespace: "hub".into(),
        epoch: 0,
        writes,
    };
    copy.commit(batch).await.unwrap();
    Arc::new(copy)
}

fn was_asked(owner: &Owner, what: impl Fn(&Op) -> bool) -> bool {
    let batches = owner.phone.batches.lock().unwrap();
    batches
        .iter()
        .flat_map(|batch| &batch.ops)
        .filter_map(|op| op.op.as_ref())
        .any(what)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_host_alone_punishes_a_breach_and_the_coins_end_where_the_seed_finds_them() {
    let world = World::new().await;
    let alice = world.owner("alice", 1).await;
    alice.attach();
    let channel = world
        .open(&world.hub, &alice.node, 1_000_000, 100_000_000)
        .await;
    let old = copy_of_the_hub(&world).await;

    // The hub pays half of its side to alice; then she sleeps.
    let invoice = alice.invoice(400_000_000).await;
    assert_eq!(
        longhand_testkit::nodes::pay(&world.hub, &invoice)
            .await
            .state(),
        State::Succeeded
    );
    alice.node.detach().await;
    world.hub.stop().await;

    // A hub with the old state closes with what it has revoked.
    let keys = Keys::Local(zeroize::Zeroizing::new([7; 32]));
    let config = NodeConfig {
        is_hub: true,
        alias: "hub".into(),
        ..NodeConfig::new("hub", Network::Regtest, keys)
    };
    let cheat = Node::start(
        config,
        Services {
            store: old,
            ..world.services()
        },
    )
    .await
    .unwrap();
    let close = CloseChannel {
        channel_id: channel,
        force: true,
        ..CloseChannel::default()
    };
    ask(&cheat, Kind::CloseChannel(close)).await;
    until("the old commitment is in the mempool", async || {
        !world.devnet.mempool().is_empty()
    })
    .await;
    cheat.stop().await;

    world
        .mine_until("the cheater's side is alice's", async || {
            settle().await;
            alice.overview().await.onchain_sat > 890_000
        })
        .await;
    assert!(!was_asked(&alice, |op| matches!(
        op,
        Op::SignJustice(_) | Op::SpendOutputs(_)
    )));

    // Her own output of that commitment waits for her key.
    alice.attach();
    world
        .mine_until("alice has all of the channel", async || {
            settle().await;
            alice.overview().await.onchain_sat > 990_000
        })
        .await;
    assert_eq!(
        alice.found_sat(&world.devnet),
        alice.overview().await.onchain_sat
    );
}
