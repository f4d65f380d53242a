//! An owner's announced channel in the shared graph.

use longhand_proto::command::OpenChannel;
use longhand_proto::command::command::Command as Kind;
use longhand_testkit::nodes::{World, ask, settle};

#[tokio::test(flavor = "multi_thread")]
async fn an_owners_announced_channel_reaches_the_shared_graph_through_the_hub() {
    let world = World::new().await;
    let alice = world.owner("alice", 1).await;
    alice.attach();
    world.fund(&alice.node, 1_000_000).await;
    let open = OpenChannel {
        id: vec![1; 16],
        amount_sat: 500_000,
        announced: true,
        ..OpenChannel::default()
    };
    alice.phone.intend_open(&open, world.hub.node_id());
    ask(&alice.node, Kind::OpenChannel(open)).await;
    assert_eq!(world.graph.size().0, 0);
    world
        .mine_until("the graph has the channel", async || {
            settle().await;
            world.graph.size().0 == 1
        })
        .await;
}
