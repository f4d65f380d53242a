//! Stories about whole channels: their keys, their fundings, their closes, and who is on the other side.

use bitcoin::absolute::LockTime;
use bitcoin::psbt::Psbt;
use bitcoin::{Amount, Sequence, Transaction};
use lightning::types::features::ChannelTypeFeatures;
use longhand_proto::signer::sign_psbt::Purpose;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{
    ChannelTerms, GetPreimage, NewChannelKeys, SetupChannel, SignClosing, SignCounterpartyHtlc,
};
use longhand_signer::{Account, Keychain, Rule};

use super::{Story, Telling};
use crate::attacks::chain::{first, funding, sign_psbt, spend};
use crate::attacks::closing::{claim, close, justice, own_script, thief};
use crate::attacks::commitment::thiefs_key;
use crate::attacks::setup::with_other_keys;
use crate::scene::*;
use crate::tlv::encode;

/// An index at which no wallet looks for coins.
const FAR: u32 = 1 << 20;

pub(super) fn stories() -> Vec<Story> {
    let story = |name, tell| Story { name, tell };
    vec![
        story("a close to another script", close_to_another),
        story("a re-keyed channel", re_keyed),
        story(
            "a funding that changes after it was signed",
            changed_funding,
        ),
        story("a hostile inbound channel", hostile_inbound),
        story("host and hub together", host_and_hub),
    ]
}

/// The channel is to be closed, and the host has another idea of where the owner's money goes.
fn close_to_another(it: &mut Telling) {
    let channel = Channel::open(&mut it.phone);
    let good = close(&it.phone, 400_000, 500_000);
    let with = |change: fn(&mut SignClosing)| {
        let mut op = good.clone();
        change(&mut op);
        Op::SignClosing(op)
    };
    let to_thief = || with(|op| op.to_holder_script = thief().to_bytes());
    it.stops(Rule::NotOurScript, "a close to the thief", to_thief());
    let keys = it.phone.signer.keys();
    let far = keys.script(Account::Bip84, Keychain::External, FAR);
    let to_far = Op::SignClosing(SignClosing {
        to_holder_script: far.expect("an address").to_bytes(),
        to_holder_index: FAR,
        ..good.clone()
    });
    it.stops(
        Rule::NotOurScript,
        "to an address of the owner's that no restored wallet finds",
        to_far,
    );
    it.stops(
        Rule::CloseBalance,
        "of which the peer gets the owner's part",
        with(|op| (op.to_holder_sat, op.to_counterparty_sat) = (500, 899_500)),
    );
    it.stops(
        Rule::CloseBalance,
        "of which the miners get the owner's part",
        with(|op| op.to_holder_sat = 1_000),
    );
    it.goes("a close to the owner", with(|_| ()));
    it.goes("the same again, whose answer was lost", with(|_| ()));
    it.stops(Rule::NotOurScript, "once more, to the thief", to_thief());
    it.stops(
        Rule::ChannelClosing,
        "an update after the close, to the peer's advantage",
        sign(&channel.theirs(1, 1_000, &[])),
    );
    it.phone.intend_force(&channel);
    it.goes(
        "the latest commitment for broadcast, since the close does not confirm",
        sign_holder(&channel.holder(0, 400_000, &[])),
    );
}

/// The host has the keys of a channel made once more, or others put in their place.
fn re_keyed(it: &mut Telling) {
    let channel = Channel::open(&mut it.phone);
    let again = it.phone.ask_on(
        &[],
        Op::NewChannelKeys(NewChannelKeys {
            channel_keys_id: KEYS_ID.to_vec(),
            points: 1,
        }),
    );
    if let Ok(Answer::NewChannelKeys(keys)) = again {
        let same = lightning::util::ser::Writeable::encode(&channel.parameters.holder_pubkeys);
        assert_eq!(keys.public_keys, same, "other keys for the same channel");
    }
    for (name, change) in [
        (
            "the thief's funding key for the peer's",
            (|it| {
                let theirs = it.counterparty_parameters.as_mut();
                theirs.expect("a whole channel").pubkeys.funding_pubkey = thiefs_key();
            }) as fn(&mut lightning::ln::chan_utils::ChannelTransactionParameters),
        ),
        ("the thief's payment key for the owner's", |it| {
            it.holder_pubkeys.payment_point = thiefs_key()
        }),
        ("another funding output", |it| {
            it.funding_outpoint.as_mut().expect("a whole channel").index = 1
        }),
    ] {
        let mut parameters = channel.parameters.clone();
        change(&mut parameters);
        let name = format!("the channel is set up again with {name}");
        it.stops(Rule::SetupChanged, name, channel.setup_with(&parameters));
    }
    let mut re_keyed = Channel {
        phone_points: vec![thiefs_key(); 20],
        ..Channel::new(&mut Phone::new())
    };
    it.stops(
        Rule::CommitmentMismatch,
        "the owner's commitment with a point of the thief's",
        validate(&re_keyed.holder(1, 400_000, &[])),
    );
    re_keyed.parameters.holder_pubkeys.payment_point = thiefs_key();
    it.stops(
        Rule::CommitmentMismatch,
        "the peer's commitment that pays the owner at the thief's key",
        sign(&re_keyed.theirs(1, 400_000, &[])),
    );
    // Keys that the phone never gave.
    it.phone.keys_id = [1; 32];
    it.stops(
        Rule::SetupLedger,
        "a channel with keys that the phone did not give",
        channel.setup(),
    );
    it.phone.keys_id = KEYS_ID;
    it.all_go(
        "the channel goes on",
        [
            validate(&channel.holder(1, 400_000, &[])),
            release(0),
            sign(&channel.theirs(1, 400_000, &[])),
        ],
    );
}

