//! What a phone must never do, kept by somebody who sees only the operations and the answers.
//!
//! The rules are those by which money is lost (BOLT 2, 3 and 5), written down a second time and from outside, so that
//! the engine's own bookkeeping is not believed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::ecdsa::Signature;
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use lightning::ln::chan_utils::{
    ChannelTransactionParameters, CommitmentTransaction, HolderCommitmentTransaction,
    make_funding_redeemscript,
};
use lightning::sign::HTLCDescriptor;
use lightning::util::ser::{Readable, ReadableArgs, Writeable};
use longhand_proto::signer::sign_psbt::Purpose;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{GetPreimage, SignPsbt, SignerOp};

/// The index of a channel's first commitment (BOLT 3).
pub(crate) const FIRST: u64 = (1 << 48) - 1;
/// HTLCs below this may be dust, for which there is only the host's word.
const DUST_MSAT: u64 = 546_000;

/// What was seen of one phone.
#[derive(Clone, Default)]
pub(crate) struct Audit {
    channels: BTreeMap<Vec<u8>, Channel>,
    /// What the phone's invoices ask, by payment hash; 0 = any amount.
    pub invoices_msat: BTreeMap<[u8; 32], u64>,
    paid: BTreeSet<[u8; 32]>,
}

#[derive(Clone)]
struct Channel {
    parameters: ChannelTransactionParameters,
    /// Every holder commitment that was validated.
    validated: BTreeMap<u64, HolderCommitmentTransaction>,
    /// The lowest index whose secret was given away.
    released: Option<u64>,
    /// The highest index that was signed for broadcast.
    broadcast: Option<u64>,
    /// Every commitment that was signed for the peer.
    signed: BTreeMap<u64, CommitmentTransaction>,
    /// The lowest index that the peer has revoked.
    revoked: u64,
}

impl Audit {
    /// Looks at an operation and its answer.
    pub fn saw(&mut self, op: &SignerOp, answer: &Answer) {
        let Some(asked) = &op.op else {
            assert!(matches!(answer, Answer::Refusal(_)));
            return;
        };
        match (asked, answer) {
            (_, Answer::Refusal(refusal)) => {
                assert!(!refusal.rule.is_empty() && !refusal.message.is_empty());
            }
            (Op::SetupChannel(o), Answer::Done(_)) => {
                self.set_up(&op.channel_keys_id, &o.parameters);
            }
            (Op::GetPreimage(o), Answer::Preimage(preimage)) => self.paid(o, preimage),
            (Op::SignPsbt(o), Answer::Psbt(psbt)) => self.funds(&op.channel_keys_id, o, psbt),
            (asked, answer) => {
                if let Some(channel) = self.channels.get_mut(&op.channel_keys_id) {
                    channel.saw(asked, answer);
                }
            }
        }
    }

    /// The index of the latest validated holder commitment of a channel, and of the latest signed for its peer.
    pub fn latest(&self, keys_id: &[u8]) -> (Option<u64>, Option<u64>) {
        let channel = self.channels.get(keys_id);
        channel.map_or((None, None), |c| (c.holder(), c.peer()))
    }

    fn set_up(&mut self, keys_id: &[u8], parameters: &[u8]) {
        let parameters = ChannelTransactionParameters::read(&mut &parameters[..], None)
            .expect("parameters that were taken can be read");
        if let Some(channel) = self.channels.get(keys_id) {
            assert_eq!(channel.parameters, parameters, "a channel was set up anew");
            return;
        }
        let channel = Channel {
            parameters,
            validated: BTreeMap::new(),
            released: None,
            broadcast: None,
            signed: BTreeMap::new(),
            revoked: FIRST + 1,
        };
        self.channels.insert(keys_id.to_vec(), channel);
    }

    /// A preimage is money: it goes only for HTLCs that nobody can take back (BOLT 2).
    fn paid(&mut self, op: &GetPreimage, preimage: &[u8]) {
        let hash = sha256::Hash::hash(preimage).to_byte_array();
        assert_eq!(hash[..], op.payment_hash[..], "another preimage");
        let asked_msat = *self
            .invoices_msat
            .get(&hash)
            .expect("a preimage that no invoice was signed for");
        if !self.paid.insert(hash) {
            return;
        }
        let committed: u64 = self
            .channels
            .values()
            .map(|channel| channel.committed_msat(&hash))
            .sum();
        let may_be_dust = asked_msat > 0 && asked_msat < DUST_MSAT;
        let enough = committed > 0 && committed >= asked_msat;
        assert!(
            enough || may_be_dust,
            "{committed} msat of {asked_msat} msat were committed"
        );
    }

