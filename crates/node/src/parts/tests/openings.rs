//! The opener's side of a channel: refusals, failures and records. Whole openings are in `machine/tests/`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bitcoin::absolute::LockTime;
use bitcoin::{Psbt, Transaction, TxIn, transaction};
use longhand_chain::FeeRates;
use longhand_proto::Code;
use longhand_proto::command::error::Action;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{Refusal, SetupChannel, SignerAnswer, SignerReply};
use longhand_proto::{MAX_FEERATE_SAT_PER_KW, MIN_FEERATE_SAT_PER_KW};
use longhand_store::Write;

use super::*;
use crate::machine::testing::{Id, World};
use crate::parts::reserve::ANCHOR_RESERVE_SAT;

const AMOUNT_SAT: u64 = 500_000;
const SIGNER: &[u8] = b"phone";
const CONFIRMED_SAT: u64 = AMOUNT_SAT + ANCHOR_RESERVE_SAT;

/// A hub with as many coins as the check of an opening of `AMOUNT_SAT` needs, and an owner's node without coins.
fn world() -> (World, Id, Id) {
    let mut world = World::new();
    let hub = world.add_hub(1);
    let owner = world.add_owner(2, Some(hub));
    world.fund(hub, CONFIRMED_SAT);
    for id in [hub, owner] {
        world.turn(id).journal.take();
    }
    (world, hub, owner)
}

fn request(id: u8) -> OpenChannel {
    OpenChannel {
        id: vec![id; 16],
        amount_sat: AMOUNT_SAT,
        ..OpenChannel::default()
    }
}

fn user_id(id: u8) -> u128 {
    u128::from_be_bytes([id; 16])
}

/// An opening with LDK's `open_channel` sent, as its record.
fn created(id: u8) -> Open {
    Open {
        request: Some(request(id)),
        created: true,
        ..Open::default()
    }
}

fn openings(opens: impl IntoIterator<Item = Open>) -> Openings {
    let opens = opens.into_iter();
    let opens = opens.map(|open| (open.user_channel_id().unwrap(), open));
    Openings {
        opens: opens.collect(),
    }
}

fn failed(turn: &Turn, openings: &Openings, id: u8) -> (String, i32) {
    match openings.opened(turn, user_id(id)) {
        Some(Err(error)) => (error.code, error.action),
        other => panic!("no failure: {other:?}"),
    }
}

fn failure_of(code: Code, action: Action) -> (String, i32) {
    (code.into(), action.into())
}

/// The code of a refusal that changes nothing.
fn refused(turn: &Turn, peer: PublicKey, request: OpenChannel) -> String {
    let mut openings = Openings::default();
    let refusal = openings.request(turn, peer, request, SIGNER).unwrap_err();
    assert_eq!(refusal.action, i32::from(Action::FixInput));
    assert!(turn.journal.is_empty(), "a refusal was stored");
    assert!(openings.opens.is_empty(), "a refused opening was kept");
    refusal.code
}

#[test]
fn an_id_that_is_not_16_bytes_is_refused() {
    let (mut world, hub, owner) = world();
    let peer = world.nodes[owner].machine.node_id();
    for id in [vec![], vec![1; 15], vec![1; 17]] {
        let request = OpenChannel { id, ..request(1) };
        assert_eq!(refused(world.turn(hub), peer, request), Code::BadId);
    }
}

#[test]
fn a_channel_below_the_least_is_refused() {
    let (mut world, hub, owner) = world();
    let peer = world.nodes[owner].machine.node_id();
    let open = |amount_sat| OpenChannel {
        amount_sat,
        ..request(1)
    };
    let turn = world.turn(hub);
    let code = refused(turn, peer, open(MIN_CHANNEL_SAT - 1));
    assert_eq!(code, Code::ChannelTooSmall);
    let least = Openings::default().request(turn, peer, open(MIN_CHANNEL_SAT), SIGNER);
    assert_eq!(least, Ok(user_id(1)));
}

#[test]
fn a_channel_below_the_minimum_fee_of_the_chain_source_is_refused() {
    let (mut world, hub, owner) = world();
    let peer = world.nodes[owner].machine.node_id();
    let turn = world.turn(hub);
    turn.ldk.fees.set(FeeRates {
        minimum: 2_500,
        ..FeeRates::FLOOR
    });
    let open = |feerate_sat_per_kw| OpenChannel {
        feerate_sat_per_kw,
        ..request(1)
    };
    assert_eq!(refused(turn, peer, open(2_499)), Code::BelowMinimumFee);
    let begun = Openings::default().request(turn, peer, open(2_500), SIGNER);
    assert_eq!(begun, Ok(user_id(1)));
}

