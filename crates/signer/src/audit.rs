//! Audit: an observer that sees only operations and answers, and reports answers that a phone must never give.
//!
//! Its rules are those whose breach loses money (BOLT 2, 3 and 5), written a second time and from outside, so that they do not rely on
//! the engine's own ledger. For fuzz targets and simulations.

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
pub const FIRST: u64 = (1 << 48) - 1;
/// The limit in msat below which an HTLC may be dust, which no commitment proves. The host's claim of dust counts for no more than this
/// of an invoice.
const DUST_MSAT: u64 = 546_000;

/// The operations and answers of one phone since its ledger was made. An answer that depends on one that was not observed is a
/// violation, so that all must be observed, in order.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    channels: BTreeMap<Vec<u8>, Channel>,
    /// Amounts of the phone's invoices, by payment hash; 0 = any amount.
    invoices_msat: BTreeMap<[u8; 32], u64>,
    paid: BTreeSet<[u8; 32]>,
}

/// An answer that the phone must never give, described for a person.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(String);

type Judged<T = ()> = Result<T, Violation>;

/// Returns a [`Violation`] unless the condition holds.
macro_rules! ensure {
    ($is_so:expr, $($what:tt)+) => {
        if !$is_so {
            return Err(Violation(format!($($what)+)));
        }
    };
}

#[derive(Clone, Debug)]
struct Channel {
    parameters: ChannelTransactionParameters,
    /// Every holder commitment that was validated.
    validated: BTreeMap<u64, HolderCommitmentTransaction>,
    /// The lowest index whose secret was released.
    released: Option<u64>,
    /// The highest index that was signed for broadcast.
    broadcast: Option<u64>,
    /// Every commitment that was signed for the peer.
    signed: BTreeMap<u64, CommitmentTransaction>,
    /// The lowest index that the peer has revoked.
    revoked: u64,
    /// The points of commitments for which justice was signed.
    punished: BTreeSet<PublicKey>,
}

impl Audit {
    /// Observes an operation and its answer, once all records that the answer depends on are durable. Answers that are durable and were
    /// never sent count as well: the phone must act as if they were.
    pub fn saw(&mut self, op: &SignerOp, answer: &Answer) -> Judged {
        if let Answer::Refusal(refusal) = answer {
            let says_why = !refusal.rule.is_empty() && !refusal.message.is_empty();
            ensure!(says_why, "a refusal that does not say why");
            return Ok(());
        }
        match (&op.op, answer) {
            (None, _) => Err(violation("an unknown operation was answered")),
            (Some(Op::SetupChannel(o)), Answer::Setup(_)) => {
                self.set_up(&op.channel_keys_id, &o.parameters)
            }
            (Some(Op::GetPreimage(o)), Answer::Preimage(preimage)) => self.paid(o, preimage),
            (Some(Op::SignPsbt(o)), Answer::Psbt(psbt)) => self.funds(&op.channel_keys_id, o, psbt),
            (Some(asked), answer) => match self.channels.get_mut(&op.channel_keys_id) {
                Some(channel) => channel.saw(asked, answer),
                None => Ok(()),
            },
        }
    }

    /// Observes an invoice that was signed; `amount_msat` 0 = any amount.
    pub fn saw_invoice(&mut self, payment_hash: [u8; 32], amount_msat: u64) -> Judged {
        let before = self.invoices_msat.insert(payment_hash, amount_msat);
        ensure!(before.is_none(), "two invoices for one preimage");
        Ok(())
    }

    /// The index of the latest validated holder commitment of a channel, and of the latest signed for its peer.
    pub fn latest(&self, keys_id: &[u8]) -> (Option<u64>, Option<u64>) {
        let channel = self.channels.get(keys_id);
        channel.map_or((None, None), |c| (c.holder(), c.peer()))
    }