    /// A channel is funded when its first commitment is there to get the money out again.
    fn funds(&self, keys_id: &[u8], op: &SignPsbt, signed: &[u8]) {
        let asked = Psbt::deserialize(&op.psbt).expect("what was signed can be read");
        let signed = Psbt::deserialize(signed).expect("a signed PSBT can be read");
        assert_eq!(asked.unsigned_tx, signed.unsigned_tx);
        let txid = signed.unsigned_tx.compute_txid();
        let funded = |channel: &Channel| {
            let funding = channel.parameters.funding_outpoint;
            funding.is_some_and(|funding| funding.txid == txid)
        };
        for channel in self.channels.values().filter(|channel| funded(channel)) {
            assert!(!channel.validated.is_empty(), "funded before it is safe");
        }
        if op.purpose() == Purpose::Funding {
            assert!(self.channels.get(keys_id).is_some_and(funded));
        }
    }
}

impl Channel {
    fn saw(&mut self, asked: &Op, answer: &Answer) {
        match (asked, answer) {
            (Op::ValidateHolderCommitment(o), Answer::Done(_)) => self.validate(&o.commitment),
            (Op::ReleaseSecret(o), Answer::Secret(secret)) => self.release(o.index, secret),
            (Op::SignCounterpartyCommitment(o), Answer::CommitmentSignatures(s)) => {
                self.sign(&o.commitment, &s.signature, s.htlc_signatures.len());
            }
            (Op::CounterpartyRevocation(o), Answer::Done(_)) => self.revoke(o.index, &o.secret),
            (Op::SignHolderCommitment(o), Answer::Signature(signature)) => {
                let commitment: HolderCommitmentTransaction = read(&o.commitment);
                self.broadcast(commitment.commitment_number(), Some(&commitment));
                let mine = self.parameters.holder_pubkeys.funding_pubkey;
                assert!(self.is_signature(&commitment, &mine, signature));
            }
            (Op::SignHolderHtlc(o), Answer::Signature(_)) => {
                let descriptor: HTLCDescriptor = read(&o.descriptor);
                self.broadcast(descriptor.per_commitment_number, None);
            }
            (Op::SignJustice(o), Answer::Signature(signature)) => {
                let point = point(&o.per_commitment_secret);
                let in_force = self.signed.range(..self.revoked);
                for (index, commitment) in in_force {
                    let same = commitment.per_commitment_point() == point;
                    assert!(!same, "justice for {index}, which is not revoked");
                }
                self.is_no_old_state(signature);
            }
            (_, Answer::Signature(signature)) => self.is_no_old_state(signature),
            _ => {}
        }
    }

    fn holder(&self) -> Option<u64> {
        self.validated.keys().next().copied()
    }

    fn peer(&self) -> Option<u64> {
        self.signed.keys().next().copied()
    }

    fn validate(&mut self, bytes: &[u8]) {
        let commitment: HolderCommitmentTransaction = read(bytes);
        let index = commitment.commitment_number();
        if let Some(known) = self.validated.get(&index) {
            assert_eq!(known.encode(), commitment.encode(), "two states {index}");
            return;
        }
        let due = self.holder().map_or(FIRST, |latest| latest - 1);
        assert_eq!(index, due, "a state out of turn");
        let peer = self.peer_key();
        let signature = commitment.counterparty_sig.serialize_compact();
        assert!(self.is_signature(&commitment, &peer, &signature));
        self.validated.insert(index, commitment);
    }

    /// Whoever has the secret of a commitment takes all of it, once it is broadcast.
    fn release(&mut self, index: u64, secret: &[u8]) {
        let latest = self.holder();
        assert!(
            latest.is_some_and(|latest| latest < index),
            "the secret of {index} was given away, and the newest state is {latest:?}"
        );
        assert!(
            self.broadcast.is_none_or(|signed| index > signed),
            "the secret of {index} was given away after {:?} was signed",
            self.broadcast
        );
        if let Some(revoked) = self.validated.get(&index) {
            assert_eq!(point(secret), revoked.per_commitment_point());
        }
        self.released = Some(self.released.map_or(index, |lowest| lowest.min(index)));
    }

