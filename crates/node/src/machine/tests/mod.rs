//! Stories of whole nodes, without network, tasks, devnet or a clock that runs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{ListChannels, OpenChannel};

use super::testing::World;

/// A hub with a channel of 500,000 sat to an owner whose phone is attached.
fn world_with_channel() -> (World, usize, usize) {
    let mut world = World::new();
    let hub = world.add_hub(1);
    let owner = world.add_owner(2, Some(hub));
    world.fund(hub, 1_000_000);
    world.attach(owner);
    let open = OpenChannel {
        id: vec![1; 16],
        counterparty_node_id: world.nodes[owner].machine.node_id().serialize().to_vec(),
        amount_sat: 500_000,
        ..OpenChannel::default()
    };
    let opening = world.begin(hub, Kind::OpenChannel(open));
    let opened = world
        .answer(hub, opening)
        .expect("the funding is broadcast");
    assert!(matches!(opened, Ok(Reply::OpenedChannel(_))), "{opened:?}");
    world.mine(6);
    (world, hub, owner)
}

#[test]
fn a_hub_opens_a_channel_to_an_owner_and_both_can_use_it() {
    let (mut world, hub, owner) = world_with_channel();
    for id in [hub, owner] {
        let Ok(Reply::Channels(channels)) = world.ask(id, Kind::ListChannels(ListChannels {}))
        else {
            panic!("no list");
        };
        let [channel] = &channels.channels[..] else {
            panic!("one channel");
        };
        assert_eq!(channel.state, "usable");
    }
}