#[test]
fn without_a_fee_estimate_a_channel_needs_a_fee_rate_of_its_owner() {
    let (mut world, hub, owner) = world();
    let peer = world.nodes[owner].machine.node_id();
    let turn = world.turn(hub);
    turn.ldk.fees.set(FeeRates {
        is_estimate: false,
        ..FeeRates::FLOOR
    });
    assert_eq!(refused(turn, peer, request(1)), Code::NoFeeEstimate);
    let given = OpenChannel {
        feerate_sat_per_kw: 1_000,
        ..request(1)
    };
    let begun = Openings::default().request(turn, peer, given, SIGNER);
    assert_eq!(begun, Ok(user_id(1)));
}

#[test]
fn a_fee_rate_in_another_unit_is_refused() {
    let (mut world, hub, owner) = world();
    let peer = world.nodes[owner].machine.node_id();
    for feerate_sat_per_kw in [1, MIN_FEERATE_SAT_PER_KW - 1, MAX_FEERATE_SAT_PER_KW + 1] {
        let open = OpenChannel {
            feerate_sat_per_kw,
            ..request(1)
        };
        assert_eq!(
            refused(world.turn(hub), peer, open),
            Code::FeerateOutOfRange
        );
    }
}

#[test]
fn an_owner_cannot_give_funds_away_with_a_channel_and_a_hub_can() {
    let (mut world, hub, owner) = world();
    let peers = [owner, hub].map(|id| world.nodes[id].machine.node_id());
    let open = OpenChannel {
        push_msat: 1,
        ..request(1)
    };
    let code = refused(world.turn(owner), peers[1], open.clone());
    assert_eq!(code, Code::PushRefused);
    let given = Openings::default().request(world.turn(hub), peers[0], open, SIGNER);
    assert_eq!(given, Ok(user_id(1)));
}

#[test]
fn a_channel_needs_its_amount_and_the_reserve_confirmed() {
    let (mut world, hub, owner) = world();
    let peer = world.nodes[owner].machine.node_id();
    let turn = world.turn(hub);
    let more = |amount_sat| OpenChannel {
        amount_sat,
        ..request(1)
    };
    let code = refused(turn, peer, more(AMOUNT_SAT + 1));
    assert_eq!(code, Code::InsufficientFunds);
    assert_eq!(refused(turn, peer, more(u64::MAX)), Code::InsufficientFunds);
    let exact = Openings::default().request(turn, peer, request(1), SIGNER);
    assert_eq!(exact, Ok(user_id(1)));
}

#[test]
fn an_opening_asked_for_twice_is_one_opening() {
    let (mut world, hub, owner) = world();
    let peer = world.nodes[owner].machine.node_id();
    let turn = world.turn(hub);
    let mut openings = Openings::default();
    let first = openings.request(turn, peer, request(1), SIGNER).unwrap();
    let written = turn.journal.take();
    assert_eq!(written.len(), 1);
    let again = openings.request(turn, peer, request(1), SIGNER).unwrap();
    assert_eq!(again, first);
    assert!(turn.journal.is_empty());
    assert_eq!(openings.under_way().count(), 1);
    let Write::Put(key, value) = &written[0] else {
        panic!("a deletion");
    };
    let loaded = Journal::loading(vec![(key.clone(), value.clone())]);
    let loaded = Openings::load(&loaded).unwrap();
    assert_eq!(loaded.opens, openings.opens);
}

#[test]
fn a_record_that_cannot_be_read_keeps_the_node_from_loading() {
    let without_request = Open::default().encode_to_vec();
    for bytes in [vec![0xff], without_request] {
        let journal = Journal::loading(vec![("open/01".into(), bytes)]);
        let loaded = Openings::load(&journal).map(|_| ());
        assert!(matches!(loaded, Err(NodeError::Load(_))), "{loaded:?}");
    }
}

#[test]
fn an_opening_is_found_by_its_id_and_no_other() {
    let openings = openings([created(1)]);
    assert_eq!(openings.find(&[1; 16]), Ok(user_id(1)));
    for id in [&[2; 16][..], &[1; 15], &[]] {
        let unknown = openings.find(id).unwrap_err();
        assert_eq!(unknown.code, Code::NoSuchChannel);
    }
}

