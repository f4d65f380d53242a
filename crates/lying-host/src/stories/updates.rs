//! Stories about a channel's updates: fees, hashes, states, preimages, revocations and repetitions.

use bitcoin::hashes::{Hash, sha256};
use lightning::util::ser::Writeable;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{GetPreimage, ValidateHolderCommitment};
use longhand_signer::Rule;

use super::{Story, Telling};
use crate::attacks::balance::with_preimages;
use crate::attacks::closing::close;
use crate::scene::*;
use crate::tlv::Fields;

const PREIMAGE: [u8; 32] = [9; 32];
const PAID_MSAT: u64 = 50_000_000;
/// The balance of the owner in [`Channel::open`].
const BEFORE_SAT: u64 = 400_000;
const AFTER_SAT: u64 = BEFORE_SAT - PAID_MSAT / 1_000;

pub(super) fn stories() -> Vec<Story> {
    let story = |name, tell| Story { name, tell };
    vec![
        story("drain by fees", drain_by_fees),
        story("a swapped payment hash", swapped_hash),
        story("an old state after a newer one", old_state),
        story("a preimage fetched too early", early_preimage),
        story("a revocation without a new state", revocation_alone),
        story("a replayed batch", replayed_batch),
    ]
}

/// The payment hash of [`PREIMAGE`].
fn hash() -> [u8; 32] {
    sha256::Hash::hash(&PREIMAGE).to_byte_array()
}

/// The owner has funded the channel. The host lets its fee rate rise, names a rate that is not paid, adds HTLCs that no commitment
/// shows, and closes at a fee of its own choice.
fn drain_by_fees(it: &mut Telling) {
    let channel = Channel::outbound(&mut it.phone);
    let left = |feerate: u32| VALUE_SAT - 660 - u64::from(feerate) * 1_124 / 1_000;
    it.all_go(
        "the channel opens",
        [
            channel.setup(),
            validate(&channel.holder_at(0, 1_000, FUNDER_SAT, 0)),
            sign(&channel.theirs_at(0, 1_000, FUNDER_SAT, 0)),
        ],
    );
    it.all_go(
        "the fee rate rises to the limit",
        [
            sign(&channel.theirs_at(1, 25_000, left(25_000), 0)),
            channel.revocation(0),
            validate(&channel.holder_at(1, 25_000, left(25_000), 0)),
            release(0),
        ],
    );
    for feerate in [25_001, 100_000, 500_000] {
        let (theirs, ours) = (
            channel.theirs_at(2, feerate, left(feerate), 0),
            channel.holder_at(2, feerate, left(feerate), 0),
        );
        let name = |whose| format!("{feerate} sat/kw in {whose} commitment");
        it.stops(Rule::CommitmentFee, name("the peer's"), sign(&theirs));
        it.stops(Rule::CommitmentFee, name("the owner's"), validate(&ours));
    }
    let (named, paid) = (left(25_000), 25_000 * 1_124 / 1_000 - 1_124);
    it.stops(
        Rule::Balance,
        "a fee rate that falls, and the peer gets the difference",
        sign(&channel.theirs_at(2, 1_000, named, paid)),
    );
    it.stops(
        Rule::Balance,
        "a hundred satoshis for an HTLC that nothing shows",
        sign(&channel.theirs_at(2, 25_000, named - 100, 0)),
    );
    it.stops(
        Rule::CloseBalance,
        "a close at a fifth of the channel",
        Op::SignClosing(close(&it.phone, VALUE_SAT / 5 * 4, 0)),
    );
    it.all_go(
        "the fee rate falls, and the owner has it all back",
        [
            sign(&channel.theirs_at(2, 1_000, FUNDER_SAT, 0)),
            channel.revocation(1),
            validate(&channel.holder_at(2, 1_000, FUNDER_SAT, 0)),
            release(1),
        ],
    );
    it.goes(
        "a close at a fee that is usual",
        Op::SignClosing(close(&it.phone, FUNDER_SAT - 5_000, 0)),
    );
}

