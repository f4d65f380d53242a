//! Channels that are opened at once, and openings that come to nothing.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use longhand_proto::command::OpenChannel;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_tests::{World, ask, until};

#[tokio::test(flavor = "multi_thread")]
async fn more_channels_at_once_than_there_are_keys_for_are_all_accepted() {
    let world = World::new().await;
    for _ in 0..4 {
        world.fund(&world.hub, 500_000).await;
    }
    let alice = world.owner("alice", 1).await;
    alice.attach();
    until("alice is connected", async || {
        alice.overview().await.peers == 1
    })
    .await;

    let opening: Vec<_> = (0..4)
        .map(|number| {
            let open = OpenChannel {
                id: vec![100 + number; 16],
                counterparty_node_id: alice.node.node_id().serialize().to_vec(),
                amount_sat: 300_000,
                ..OpenChannel::default()
            };
            let hub = world.hub.clone();
            tokio::spawn(async move { ask(&hub, Kind::OpenChannel(open)).await })
        })
        .collect();

    for opened in opening {
        assert!(matches!(opened.await.unwrap(), Reply::OpenedChannel(_)));
    }
    assert_eq!(alice.overview().await.channels, 4);
}
