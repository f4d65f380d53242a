//! Any input of a host gets an answer of the phone: a result or a refusal. The phone never panics, and a refusal
//! changes nothing.

use std::sync::OnceLock;

use bitcoin::ScriptBuf;
use bitcoin::consensus::serialize;
use lightning::ln::msgs::UnsignedChannelAnnouncement;
use lightning::routing::gossip::NodeId;
use lightning::sign::{
    ChannelDerivationParameters, DelayedPaymentOutputDescriptor, HTLCDescriptor,
    SpendableOutputDescriptor, StaticPaymentOutputDescriptor,
};
use lightning::types::features::ChannelFeatures;
use lightning::util::ser::Writeable;
use longhand_lying_host::scene::*;
use longhand_proto::signer::sign_gossip::Message as Gossip;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::*;
use longhand_signer::Keychain;
use proptest::prelude::*;

/// Every byte string of every operation, filled from `bytes`.
fn operations(bytes: &[u8], number: u64) -> Vec<Op> {
    let b = || bytes.to_vec();
    let (small, htlcs) = (
        number as u32,
        vec![ClaimableHtlc {
            channel_keys_id: b(),
            amount_msat: number,
            cltv_expiry: 1,
        }],
    );
    vec![
        Op::NewChannelKeys(NewChannelKeys {
            channel_keys_id: b(),
            points: small,
        }),
        Op::Ecdh(Ecdh {
            act: b(),
            dialed_node_id: Vec::new(),
        }),
        Op::Ecdh(Ecdh {
            act: b(),
            dialed_node_id: b(),
        }),
        Op::PeelOnion(PeelOnion {
            channel_keys_id: b(),
            update_add_htlc: b(),
        }),
        Op::SignGossip(SignGossip { message: None }),
        Op::SignGossip(SignGossip {
            message: Some(Gossip::ChannelUpdate(b())),
        }),
        Op::SignGossip(SignGossip {
            message: Some(Gossip::NodeAnnouncement(b())),
        }),
        Op::SignGossip(SignGossip {
            message: Some(Gossip::ChannelAnnouncement(b())),
        }),
        Op::SignPsbt(SignPsbt {
            psbt: b(),
            purpose: small as i32,
        }),
        Op::SpendOutputs(SpendOutputs {
            descriptors: vec![b()],
            change_script: b(),
            locktime: small,
            ..Default::default()
        }),
        Op::GetPreimage(GetPreimage {
            payment_hash: b(),
            htlcs,
        }),
        Op::SetupChannel(SetupChannel {
            parameters: b(),
            counterparty_node_id: b(),
            ..Default::default()
        }),
        Op::GetPoints(GetPoints {
            first_index: number,
            count: small,
        }),
        Op::ValidateHolderCommitment(ValidateHolderCommitment {
            commitment: b(),
            outbound_preimages: vec![b()],
        }),
        Op::ReleaseSecret(ReleaseSecret { index: number }),
        Op::SignCounterpartyCommitment(SignCounterpartyCommitment {
            commitment: b(),
            ..Default::default()
        }),
        Op::CounterpartyRevocation(CounterpartyRevocation {
            index: number,
            secret: b(),
        }),
        Op::SignClosing(SignClosing {
            to_holder_sat: number,
            to_counterparty_sat: number,
            to_holder_script: b(),
            to_counterparty_script: b(),
            funding_outpoint: b(),
            to_holder_keychain: small,
            to_holder_index: small,
        }),
        Op::SignHolderCommitment(SignHolderCommitment { commitment: b() }),
        Op::SignHolderHtlc(SignHolderHtlc {
            transaction: b(),
            input: small,
            descriptor: b(),
        }),
        Op::SignCounterpartyHtlc(SignCounterpartyHtlc {
            transaction: b(),
            htlc: b(),
            ..Default::default()
        }),
        Op::SignJustice(SignJustice {
            transaction: b(),
            htlc: b(),
            per_commitment_secret: b(),
            ..Default::default()
        }),
        Op::SignAnchor(SignAnchor {
            transaction: b(),
            input: small,
        }),
        Op::SignChannelAnnouncement(SignChannelAnnouncement { message: b() }),
    ]
}

/// Bytes to damage, and the operation that carries them.
type Carried = (Vec<u8>, fn(Vec<u8>) -> Op);