/// The owner pays one hash. The host offers the HTLC of another, of its own.
fn swapped_hash(it: &mut Telling) {
    let channel = Channel::open(&mut it.phone);
    it.phone.intend(hash(), PAID_MSAT);
    let of = |hash: [u8; 32], msat: u64| Htlc::outgoing(hash, msat);
    let (paid, thiefs) = (of(hash(), PAID_MSAT), of([5; 32], PAID_MSAT));
    it.stops(
        Rule::PaymentUnasked,
        "the thief's hash in place of the payee's",
        sign(&channel.theirs(1, AFTER_SAT, &[thiefs])),
    );
    it.stops(
        Rule::PaymentUnasked,
        "half for the payee, half for the thief",
        sign(&channel.theirs(
            1,
            AFTER_SAT,
            &[of(hash(), PAID_MSAT / 2), of([5; 32], PAID_MSAT / 2)],
        )),
    );
    it.all_go(
        "the payee's hash in the peer's commitment",
        [
            sign(&channel.theirs(1, AFTER_SAT, &[paid])),
            channel.revocation(0),
        ],
    );
    it.stops(
        Rule::PaymentUnasked,
        "the thief's in the owner's",
        validate(&channel.holder(1, AFTER_SAT, &[thiefs])),
    );
    it.all_go(
        "the payee's in the owner's",
        [validate(&channel.holder(1, AFTER_SAT, &[paid])), release(0)],
    );
    it.stops(
        Rule::PaymentUnasked,
        "the thief's takes the place of the payee's",
        sign(&channel.theirs(2, AFTER_SAT, &[thiefs])),
    );
    it.stops(
        Rule::Balance,
        "the payment is made, with the thief's preimage",
        with_preimages(validate(&channel.holder(2, AFTER_SAT, &[])), &[[5; 32]]),
    );
    it.all_go(
        "the payment is made, with the payee's preimage",
        [
            with_preimages(validate(&channel.holder(2, AFTER_SAT, &[])), &[PREIMAGE]),
            release(1),
            with_preimages(sign(&channel.theirs(2, AFTER_SAT, &[])), &[PREIMAGE]),
            channel.revocation(1),
        ],
    );
    it.stops(
        Rule::PaymentLimit,
        "the same payment once more",
        sign(&channel.theirs(3, AFTER_SAT - PAID_MSAT / 1_000, &[paid])),
    );
    let latest = sign_holder(&channel.holder(2, AFTER_SAT, &[]));
    it.stops(
        Rule::CloseUnasked,
        "the latest commitment for broadcast, which the owner did not ask for",
        latest.clone(),
    );
    it.phone.intend_force(&channel);
    it.goes("the same, which the owner has asked for", latest);
}

/// The owner has earned money. The host wants the commitment of before published, or a secret of the one that was.
fn old_state(it: &mut Telling) {
    let channel = Channel::open(&mut it.phone);
    for step in 1..=2 {
        it.all_go(
            "the owner's balance grows",
            [
                validate(&channel.holder(step, BEFORE_SAT + step * 1_000, &[])),
                release(step - 1),
            ],
        );
    }
    for step in 0..=1 {
        let old = channel.holder(step, BEFORE_SAT + step * 1_000, &[]);
        let name = format!("commitment {step}, which is revoked, for broadcast");
        it.stops(Rule::SignRevoked, name, sign_holder(&old));
        let name = format!("commitment {step} as the next one");
        it.stops(Rule::HolderNumber, name, validate(&old));
    }
    let latest = channel.holder(2, BEFORE_SAT + 2_000, &[]);
    it.stops(
        Rule::SignRevoked,
        "the latest number with an earlier balance",
        sign_holder(&channel.holder(2, BEFORE_SAT, &[])),
    );
    it.goes(
        "the next one",
        validate(&channel.holder(3, BEFORE_SAT + 3_000, &[])),
    );
    it.phone.intend_force(&channel);
    it.goes("the one before for broadcast", sign_holder(&latest));
    it.stops(
        Rule::RevokeSigned,
        "its secret, while it may be on its way to the chain",
        release(2),
    );
    it.stops(
        Rule::ChannelClosing,
        "another one after it",
        sign(&channel.theirs(1, BEFORE_SAT, &[])),
    );
    it.goes("it for broadcast again", sign_holder(&latest));
}

