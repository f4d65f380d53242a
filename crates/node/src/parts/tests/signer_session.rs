//! The phone comes, signs, fails and leaves.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use longhand_proto::signer::{SignGossip, SignPsbt, SignerOp, SignerReply};

use super::*;
use crate::machine::testing::{Id, World};

fn owner() -> (World, Id) {
    let mut world = World::new();
    let owner = world.add_owner(2, None);
    (world, owner)
}

fn session() -> SignerSession {
    SignerSession::new(false, 0)
}

/// A session with its signer, and its first batch: the pool of channel keys.
fn attached(turn: &mut Turn) -> (SignerSession, Batch) {
    let mut session = session();
    assert!(session.attach(turn, Vec::new()));
    let batch = session.next_batch(turn).expect("keys are asked for");
    (session, batch)
}

/// The requests that were answered in this turn.
fn answered(turn: &mut Turn) -> Vec<RequestId> {
    let replies = std::mem::take(&mut turn.output.replies).into_iter();
    replies.map(|(id, _)| id).collect()
}

#[test]
fn a_phone_that_comes_is_asked_for_channel_keys_and_nothing_is_sent_without_one() {
    let (mut world, owner) = owner();
    let turn = world.turn(owner);
    let mut session = session();
    assert!(!session.is_available() && !session.has_batch(turn));
    assert!(session.next_batch(turn).is_none());

    assert!(session.attach(turn, Vec::new()));
    assert!(session.is_available() && session.has_batch(turn));
    let batch = session.next_batch(turn).unwrap();
    let mut ops = batch.ops.ops.iter();
    assert!(ops.any(|op| matches!(op.op, Some(Op::NewChannelKeys(_)))));
    assert_eq!(session.stats().batches, 1);
    assert_eq!(session.stats().ops, batch.ops.ops.len() as u64);
}

/// The keys that the next batch asks for.
fn keys_asked(session: &mut SignerSession, turn: &Turn) -> usize {
    let batch = session.next_batch(turn);
    let ops = batch.iter().flat_map(|it| &it.ops.ops);
    ops.filter(|op| matches!(op.op, Some(Op::NewChannelKeys(_))))
        .count()
}

#[test]
fn keys_that_a_phone_gave_are_not_used_with_the_next_one() {
    let (mut world, owner) = owner();
    let mut session = session();
    session.attach(world.turn(owner), b"first".to_vec());
    let batch = session.next_batch(world.turn(owner)).unwrap();
    let signer = world.nodes[owner].signer.as_mut().unwrap();
    let reply = signer.handle(&batch.ops, 0).reply;
    let turn = world.turn(owner);
    session.replied(turn, batch.ticket, Ok(reply));
    session.attach(turn, b"first".to_vec());
    assert_eq!(keys_asked(&mut session, turn), 0, "they are in stock");
    session.attach(turn, b"second".to_vec());
    let asked = keys_asked(&mut session, turn);
    assert!(asked > 0, "the next phone's ledger does not have them");
}

#[test]
fn a_reply_to_an_earlier_attachment_is_dropped() {
    let (mut world, owner) = owner();
    let turn = world.turn(owner);
    let (mut session, batch) = attached(turn);
    session.attach(turn, Vec::new());
    assert!(!session.replied(turn, batch.ticket, Err(SignerAway)));
    assert!(session.has_batch(turn), "the new phone is not blamed");
}

#[test]
fn a_phone_that_fails_a_batch_gets_no_more_until_it_is_attached_anew() {
    let (mut world, owner) = owner();
    let turn = world.turn(owner);
    let (mut session, batch) = attached(turn);
    assert!(!session.replied(turn, batch.ticket, Err(SignerAway)));
    assert!(!session.has_batch(turn));
    assert!(session.next_batch(turn).is_none());
    assert!(session.attach(turn, Vec::new()));
    assert!(session.has_batch(turn));
}

#[test]
fn a_reply_has_ldk_try_again_what_waits() {
    let (mut world, owner) = owner();
    let turn = world.turn(owner);
    let (mut session, batch) = attached(turn);
    let reply = SignerReply::default();
    assert!(session.replied(turn, batch.ticket, Ok(reply)));
}

