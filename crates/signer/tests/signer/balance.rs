//! The owner's balance in channels: what may leave it, and what must come back.

use bitcoin::hashes::{Hash, sha256};
use longhand_lying_host::scene::*;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::*;
use longhand_signer::Rule;

const PREIMAGE: [u8; 32] = [6; 32];
const AMOUNT_MSAT: u64 = 50_000_000;
/// Of the fixture, before anything is paid.
const BEFORE_SAT: u64 = 400_000;
const AFTER_SAT: u64 = 350_000;

fn hash() -> [u8; 32] {
    sha256::Hash::hash(&PREIMAGE).to_byte_array()
}

fn paid() -> Htlc {
    Htlc::outgoing(hash(), AMOUNT_MSAT)
}

/// A step of the peer's commitments, with preimages and HTLCs that have no output.
fn sign_with(op: Op, preimages: &[[u8; 32]], trimmed: &[([u8; 32], u64)]) -> Op {
    let Op::SignCounterpartyCommitment(sign) = op else {
        panic!("another operation")
    };
    let htlc = |(payment_hash, amount_msat): &([u8; 32], u64)| TrimmedHtlc {
        payment_hash: payment_hash.to_vec(),
        amount_msat: *amount_msat,
    };
    Op::SignCounterpartyCommitment(SignCounterpartyCommitment {
        outbound_preimages: preimages.iter().map(|it| it.to_vec()).collect(),
        trimmed: trimmed.iter().map(htlc).collect(),
        ..sign
    })
}

fn validate_with(op: Op, preimages: &[[u8; 32]]) -> Op {
    let Op::ValidateHolderCommitment(validate) = op else {
        panic!("another operation")
    };
    Op::ValidateHolderCommitment(ValidateHolderCommitment {
        outbound_preimages: preimages.iter().map(|it| it.to_vec()).collect(),
        ..validate
    })
}

/// A phone whose owner asked for a payment, which is in flight: in the first commitments of both sides after the opening.
fn paying() -> (Phone, Channel) {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    phone.intend(hash(), AMOUNT_MSAT);
    phone
        .ask(sign(&channel.theirs(1, AFTER_SAT, &[paid()])))
        .unwrap();
    phone.ask(channel.revocation(0)).unwrap();
    phone
        .ask(validate(&channel.holder(1, AFTER_SAT, &[paid()])))
        .unwrap();
    phone.ask(release(0)).unwrap();
    (phone, channel)
}

#[test]
fn an_htlc_is_offered_only_for_a_payment_that_the_owner_asked_for() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let step = sign(&channel.theirs(1, AFTER_SAT, &[paid()]));
    assert_eq!(phone.refused(step.clone()), Rule::PaymentUnasked);
    phone.intend([9; 32], AMOUNT_MSAT);
    assert_eq!(phone.refused(step.clone()), Rule::PaymentUnasked);
    phone.intend(hash(), AMOUNT_MSAT);
    phone.ask(step).unwrap();
}

#[test]
fn a_payment_that_has_ended_or_expired_long_ago_is_not_made_any_more() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let step = sign(&channel.theirs(1, AFTER_SAT, &[paid()]));
    phone.intend(hash(), AMOUNT_MSAT);
    let ended = phone.signer.payment_ended(&hash()).unwrap();
    phone.keep(&ended.records);
    phone.restart();
    assert_eq!(phone.refused(step.clone()), Rule::PaymentUnasked);

    phone.intend(hash(), AMOUNT_MSAT);
    phone.now_unix_s += 15 * 24 * 3600;
    assert_eq!(phone.refused(step.clone()), Rule::PaymentUnasked);
    // The phone was away for a week while the node was about to offer the HTLC.
    phone.now_unix_s -= 8 * 24 * 3600;
    phone.ask(step).unwrap();
}