/// The host wants the preimage of an invoice before the money is the owner's.
fn early_preimage(it: &mut Telling) {
    let channel = Channel::open(&mut it.phone);
    let hash = it.invoice(PAID_MSAT);
    let claim = || {
        Op::GetPreimage(GetPreimage {
            payment_hash: hash.to_vec(),
            htlcs: Vec::new(),
        })
    };
    let ask = |it: &mut Telling, when: &str| it.stops(Rule::PreimageNotCommitted, when, claim());
    let part = [Htlc::incoming(hash, PAID_MSAT / 2)];
    let whole = [part[0], part[0]];
    ask(it, "before anything has come");
    it.goes(
        "half of it is in the owner's commitment",
        validate(&channel.holder(1, BEFORE_SAT, &part)),
    );
    ask(it, "with half of it in the owner's commitment");
    it.all_go(
        "the one before is revoked, and the peer's has it too",
        [release(0), sign(&channel.theirs(1, BEFORE_SAT, &part))],
    );
    ask(it, "before the peer has revoked");
    it.goes("the peer revokes", channel.revocation(0));
    it.stops(Rule::PreimageUnderpaid, "with half of it", claim());
    it.all_go(
        "the other half",
        channel.peers_update(2, BEFORE_SAT, &whole),
    );
    it.goes("the preimage", claim());
    it.goes("the preimage again, whose answer was lost", claim());
    it.stops(
        Rule::Balance,
        "the HTLCs go, and the money does not come",
        sign(&channel.theirs(3, BEFORE_SAT, &[])),
    );
    it.stops(
        Rule::Balance,
        "half of the money comes",
        sign(&channel.theirs(3, BEFORE_SAT + PAID_MSAT / 2_000, &[])),
    );
    it.goes(
        "all of it comes",
        sign(&channel.theirs(3, BEFORE_SAT + PAID_MSAT / 1_000, &[])),
    );
}

/// The host wants a secret of the owner's for nothing: with it the peer takes the whole channel, if the commitment is published.
fn revocation_alone(it: &mut Telling) {
    let channel = Channel::open(&mut it.phone);
    let asks = |it: &mut Telling, step| {
        let name = format!("the secret of commitment {step}");
        it.stops(Rule::RevokeBeforeValidate, name, release(step));
    };
    asks(it, 0);
    let good = channel.holder(1, BEFORE_SAT, &[]);
    let other = channel.holder(1, BEFORE_SAT + 1, &[]);
    let forged = Fields::read(&good.encode()).with(2, other.counterparty_sig.encode());
    it.stops(
        Rule::HolderSignature,
        "a new commitment with a signature of another one",
        Op::ValidateHolderCommitment(ValidateHolderCommitment {
            commitment: forged.write(),
            outbound_preimages: Vec::new(),
        }),
    );
    asks(it, 0);
    it.goes(
        "the peer's new commitment alone",
        sign(&channel.theirs(1, BEFORE_SAT, &[])),
    );
    asks(it, 0);
    it.goes("the owner's new commitment", validate(&good));
    it.goes("the secret of the one before", release(0));
    it.goes("the same again, whose answer was lost", release(0));
    asks(it, 1);
    asks(it, 2);
    it.phone.intend_force(&channel);
    it.goes("the latest one for broadcast", sign_holder(&good));
}

/// Each step of a payment comes twice: at once, when it is answered as before, and later, when it would undo what followed.
fn replayed_batch(it: &mut Telling) {
    let channel = Channel::open(&mut it.phone);
    it.phone.intend(hash(), PAID_MSAT);
    let paid = [Htlc::outgoing(hash(), PAID_MSAT)];
    let offered = || channel.owners_update(1, AFTER_SAT, &paid);
    let first: Vec<_> = offered().map(|op| it.goes("an HTLC", op)).into();
    let version = it.phone.signer.version();
    let again: Vec<_> = offered().map(|op| it.goes("the same again", op)).into();
    assert_eq!(first, again, "another answer to the same operation");
    assert_eq!(
        version,
        it.phone.signer.version(),
        "a repetition left a trace"
    );
    it.stops(
        Rule::PaymentLimit,
        "a second HTLC for the payment, as if the first had failed",
        sign(&channel.theirs(2, AFTER_SAT - PAID_MSAT / 1_000, &[paid[0], paid[0]])),
    );
    it.all_go(
        "the payment fails, and the money comes back",
        channel.peers_update(2, BEFORE_SAT, &[]),
    );
    let [signed, _, validated, _] = offered();
    it.stops(Rule::CounterpartyNumber, "the peer's first HTLC", signed);
    it.stops(Rule::HolderNumber, "the owner's first HTLC", validated);
    it.stops(
        Rule::SignRevoked,
        "the commitment with the HTLC for broadcast",
        sign_holder(&channel.holder(1, AFTER_SAT, &paid)),
    );
    it.phone.intend_force(&channel);
    it.goes(
        "the latest one for broadcast",
        sign_holder(&channel.holder(2, BEFORE_SAT, &[])),
    );
}
