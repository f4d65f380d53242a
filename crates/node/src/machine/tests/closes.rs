//! A cooperative close, whatever comes between.

use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{CloseChannel, ClosedChannel, ListChannels};

use super::recover;
use crate::machine::testing::{Id, World, world_with_channel};

fn closed_of(world: &mut World, id: Id) -> ClosedChannel {
    let reply = world.ask(id, Kind::ListChannels(ListChannels {}));
    let Ok(Reply::Channels(mut list)) = reply else {
        panic!("no list: {reply:?}");
    };
    assert!(list.channels.is_empty(), "{list:?}");
    list.closed.pop().expect("a closed channel")
}

/// The owner closes the channel while the hub or the owner crashes with its commit number `commit`. False when it has not
/// come to that commit.
fn survives_a_crash(is_hub_crashing: bool, commit: usize) -> bool {
    let (mut world, hub, owner) = world_with_channel();
    let height = world.blocks.len();
    let close = Kind::CloseChannel(CloseChannel {
        channel_id: world.turn(owner).channels()[0].channel_id.0.to_vec(),
        force: false,
    });
    world.sent.clear();
    let crashing = if is_hub_crashing { hub } else { owner };
    world.crash = Some((crashing, commit));
    // Asked again by the phone, since the answer may be lost.
    for _ in 0..2 {
        world.begin(owner, close.clone());
        recover(&mut world, owner);
    }
    world.mine(6);
    recover(&mut world, owner);

    let mined = world.blocks[height..].iter();
    let mined: Vec<_> = mined.flat_map(|(_, txs)| txs.clone()).collect();
    let [closing] = &mined[..] else {
        panic!("commit {commit}: not one transaction: {mined:?}");
    };
    assert!(world.mempool.is_empty(), "commit {commit}");
    let txid = closing.compute_txid().to_string();
    for node in [hub, owner] {
        let closed = closed_of(&mut world, node);
        assert_eq!(closed.closing_txid, txid, "commit {commit}");
    }
    // All is the hub's: a commitment would have anchors too (BOLT 3).
    assert_eq!(closing.output.len(), 1, "commit {commit}");
    let sent = world.sent.len();
    assert_eq!(sent, 1, "commit {commit}: a commitment was broadcast too");
    world.crash.is_none()
}

#[test]
fn a_close_stays_cooperative_though_its_asker_is_loaded_again_after_each_of_its_commits() {
    let crashes = (1..200).take_while(|commit| survives_a_crash(false, *commit));
    let commits = crashes.count();
    assert!(commits > 2 && commits < 199, "{commits} commits");
}

#[test]
fn a_close_stays_cooperative_though_the_peer_is_loaded_again_after_each_of_its_commits() {
    let crashes = (1..200).take_while(|commit| survives_a_crash(true, *commit));
    let commits = crashes.count();
    assert!(commits > 2 && commits < 199, "{commits} commits");
}
