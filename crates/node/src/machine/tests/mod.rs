//! Stories of whole nodes, without network, tasks, devnet or a clock that runs.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod commands;
mod openings;
mod records;

use longhand_proto::command::ListChannels;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;

use super::testing::world_with_channel;

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
