//! A channel of the phone, with a peer that signs anything: it has its own keys, and LDK's signer for them.

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Amount, OutPoint as BitcoinOutPoint, ScriptBuf, Transaction, TxIn, TxOut};
use lightning::chain::transaction::OutPoint;
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, CommitmentTransaction, CounterpartyChannelTransactionParameters,
    HTLCOutputInCommitment, HolderCommitmentTransaction, build_htlc_transaction,
};
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::sign::{
    ChannelDerivationParameters, ChannelSigner, HTLCDescriptor, InMemorySigner, KeysManager,
};
use lightning::types::features::ChannelTypeFeatures;
use lightning::types::payment::PaymentHash;
use lightning::util::ser::{Readable, Writeable};
use longhand_lying_host::chain::funding_transaction;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{ChannelTerms, NewChannelKeys, SetupChannel};

use longhand_signer::audit::FIRST;

use crate::audited::AuditedSigner;
use crate::secp::secp;

pub(crate) const VALUE_SAT: u64 = 1_000_000;
const FEE_SAT: u64 = 10_000;
const FEERATE_SAT_PER_KW: u32 = 1_000;
/// Commitments of each side that can be made.
pub(crate) const STATES: u64 = 24;

/// An HTLC as the phone sees it.
#[derive(Clone, Copy)]
pub(crate) struct Htlc {
    pub incoming: bool,
    pub amount_msat: u64,
    pub payment_hash: [u8; 32],
}

/// Both sides' keys of one channel.
pub(crate) struct Channel {
    pub keys_id: Vec<u8>,
    pub parameters: ChannelTransactionParameters,
    peer: InMemorySigner,
    peer_parameters: ChannelTransactionParameters,
    points: Vec<PublicKey>,
}

