//! LDK's signer of one channel: with local keys, or a proxy for the phone's.
//!
//! The proxy answers from the desk or returns `Err`, at which LDK pauses that channel; `signer_unblocked` makes it ask again
//! when the answer is there.

use std::sync::Arc;

use bitcoin::consensus;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use bitcoin::{Transaction, Txid};
use lightning::ln::chan_utils::{
    ChannelPublicKeys, ChannelTransactionParameters, ClosingTransaction, CommitmentTransaction,
    HTLCOutputInCommitment, HolderCommitmentTransaction,
};
use lightning::ln::msgs::UnsignedChannelAnnouncement;
use lightning::sign::ecdsa::EcdsaChannelSigner;
use lightning::sign::{self, HTLCDescriptor, InMemorySigner};
use lightning::types::payment::PaymentPreimage;
use lightning::util::ser::Writeable;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{
    CommitmentSignatures, CounterpartyRevocation, ReleaseSecret, SignAnchor,
    SignChannelAnnouncement, SignClosing, SignCounterpartyCommitment, SignCounterpartyHtlc,
    SignHolderCommitment, SignHolderHtlc, SignJustice, ValidateHolderCommitment,
};

use super::channel_keys::KeysId;
use super::justice::{self, RevokedOutput};
use super::remote::Remote;
use super::verify;

/// See the module.
pub(crate) enum ChannelSigner {
    Local(Box<InMemorySigner>),
    Remote(RemoteSigner),
}

/// Asks the phone.
pub(crate) struct RemoteSigner {
    pub remote: Arc<Remote>,
    pub keys_id: KeysId,
}

/// Both kinds answer the same call with the same arguments.
macro_rules! either {
    ($self:ident, $signer:ident => $call:expr) => {
        match $self {
            ChannelSigner::Local($signer) => $call,
            ChannelSigner::Remote($signer) => $call,
        }
    };
}

fn signature(answer: Option<Answer>) -> Result<Signature, ()> {
    match answer {
        Some(Answer::Signature(bytes)) => Signature::from_compact(&bytes).map_err(|_| ()),
        _ => Err(()),
    }
}

fn preimages(preimages: Vec<PaymentPreimage>) -> Vec<Vec<u8>> {
    preimages
        .into_iter()
        .map(|preimage| preimage.0.to_vec())
        .collect()
}

impl RemoteSigner {
    fn ask(&self, op: Op) -> Option<Answer> {
        self.remote.ask(self.keys_id, op)
    }

    fn justice(&self, output: &RevokedOutput<'_>, secp: &Secp256k1<All>) -> Result<Signature, ()> {
        if let Some(secret) = self.remote.revocation_basepoint_secret(&self.keys_id) {
            return justice::sign(output, &secret, secp).ok_or(());
        }
        let (keychain, index) = self.destination(output.justice_tx);
        signature(self.ask(Op::SignJustice(SignJustice {
            transaction: consensus::serialize(output.justice_tx),
            input: output.input as u32,
            amount_sat: output.amount_sat,
            per_commitment_secret: output.per_commitment_key.secret_bytes().to_vec(),
            htlc: output.htlc.map(|htlc| htlc.encode()).unwrap_or_default(),
            keychain,
            index,
        })))
    }

    fn closing_signature(
        &self,
        channel_parameters: &ChannelTransactionParameters,
        closing_tx: &ClosingTransaction,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        let script = closing_tx.to_holder_script();
        let (to_holder_keychain, to_holder_index) = self.remote.path_of(script).unwrap_or_default();
        let outpoint = channel_parameters
            .funding_outpoint
            .ok_or(())?
            .into_bitcoin_outpoint();
        let signature = signature(self.ask(Op::SignClosing(SignClosing {
            to_holder_sat: closing_tx.to_holder_value_sat(),
            to_counterparty_sat: closing_tx.to_counterparty_value_sat(),
            to_holder_script: script.to_bytes(),
            to_counterparty_script: closing_tx.to_counterparty_script().to_bytes(),
            funding_outpoint: consensus::serialize(&outpoint),
            to_holder_keychain,
            to_holder_index,
        })))?;
        verify::closing(channel_parameters, closing_tx, &signature, secp)
            .ok_or_else(|| wrong("closing"))?;
        Ok(signature)
    }

