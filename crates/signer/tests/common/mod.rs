//! A phone, a peer, and a channel between them. The peer signs with LDK's own signer, so that the phone gets what a
//! real peer would send.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)]

use bitcoin::hashes::Hash;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1};
use bitcoin::{Network, Txid};
use lightning::chain::transaction::OutPoint;
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, CommitmentTransaction, CounterpartyChannelTransactionParameters,
    HTLCOutputInCommitment, HolderCommitmentTransaction,
};
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::sign::{ChannelSigner, InMemorySigner, KeysManager};
use lightning::types::features::ChannelTypeFeatures;
use lightning::types::payment::PaymentHash;
use lightning::util::ser::{Readable, Writeable};
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::*;
use longhand_signer::{Rule, Seed, Signer};

pub const FIRST: u64 = (1 << 48) - 1;
pub const LEDGER_KEY: [u8; 32] = [4; 32];
/// The channel keys id that a phone with that ledger gives for sixteen bytes of 3.
pub const KEYS_ID: [u8; 32] = [
    3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3, 0x66, 0xdb, 0x1e, 0xd9, 0x16, 0x54, 0x61, 0x7c,
    0x46, 0xc6, 0x18, 0xf6, 0x9f, 0x7f, 0xe0, 0x2a,
];
pub const VALUE_SAT: u64 = 1_000_000;
pub const NOW: u64 = 1_800_000_000;
pub const WORDS: &str =
    "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

pub fn seed() -> Seed {
    Seed::from_words(WORDS).unwrap()
}

/// A phone with what it has written to disk.
pub struct Phone {
    pub signer: Signer,
    pub disk: Vec<Vec<u8>>,
    /// The time of its clock, in seconds since 1970.
    pub now_unix_s: u64,
    /// The operations that it was sent, and its answers.
    pub said: Vec<(SignerOp, Answer)>,
}

impl Phone {
    pub fn new() -> Phone {
        Phone {
            signer: Signer::new(&seed(), Network::Regtest, &LEDGER_KEY).unwrap(),
            disk: Vec::new(),
            now_unix_s: NOW,
            said: Vec::new(),
        }
    }

    pub fn ask_on(&mut self, keys_id: &[u8], op: Op) -> Result<Answer, Refusal> {
        let batch = SignerBatch {
            ops: vec![SignerOp {
                channel_keys_id: keys_id.to_vec(),
                op: Some(op),
            }],
        };
        let outcome = self.signer.handle(&batch, self.now_unix_s);
        self.keep(&outcome.records);
        let answers = outcome.reply.answers;
        let answer = answers.into_iter().next().unwrap().answer.unwrap();
        self.said.push((batch.ops[0].clone(), answer.clone()));
        match answer {
            Answer::Refusal(refusal) => {
                assert!(outcome.records.is_empty(), "a refusal left a trace");
                Err(refusal)
            }
            answer => Ok(answer),
        }
    }

    /// Asks on the test's channel.
    pub fn ask(&mut self, op: Op) -> Result<Answer, Refusal> {
        self.ask_on(&KEYS_ID, op)
    }

    /// Asks, and returns the rule that refused.
    pub fn refused(&mut self, op: Op) -> Rule {
        rule(&self.ask(op).expect_err("should have been refused"))
    }

    pub fn keep(&mut self, records: &[longhand_signer::LedgerRecord]) {
        self.disk
            .extend(records.iter().map(|record| record.as_bytes().to_vec()));
    }

    /// The phone stops and starts again from its disk.
    pub fn restart(&mut self) {
        self.signer = Signer::restore(&seed(), Network::Regtest, &LEDGER_KEY, &self.disk).unwrap();
    }
}

/// The rule that refused.
pub fn rule(refusal: &Refusal) -> Rule {
    refusal.rule.parse().unwrap()
}

/// Both sides of one channel.
pub struct Channel {
    pub secp: Secp256k1<All>,
    pub parameters: ChannelTransactionParameters,
    pub peer: InMemorySigner,
    pub peer_parameters: ChannelTransactionParameters,
    pub phone_points: Vec<PublicKey>,
}

impl Channel {
    /// With anchors, as the nodes open them.
    pub fn new(phone: &mut Phone) -> Channel {
        Channel::of_type(
            phone,
            ChannelTypeFeatures::anchors_zero_htlc_fee_and_dependencies(),
        )
    }

    pub fn of_type(phone: &mut Phone, channel_type_features: ChannelTypeFeatures) -> Channel {
        let funding = OutPoint {
            txid: Txid::from_byte_array([5; 32]),
            index: 0,
        };
        Channel::funded_by(phone, channel_type_features, funding)
    }