#[test]
fn an_opening_waits_for_its_peer_and_fails_when_that_cannot_be_reached() {
    let (mut world, hub, owner) = world();
    let peer = world.nodes[owner].machine.node_id();
    let turn = world.turn(hub);
    let mut openings = Openings::default();
    openings.request(turn, peer, request(1), SIGNER).unwrap();
    openings.advance(turn);
    assert_eq!(openings.opened(turn, user_id(1)), None);
    assert_eq!(openings.peers().collect::<Vec<_>>(), [peer]);

    openings.peer_unreachable(turn, peer, "away");
    let unreachable = failure_of(Code::PeerUnreachable, Action::Retry);
    assert_eq!(failed(turn, &openings, 1), unreachable);
    assert_eq!(openings.peers().count(), 0);
}

#[test]
fn an_opening_that_ldk_has_begun_does_not_fail_with_a_dial() {
    let (mut world, hub, owner) = world();
    let peer = world.nodes[owner].machine.node_id();
    let mut open = created(1);
    open.request.as_mut().unwrap().counterparty_node_id = peer.serialize().to_vec();
    let mut openings = openings([open]);
    let turn = world.turn(hub);
    openings.peer_unreachable(turn, peer, "away");
    assert_eq!(openings.opened(turn, user_id(1)), None);
}

#[test]
fn ldk_refuses_to_give_away_more_than_the_channel_has() {
    let (mut world, hub, owner) = world();
    world.attach(owner);
    let peer = world.nodes[owner].machine.node_id();
    let turn = world.turn(hub);
    let mut openings = Openings::default();
    let open = OpenChannel {
        push_msat: AMOUNT_SAT * 1000 + 1,
        ..request(1)
    };
    openings.request(turn, peer, open, SIGNER).unwrap();
    openings.advance(turn);
    let refused = failure_of(Code::ChannelRefused, Action::Retry);
    assert_eq!(failed(turn, &openings, 1), refused);
}

#[test]
fn a_funding_that_is_not_signed_within_1008_blocks_expires() {
    let (mut world, hub, _) = world();
    let turn = world.turn(hub);
    let open = Open {
        safe: true,
        safe_height: 100,
        ..created(1)
    };
    let mut openings = openings([open]);
    turn.height = 100 + FUNDING_BLOCKS;
    openings.advance(turn);
    assert_eq!(openings.opened(turn, user_id(1)), None);

    turn.height += 1;
    openings.advance(turn);
    assert_eq!(
        failed(turn, &openings, 1),
        failure_of(Code::Expired, Action::Retry)
    );
}

#[test]
fn an_opening_fails_when_its_funding_cannot_be_signed() {
    let (mut world, hub, _) = world();
    let turn = world.turn(hub);
    let foreign = Transaction {
        version: transaction::Version::TWO,
        lock_time: LockTime::ZERO,
        input: vec![TxIn::default()],
        output: Vec::new(),
    };
    let open = Open {
        safe: true,
        safe_height: turn.height,
        psbt: Psbt::from_unsigned_tx(foreign).unwrap().serialize(),
        ..created(1)
    };
    let mut openings = openings([open]);
    openings.advance(turn);
    let refused = failure_of(Code::SignerRefused, Action::Retry);
    assert_eq!(failed(turn, &openings, 1), refused);
    assert!(turn.ldk.broadcaster.take().is_empty());
}

#[test]
fn an_opening_that_ldk_lost_with_the_process_is_interrupted_and_one_that_waits_or_is_funded_is_not()
{
    let (mut world, hub, _) = world();
    let waiting = Open {
        created: false,
        ..created(2)
    };
    let funded = Open {
        broadcast: true,
        ready: true,
        ..created(3)
    };
    let mut openings = openings([created(1), waiting, funded]);
    let turn = world.turn(hub);
    openings.fail_interrupted(turn);
    let interrupted = failure_of(Code::Interrupted, Action::Retry);
    assert_eq!(failed(turn, &openings, 1), interrupted);
    assert_eq!(openings.opened(turn, user_id(2)), None);
    assert!(matches!(openings.opened(turn, user_id(3)), Some(Ok(_))));
}

#[test]
fn a_failure_is_final_and_its_action_says_whether_the_input_has_to_change() {
    let (mut world, hub, _) = world();
    let turn = world.turn(hub);
    for (code, action) in [
        (Code::ChannelClosed, Action::Retry),
        (Code::ChannelRefused, Action::Retry),
        (Code::Expired, Action::Retry),
        (Code::Interrupted, Action::Retry),
        (Code::PeerUnreachable, Action::Retry),
        (Code::SignerRefused, Action::Retry),
        (Code::InsufficientFunds, Action::FixInput),
        (Code::TooManyInputs, Action::FixInput),
    ] {
        let mut openings = openings([created(1)]);
        openings.fail(turn, user_id(1), code, "first");
        openings.fail(turn, user_id(1), Code::ChannelClosed, "second");
        assert_eq!(failed(turn, &openings, 1), failure_of(code, action));
        assert_eq!(openings.under_way().count(), 0, "{code}");
        let Some(Err(waiting)) = openings.usable(turn, user_id(1)) else {
            panic!("{code}: whoever waits for the channel gets no failure");
        };
        assert_eq!(waiting.message, "first");
    }
}