    fn broadcast(&mut self, index: u64, commitment: Option<&HolderCommitmentTransaction>) {
        let known = self.validated.get(&index);
        let known = known.expect("a state was signed that was never validated");
        if let Some(commitment) = commitment {
            assert_eq!(known.trust().txid(), commitment.trust().txid());
        }
        assert!(
            self.released.is_none_or(|lowest| index < lowest),
            "state {index} was signed after its secret was given away"
        );
        self.broadcast = Some(self.broadcast.map_or(index, |highest| highest.max(index)));
    }

    fn sign(&mut self, bytes: &[u8], signature: &[u8], htlc_signatures: usize) {
        let commitment: CommitmentTransaction = read(bytes);
        let index = commitment.commitment_number();
        assert_eq!(commitment.nondust_htlcs().len(), htlc_signatures);
        if let Some(known) = self.signed.get(&index) {
            let same = known.encode() == commitment.encode();
            assert!(same, "two states {index} were signed for the peer");
        }
        let mine = self.parameters.holder_pubkeys.funding_pubkey;
        assert!(self.is_signature(&commitment, &mine, signature));
        if self.signed.contains_key(&index) {
            return;
        }
        let due = self.peer().map_or(FIRST, |latest| latest - 1);
        assert_eq!(index, due, "a state was signed for the peer out of turn");
        let in_force = self.signed.range(..self.revoked).count();
        assert!(in_force <= 1, "the peer could broadcast three states");
        self.signed.insert(index, commitment);
    }

    fn revoke(&mut self, index: u64, secret: &[u8]) {
        if let Some(revoked) = self.signed.get(&index) {
            assert_eq!(point(secret), revoked.per_commitment_point());
        }
        if index < self.revoked {
            assert_eq!(index, self.revoked - 1, "revoked out of turn");
            assert!(self.peer().is_some_and(|latest| latest < index));
            self.revoked = index;
        }
    }

    /// What of a payment is in the newest state, and in every one that the peer may still broadcast.
    fn committed_msat(&self, hash: &[u8; 32]) -> u64 {
        let sum = |commitment: &CommitmentTransaction, offered: bool| -> u64 {
            let htlcs = commitment.nondust_htlcs().iter();
            let of_payment =
                htlcs.filter(|htlc| htlc.payment_hash.0 == *hash && htlc.offered == offered);
            of_payment.map(|htlc| htlc.amount_msat).sum()
        };
        let Some(holder) = self.validated.values().next() else {
            return 0;
        };
        let theirs = self.signed.range(..self.revoked);
        let least = theirs.map(|(_, commitment)| sum(commitment, true)).min();
        sum(holder, false).min(least.unwrap_or(0))
    }

    /// No operation gives a signature that is good for a state whose secret the peer has.
    fn is_no_old_state(&self, signature: &[u8]) {
        let Some(released) = self.released else {
            return;
        };
        let mine = self.parameters.holder_pubkeys.funding_pubkey;
        for (index, old) in self.validated.range(released..).take(4) {
            let good = self.is_signature(old, &mine, signature);
            assert!(!good, "the revoked state {index} was signed");
        }
    }

    fn is_signature(
        &self,
        commitment: &CommitmentTransaction,
        key: &PublicKey,
        signature: &[u8],
    ) -> bool {
        let funding = make_funding_redeemscript(
            &self.parameters.holder_pubkeys.funding_pubkey,
            &self.peer_key(),
        );
        let trusted = commitment.trust();
        let value_sat = self.parameters.channel_value_satoshis;
        let sighash = trusted
            .built_transaction()
            .get_sighash_all(&funding, value_sat);
        let signature = Signature::from_compact(signature).expect("a signature has 64 bytes");
        secp().verify_ecdsa(&sighash, &signature, key).is_ok()
    }

    fn peer_key(&self) -> PublicKey {
        let peer = self.parameters.counterparty_pubkeys();
        peer.expect("a channel has a peer").funding_pubkey
    }
}

fn read<T: Readable>(bytes: &[u8]) -> T {
    T::read(&mut &bytes[..]).expect("what was answered can be read")
}

fn point(secret: &[u8]) -> PublicKey {
    let secret = SecretKey::from_slice(secret).expect("what was answered is a secret");
    secret.public_key(secp())
}

/// Made once: it takes longer than what is done with it.
pub(crate) fn secp() -> &'static Secp256k1<All> {
    static SECP: OnceLock<Secp256k1<All>> = OnceLock::new();
    SECP.get_or_init(Secp256k1::new)
}