/// The owner opens a channel. The host changes the transaction before and after the phone has signed it.
fn changed_funding(it: &mut Telling) {
    let (channel, psbt) = funding(&mut it.phone, |_, _| ());
    let with = |change: fn(&mut Psbt), purpose| {
        let mut psbt = psbt.clone();
        change(&mut psbt);
        sign_psbt(&psbt, purpose)
    };
    it.stops(
        Rule::FundingBeforeValidate,
        "the funding, before there is a way back",
        with(|_| (), Purpose::Funding),
    );
    it.goes(
        "the first commitment, which is the way back",
        first(&channel),
    );
    let to_thief = |it: &mut Psbt| it.unsigned_tx.output[0].script_pubkey = thief();
    let less = |it: &mut Psbt| it.unsigned_tx.output[0].value -= Amount::ONE_SAT;
    let later = |it: &mut Psbt| it.unsigned_tx.lock_time = LockTime::from_consensus(1);
    let sequence = |it: &mut Psbt| it.unsigned_tx.input[0].sequence = Sequence::MAX;
    type Change = fn(&mut Psbt);
    let changes: [(&str, Change); 4] = [
        ("to the thief", to_thief),
        ("of a satoshi less", less),
        ("with another lock time", later),
        ("with another sequence", sequence),
    ];
    for when in ["before", "after"] {
        for (name, change) in changes {
            let name = format!("a funding {name}, {when} the right one was signed");
            it.stops(Rule::FundingOutput, name, with(change, Purpose::Funding));
        }
        it.goes("the funding", with(|_| (), Purpose::Funding));
    }
    let output = psbt.unsigned_tx.output[0].clone();
    let other_coin = spend(&it.phone, 1, vec![(VALUE_SAT, output.script_pubkey)]);
    it.stops(
        Rule::FundingOutput,
        "a funding by another coin, so that two are paid",
        sign_psbt(&other_coin, Purpose::Funding),
    );
    let second = with_other_keys(&mut it.phone, &channel, 5);
    it.stops(
        Rule::SetupUnasked,
        "a second channel for the same wish",
        second,
    );
    it.phone.keys_id = KEYS_ID;
    it.phone.intend_force(&channel);
    it.goes(
        "the way back",
        sign_holder(&channel.holder_at(0, 1_000, FUNDER_SAT, 0)),
    );
}