    /// The position in the owner's wallet of the script that a claim pays.
    fn destination(&self, claim: &Transaction) -> (u32, u32) {
        let output = claim.output.first();
        let path = output.and_then(|output| self.remote.path_of(&output.script_pubkey));
        path.unwrap_or_default()
    }
}

impl sign::ChannelSigner for RemoteSigner {
    fn get_per_commitment_point(&self, idx: u64, _: &Secp256k1<All>) -> Result<PublicKey, ()> {
        self.remote.point(&self.keys_id, idx).ok_or(())
    }

    fn release_commitment_secret(&self, idx: u64) -> Result<[u8; 32], ()> {
        let answer = self.ask(Op::ReleaseSecret(ReleaseSecret { index: idx }));
        let Some(Answer::Secret(bytes)) = answer else {
            return Err(());
        };
        let secret = SecretKey::from_slice(&bytes).map_err(|_| ())?;
        self.remote.check_secret(&self.keys_id, idx, &secret)?;
        Ok(secret.secret_bytes())
    }

    /// The phone validates it later; until it has, it releases no secret of an older commitment.
    fn validate_holder_commitment(
        &self,
        holder_tx: &HolderCommitmentTransaction,
        outbound_htlc_preimages: Vec<PaymentPreimage>,
    ) -> Result<(), ()> {
        self.remote.holder_signed(self.keys_id, holder_tx);
        let op = ValidateHolderCommitment {
            commitment: holder_tx.encode(),
            outbound_preimages: preimages(outbound_htlc_preimages),
        };
        self.remote
            .must_reach_phone(self.keys_id, Op::ValidateHolderCommitment(op));
        Ok(())
    }

    /// The phone checks it later; until it has, it signs no further commitment of the peer.
    fn validate_counterparty_revocation(&self, idx: u64, secret: &SecretKey) -> Result<(), ()> {
        let op = CounterpartyRevocation {
            index: idx,
            secret: secret.secret_bytes().to_vec(),
        };
        self.remote
            .must_reach_phone(self.keys_id, Op::CounterpartyRevocation(op));
        Ok(())
    }

    fn pubkeys(&self, _: &Secp256k1<All>) -> ChannelPublicKeys {
        self.remote.public_keys(&self.keys_id)
    }

    /// Never called: splices are refused (`reject_inbound_splices`), and none is started.
    fn new_funding_pubkey(&self, _: Txid, secp: &Secp256k1<All>) -> PublicKey {
        self.pubkeys(secp).funding_pubkey
    }

    fn channel_keys_id(&self) -> [u8; 32] {
        self.keys_id
    }
}

impl EcdsaChannelSigner for RemoteSigner {
    fn sign_counterparty_commitment(
        &self,
        channel_parameters: &ChannelTransactionParameters,
        commitment_tx: &CommitmentTransaction,
        inbound_htlc_preimages: Vec<PaymentPreimage>,
        outbound_htlc_preimages: Vec<PaymentPreimage>,
        secp: &Secp256k1<All>,
    ) -> Result<(Signature, Vec<Signature>), ()> {
        self.remote.set_up(self.keys_id, channel_parameters);
        let answer = self.ask(Op::SignCounterpartyCommitment(SignCounterpartyCommitment {
            commitment: commitment_tx.encode(),
            inbound_preimages: preimages(inbound_htlc_preimages),
            outbound_preimages: preimages(outbound_htlc_preimages),
            // Added when it is sent, see `trimmed.rs`.
            trimmed: Vec::new(),
        }));
        let Some(Answer::CommitmentSignatures(answer)) = answer else {
            return Err(());
        };
        let signed = check_commitment_signatures(channel_parameters, commitment_tx, &answer, secp)?;
        self.remote.counterparty_signed(self.keys_id, commitment_tx);
        Ok(signed)
    }

    fn sign_holder_commitment(
        &self,
        _: &ChannelTransactionParameters,
        commitment_tx: &HolderCommitmentTransaction,
        _: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        let op = SignHolderCommitment {
            commitment: commitment_tx.encode(),
        };
        signature(self.ask(Op::SignHolderCommitment(op)))
    }

    fn sign_justice_revoked_output(
        &self,
        parameters: &ChannelTransactionParameters,
        justice_tx: &Transaction,
        input: usize,
        amount: u64,
        per_commitment_key: &SecretKey,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        let output = RevokedOutput {
            parameters,
            justice_tx,
            input,
            amount_sat: amount,
            per_commitment_key,
            htlc: None,
        };
        self.justice(&output, secp)
    }