impl Channel {
    /// With keys that the phone gives for it. The phone has no setup of it yet.
    pub fn new(phone: &mut AuditedSigner) -> Channel {
        let asked = Op::NewChannelKeys(NewChannelKeys {
            channel_keys_id: vec![3; 32],
            points: STATES as u32,
        });
        let Answer::NewChannelKeys(keys) = phone.ask_one(&[], asked) else {
            panic!("no keys")
        };
        let peer = KeysManager::new(&[8; 32], 1, 1, true).derive_channel_keys(&[9; 32]);
        let mut parameters = ChannelTransactionParameters {
            holder_pubkeys: Readable::read(&mut &keys.public_keys[..]).unwrap(),
            holder_selected_contest_delay: 144,
            is_outbound_from_holder: false,
            counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
                pubkeys: peer.pubkeys(secp()),
                selected_contest_delay: 288,
            }),
            funding_outpoint: None,
            splice_parent_funding_txid: None,
            channel_type_features: ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies(),
            channel_value_satoshis: VALUE_SAT,
        };
        let txid = funding_transaction(&parameters).compute_txid();
        parameters.funding_outpoint = Some(OutPoint { txid, index: 0 });
        let peer_parameters = ChannelTransactionParameters {
            holder_pubkeys: peer.pubkeys(secp()),
            holder_selected_contest_delay: 288,
            is_outbound_from_holder: true,
            counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
                pubkeys: parameters.holder_pubkeys.clone(),
                selected_contest_delay: 144,
            }),
            ..parameters.clone()
        };
        let points = keys.points.iter();
        Channel {
            keys_id: keys.channel_keys_id,
            parameters,
            peer,
            peer_parameters,
            points: points
                .map(|point| PublicKey::from_slice(point).unwrap())
                .collect(),
        }
    }

    pub fn setup(&self) -> Op {
        let peer = self.peer.pubkeys(secp()).funding_pubkey;
        Op::SetupChannel(SetupChannel {
            parameters: self.parameters.encode(),
            counterparty_node_id: peer.serialize().to_vec(),
            opening_id: Vec::new(),
            terms: Some(ChannelTerms::default()),
        })
    }

    /// The phone's commitment number `state` (0 is the first), signed by the peer.
    pub fn ours(
        &self,
        state: u64,
        to_phone_sat: u64,
        htlcs: &[Htlc],
    ) -> HolderCommitmentTransaction {
        let commitment = CommitmentTransaction::new(
            FIRST - state,
            &self.points[state as usize],
            to_phone_sat,
            rest_sat(to_phone_sat, htlcs),
            FEERATE_SAT_PER_KW,
            on(htlcs, true),
            &self.parameters.as_holder_broadcastable(),
            secp(),
        );
        let (signature, htlc_signatures) = self
            .peer
            .sign_counterparty_commitment(
                &self.peer_parameters,
                &commitment,
                vec![],
                vec![],
                secp(),
            )
            .unwrap();
        HolderCommitmentTransaction::new(
            commitment,
            signature,
            htlc_signatures,
            &self.parameters.holder_pubkeys.funding_pubkey,
            &self.peer_parameters.holder_pubkeys.funding_pubkey,
        )
    }

    /// The peer's commitment number `state`, for the phone to sign.
    pub fn theirs(&self, state: u64, to_phone_sat: u64, htlcs: &[Htlc]) -> CommitmentTransaction {
        CommitmentTransaction::new(
            FIRST - state,
            &self.peer_point(state),
            rest_sat(to_phone_sat, htlcs),
            to_phone_sat,
            FEERATE_SAT_PER_KW,
            on(htlcs, false),
            &self.parameters.as_counterparty_broadcastable(),
            secp(),
        )
    }

    pub fn peer_point(&self, state: u64) -> PublicKey {
        let point = self.peer.get_per_commitment_point(FIRST - state, secp());
        point.unwrap()
    }

    /// The peer's secret of its commitment number `state`.
    pub fn peer_secret(&self, state: u64) -> Vec<u8> {
        let secret = self.peer.release_commitment_secret(FIRST - state);
        secret.unwrap().to_vec()
    }

    /// The transaction of the phone's first HTLC in `commitment`, and its descriptor.
    pub fn htlc_claim(
        &self,
        commitment: &HolderCommitmentTransaction,
    ) -> Option<(Transaction, HTLCDescriptor)> {
        let htlc = commitment.nondust_htlcs().first()?;
        let trusted = commitment.trust();
        let transaction = build_htlc_transaction(
            &trusted.txid(),
            FEERATE_SAT_PER_KW,
            288,
            htlc,
            &self.parameters.channel_type_features,
            &trusted.keys().broadcaster_delayed_payment_key,
            &trusted.keys().revocation_key,
        );
        let descriptor = HTLCDescriptor {
            channel_derivation_parameters: ChannelDerivationParameters {
                value_satoshis: VALUE_SAT,
                keys_id: self.keys_id.as_slice().try_into().unwrap(),
                transaction_parameters: self.parameters.clone(),
            },
            commitment_txid: trusted.txid(),
            per_commitment_number: commitment.commitment_number(),
            per_commitment_point: commitment.per_commitment_point(),
            feerate_per_kw: FEERATE_SAT_PER_KW,
            htlc: htlc.clone(),
            preimage: None,
            counterparty_sig: *commitment.counterparty_htlc_sigs.first()?,
        };
        Some((transaction, descriptor))
    }
}

/// A transaction that spends the first output of `commitment`.
pub(crate) fn spending(commitment: &CommitmentTransaction) -> Transaction {
    let input = TxIn {
        previous_output: BitcoinOutPoint::new(commitment.trust().txid(), 0),
        ..TxIn::default()
    };
    let output = TxOut {
        value: Amount::ONE_SAT,
        script_pubkey: ScriptBuf::new(),
    };
    Transaction {
        version: bitcoin::transaction::Version::TWO,
        lock_time: bitcoin::absolute::LockTime::ZERO,
        input: vec![input],
        output: vec![output],
    }
}

fn rest_sat(to_phone_sat: u64, htlcs: &[Htlc]) -> u64 {
    let in_htlcs: u64 = htlcs.iter().map(|htlc| htlc.amount_msat / 1_000).sum();
    VALUE_SAT - FEE_SAT - to_phone_sat - in_htlcs
}

fn on(htlcs: &[Htlc], phones_commitment: bool) -> Vec<HTLCOutputInCommitment> {
    let htlc = |htlc: &Htlc| HTLCOutputInCommitment {
        offered: htlc.incoming != phones_commitment,
        amount_msat: htlc.amount_msat,
        cltv_expiry: 500,
        payment_hash: PaymentHash(htlc.payment_hash),
        transaction_output_index: None,
    };
    htlcs.iter().map(htlc).collect()
}