    fn set_up(&mut self, keys_id: &[u8], parameters: &[u8]) -> Judged {
        let parameters = ChannelTransactionParameters::read(&mut &parameters[..], None)
            .map_err(|_| violation("parameters that cannot be read were taken"))?;
        if let Some(channel) = self.channels.get(keys_id) {
            let same = channel.parameters == parameters;
            ensure!(same, "a channel was set up anew");
            return Ok(());
        }
        let channel = Channel {
            parameters,
            validated: BTreeMap::new(),
            released: None,
            broadcast: None,
            signed: BTreeMap::new(),
            revoked: FIRST + 1,
            punished: BTreeSet::new(),
        };
        self.channels.insert(keys_id.to_vec(), channel);
        Ok(())
    }

    /// Checks that a preimage is released only for HTLCs that are irrevocably committed (BOLT 2).
    fn paid(&mut self, op: &GetPreimage, preimage: &[u8]) -> Judged {
        let hash = sha256::Hash::hash(preimage).to_byte_array();
        ensure!(hash[..] == op.payment_hash[..], "another preimage");
        let asked_msat = self.invoices_msat.get(&hash).copied();
        let asked_msat =
            asked_msat.ok_or_else(|| violation("a preimage that no invoice was signed for"))?;
        if !self.paid.insert(hash) {
            return Ok(());
        }
        let committed = |below_msat| -> u64 {
            let channels = self.channels.values();
            channels
                .map(|channel| channel.committed_msat(&hash, below_msat))
                .sum()
        };
        let (committed, small) = (committed(u64::MAX), committed(DUST_MSAT));
        let said = op.htlcs.iter().map(|htlc| htlc.amount_msat);
        let said: u64 = said.filter(|amount_msat| *amount_msat < DUST_MSAT).sum();
        let dust = said.saturating_sub(small).min(DUST_MSAT);
        let enough = match asked_msat {
            0 => committed > 0,
            asked_msat => committed + dust >= asked_msat,
        };
        ensure!(
            enough,
            "a preimage was given away when {committed} msat of {asked_msat} msat were committed"
        );
        Ok(())
    }

    /// Checks that a funding transaction is signed only when the channel's first commitment is validated, which can spend it again.
    fn funds(&self, keys_id: &[u8], op: &SignPsbt, signed: &[u8]) -> Judged {
        let read = |psbt: &[u8]| Psbt::deserialize(psbt).map_err(|_| unreadable());
        let (asked, signed) = (read(&op.psbt)?, read(signed)?);
        let same = asked.unsigned_tx == signed.unsigned_tx;
        ensure!(same, "another transaction was signed than was asked for");
        let txid = signed.unsigned_tx.compute_txid();
        let funded = |channel: &Channel| {
            let funding = channel.parameters.funding_outpoint;
            funding.is_some_and(|funding| funding.txid == txid)
        };
        for channel in self.channels.values().filter(|channel| funded(channel)) {
            let safe = !channel.validated.is_empty();
            ensure!(safe, "a channel was funded before it is safe");
        }
        let known = self.channels.get(keys_id).is_some_and(funded);
        let as_said = op.purpose() != Purpose::Funding || known;
        ensure!(as_said, "a funding was signed that is none of the channel");
        Ok(())
    }
}

impl Channel {
    fn saw(&mut self, asked: &Op, answer: &Answer) -> Judged {
        match (asked, answer) {
            (Op::ValidateHolderCommitment(o), Answer::Done(_)) => self.validate(&o.commitment),
            (Op::ReleaseSecret(o), Answer::Secret(secret)) => self.release(o.index, secret),
            (Op::SignCounterpartyCommitment(o), Answer::CommitmentSignatures(s)) => {
                self.sign(&o.commitment, &s.signature, s.htlc_signatures.len())
            }
            (Op::CounterpartyRevocation(o), Answer::Done(_)) => self.revoke(o.index, &o.secret),
            (Op::SignHolderCommitment(o), Answer::Signature(signature)) => {
                let commitment: HolderCommitmentTransaction = read(&o.commitment)?;
                self.broadcast(commitment.commitment_number(), Some(&commitment))?;
                let mine = self.parameters.holder_pubkeys.funding_pubkey;
                self.must_be_signed(&commitment, &mine, signature)
            }
            (Op::SignHolderHtlc(o), Answer::Signature(signature)) => {
                let descriptor: HTLCDescriptor = read(&o.descriptor)?;
                self.broadcast(descriptor.per_commitment_number, None)?;
                self.is_no_old_state(signature)
            }
            (Op::SignJustice(o), Answer::Signature(signature)) => {
                let point = point(&o.per_commitment_secret)?;
                let in_force = self.signed.range(..self.revoked);
                for (index, commitment) in in_force {
                    let same = commitment.per_commitment_point() == point;
                    ensure!(!same, "justice for {index}, which is not revoked");
                }
                self.punished.insert(point);
                self.is_no_old_state(signature)
            }
            (_, Answer::Signature(signature)) => self.is_no_old_state(signature),
            _ => Ok(()),
        }
    }

