//! Closing a channel, and the list of closed ones.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bitcoin::absolute::LockTime;
use bitcoin::{TxIn, transaction};
use longhand_proto::Code;
use longhand_proto::command::ListChannels;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::error::Action;

use super::*;
use crate::machine::input::Input;
use crate::machine::testing::{Id, World, world_with_channel};

fn the_channel(world: &mut World, id: Id) -> ChannelId {
    match &world.turn(id).channels()[..] {
        [channel] => channel.channel_id,
        other => panic!("not one channel: {other:?}"),
    }
}

fn close(id: ChannelId, force: bool) -> CloseChannel {
    CloseChannel {
        channel_id: id.0.to_vec(),
        force,
        ..CloseChannel::default()
    }
}

fn ask_to_close(world: &mut World, id: Id, close: CloseChannel) -> ClosingChannel {
    match world.ask(id, Kind::CloseChannel(close)) {
        Ok(Reply::ClosingChannel(closing)) => closing,
        other => panic!("not closing: {other:?}"),
    }
}

fn closed_list(world: &mut World, id: Id) -> Vec<ClosedChannel> {
    match world.ask(id, Kind::ListChannels(ListChannels {})) {
        Ok(Reply::Channels(channels)) => channels.closed,
        other => panic!("no list: {other:?}"),
    }
}

fn closed(byte: u8, closed_unix_s: u64) -> ClosedChannel {
    ClosedChannel {
        channel_id: vec![byte; 32],
        closed_unix_s,
        ..ClosedChannel::default()
    }
}

fn closed_channels(records: impl IntoIterator<Item = ClosedChannel>) -> ClosedChannels {
    let entries = records.into_iter().map(|record| {
        let id = channel_id(&record.channel_id).unwrap();
        (closed_key(&id), record.encode_to_vec())
    });
    ClosedChannels::load(&Journal::loading(entries.collect())).unwrap()
}

#[test]
fn a_close_that_is_asked_for_twice_is_one_close_and_is_answered_with_its_transaction() {
    let (mut world, hub, _) = world_with_channel();
    let id = the_channel(&mut world, hub);
    let first = ask_to_close(&mut world, hub, close(id, false));
    assert_eq!(first.txid, "");
    let [tx] = &world.mempool[..] else {
        panic!("one closing transaction: {:?}", world.mempool);
    };
    let txid = tx.compute_txid().to_string();
    let again = ask_to_close(&mut world, hub, close(id, false));
    assert_eq!(again.txid, txid);
    assert_eq!(world.mempool.len(), 1);
}

#[test]
fn both_sides_list_a_closed_channel_with_its_transaction() {
    let (mut world, hub, owner) = world_with_channel();
    let id = the_channel(&mut world, hub);
    ask_to_close(&mut world, owner, close(id, false));
    let txid = world.mempool[0].compute_txid().to_string();
    world.mine(1);
    for node in [hub, owner] {
        let list = closed_list(&mut world, node);
        let [closed] = &list[..] else {
            panic!("one closed channel: {list:?}");
        };
        assert_eq!(closed.channel_id, id.0);
        assert_eq!(closed.capacity_sat, 500_000);
        assert_eq!(closed.closing_txid, txid);
    }
}

#[test]
fn a_close_while_the_other_side_is_away_waits_with_the_first_one() {
    let (mut world, hub, owner) = world_with_channel();
    let id = the_channel(&mut world, hub);
    world.nodes[owner].signer_hangs = true;
    for _ in 0..2 {
        let closing = ask_to_close(&mut world, hub, close(id, false));
        assert_eq!(closing, ClosingChannel::default());
    }
    assert!(world.mempool.is_empty());
    assert!(is_negotiating_a_close(world.turn(hub)));
}

#[test]
fn a_cooperative_close_is_refused_while_the_peer_is_away_and_a_forced_one_is_not() {
    let (mut world, hub, owner) = world_with_channel();
    let id = the_channel(&mut world, hub);
    world.input(owner, Input::SignerLost);
    let turn = world.turn(hub);
    turn.journal.take();
    let part = ClosedChannels::default();
    let refused = part.close(turn, &close(id, false)).unwrap_err();
    assert_eq!(refused.code, Code::CloseRefused);
    assert_eq!(refused.action, i32::from(Action::Retry));
    assert!(turn.journal.is_empty());

    let txid = ask_to_close(&mut world, hub, close(id, true)).txid;
    assert_eq!(txid, "");
    assert_eq!(closed_list(&mut world, hub).len(), 1);
    assert!(!world.mempool.is_empty(), "no commitment is broadcast");
}

#[test]
fn an_unknown_channel_cannot_be_closed() {
    let (mut world, hub, _) = world_with_channel();
    let turn = world.turn(hub);
    turn.journal.take();
    let part = ClosedChannels::default();
    for channel_id in [vec![], vec![9; 31], vec![9; 32]] {
        for force in [false, true] {
            let channel_id = channel_id.clone();
            let request = CloseChannel {
                channel_id,
                force,
                ..CloseChannel::default()
            };
            let refused = part.close(turn, &request).unwrap_err();
            assert_eq!(refused.code, Code::NoSuchChannel);
            assert_eq!(refused.action, i32::from(Action::FixInput));
        }
    }
    assert!(turn.journal.is_empty());
    assert_eq!(turn.channels().len(), 1);
}

#[test]
fn closed_channels_are_listed_oldest_first() {
    let part = closed_channels([closed(1, 30), closed(2, 10), closed(3, 30), closed(4, 20)]);
    let listed: Vec<u8> = part.list().iter().map(|it| it.channel_id[0]).collect();
    assert_eq!(listed, [2, 4, 1, 3]);
}

#[test]
fn the_last_transaction_that_spends_the_funding_is_the_closing_one() {
    let mut world = World::new();
    let hub = world.add_hub(1);
    let turn = world.turn(hub);
    turn.journal.take();
    let spend = |lock_time| Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::from_consensus(lock_time),
        input: vec![TxIn::default()],
        output: Vec::new(),
    };
    let funding = TxIn::default().previous_output.to_string();
    let mut part = closed_channels([ClosedChannel {
        funding_outpoint: funding,
        ..closed(1, 10)
    }]);
    for lock_time in [1, 2] {
        part.find_closings(turn, [spend(lock_time)].iter());
        let txid = spend(lock_time).compute_txid().to_string();
        assert_eq!(part.list()[0].closing_txid, txid);
        assert_eq!(turn.journal.take().len(), 1);
    }
    part.find_closings(turn, [spend(2)].iter());
    assert!(turn.journal.is_empty(), "nothing is new");
}

#[test]
fn a_record_that_cannot_be_read_keeps_the_node_from_loading() {
    for bytes in [vec![0xff], ClosedChannel::default().encode_to_vec()] {
        let journal = Journal::loading(vec![("closed/01".into(), bytes)]);
        let loaded = ClosedChannels::load(&journal).map(|_| ());
        assert!(matches!(loaded, Err(NodeError::Load(_))), "{loaded:?}");
    }
}