#[test]
fn a_detach_waits_for_the_step_in_hand_and_five_seconds_at_most() {
    let (mut world, owner) = owner();
    let turn = world.turn(owner);
    let (mut session, _unanswered) = attached(turn);
    assert!(
        !session.detach_is_due(turn, false, InFlight::Nothing),
        "nobody asked"
    );
    session.detach(turn, 7);
    assert!(session.is_detaching());
    let until = turn.now.instant + DETACH_LIMIT;
    assert_eq!(session.detach_until(), Some(until));
    assert!(
        !session.detach_is_due(turn, false, InFlight::Nothing),
        "a batch is unanswered"
    );
    turn.now.instant = until;
    assert!(session.detach_is_due(turn, false, InFlight::Nothing));

    assert!(session.lost(turn));
    assert_eq!(answered(turn), [7]);
    assert!(!session.is_detaching() && !session.is_available());
}

#[test]
fn a_detach_waits_for_a_close_that_is_negotiated() {
    let (mut world, owner) = owner();
    let turn = world.turn(owner);
    let mut session = session();
    session.detach(turn, 7);
    assert!(!session.detach_is_due(turn, true, InFlight::Nothing));
    assert!(session.detach_is_due(turn, false, InFlight::Nothing));
}

#[test]
fn a_detach_waits_for_htlcs_that_move_and_a_moment_for_those_that_may() {
    let (mut world, owner) = owner();
    let turn = world.turn(owner);
    let mut session = session();
    session.detach(turn, 7);
    let until = session.detach_until().unwrap();
    assert!(!session.detach_is_due(turn, false, InFlight::Moving));
    assert!(!session.detach_is_due(turn, false, InFlight::Committed));
    assert_eq!(session.detach_until(), Some(turn.now.instant + DETACH_CALM));
    // One moves again: the moment begins anew.
    turn.now.instant += DETACH_CALM;
    assert!(!session.detach_is_due(turn, false, InFlight::Moving));
    assert_eq!(session.detach_until(), Some(until));
    assert!(!session.detach_is_due(turn, false, InFlight::Committed));
    turn.now.instant += DETACH_CALM;
    assert!(session.detach_is_due(turn, false, InFlight::Committed));
    turn.now.instant = until;
    assert!(session.detach_is_due(turn, false, InFlight::Moving));
}

#[test]
fn every_detach_is_answered_when_the_phone_is_gone_or_another_comes() {
    let (mut world, owner) = owner();
    let turn = world.turn(owner);
    let (mut session, _) = attached(turn);
    session.detach(turn, 1);
    session.detach(turn, 2);
    session.attach(turn, Vec::new());
    assert_eq!(answered(turn), [1, 2]);
    assert!(!session.is_detaching());
    session.detach(turn, 3);
    session.lost(turn);
    assert_eq!(answered(turn), [3]);
}

#[test]
fn local_keys_never_come_or_go_and_a_detach_is_answered_at_once() {
    let mut world = World::new();
    let hub = world.add_hub(1);
    let turn = world.turn(hub);
    turn.output.replies.clear();
    let mut session = SignerSession::new(true, 0);
    assert!(session.is_available());
    assert!(!session.attach(turn, Vec::new()) && !session.lost(turn));
    assert!(session.is_available() && !session.is_attached());
    session.detach(turn, 7);
    assert_eq!(answered(turn), [7]);
    assert!(!session.is_detaching());
}

#[test]
fn a_machine_loaded_in_place_of_another_goes_on_counting_and_drops_its_replies() {
    let (mut world, owner) = owner();
    let turn = world.turn(owner);
    let (earlier, batch) = attached(turn);
    let mut session = SignerSession::new(false, earlier.next_generation());
    session.continue_counts(&earlier);
    assert_eq!(session.stats(), earlier.stats());
    session.attach(turn, Vec::new());
    assert!(!session.replied(turn, batch.ticket, Err(SignerAway)));
    assert!(session.has_batch(turn));
}

#[test]
fn batches_that_no_step_waits_for_do_not_lengthen_the_chain() {
    let batch = |ops: Vec<Op>| SignerBatch {
        ops: ops
            .into_iter()
            .map(|op| SignerOp {
                op: Some(op),
                ..SignerOp::default()
            })
            .collect(),
    };
    let gossip = || Op::SignGossip(SignGossip::default());
    let psbt = || Op::SignPsbt(SignPsbt::default());
    assert!(!is_step(&batch(vec![gossip(), gossip()])));
    assert!(is_step(&batch(vec![gossip(), psbt()])));
}