#[test]
fn the_htlcs_of_a_payment_are_limited_together() {
    let (mut phone, channel) = paying();
    let half = Htlc::outgoing(hash(), AMOUNT_MSAT / 2);
    let more = channel.theirs(2, AFTER_SAT - 25_000, &[paid(), half]);
    assert_eq!(phone.refused(sign(&more)), Rule::PaymentLimit);
    // Its fee limit is a tenth of it.
    let fee = Htlc::outgoing(hash(), AMOUNT_MSAT / 10);
    let fee = channel.theirs(2, AFTER_SAT - 5_000, &[paid(), fee]);
    phone.ask(sign(&fee)).unwrap();
}

#[test]
fn a_payment_that_may_leave_late_counts_as_one_in_flight_for_as_long() {
    const DAY_S: u64 = 24 * 3_600;
    for (late_s, is_in_flight) in [(14 * DAY_S, false), (30 * DAY_S, true)] {
        let mut phone = Phone::new();
        phone.limit("in_flight_sat", "60000");
        phone.limit("late_payment_s", &late_s.to_string());
        phone.intend(hash(), AMOUNT_MSAT);
        let later = NOW + 20 * DAY_S;
        let other = phone
            .signer
            .add_intent([7; 32], AMOUNT_MSAT, 0, later + 60, later);
        let refused = other.err().map(|refused| refused.rule);
        assert_eq!(refused, is_in_flight.then_some(Rule::SpendLimit));
    }
}

#[test]
fn an_invoice_of_the_phones_is_not_paid_by_the_phone() {
    let mut phone = Phone::new();
    let made = phone
        .signer
        .new_payment(AMOUNT_MSAT, PREIMAGE, NOW)
        .unwrap();
    phone.keep(&made.records);
    let (now, limit) = (NOW, AMOUNT_MSAT);
    let intent = phone.signer.add_intent(hash(), limit, 0, now + 60, now);
    assert_eq!(intent.unwrap_err().rule, Rule::PaymentUnasked);
    let channel = Channel::open(&mut phone);
    let step = sign(&channel.theirs(1, AFTER_SAT, &[paid()]));
    assert_eq!(phone.refused(step), Rule::PaymentUnasked);
}

#[test]
fn an_outgoing_htlc_is_in_the_peers_commitment_before_the_owners() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    phone.intend(hash(), AMOUNT_MSAT);
    let ours = validate(&channel.holder(1, AFTER_SAT, &[paid()]));
    assert_eq!(phone.refused(ours.clone()), Rule::PaymentUnasked);
    phone
        .ask(sign(&channel.theirs(1, AFTER_SAT, &[paid()])))
        .unwrap();
    phone.ask(ours).unwrap();
}

#[test]
fn the_balance_does_not_fall_without_an_htlc() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let less = BEFORE_SAT - 1;
    assert_eq!(
        phone.refused(sign(&channel.theirs(1, less, &[]))),
        Rule::Balance
    );
    assert_eq!(
        phone.refused(validate(&channel.holder(1, less, &[]))),
        Rule::Balance
    );
    phone.intend(hash(), AMOUNT_MSAT);
    let paid = sign(&channel.theirs(1, AFTER_SAT - 1, &[paid()]));
    assert_eq!(phone.refused(paid), Rule::Balance);
    // What a peer gives is welcome.
    phone
        .ask(sign(&channel.theirs(1, BEFORE_SAT + 1, &[])))
        .unwrap();
}

#[test]
fn the_first_commitment_leaves_a_funder_everything_but_the_fee() {
    let mut phone = Phone::new();
    let channel = Channel::outbound(&mut phone);
    phone.ask(channel.setup()).unwrap();
    phone.intend(hash(), AMOUNT_MSAT);
    let with_htlc = channel.theirs(0, 900_000, &[paid()]);
    assert_eq!(phone.refused(sign(&with_htlc)), Rule::Balance);
    let pays = |to_phone_sat| channel.theirs_at(0, 1000, to_phone_sat, 0);
    assert_eq!(phone.refused(sign(&pays(FUNDER_SAT - 1))), Rule::Balance);
    phone.ask(sign(&pays(FUNDER_SAT))).unwrap();
}