    fn sign_justice_revoked_htlc(
        &self,
        parameters: &ChannelTransactionParameters,
        justice_tx: &Transaction,
        input: usize,
        amount: u64,
        per_commitment_key: &SecretKey,
        htlc: &HTLCOutputInCommitment,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        let output = RevokedOutput {
            parameters,
            justice_tx,
            input,
            amount_sat: amount,
            per_commitment_key,
            htlc: Some(htlc),
        };
        self.justice(&output, secp)
    }

    fn sign_holder_htlc_transaction(
        &self,
        htlc_tx: &Transaction,
        input: usize,
        htlc_descriptor: &HTLCDescriptor,
        _: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        signature(self.ask(Op::SignHolderHtlc(SignHolderHtlc {
            transaction: consensus::serialize(htlc_tx),
            input: input as u32,
            descriptor: htlc_descriptor.encode(),
        })))
    }

    fn sign_counterparty_htlc_transaction(
        &self,
        _: &ChannelTransactionParameters,
        htlc_tx: &Transaction,
        input: usize,
        amount: u64,
        per_commitment_point: &PublicKey,
        htlc: &HTLCOutputInCommitment,
        _: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        let (keychain, index) = self.destination(htlc_tx);
        signature(self.ask(Op::SignCounterpartyHtlc(SignCounterpartyHtlc {
            transaction: consensus::serialize(htlc_tx),
            input: input as u32,
            amount_sat: amount,
            per_commitment_point: per_commitment_point.serialize().to_vec(),
            htlc: htlc.encode(),
            keychain,
            index,
        })))
    }

    fn sign_closing_transaction(
        &self,
        channel_parameters: &ChannelTransactionParameters,
        closing_tx: &ClosingTransaction,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        let signature = self.closing_signature(channel_parameters, closing_tx, secp);
        self.remote.close_asked(self.keys_id, signature.is_ok());
        signature
    }

    fn sign_holder_keyed_anchor_input(
        &self,
        _: &ChannelTransactionParameters,
        anchor_tx: &Transaction,
        input: usize,
        _: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        let transaction = consensus::serialize(anchor_tx);
        signature(self.ask(Op::SignAnchor(SignAnchor {
            transaction,
            input: input as u32,
        })))
    }

    fn sign_channel_announcement_with_funding_key(
        &self,
        channel_parameters: &ChannelTransactionParameters,
        msg: &UnsignedChannelAnnouncement,
        _: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        let message = msg.encode();
        let op = SignChannelAnnouncement {
            message: message.clone(),
        };
        let signature = signature(self.ask(Op::SignChannelAnnouncement(op)))?;
        let key = &channel_parameters.holder_pubkeys.funding_pubkey;
        verify::gossip(&message, &signature, key).ok_or_else(|| wrong("announcement"))?;
        Ok(signature)
    }

    fn sign_splice_shared_input(
        &self,
        _: &ChannelTransactionParameters,
        _: &Transaction,
        _: usize,
        _: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        Err(())
    }
}

/// The signatures of an answer, when all of them are valid.
fn check_commitment_signatures(
    parameters: &ChannelTransactionParameters,
    commitment: &CommitmentTransaction,
    answer: &CommitmentSignatures,
    secp: &Secp256k1<All>,
) -> Result<(Signature, Vec<Signature>), ()> {
    let read = |bytes: &Vec<u8>| Signature::from_compact(bytes).map_err(|_| ());
    let signature = read(&answer.signature)?;
    let htlc_signatures = answer
        .htlc_signatures
        .iter()
        .map(read)
        .collect::<Result<Vec<_>, _>>()?;
    verify::commitment(parameters, commitment, &signature, &htlc_signatures, secp)
        .ok_or_else(|| wrong("commitment"))?;
    Ok((signature, htlc_signatures))
}

fn wrong(kind: &str) {
    tracing::error!("the signer gave a wrong {kind} signature; it was not sent");
}

