//! Channels and balances in every state of a channel's life.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{CloseChannel, GetBalance, GetInfo, ListChannels, OpenChannel};

use super::*;
use crate::machine::input::Input;
use crate::machine::testing::{Id, World, world_with_channel};

fn balance_of(world: &mut World, id: Id) -> Balance {
    match world.ask(id, Kind::GetBalance(GetBalance {})) {
        Ok(Reply::Balance(balance)) => balance,
        other => panic!("no balance: {other:?}"),
    }
}

fn info_of(world: &mut World, id: Id) -> Info {
    match world.ask(id, Kind::GetInfo(GetInfo {})) {
        Ok(Reply::Info(info)) => info,
        other => panic!("no info: {other:?}"),
    }
}

fn states(world: &mut World, id: Id) -> Vec<String> {
    match world.ask(id, Kind::ListChannels(ListChannels {})) {
        Ok(Reply::Channels(list)) => list.channels.into_iter().map(|it| it.state).collect(),
        other => panic!("no list: {other:?}"),
    }
}

fn open(world: &World, owner: Id) -> Kind {
    Kind::OpenChannel(OpenChannel {
        id: vec![1; 16],
        counterparty_node_id: world.nodes[owner].machine.node_id().serialize().to_vec(),
        amount_sat: 500_000,
        ..OpenChannel::default()
    })
}

fn close(world: &mut World, id: Id, force: bool) {
    let channel_id = world.turn(id).channels()[0].channel_id.0.to_vec();
    let close = Kind::CloseChannel(CloseChannel {
        channel_id,
        force,
        ..CloseChannel::default()
    });
    let closing = world.ask(id, close);
    assert!(
        matches!(closing, Ok(Reply::ClosingChannel(_))),
        "{closing:?}"
    );
}

#[test]
fn a_channel_is_opening_confirming_usable_away_and_closing() {
    let mut world = World::new();
    let hub = world.add_hub(1);
    let owner = world.add_owner(2, Some(hub));
    world.fund(hub, 1_000_000);
    let open = open(&world, owner);
    world.begin(hub, open);
    assert_eq!(states(&mut world, hub), ["opening"]);
    world.attach(owner);
    world.pass(std::time::Duration::from_secs(2));
    assert_eq!(states(&mut world, hub), ["confirming"]);
    world.mine(6);
    assert_eq!(states(&mut world, hub), ["usable"]);
    world.input(owner, Input::SignerLost);
    assert_eq!(states(&mut world, hub), ["peer away"]);
    world.attach(owner);
    world.nodes[owner].signer_hangs = true;
    close(&mut world, hub, false);
    assert_eq!(states(&mut world, hub), ["closing"]);
}

#[test]
fn an_opening_that_ldk_lists_too_is_listed_once() {
    let mut world = World::new();
    let hub = world.add_hub(1);
    let owner = world.add_owner(2, Some(hub));
    world.fund(hub, 1_000_000);
    world.attach(owner);
    world.nodes[owner].signer_hangs = true;
    let open = open(&world, owner);
    let opening = world.begin(hub, open);
    assert!(!world.has_answered(hub, opening), "the phone has signed");
    assert_eq!(world.turn(hub).channels().len(), 1);
    assert_eq!(states(&mut world, hub).len(), 1);
}

#[test]
fn coins_move_from_the_wallet_into_the_channel_of_the_opener() {
    let (mut world, hub, owner) = world_with_channel();
    let balance = balance_of(&mut world, hub);
    assert_eq!(balance.onchain_pending_sat, 0);
    let in_channel = balance.lightning_msat / 1000;
    let fees = 1_000_000 - balance.onchain_confirmed_sat - in_channel;
    assert!(in_channel <= 500_000 && fees < 2_000, "{balance:?}");

    let balance = balance_of(&mut world, owner);
    assert_eq!(balance.lightning_msat, 0);
    assert!(balance.inbound_capacity_msat > 400_000_000, "{balance:?}");
}

#[test]
fn a_forced_close_is_counted_as_closing_until_it_is_swept() {
    let (mut world, hub, _) = world_with_channel();
    let open = balance_of(&mut world, hub);
    assert_eq!(open.closing_sat, 0);
    close(&mut world, hub, true);
    let closing = balance_of(&mut world, hub);
    assert_eq!(closing.lightning_msat, 0);
    assert_eq!(closing.closing_sat, open.lightning_msat / 1000);
}

#[test]
fn a_cooperative_close_pays_into_the_wallet_and_is_never_counted_twice() {
    let (mut world, hub, _) = world_with_channel();
    let before = balance_of(&mut world, hub);
    close(&mut world, hub, false);
    world.mine(1);
    let after = balance_of(&mut world, hub);
    assert_eq!((after.closing_sat, after.lightning_msat), (0, 0));
    let total = before.onchain_confirmed_sat + 500_000;
    let fees = total - after.onchain_confirmed_sat - after.onchain_pending_sat;
    assert!(fees < 2_000, "{after:?}");
}

#[test]
fn info_counts_channels_and_peers_and_says_the_state() {
    let (mut world, hub, owner) = world_with_channel();
    let info = info_of(&mut world, owner);
    let counts = (info.channels, info.usable_channels, info.peers);
    assert_eq!(counts, (1, 1, 1));
    assert_eq!(info.state, "active");
    assert_eq!(info.block_height, world.height());
    let hub_id = world.nodes[hub].machine.node_id();
    assert_eq!(info.hub_node_id, hub_id.serialize());

    world.input(owner, Input::SignerLost);
    let info = info_of(&mut world, owner);
    let counts = (info.channels, info.usable_channels, info.peers);
    assert_eq!(counts, (1, 0, 0));
    assert_eq!(info.state, "dormant");
}

#[test]
fn the_hosts_overview_agrees_with_the_owners_replies() {
    let (mut world, _, owner) = world_with_channel();
    let info = info_of(&mut world, owner);
    let balance = balance_of(&mut world, owner);
    let session = SignerSession::new(false, 0);
    let turn = world.turn(owner);
    let overview = overview(
        turn,
        State::Active,
        &session,
        &Openings::default(),
        Some(7),
        2,
    );
    assert_eq!(
        (overview.earliest_deadline, overview.restarts),
        (Some(7), 2)
    );
    assert_eq!(overview.node_id.serialize(), info.node_id[..]);
    assert_eq!(overview.channels, info.channels);
    assert_eq!(overview.usable_channels, info.usable_channels);
    assert_eq!(overview.peers, info.peers);
    assert_eq!(overview.lightning_msat, balance.lightning_msat);
    assert_eq!(overview.onchain_sat, balance.onchain_confirmed_sat);
    assert_eq!(overview.pending_htlcs, 0);
}