    fn holder(&self) -> Option<u64> {
        self.validated.keys().next().copied()
    }

    fn peer(&self) -> Option<u64> {
        self.signed.keys().next().copied()
    }

    fn validate(&mut self, bytes: &[u8]) -> Judged {
        let commitment: HolderCommitmentTransaction = read(bytes)?;
        let index = commitment.commitment_number();
        if let Some(known) = self.validated.get(&index) {
            let same = known.encode() == commitment.encode();
            ensure!(same, "two states {index} were validated");
            return Ok(());
        }
        let due = self.holder().map_or(FIRST, |latest| latest - 1);
        ensure!(
            index == due,
            "state {index} was validated out of turn: {due} was due"
        );
        let peer = self.peer_key()?;
        let signature = commitment.counterparty_sig.serialize_compact();
        self.must_be_signed(&commitment, &peer, &signature)?;
        self.validated.insert(index, commitment);
        Ok(())
    }

    /// Checks the release of a secret: its holder can take the whole commitment, once that is broadcast.
    fn release(&mut self, index: u64, secret: &[u8]) -> Judged {
        let latest = self.holder();
        ensure!(
            latest.is_some_and(|latest| latest < index),
            "the secret of {index} was given away, and the newest state is {latest:?}"
        );
        ensure!(
            self.broadcast.is_none_or(|signed| index > signed),
            "the secret of {index} was given away after {:?} was signed",
            self.broadcast
        );
        if let Some(revoked) = self.validated.get(&index) {
            let its_own = point(secret)? == revoked.per_commitment_point();
            ensure!(its_own, "the secret of {index} is another's");
        }
        self.released = Some(self.released.map_or(index, |lowest| lowest.min(index)));
        Ok(())
    }

    fn broadcast(
        &mut self,
        index: u64,
        commitment: Option<&HolderCommitmentTransaction>,
    ) -> Judged {
        let known = self.validated.get(&index);
        let known =
            known.ok_or_else(|| violation("a state was signed that was never validated"))?;
        if let Some(commitment) = commitment {
            let same = known.trust().txid() == commitment.trust().txid();
            ensure!(same, "another state {index} was signed than was validated");
        }
        ensure!(
            self.released.is_none_or(|lowest| index < lowest),
            "state {index} was signed after its secret was given away"
        );
        self.broadcast = Some(self.broadcast.map_or(index, |highest| highest.max(index)));
        Ok(())
    }

    fn sign(&mut self, bytes: &[u8], signature: &[u8], htlc_signatures: usize) -> Judged {
        let commitment: CommitmentTransaction = read(bytes)?;
        let index = commitment.commitment_number();
        if let Some(known) = self.signed.get(&index) {
            let same = known.encode() == commitment.encode();
            ensure!(same, "two states {index} were signed for the peer");
        }
        let punished = self.punished.contains(&commitment.per_commitment_point());
        ensure!(
            !punished,
            "state {index} was signed for the peer after justice for its point"
        );
        let whole = commitment.nondust_htlcs().len() == htlc_signatures;
        ensure!(whole, "not every HTLC of state {index} was signed");
        let mine = self.parameters.holder_pubkeys.funding_pubkey;
        self.must_be_signed(&commitment, &mine, signature)?;
        if self.signed.contains_key(&index) {
            return Ok(());
        }
        let due = self.peer().map_or(FIRST, |latest| latest - 1);
        ensure!(
            index == due,
            "state {index} was signed for the peer out of turn: {due} was due"
        );
        let in_force = self.signed.range(..self.revoked).count();
        ensure!(in_force <= 1, "the peer could broadcast three states");
        self.signed.insert(index, commitment);
        Ok(())
    }

