//! Stories of whole nodes, without network, tasks, devnet or a clock that runs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod closes;
mod commands;
mod history;
mod openings;
mod records;
mod unusual_payments;

use longhand_proto::command::ListChannels;
use std::time::Duration;

use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;

use super::testing::{Id, World, world_with_channel};

/// Has the phone attached and the two nodes connected again after a crash of either.
fn recover(world: &mut World, owner: Id) {
    for _ in 0..3 {
        if !world.nodes[owner].machine.signer_is_attached() {
            world.attach(owner);
        }
        world.pass(Duration::from_secs(2));
    }
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

mod payments;