#[test]
fn a_failed_htlc_comes_back() {
    let (mut phone, channel) = paying();
    assert_eq!(
        phone.refused(validate(&channel.holder(2, AFTER_SAT, &[]))),
        Rule::Balance
    );
    assert_eq!(
        phone.refused(sign(&channel.theirs(2, BEFORE_SAT, &[]))),
        Rule::HtlcRemovedEarly
    );
    phone
        .ask(validate(&channel.holder(2, BEFORE_SAT, &[])))
        .unwrap();
    phone.ask(release(1)).unwrap();
    assert_eq!(
        phone.refused(sign(&channel.theirs(2, BEFORE_SAT - 1, &[]))),
        Rule::Balance
    );
    phone
        .ask(sign(&channel.theirs(2, BEFORE_SAT, &[])))
        .unwrap();

    // Until the peer has revoked the commitment with it, the HTLC is in flight, and so no other is offered.
    let again = channel.theirs(3, AFTER_SAT, &[paid()]);
    let batch = [sign(&again)];
    assert_eq!(phone.refused(batch[0].clone()), Rule::CounterpartyUnrevoked);
    phone.ask(channel.revocation(1)).unwrap();
    phone.ask(sign(&again)).unwrap();
}

#[test]
fn a_fulfilled_htlc_shows_its_preimage_and_is_counted() {
    let (mut phone, channel) = paying();
    let ours = validate(&channel.holder(2, AFTER_SAT, &[]));
    let wrong = validate_with(ours.clone(), &[[7; 32]]);
    assert_eq!(phone.refused(wrong), Rule::Balance);
    phone.ask(validate_with(ours, &[PREIMAGE])).unwrap();
    phone.ask(release(1)).unwrap();
    phone.restart();
    // The phone knows it now.
    phone.ask(sign(&channel.theirs(2, AFTER_SAT, &[]))).unwrap();
    phone.ask(channel.revocation(1)).unwrap();
    let intent = phone.signer.intents().next().unwrap();
    assert_eq!(
        (intent.preimage, intent.spent_msat),
        (Some(PREIMAGE), AMOUNT_MSAT)
    );
    let again = channel.theirs(3, AFTER_SAT - 50_000, &[paid()]);
    assert_eq!(phone.refused(sign(&again)), Rule::PaymentLimit);
    phone.restart();
    assert_eq!(phone.refused(sign(&again)), Rule::PaymentLimit);
}

#[test]
fn small_htlcs_are_compared_with_what_the_owner_asked_for_too() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let small = (hash(), 300_000);
    let step = |number, to_phone_sat| sign(&channel.theirs(number, to_phone_sat, &[]));
    let sent = sign_with(step(1, BEFORE_SAT - 300), &[], &[small]);
    assert_eq!(phone.refused(step(1, BEFORE_SAT - 300)), Rule::Balance);
    assert_eq!(phone.refused(sent.clone()), Rule::PaymentUnasked);
    phone.intend(hash(), 300_000);
    let more = sign_with(step(1, BEFORE_SAT - 301), &[], &[small]);
    assert_eq!(phone.refused(more), Rule::Balance);
    let limit = sign_with(step(1, BEFORE_SAT - 331), &[], &[(hash(), 331_000)]);
    assert_eq!(phone.refused(limit), Rule::PaymentLimit);
    phone.ask(sent).unwrap();
    phone.ask(channel.revocation(0)).unwrap();

    // The owner's commitments follow, once.
    let ours = |number, to_phone_sat| validate(&channel.holder(number, to_phone_sat, &[]));
    assert_eq!(phone.refused(ours(1, BEFORE_SAT - 301)), Rule::Balance);
    phone.ask(ours(1, BEFORE_SAT - 300)).unwrap();
    phone.ask(release(0)).unwrap();
    phone.restart();
    assert_eq!(phone.refused(ours(2, BEFORE_SAT - 600)), Rule::Balance);

    // It fails, comes back, and is tried again: many times over.
    for round in 1..=4 {
        let again = sign_with(step(2 * round, BEFORE_SAT - 600), &[], &[small]);
        assert_eq!(phone.refused(again), Rule::PaymentLimit);
        phone.ask(ours(2 * round, BEFORE_SAT)).unwrap();
        phone.ask(release(2 * round - 1)).unwrap();
        phone.ask(step(2 * round, BEFORE_SAT)).unwrap();
        phone.ask(channel.revocation(2 * round - 1)).unwrap();
        let again = sign_with(step(2 * round + 1, BEFORE_SAT - 300), &[], &[small]);
        phone.ask(again).unwrap();
        phone.ask(channel.revocation(2 * round)).unwrap();
        phone.ask(ours(2 * round + 1, BEFORE_SAT - 300)).unwrap();
        phone.ask(release(2 * round)).unwrap();
    }
}