/// The disk of a phone with a living channel, and that channel's operations.
static LIVING: OnceLock<(Vec<Vec<u8>>, Vec<Carried>)> = OnceLock::new();

fn living(phone: &Phone, channel: &Channel) -> Vec<Carried> {
    let htlcs = [
        Htlc::incoming([1; 32], 50_000_000),
        Htlc {
            incoming: false,
            ..Htlc::incoming([2; 32], 40_000_000)
        },
    ];
    let ours = channel.holder(1, 400_000, &htlcs);
    let theirs = channel.theirs(1, 400_000, &htlcs);
    let keys = ours.trust().keys().clone();
    let output = bitcoin::TxOut {
        value: bitcoin::Amount::from_sat(9_000),
        script_pubkey: ScriptBuf::new(),
    };
    let static_output = StaticPaymentOutputDescriptor {
        outpoint: channel.parameters.funding_outpoint.unwrap(),
        output: output.clone(),
        channel_keys_id: KEYS_ID,
        channel_value_satoshis: VALUE_SAT,
        channel_transaction_parameters: Some(channel.parameters.clone()),
    };
    let delayed_output = DelayedPaymentOutputDescriptor {
        outpoint: channel.parameters.funding_outpoint.unwrap(),
        per_commitment_point: keys.per_commitment_point,
        to_self_delay: 288,
        output,
        revocation_pubkey: keys.revocation_key,
        channel_keys_id: KEYS_ID,
        channel_value_satoshis: VALUE_SAT,
        channel_transaction_parameters: Some(channel.parameters.clone()),
    };
    let htlc = HTLCDescriptor {
        channel_derivation_parameters: ChannelDerivationParameters {
            value_satoshis: VALUE_SAT,
            keys_id: KEYS_ID,
            transaction_parameters: channel.parameters.clone(),
        },
        commitment_txid: ours.trust().txid(),
        per_commitment_number: FIRST - 1,
        per_commitment_point: channel.phone_points[1],
        feerate_per_kw: 1000,
        htlc: ours.nondust_htlcs()[0].clone(),
        preimage: None,
        counterparty_sig: ours.counterparty_htlc_sigs[0],
    };
    let node = NodeId::from_pubkey(&phone.signer.keys().node_id());
    let announcement = UnsignedChannelAnnouncement {
        features: ChannelFeatures::empty(),
        chain_hash: bitcoin::constants::ChainHash::REGTEST,
        short_channel_id: 1,
        node_id_1: node,
        node_id_2: node,
        bitcoin_key_1: node,
        bitcoin_key_2: NodeId::from_pubkey(&channel.parameters.holder_pubkeys.funding_pubkey),
        excess_data: vec![],
    };
    fn sweep(descriptor: Vec<u8>) -> Op {
        let change_script = own_script_0();
        Op::SpendOutputs(SpendOutputs {
            descriptors: vec![descriptor],
            change_script,
            ..Default::default()
        })
    }
    fn holder_htlc(descriptor: Vec<u8>) -> Op {
        Op::SignHolderHtlc(SignHolderHtlc {
            transaction: some_transaction(),
            input: 0,
            descriptor,
        })
    }
    fn peer_htlc(htlc: Vec<u8>) -> Op {
        let per_commitment_point = bitcoin::secp256k1::constants::GENERATOR_X;
        let per_commitment_point = [&[2u8][..], &per_commitment_point].concat();
        let (transaction, amount_sat) = (some_transaction(), 5);
        Op::SignCounterpartyHtlc(SignCounterpartyHtlc {
            transaction,
            input: 0,
            amount_sat,
            per_commitment_point,
            htlc,
            ..Default::default()
        })
    }
    fn justice(htlc: Vec<u8>) -> Op {
        let (transaction, per_commitment_secret) = (some_transaction(), vec![1; 32]);
        Op::SignJustice(SignJustice {
            transaction,
            input: 0,
            amount_sat: 5,
            per_commitment_secret,
            htlc,
            ..Default::default()
        })
    }
    let ours_htlc = ours.nondust_htlcs()[0].encode();
    vec![
        (ours.encode(), |commitment| {
            Op::ValidateHolderCommitment(ValidateHolderCommitment {
                commitment,
                ..Default::default()
            })
        }),
        (channel.holder(0, 400_000, &[]).encode(), |commitment| {
            Op::ValidateHolderCommitment(ValidateHolderCommitment {
                commitment,
                ..Default::default()
            })
        }),
        (channel.holder(0, 400_000, &[]).encode(), |commitment| {
            Op::SignHolderCommitment(SignHolderCommitment { commitment })
        }),
        (theirs.encode(), |commitment| {
            Op::SignCounterpartyCommitment(SignCounterpartyCommitment {
                commitment,
                ..Default::default()
            })
        }),
        (channel.theirs(0, 400_000, &[]).encode(), |commitment| {
            Op::SignCounterpartyCommitment(SignCounterpartyCommitment {
                commitment,
                ..Default::default()
            })
        }),
        (channel.parameters.encode(), |parameters| {
            let counterparty_node_id =
                [&[2u8][..], &bitcoin::secp256k1::constants::GENERATOR_X].concat();
            Op::SetupChannel(SetupChannel {
                parameters,
                counterparty_node_id,
                terms: Some(ChannelTerms::default()),
                ..Default::default()
            })
        }),
        (
            SpendableOutputDescriptor::StaticPaymentOutput(static_output).encode(),
            sweep,
        ),
        (
            SpendableOutputDescriptor::DelayedPaymentOutput(delayed_output).encode(),
            sweep,
        ),
        (htlc.encode(), holder_htlc),
        (ours_htlc.clone(), peer_htlc),
        (ours_htlc, justice),
        (announcement.encode(), |message| {
            Op::SignChannelAnnouncement(SignChannelAnnouncement { message })
        }),
    ]
}