    fn revoke(&mut self, index: u64, secret: &[u8]) -> Judged {
        if let Some(revoked) = self.signed.get(&index) {
            let its_own = point(secret)? == revoked.per_commitment_point();
            ensure!(its_own, "a secret that revokes nothing was taken");
        }
        if index < self.revoked {
            let due = self.revoked - 1;
            ensure!(
                index == due,
                "the peer revoked {index} out of turn: {due} was due"
            );
            let has_newer = self.peer().is_some_and(|latest| latest < index);
            ensure!(has_newer, "the peer revoked its newest state {index}");
            self.revoked = index;
        }
        Ok(())
    }

    /// The amount of a payment in HTLCs below `below_msat` that are in the newest state, and in every one that the peer may still
    /// broadcast.
    fn committed_msat(&self, hash: &[u8; 32], below_msat: u64) -> u64 {
        let sum = |commitment: &CommitmentTransaction, offered: bool| -> u64 {
            let htlcs = commitment.nondust_htlcs().iter();
            let of_payment =
                htlcs.filter(|htlc| htlc.payment_hash.0 == *hash && htlc.offered == offered);
            let amounts = of_payment.map(|htlc| htlc.amount_msat);
            amounts
                .filter(|amount_msat| *amount_msat < below_msat)
                .sum()
        };
        let Some(holder) = self.validated.values().next() else {
            return 0;
        };
        let theirs = self.signed.range(..self.revoked);
        let least = theirs.map(|(_, commitment)| sum(commitment, true)).min();
        sum(holder, false).min(least.unwrap_or(0))
    }

    /// Checks that a signature is not valid for a state whose secret the peer has.
    fn is_no_old_state(&self, signature: &[u8]) -> Judged {
        let Some(released) = self.released else {
            return Ok(());
        };
        let mine = self.parameters.holder_pubkeys.funding_pubkey;
        for (index, old) in self.validated.range(released..).take(4) {
            let good = self.is_signature(old, &mine, signature)?;
            ensure!(!good, "the revoked state {index} was signed");
        }
        Ok(())
    }

    fn must_be_signed(
        &self,
        commitment: &CommitmentTransaction,
        key: &PublicKey,
        signature: &[u8],
    ) -> Judged {
        let good = self.is_signature(commitment, key, signature)?;
        let index = commitment.commitment_number();
        ensure!(good, "a signature that is none of state {index}");
        Ok(())
    }

    fn is_signature(
        &self,
        commitment: &CommitmentTransaction,
        key: &PublicKey,
        signature: &[u8],
    ) -> Judged<bool> {
        let funding = make_funding_redeemscript(
            &self.parameters.holder_pubkeys.funding_pubkey,
            &self.peer_key()?,
        );
        let trusted = commitment.trust();
        let value_sat = self.parameters.channel_value_satoshis;
        let sighash = trusted
            .built_transaction()
            .get_sighash_all(&funding, value_sat);
        let signature = Signature::from_compact(signature).map_err(|_| unreadable())?;
        Ok(secp().verify_ecdsa(&sighash, &signature, key).is_ok())
    }

    fn peer_key(&self) -> Judged<PublicKey> {
        let peer = self.parameters.counterparty_pubkeys();
        let peer = peer.ok_or_else(|| violation("a channel without a peer was set up"))?;
        Ok(peer.funding_pubkey)
    }
}

fn violation(what: &str) -> Violation {
    Violation(what.into())
}

fn unreadable() -> Violation {
    violation("what was answered cannot be read")
}

fn read<T: Readable>(bytes: &[u8]) -> Judged<T> {
    T::read(&mut &bytes[..]).map_err(|_| unreadable())
}

fn point(secret: &[u8]) -> Judged<PublicKey> {
    let secret = SecretKey::from_slice(secret).map_err(|_| unreadable())?;
    Ok(secret.public_key(secp()))
}

/// The context of secp256k1, made once, since that takes long.
fn secp() -> &'static Secp256k1<All> {
    static SECP: OnceLock<Secp256k1<All>> = OnceLock::new();
    SECP.get_or_init(Secp256k1::new)
}
