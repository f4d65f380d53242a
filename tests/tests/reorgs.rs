//! Reorganisations that a node does not see, since it is down.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use longhand_proto::command::payment::State;
use longhand_tests::{Owner, World, pay, settle, until, usable};

/// Blocks until a channel is ready.
const DEPTH: u32 = 3;
const CHANNEL_SAT: u64 = 1_000_000;

/// Bob has a channel, whose monitor is stored with an older block than the rest of his node. Another's funding has some
/// confirmations when his node goes down, and none when it comes back.
async fn world_with_a_funding_that_was_moved(confirmations: u32) -> (World, Owner) {
    let world = World::new().await;
    let bob = world.owner("bob", 2).await;
    bob.attach();
    world.open(&world.hub, &bob.node, CHANNEL_SAT, 0).await;
    world
        .begin_to_open(&world.hub, &bob.node, 2 * CHANNEL_SAT, 0)
        .await;
    for _ in 0..confirmations {
        world.mine(1).await;
        settle().await;
    }
    bob.node.stop().await;

    world.devnet.reorg(confirmations, Vec::new()).unwrap();
    let bob = Owner {
        node: world.start(&bob.name, &bob.phone).await,
        ..bob
    };
    bob.attach();
    (world, bob)
}

/// Found by `longhand-sim --scenario open-by-hub --seed 117720 --at store:13:unheard:now --at chain:7:reorg2:now`: the
/// node went on with a funding in a block that was in the chain no more, and knew the channel by its old number.
#[tokio::test(flavor = "multi_thread")]
async fn a_funding_that_is_moved_while_a_node_is_down_is_where_it_is_now() {
    for confirmations in 1..DEPTH {
        let (world, bob) = world_with_a_funding_that_was_moved(confirmations).await;
        world.mine(2 * DEPTH).await;
        until("both channels are usable", async || {
            usable(&bob.node).await == 2 && usable(&world.hub).await == 2
        })
        .await;
        // More than the first one carries.
        let invoice = bob.invoice((CHANNEL_SAT + 100_000) * 1000).await;
        assert_eq!(pay(&world.hub, &invoice).await.state(), State::Succeeded);
    }
}