    pub fn funded_by(
        phone: &mut Phone,
        channel_type_features: ChannelTypeFeatures,
        funding: OutPoint,
    ) -> Channel {
        let secp = Secp256k1::new();
        let new = NewChannelKeys {
            channel_keys_id: KEYS_ID.to_vec(),
            points: 20,
        };
        let Ok(Answer::NewChannelKeys(keys)) = phone.ask_on(&[], Op::NewChannelKeys(new)) else {
            panic!()
        };
        let peer = KeysManager::new(&[8; 32], 1, 1, true).derive_channel_keys(&[9; 32]);
        let parameters = ChannelTransactionParameters {
            holder_pubkeys: Readable::read(&mut &keys.public_keys[..]).unwrap(),
            holder_selected_contest_delay: 144,
            is_outbound_from_holder: true,
            counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
                pubkeys: peer.pubkeys(&secp),
                selected_contest_delay: 288,
            }),
            funding_outpoint: Some(funding),
            splice_parent_funding_txid: None,
            channel_type_features,
            channel_value_satoshis: VALUE_SAT,
        };
        let peer_parameters = ChannelTransactionParameters {
            holder_pubkeys: peer.pubkeys(&secp),
            holder_selected_contest_delay: 288,
            is_outbound_from_holder: false,
            counterparty_parameters: Some(CounterpartyChannelTransactionParameters {
                pubkeys: parameters.holder_pubkeys.clone(),
                selected_contest_delay: 144,
            }),
            ..parameters.clone()
        };
        let phone_points = keys
            .points
            .iter()
            .map(|point| PublicKey::from_slice(point).unwrap())
            .collect();
        Channel {
            secp,
            parameters,
            peer,
            peer_parameters,
            phone_points,
        }
    }

    pub fn setup(&self) -> Op {
        self.setup_with(&self.parameters)
    }

    /// Of a channel with the same peer.
    pub fn setup_with(&self, parameters: &ChannelTransactionParameters) -> Op {
        Op::SetupChannel(SetupChannel {
            parameters: parameters.encode(),
            counterparty_node_id: self
                .peer
                .pubkeys(&self.secp)
                .funding_pubkey
                .serialize()
                .to_vec(),
        })
    }

    /// The phone's commitment number `step` (0 is the first), signed by the peer.
    pub fn holder(
        &self,
        step: u64,
        to_phone_sat: u64,
        htlcs: &[Htlc],
    ) -> HolderCommitmentTransaction {
        let htlcs: Vec<_> = htlcs.iter().map(|htlc| htlc.on(true)).collect();
        let spent: u64 = htlcs.iter().map(|htlc| htlc.amount_msat / 1000).sum();
        let commitment = CommitmentTransaction::new(
            FIRST - step,
            &self.phone_points[step as usize],
            to_phone_sat,
            VALUE_SAT - 10_000 - to_phone_sat - spent,
            1000,
            htlcs,
            &self.parameters.as_holder_broadcastable(),
            &self.secp,
        );
        self.signed(commitment)
    }

    pub fn signed(&self, commitment: CommitmentTransaction) -> HolderCommitmentTransaction {
        let (signature, htlc_signatures) = self
            .peer
            .sign_counterparty_commitment(
                &self.peer_parameters,
                &commitment,
                vec![],
                vec![],
                &self.secp,
            )
            .unwrap();
        let ours = self.parameters.holder_pubkeys.funding_pubkey;
        HolderCommitmentTransaction::new(
            commitment,
            signature,
            htlc_signatures,
            &ours,
            &self.peer_parameters.holder_pubkeys.funding_pubkey,
        )
    }

    /// The peer's commitment number `step`, which the phone is to sign.
    pub fn theirs(&self, step: u64, to_phone_sat: u64, htlcs: &[Htlc]) -> CommitmentTransaction {
        let htlcs: Vec<_> = htlcs.iter().map(|htlc| htlc.on(false)).collect();
        let spent: u64 = htlcs.iter().map(|htlc| htlc.amount_msat / 1000).sum();
        CommitmentTransaction::new(
            FIRST - step,
            &self
                .peer
                .get_per_commitment_point(FIRST - step, &self.secp)
                .unwrap(),
            VALUE_SAT - 10_000 - to_phone_sat - spent,
            to_phone_sat,
            1000,
            htlcs,
            &self.parameters.as_counterparty_broadcastable(),
            &self.secp,
        )
    }

    /// The peer's secret of its commitment number `step`.
    pub fn revocation(&self, step: u64) -> Op {
        let secret = self
            .peer
            .release_commitment_secret(FIRST - step)
            .unwrap()
            .to_vec();
        Op::CounterpartyRevocation(CounterpartyRevocation {
            index: FIRST - step,
            secret,
        })
    }

    /// Sets the channel up with its first commitments on both sides.
    pub fn open(phone: &mut Phone) -> Channel {
        let channel = Channel::new(phone);
        phone.ask(channel.setup()).unwrap();
        phone
            .ask(validate(&channel.holder(0, 400_000, &[])))
            .unwrap();
        phone.ask(sign(&channel.theirs(0, 400_000, &[]))).unwrap();
        channel
    }
}

/// An HTLC, seen by the phone.
#[derive(Clone, Copy)]
pub struct Htlc {
    pub incoming: bool,
    pub amount_msat: u64,
    pub cltv_expiry: u32,
    pub payment_hash: [u8; 32],
}

impl Htlc {
    pub fn incoming(payment_hash: [u8; 32], amount_msat: u64) -> Htlc {
        Htlc {
            incoming: true,
            amount_msat,
            cltv_expiry: 500,
            payment_hash,
        }
    }

    fn on(&self, phones_commitment: bool) -> HTLCOutputInCommitment {
        HTLCOutputInCommitment {
            offered: self.incoming != phones_commitment,
            amount_msat: self.amount_msat,
            cltv_expiry: self.cltv_expiry,
            payment_hash: PaymentHash(self.payment_hash),
            transaction_output_index: None,
        }
    }
}

pub fn validate(commitment: &HolderCommitmentTransaction) -> Op {
    let (commitment, outbound_preimages) = (commitment.encode(), Vec::new());
    Op::ValidateHolderCommitment(ValidateHolderCommitment {
        commitment,
        outbound_preimages,
    })
}

pub fn sign(commitment: &CommitmentTransaction) -> Op {
    let commitment = commitment.encode();
    Op::SignCounterpartyCommitment(SignCounterpartyCommitment {
        commitment,
        ..Default::default()
    })
}

/// Asks for the secret of the phone's commitment number `step`.
pub fn release(step: u64) -> Op {
    Op::ReleaseSecret(ReleaseSecret {
        index: FIRST - step,
    })
}

pub fn sign_holder(commitment: &HolderCommitmentTransaction) -> Op {
    Op::SignHolderCommitment(SignHolderCommitment {
        commitment: commitment.encode(),
    })
}