#[test]
fn a_funded_channel_that_ldk_no_longer_has_is_reported_as_closed() {
    let (mut world, hub, _) = world();
    let turn = world.turn(hub);
    let funded = Open {
        broadcast: true,
        ..created(1)
    };
    let openings = openings([funded, created(2)]);
    let Some(Err(closed)) = openings.usable(turn, user_id(1)) else {
        panic!("no failure");
    };
    assert_eq!(closed.code, Code::ChannelGone);
    assert_eq!(closed.action, i32::from(Action::GiveUp));
    assert_eq!(openings.usable(turn, user_id(2)), None);
}

#[test]
fn only_a_channel_that_failed_before_its_funding_was_never_funded() {
    let with_id = |open: Open, byte: u8| Open {
        channel_id: vec![byte; 32],
        ..open
    };
    let failed = Open {
        failure_code: Code::Expired.into(),
        ..created(1)
    };
    let funded = Open {
        broadcast: true,
        ..created(2)
    };
    let openings = openings([
        with_id(failed, 1),
        with_id(funded, 2),
        with_id(created(3), 3),
    ]);
    let never = [1, 2, 3, 4].map(|byte| openings.was_never_funded(&ChannelId([byte; 32])));
    assert_eq!(never, [true, false, false, false]);
}

#[test]
fn an_opening_fails_when_the_phone_refuses_the_channel() {
    let mut world = World::new();
    let owner = world.add_owner(2, None);
    world.attach(owner);
    let turn = world.turn(owner);
    let remote = turn.remote().unwrap();
    let keys_id = remote.reserve(user_id(1), turn.node_id()).unwrap();
    remote.next_batch();
    remote.must_reach_phone(keys_id, Op::SetupChannel(SetupChannel::default()));
    let (keys, batch) = remote.next_batch().unwrap();
    let refusal = Refusal {
        rule: "test".into(),
        message: "no".into(),
        retry: false,
    };
    let answer = SignerAnswer {
        answer: Some(Answer::Refusal(refusal)),
    };
    let answers = vec![answer; batch.ops.len()];
    remote.take_reply(&keys, SignerReply { answers });

    let mut openings = openings([created(1)]);
    openings.advance(turn);
    let refused = failure_of(Code::SignerRefused, Action::Retry);
    assert_eq!(failed(turn, &openings, 1), refused);
}

#[test]
fn an_opening_of_another_phone_fails_and_gives_its_coins_back() {
    let (mut world, hub, owner) = world();
    let peer = world.nodes[owner].machine.node_id();
    let turn = world.turn(hub);
    let mut openings = Openings::default();
    openings.request(turn, peer, request(1), SIGNER).unwrap();
    openings.fail_of_others(turn, SIGNER);
    assert!(
        openings.opened(turn, user_id(1)).is_none(),
        "it is the same phone"
    );
    turn.journal.take();
    openings.fail_of_others(turn, b"another");
    let expected = failure_of(Code::PairingRenewed, Action::Retry);
    assert_eq!(failed(turn, &openings, 1), expected);
    assert_eq!(turn.journal.take().len(), 1, "it is stored");
}

#[test]
fn an_opening_of_an_older_record_is_anybodys() {
    let (mut world, hub, _) = world();
    let mut openings = openings([created(1)]);
    let turn = world.turn(hub);
    openings.fail_of_others(turn, b"another");
    assert!(openings.opened(turn, user_id(1)).is_none());
}

#[test]
fn only_so_many_channels_are_opened_at_a_time() {
    let (mut world, hub, owner) = world();
    let peer = world.nodes[owner].machine.node_id();
    let turn = world.turn(hub);
    let waiting = |id: u8| Open {
        request: Some(OpenChannel {
            counterparty_node_id: peer.serialize().to_vec(),
            ..request(id)
        }),
        ..Open::default()
    };
    let mut openings = openings((1..=64).map(waiting));
    let refused = openings.request(turn, peer, request(65), SIGNER);
    assert_eq!(refused.unwrap_err().code, Code::TooManyOpenings);
    assert!(turn.journal.is_empty());
    openings.fail(turn, user_id(1), Code::ChannelClosed, "no");
    openings.request(turn, peer, request(65), SIGNER).unwrap();
}