/// A stranger opens a channel whose terms would hurt, and then offers payments that nobody asked for.
fn hostile_inbound(it: &mut Telling) {
    let draft = Channel::new(&mut it.phone);
    let with = |change: fn(&mut Channel)| {
        // The same keys: its phone has the same words.
        let mut channel = Channel::new(&mut Phone::new());
        change(&mut channel);
        channel.setup()
    };
    it.stops(
        Rule::SetupDelay,
        "the owner's money is locked for a year after a close",
        with(|it| {
            let theirs = it.parameters.counterparty_parameters.as_mut();
            theirs.expect("a whole channel").selected_contest_delay = 52_560;
        }),
    );
    it.stops(
        Rule::SetupDelay,
        "an old state pays the peer after six blocks",
        with(|it| it.parameters.holder_selected_contest_delay = 6),
    );
    it.stops(
        Rule::SetupType,
        "commitments whose fee cannot be raised",
        with(|it| {
            it.parameters.channel_type_features = ChannelTypeFeatures::only_static_remote_key()
        }),
    );
    it.stops(
        Rule::SetupUnasked,
        "the owner is to fund it",
        with(Channel::fund),
    );
    let Op::SetupChannel(setup) = draft.setup() else {
        unreachable!("it is a setup")
    };
    let terms = Some(ChannelTerms {
        owner_reserve_sat: VALUE_SAT / 2,
        ..TERMS
    });
    it.stops(
        Rule::SetupTerms,
        "the owner is to keep half of it",
        Op::SetupChannel(SetupChannel { terms, ..setup }),
    );
    it.goes("a channel with usual terms", draft.setup());
    it.stops(
        Rule::Balance,
        "a first commitment with an HTLC",
        sign(&draft.theirs(0, 400_000, &[Htlc::incoming([7; 32], 40_000_000)])),
    );
    it.all_go(
        "its first commitments",
        [
            validate(&draft.holder(0, 400_000, &[])),
            sign(&draft.theirs(0, 400_000, &[])),
        ],
    );
    let keysend = [Htlc::incoming([7; 32], 40_000_000)];
    it.all_go(
        "a payment without an invoice",
        draft.peers_update(1, 400_000, &keysend),
    );
    it.stops(
        Rule::PreimageUnknown,
        "its preimage",
        Op::GetPreimage(GetPreimage {
            payment_hash: vec![7; 32],
            htlcs: Vec::new(),
        }),
    );
    let crowded = [keysend[0], Htlc::outgoing([6; 32], 30_000_000)];
    it.stops(
        Rule::PaymentUnasked,
        "it comes in, and most of it goes out again",
        sign(&draft.theirs(2, 370_000, &crowded)),
    );
    it.all_go(
        "the payment is refused",
        [
            sign(&draft.theirs(2, 400_000, &[])),
            draft.revocation(1),
            validate(&draft.holder(2, 400_000, &[])),
            release(1),
        ],
    );
}

/// The peer is the host's own hub: what one of them knows, both do.
fn host_and_hub(it: &mut Telling) {
    let mut channel = Channel::new(&mut it.phone);
    it.phone.set_hub(channel.peer_node_id());
    it.stops(
        Rule::SetupDelay,
        "an old state pays the hub within a day",
        channel.setup(),
    );
    channel.delay_peer(1_008);
    let set_up = it.goes("an old state pays the hub within a week", channel.setup());
    if let Some(Answer::Setup(setup)) = set_up {
        let secret = setup.revocation_basepoint_secret;
        assert!(secret.is_empty(), "the hub's host has the revocation key");
    }
    it.all_go(
        "the first commitments",
        [
            validate(&channel.holder(0, 400_000, &[])),
            sign(&channel.theirs(0, 400_000, &[])),
        ],
    );
    // They know the hub's later secrets, and build its later commitments before these are signed.
    for step in [0, 1, 2] {
        let to = vec![(8_000, own_script(&it.phone, 9))];
        let op = justice(&channel, step, 9_000, to);
        let name = format!("justice for the hub's commitment {step}, which is not revoked");
        it.stops(Rule::JusticeUnrevoked, name, op);
    }
    let (transaction, op) = claim(&mut it.phone, &channel, true);
    let with = |transaction: &Transaction| {
        Op::SignCounterpartyHtlc(SignCounterpartyHtlc {
            transaction: encode(transaction),
            ..op.clone()
        })
    };
    it.goes(
        "the owner's HTLC is taken back when it has expired",
        with(&transaction),
    );
    let at_once = Transaction {
        lock_time: LockTime::ZERO,
        ..transaction
    };
    it.stops(
        Rule::NotOurOutput,
        "it is taken back at once, with the hub's signature",
        with(&at_once),
    );
    let theirs = channel.theirs(2, 400_000, &[]);
    it.stops(
        Rule::CounterpartyUnrevoked,
        "a third commitment of the hub, while two can be published",
        sign(&theirs),
    );
    it.goes("the hub revokes the first", channel.revocation(0));
    it.stops(
        Rule::Balance,
        "the HTLC leaves the hub's commitment, and the money with it",
        sign(&channel.theirs(2, 350_000, &[])),
    );
    let (keys_id, keys) = it.phone.more_keys([8; 32]);
    let mut second = channel.parameters.clone();
    second.holder_pubkeys = keys;
    it.phone.keys_id = keys_id;
    it.stops(
        Rule::SetupOutpoint,
        "a second channel in the same output, to count the money twice",
        channel.setup_with(&second),
    );
    it.phone.keys_id = KEYS_ID;
    it.phone.intend_force(&channel);
    it.goes(
        "the owner's commitment for broadcast",
        sign_holder(&channel.holder(0, 400_000, &[])),
    );
}