#[test]
fn a_fee_rate_that_is_not_paid_is_no_reason_for_less() {
    let mut phone = Phone::new();
    let channel = Channel::outbound(&mut phone);
    phone.ask(channel.setup()).unwrap();
    let pays =
        |step, to_phone_sat, to_peer_sat| channel.theirs_at(step, 1000, to_phone_sat, to_peer_sat);
    phone.ask(sign(&pays(0, FUNDER_SAT, 0))).unwrap();
    // Ten times the fee rate, and the peer gets the difference.
    let feerate = |to_peer_sat| channel.theirs_at(1, 10_000, VALUE_SAT - 660 - 11_240, to_peer_sat);
    assert_eq!(phone.refused(sign(&feerate(10_000))), Rule::Balance);
    phone.ask(sign(&feerate(0))).unwrap();
}

#[test]
fn the_cost_of_a_commitment_has_a_limit_at_a_bearable_fee_rate_too() {
    let mut phone = Phone::new();
    let channel = Channel::outbound(&mut phone);
    phone.ask(channel.setup()).unwrap();
    let first = channel.theirs_at(0, 1000, FUNDER_SAT, 0);
    phone.ask(sign(&first)).unwrap();
    let cost_sat = 660 + 11_240;
    let step = sign(&channel.theirs_at(1, 10_000, VALUE_SAT - cost_sat, 0));
    let allow = |phone: &mut Phone, most_sat: u64| {
        phone.limit("own_commitment_fee_sat", &most_sat.to_string());
    };
    allow(&mut phone, cost_sat - 1);
    assert_eq!(phone.refused(step.clone()), Rule::CommitmentFee);
    allow(&mut phone, cost_sat);
    phone.ask(step).unwrap();
}

#[test]
fn fee_rates_have_limits() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    for feerate in [249, 250_001] {
        let step = channel.theirs_at(1, feerate, BEFORE_SAT, 100_000);
        assert_eq!(phone.refused(sign(&step)), Rule::CommitmentFee);
    }
    let spike = channel.theirs_at(1, 250_000, BEFORE_SAT, 100_000);
    phone.ask(sign(&spike)).unwrap();
}

#[test]
fn small_htlcs_that_are_not_missing_let_nothing_be_taken() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    phone.intend(hash(), 1_000_000);
    // The host names an HTLC that is not there, again and again.
    for step in 1..8 {
        let op = sign(&channel.theirs(step, BEFORE_SAT, &[]));
        let named = phone.ask(sign_with(op.clone(), &[], &[(hash(), 300_000)]));
        match named {
            Ok(_) => {}
            Err(refusal) => {
                assert_eq!(rule(&refusal), Rule::PaymentLimit);
                phone.ask(op).unwrap();
            }
        }
        phone.ask(channel.revocation(step - 1)).unwrap();
    }
    let ours = validate(&channel.holder(1, BEFORE_SAT - 2, &[]));
    assert_eq!(phone.refused(ours), Rule::Balance);
    // Nor one that is too large to have no output.
    phone.intend([7; 32], 50_000_000);
    let op = sign(&channel.theirs(8, AFTER_SAT, &[]));
    let large = sign_with(op, &[], &[([7; 32], AMOUNT_MSAT)]);
    assert_eq!(phone.refused(large), Rule::Balance);
}