fn some_transaction() -> Vec<u8> {
    let input = bitcoin::TxIn::default();
    let output = bitcoin::TxOut {
        value: bitcoin::Amount::ONE_SAT,
        script_pubkey: ScriptBuf::new(),
    };
    let (version, lock_time) = (
        bitcoin::transaction::Version::TWO,
        bitcoin::absolute::LockTime::ZERO,
    );
    serialize(&bitcoin::Transaction {
        version,
        lock_time,
        input: vec![input],
        output: vec![output],
    })
}

fn own_script_0() -> Vec<u8> {
    Phone::new()
        .signer
        .own_script(Keychain::External, 0)
        .unwrap()
        .to_bytes()
}

#[test]
fn an_operation_of_a_newer_version_is_refused_alone() {
    let mut phone = Phone::new();
    let unknown = SignerOp {
        channel_keys_id: vec![],
        op: None,
    };
    let known = Op::GetPoints(GetPoints {
        first_index: FIRST,
        count: 1,
    });
    let known = SignerOp {
        channel_keys_id: KEYS_ID.to_vec(),
        op: Some(known),
    };
    let outcome = phone.signer.handle(
        &SignerBatch {
            ops: vec![unknown, known],
        },
        NOW,
    );
    let answers: Vec<_> = outcome
        .reply
        .answers
        .into_iter()
        .map(|answer| answer.answer.unwrap())
        .collect();
    assert!(matches!(
        answers[..],
        [
            signer_answer::Answer::Refusal(_),
            signer_answer::Answer::Points(_)
        ]
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_is_answered(bytes in prop::collection::vec(any::<u8>(), 0..200), number: u64, keys in any::<bool>()) {
        let mut phone = Phone::new();
        let id = if keys { KEYS_ID.to_vec() } else { bytes.clone() };
        for op in operations(&bytes, number) {
            let _ = phone.ask_on(&id, op);
        }
    }

    #[test]
    fn damaged_operations_are_answered(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 1..4)) {
        let (disk, operations) = LIVING.get_or_init(|| {
            let mut phone = Phone::new();
            let channel = Channel::open(&mut phone);
            let operations = living(&phone, &channel);
            (phone.disk, operations)
        });
        let mut phone = Phone::new();
        phone.disk = disk.clone();
        phone.restart();
        for (good, make) in operations {
            let mut bytes = good.clone();
            for (place, byte, kind) in &damage {
                let place = place.index(bytes.len().max(1)).min(bytes.len().saturating_sub(1));
                match kind {
                    0 if !bytes.is_empty() => bytes[place] = *byte,
                    1 => bytes.insert(place, *byte),
                    2 if !bytes.is_empty() => { bytes.remove(place); }
                    _ => bytes.truncate(place),
                }
            }
            let before = phone.signer.version();
            let answered = phone.ask(make(bytes)).is_ok();
            prop_assert!(answered || phone.signer.version() == before);
        }
    }
}