impl sign::ChannelSigner for ChannelSigner {
    fn get_per_commitment_point(&self, idx: u64, secp: &Secp256k1<All>) -> Result<PublicKey, ()> {
        either!(self, s => s.get_per_commitment_point(idx, secp))
    }
    fn release_commitment_secret(&self, idx: u64) -> Result<[u8; 32], ()> {
        either!(self, s => s.release_commitment_secret(idx))
    }
    fn validate_holder_commitment(
        &self,
        holder_tx: &HolderCommitmentTransaction,
        preimages: Vec<PaymentPreimage>,
    ) -> Result<(), ()> {
        either!(self, s => s.validate_holder_commitment(holder_tx, preimages))
    }
    fn validate_counterparty_revocation(&self, idx: u64, secret: &SecretKey) -> Result<(), ()> {
        either!(self, s => s.validate_counterparty_revocation(idx, secret))
    }
    fn pubkeys(&self, secp: &Secp256k1<All>) -> ChannelPublicKeys {
        either!(self, s => s.pubkeys(secp))
    }
    fn new_funding_pubkey(&self, parent: Txid, secp: &Secp256k1<All>) -> PublicKey {
        either!(self, s => s.new_funding_pubkey(parent, secp))
    }
    fn channel_keys_id(&self) -> [u8; 32] {
        either!(self, s => s.channel_keys_id())
    }
}

impl EcdsaChannelSigner for ChannelSigner {
    fn sign_counterparty_commitment(
        &self,
        parameters: &ChannelTransactionParameters,
        tx: &CommitmentTransaction,
        inbound: Vec<PaymentPreimage>,
        outbound: Vec<PaymentPreimage>,
        secp: &Secp256k1<All>,
    ) -> Result<(Signature, Vec<Signature>), ()> {
        either!(self, s => s.sign_counterparty_commitment(parameters, tx, inbound, outbound, secp))
    }
    fn sign_holder_commitment(
        &self,
        parameters: &ChannelTransactionParameters,
        tx: &HolderCommitmentTransaction,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        either!(self, s => s.sign_holder_commitment(parameters, tx, secp))
    }
    fn sign_justice_revoked_output(
        &self,
        parameters: &ChannelTransactionParameters,
        tx: &Transaction,
        input: usize,
        amount: u64,
        key: &SecretKey,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        either!(self, s => s.sign_justice_revoked_output(parameters, tx, input, amount, key, secp))
    }
    fn sign_justice_revoked_htlc(
        &self,
        parameters: &ChannelTransactionParameters,
        tx: &Transaction,
        input: usize,
        amount: u64,
        key: &SecretKey,
        htlc: &HTLCOutputInCommitment,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        either!(self, s => {
            s.sign_justice_revoked_htlc(parameters, tx, input, amount, key, htlc, secp)
        })
    }
    fn sign_holder_htlc_transaction(
        &self,
        tx: &Transaction,
        input: usize,
        descriptor: &HTLCDescriptor,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        either!(self, s => s.sign_holder_htlc_transaction(tx, input, descriptor, secp))
    }
    fn sign_counterparty_htlc_transaction(
        &self,
        parameters: &ChannelTransactionParameters,
        tx: &Transaction,
        input: usize,
        amount: u64,
        point: &PublicKey,
        htlc: &HTLCOutputInCommitment,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        either!(self, s => {
            s.sign_counterparty_htlc_transaction(parameters, tx, input, amount, point, htlc, secp)
        })
    }
    fn sign_closing_transaction(
        &self,
        parameters: &ChannelTransactionParameters,
        tx: &ClosingTransaction,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        either!(self, s => s.sign_closing_transaction(parameters, tx, secp))
    }
    fn sign_holder_keyed_anchor_input(
        &self,
        parameters: &ChannelTransactionParameters,
        tx: &Transaction,
        input: usize,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        either!(self, s => s.sign_holder_keyed_anchor_input(parameters, tx, input, secp))
    }
    fn sign_channel_announcement_with_funding_key(
        &self,
        parameters: &ChannelTransactionParameters,
        msg: &UnsignedChannelAnnouncement,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        either!(self, s => s.sign_channel_announcement_with_funding_key(parameters, msg, secp))
    }
    fn sign_splice_shared_input(
        &self,
        parameters: &ChannelTransactionParameters,
        tx: &Transaction,
        input: usize,
        secp: &Secp256k1<All>,
    ) -> Result<Signature, ()> {
        either!(self, s => s.sign_splice_shared_input(parameters, tx, input, secp))
    }
}