#[test]
fn a_small_htlc_that_has_an_output_on_one_side_only_is_paid_and_fails() {
    // The peer's dust limit is higher than the owner's.
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    phone.intend(hash(), 400_000);
    let small = [Htlc::outgoing(hash(), 400_000)];
    for round in 0..4 {
        let step = 2 * round + 1;
        let op = sign(&channel.theirs(step, BEFORE_SAT - 400, &[]));
        phone.ask(sign_with(op, &[], &[(hash(), 400_000)])).unwrap();
        phone.ask(channel.revocation(step - 1)).unwrap();
        let ours = channel.holder(step, BEFORE_SAT - 400, &small);
        phone.ask(validate(&ours)).unwrap();
        phone.ask(release(step - 1)).unwrap();
        phone.restart();
        let ours = channel.holder(step + 1, BEFORE_SAT, &[]);
        phone.ask(validate(&ours)).unwrap();
        phone.ask(release(step)).unwrap();
        let theirs = channel.theirs(step + 1, BEFORE_SAT, &[]);
        phone.ask(sign(&theirs)).unwrap();
        phone.ask(channel.revocation(step)).unwrap();
    }
}

#[test]
fn a_balance_without_an_output_goes_on_from_where_it_was() {
    let mut phone = Phone::new();
    let channel = Channel::new(&mut phone);
    phone.ask(channel.setup()).unwrap();
    let theirs = |step, sat| sign(&channel.theirs(step, sat, &[]));
    phone.ask(theirs(0, 9_000)).unwrap();
    // Below the highest dust limit of a peer the output may be missing; what comes later does not begin at nothing.
    phone.ask(theirs(1, 0)).unwrap();
    phone.ask(channel.revocation(0)).unwrap();
    phone.restart();
    phone.ask(theirs(2, 9_000)).unwrap();
    phone.ask(channel.revocation(1)).unwrap();
    phone.ask(theirs(3, 0)).unwrap();
    phone.ask(channel.revocation(2)).unwrap();
    assert_eq!(phone.refused(theirs(4, 8_999)), Rule::Balance);
}

#[test]
fn an_htlc_that_left_one_side_only_is_still_in_flight() {
    let (mut phone, channel) = paying();
    // The peer's commitment loses it while the owner's has it: it could be offered and claimed twice.
    let early = sign(&channel.theirs(2, BEFORE_SAT, &[]));
    let refusal = phone.ask(early).unwrap_err();
    assert_eq!(
        (rule(&refusal), refusal.retry),
        (Rule::HtlcRemovedEarly, true)
    );
}

#[test]
fn the_owner_is_not_led_to_an_old_commitment() {
    let mut phone = Phone::new();
    let channel = Channel::open(&mut phone);
    let first = channel.holder(0, BEFORE_SAT, &[]);
    let ours = |step| channel.holder(step, BEFORE_SAT + 10 * step, &[]);
    phone.ask(validate(&ours(1))).unwrap();
    // Two at most.
    assert_eq!(phone.refused(validate(&ours(2))), Rule::HolderUnrevoked);
    phone.ask(release(0)).unwrap();
    assert_eq!(phone.refused(sign_holder(&first)), Rule::SignRevoked);
    phone.intend_force(&channel);
    phone.ask(sign_holder(&ours(1))).unwrap();
    // After that nothing is received that the signed one does not have.
    assert_eq!(phone.refused(validate(&ours(2))), Rule::ChannelClosing);
    let theirs = sign(&channel.theirs(1, BEFORE_SAT, &[]));
    assert_eq!(phone.refused(theirs), Rule::ChannelClosing);
}

#[test]
fn an_attempt_that_is_still_in_a_channel_is_not_paid_again() {
    let (mut phone, _) = paying();
    let again = phone
        .signer
        .add_intent(hash(), AMOUNT_MSAT, 1_000, NOW + 60, NOW);
    assert_eq!(again.unwrap_err().rule, Rule::PaymentLimit);
}
