#![allow(clippy::unwrap_used, clippy::expect_used)]
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::{CloseChannel, OpenChannel};
use longhand_proto::signer::SignerOp;
use longhand_signer::Close;

use super::*;
use crate::machine::testing::{Id, World, world_with_channel};

fn height_of(world: &World, owner: Id) -> u32 {
    let signer = world.nodes[owner].signer.as_ref();
    signer.unwrap().headers().height()
}

/// How many blocks confirm the channels of the phone, the newest channel first.
fn confirmations(world: &World, owner: Id) -> Vec<u32> {
    let signer = world.nodes[owner].signer.as_ref();
    let channels = signer.unwrap().seen_channels();
    let mut all: Vec<u32> = channels.map(|channel| channel.confirmations).collect();
    all.sort_unstable();
    all
}

#[test]
fn a_phone_is_shown_each_block_and_what_it_missed_while_it_was_away() {
    let mut world = World::new();
    let owner = world.add_owner(2, None);
    world.mine(3);
    assert_eq!(height_of(&world, owner), 0);
    world.attach(owner);
    assert_eq!(height_of(&world, owner), 3);
    world.mine(1);
    assert_eq!(height_of(&world, owner), 4);

    world.input(owner, crate::machine::input::Input::SignerLost);
    world.mine(5);
    assert_eq!(height_of(&world, owner), 4);
    world.attach(owner);
    assert_eq!(height_of(&world, owner), 9);
}

#[test]
fn headers_come_before_the_first_operations_of_a_link() {
    let mut world = World::new();
    let owner = world.add_owner(2, None);
    world.mine(3);
    world.nodes[owner].signer_hangs = true;
    let attach = world.attachment(owner, b"");
    world.input(owner, attach);
    let first = world.nodes[owner].kept_ops();
    let is_headers = |op: &SignerOp| matches!(op.op, Some(Op::ExtendHeaders(_)));
    assert!(is_headers(&first[0]));
    assert!(!first[1..].is_empty());
    assert!(!first[1..].iter().any(is_headers));
}

/// A second channel, whose funding is broadcast.
fn opening() -> (World, Id) {
    let (mut world, hub, owner) = world_with_channel();
    let open = OpenChannel {
        id: vec![2; 16],
        counterparty_node_id: world.nodes[owner].machine.node_id().serialize().to_vec(),
        amount_sat: 200_000,
        ..OpenChannel::default()
    };
    let opening = world.begin(hub, Kind::OpenChannel(open));
    world.answer(hub, opening).unwrap().unwrap();
    (world, owner)
}

#[test]
fn a_funding_is_proven_and_again_when_a_reorganisation_has_moved_it() {
    let (mut world, owner) = opening();
    world.mine(2);
    assert_eq!(confirmations(&world, owner), [2, 8]);
    world.disconnect(2);
    // It is in the second block now.
    let funding = std::mem::take(&mut world.mempool);
    world.mine(1);
    world.mempool = funding;
    world.mine(3);
    assert_eq!(confirmations(&world, owner), [3, 10]);
}

#[test]
fn a_proof_reaches_a_phone_that_was_away_when_its_channel_confirmed() {
    let (mut world, owner) = opening();
    world.input(owner, crate::machine::input::Input::SignerLost);
    world.mine(3);
    world.reload(owner);
    world.attach(owner);
    assert_eq!(confirmations(&world, owner), [3, 9]);
}

#[test]
fn a_close_is_proven_when_a_block_has_it() {
    let (mut world, _, owner) = world_with_channel();
    let close = Kind::CloseChannel(CloseChannel {
        channel_id: world.turn(owner).channels()[0].channel_id.0.to_vec(),
        force: true,
        ..CloseChannel::default()
    });
    world.begin(owner, close);
    world.mine(1);
    let signer = world.nodes[owner].signer.as_ref().unwrap();
    let closed = signer.seen_channels().map(|it| it.close != Close::Unknown);
    let closed: Vec<bool> = closed.collect();
    assert_eq!(closed, [true]);
}

#[test]
fn a_phone_that_has_lost_its_headers_gets_them_again_from_its_checkpoint_on() {
    let mut world = World::new();
    let owner = world.add_owner(2, None);
    world.mine(3);
    world.attach(owner);
    let new = longhand_signer::Seed::from_entropy(&[2; 16]).unwrap();
    let new = longhand_signer::Signer::new(&new, bitcoin::Network::Regtest, &[2; 32]).unwrap();
    let lost = new.headers().clone();
    let signer = world.nodes[owner].signer.as_mut().unwrap();
    signer.set_headers(lost);
    // The next block follows none that it knows.
    world.mine(1);
    assert_eq!(height_of(&world, owner), 4);
}

fn block(height: u32) -> BlockRef {
    BlockRef {
        height,
        hash: bitcoin::hashes::Hash::from_byte_array([1; 32]),
    }
}

fn reply(after: u32, tip: u32) -> HeadersReply {
    HeadersReply {
        after: block(after),
        headers: Vec::new(),
        solutions: Vec::new(),
        tip: block(tip),
    }
}

#[test]
fn a_chain_that_is_ahead_of_the_node_is_asked_once() {
    let mut world = World::new();
    let owner = world.add_owner(2, None);
    let turn = world.turn(owner);
    let mut headers = SignerHeaders::default();
    headers.attached(turn, vec![block(5)]);
    headers.synced(block(4));
    assert!(headers.request(Network::Regtest).is_some());
    assert!(headers.holds_batches(turn.now.instant));
    headers.answered(turn, Ok(reply(5, 5)));
    assert!(!headers.holds_batches(turn.now.instant));
    assert_eq!(headers.request(Network::Regtest), None);

    // A block that came while a request was under way is asked for at once.
    headers.synced(block(6));
    assert!(headers.request(Network::Regtest).is_some());
    headers.synced(block(7));
    headers.answered(turn, Ok(reply(6, 6)));
    assert!(headers.request(Network::Regtest).is_some());
}

#[test]
fn batches_wait_three_seconds_for_headers_at_most() {
    let mut world = World::new();
    let owner = world.add_owner(2, None);
    let turn = world.turn(owner);
    let mut headers = SignerHeaders::default();
    headers.attached(turn, vec![block(5)]);
    let at = turn.now.instant;
    assert!(headers.holds_batches(at + Duration::from_millis(2_999)));
    assert!(!headers.holds_batches(at + Duration::from_secs(3)));
    // A source that fails at once holds nothing, and is asked again later.
    assert!(headers.request(Network::Regtest).is_some());
    let error = ChainError::NotFound("block".into());
    headers.answered(turn, Err(error));
    assert!(!headers.holds_batches(at));
    headers.synced(block(6));
    assert!(headers.request(Network::Regtest).is_some());
}
