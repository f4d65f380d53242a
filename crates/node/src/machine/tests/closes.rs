//! A cooperative close, whatever comes between.

use std::time::Duration;

use bitcoin::Network;
use longhand_proto::Code;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{CloseChannel, ClosedChannel, ListChannels};

use super::recover;
use crate::machine::input::Input;
use crate::machine::testing::{Id, World, world_with_channel};
use crate::parts::onchain_sends::address;
use crate::parts::testing::Pair;

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
        ..CloseChannel::default()
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
    let mined: Vec<_> = mined.flat_map(|(_, txs)| txs[1..].to_vec()).collect();
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

const ELSEWHERE: &str = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";

fn close_to(pair: &mut Pair, address: &str, feerate_sat_per_kw: u32) -> Kind {
    let owner = pair.owner;
    Kind::CloseChannel(CloseChannel {
        channel_id: pair.world.turn(owner).channels()[0].channel_id.0.to_vec(),
        force: false,
        address: address.into(),
        feerate_sat_per_kw,
    })
}

#[test]
fn a_close_pays_the_owner_at_the_address_that_was_given() {
    let mut pair = Pair::new();
    pair.world.sent.clear();
    let close = close_to(&mut pair, ELSEWHERE, 0);
    pair.world.ask(pair.owner, close).unwrap();
    pair.world.settle();
    let script = address(Network::Regtest, ELSEWHERE)
        .unwrap()
        .script_pubkey();
    let [closing] = &pair.world.mempool[..] else {
        panic!("no close: {:?}", pair.world.mempool);
    };
    assert!(
        closing
            .output
            .iter()
            .any(|output| output.script_pubkey == script)
    );
}

#[test]
fn a_phone_that_takes_its_time_to_sign_a_close_does_not_make_it_a_forced_one() {
    let mut pair = Pair::new();
    pair.world.sent.clear();
    let close = close_to(&mut pair, "", 0);
    pair.world.nodes[pair.owner].signer_hangs = true;
    pair.world.begin(pair.owner, close);
    // LDK waits a minute or two for the peer's closing_signed.
    for _ in 0..30 {
        pair.world.pass(Duration::from_secs(10));
    }
    assert!(pair.world.mempool.is_empty(), "{:?}", pair.world.mempool);
    pair.world.input(pair.owner, Input::SignerLost);
    pair.world.attach(pair.owner);
    pair.world.pass(Duration::from_secs(10));
    let [closing] = &pair.world.mempool[..] else {
        panic!("no close: {:?}", pair.world.mempool);
    };
    // A commitment would have anchors too (BOLT 3).
    assert_eq!(closing.output.len(), 2);
}

#[test]
fn a_close_with_an_address_or_a_fee_that_cannot_be_is_refused() {
    let mut pair = Pair::new();
    for (address, feerate, code) in [
        ("elsewhere", 0, Code::AddressMalformed),
        (
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
            0,
            Code::WrongNetwork,
        ),
        ("", 249, Code::FeerateOutOfRange),
        ("", 625_001, Code::FeerateOutOfRange),
    ] {
        let close = close_to(&mut pair, address, feerate);
        let refused = pair.world.ask(pair.owner, close).unwrap_err();
        assert_eq!(refused.code, code, "{address} {feerate}");
    }
    let Kind::CloseChannel(close) = close_to(&mut pair, ELSEWHERE, 0) else {
        unreachable!()
    };
    let forced = Kind::CloseChannel(CloseChannel {
        force: true,
        ..close
    });
    assert_eq!(
        pair.world.ask(pair.owner, forced).unwrap_err().code,
        Code::ForcedClose
    );
    assert_eq!(
        pair.world.turn(pair.owner).channels().len(),
        1,
        "nothing has changed"
    );
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
