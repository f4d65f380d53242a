//! Incoming payments: preimages, and the conditions under which one may leave the phone.
//!
//! The chain is not visible here: an HTLC that expires too soon to be claimed counts like any other until the phone follows headers.
//! LDK on an honest host fails such HTLCs back.

use std::collections::{BTreeMap, BTreeSet};

use bitcoin::hashes::{Hash, sha256};
use lightning::ln::chan_utils::CommitmentTransaction;
use longhand_proto::signer::GetPreimage;
use longhand_proto::utc;

use crate::commitment::Side;
use crate::engine::{Answer, Change, Recorded, Signer};
use crate::ledger::entry;
use crate::rules::{Refused, Rule};

/// The highest dust limit in use (P2PKH's): an HTLC below it may be too small for an output in a commitment. Also the most of an
/// invoice for which the host's claim is accepted without proof.
const DUST_MSAT: u64 = 546_000;

/// An incoming payment for which the phone made a preimage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// SHA-256 of the preimage.
    pub payment_hash: [u8; 32],
    /// The amount of the invoice; 0 = any amount.
    pub amount_msat: u64,
    /// The time when it was made, in seconds since 1970.
    pub created_unix_s: u64,
    /// The signed invoice, in BOLT 11; empty before [`Signer::finish_invoice`].
    pub bolt11: String,
    /// The time until which the phone accepts payments for the invoice, by its own clock: the invoice's expiry, or the same time span
    /// after it was signed, whichever is later. 0 before there is an invoice.
    pub expires_unix_s: u64,
    /// The time when the first HTLC for it was validated.
    pub seen_unix_s: Option<u64>,
    /// The release of the preimage, with the amount that was irrevocably committed to it then.
    pub released: Option<Released>,
}

/// See [`Payment::released`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// Sum of the HTLCs, in millisatoshis.
    pub received_msat: u64,
    /// The time, in seconds since 1970.
    pub at_unix_s: u64,
}

/// The amount that is committed to a payment.
#[derive(Default)]
struct Committed {
    /// Sum of the HTLCs, in millisatoshis.
    msat: u64,
    /// Sum of those among them that are below [`DUST_MSAT`].
    small_msat: u64,
}

impl Committed {
    /// Adds `count` HTLCs of `amount_msat` each.
    fn add(&mut self, amount_msat: u64, count: u64) {
        let sum_msat = amount_msat.saturating_mul(count);
        self.msat = self.msat.saturating_add(sum_msat);
        if amount_msat < DUST_MSAT {
            self.small_msat = self.small_msat.saturating_add(sum_msat);
        }
    }
}

impl Signer {
    /// Makes a preimage of 32 bytes of the caller's fresh `entropy`, and returns its hash, for an invoice over `amount_msat` (0 = any
    /// amount).
    pub fn new_payment(
        &mut self,
        amount_msat: u64,
        entropy: [u8; 32],
        now_unix_s: u64,
    ) -> Result<Recorded<[u8; 32]>, Refused> {
        let value = payment_hash(&entropy);
        if self.state.payments.contains_key(&value) {
            return Err(Refused::new(
                Rule::Duplicate,
                "this preimage was made before: give fresh entropy",
            ));
        }
        let made = entry::PaymentMade {
            preimage: entropy.to_vec(),
            amount_msat,
            created_unix_s: now_unix_s,
        };
        self.owner_call(value, Change::PaymentMade(made))
    }

    /// The incoming payments for which the phone made preimages, in no particular order.
    pub fn payments(&self) -> impl Iterator<Item = &Payment> + '_ {
        self.state.payments.values().map(|payment| &payment.public)
    }

    pub(crate) fn get_preimage(
        &self,
        op: &GetPreimage,
        now_unix_s: u64,
    ) -> Result<(Answer, Vec<Change>), Refused> {
        let unknown = || {
            Refused::new(
                Rule::PreimageUnknown,
                "no invoice with this payment hash was signed here",
            )
        };
        let payment = <[u8; 32]>::try_from(op.payment_hash.as_slice()).ok();
        let payment = payment
            .and_then(|hash| self.state.payments.get(&hash))
            .ok_or_else(unknown)?;
        let answer = Answer::Preimage(payment.preimage.to_vec());
        let payment = &payment.public;
        if payment.released.is_some() {
            return Ok((answer, Vec::new()));
        }
        if payment.bolt11.is_empty() {
            return Err(unknown());
        }
        if came_late(payment, now_unix_s) {
            let (expiry, now) = (utc(payment.expires_unix_s), utc(now_unix_s));
            return Err(Refused::new(
                Rule::PreimageExpired,
                format!(
                    "the payment came after its invoice had expired at {expiry}, and this phone's clock shows {now}"
                ),
            ));
        }
        let received_msat = self.received_msat(payment, op)?;
        let payment_hash = payment.payment_hash.to_vec();
        let released = entry::PreimageReleased {
            payment_hash,
            received_msat,
            at_unix_s: now_unix_s,
        };
        Ok((answer, vec![Change::PreimageReleased(released)]))
    }

    /// The amount that is irrevocably committed, if it is enough for the invoice.
    fn received_msat(&self, payment: &Payment, op: &GetPreimage) -> Result<u64, Refused> {
        let committed = self.committed(&payment.payment_hash);
        if committed.msat > 0 && committed.msat >= payment.amount_msat {
            return Ok(committed.msat);
        }
        let dust_msat = self.dust_msat(op, &committed);
        let with_dust_msat = committed.msat.saturating_add(dust_msat);
        if payment.amount_msat > 0 && with_dust_msat >= payment.amount_msat {
            return Ok(with_dust_msat);
        }
        let (rule, why) = match committed.msat {
            0 => (
                Rule::PreimageNotCommitted,
                "the payment is not irrevocably committed on both sides",
            ),
            _ => (
                Rule::PreimageUnderpaid,
                "what is irrevocably committed is less than the invoice asks",
            ),
        };
        Err(match self.may_become_more(payment, op, &committed) {
            true => Refused::for_now(rule, format!("{why} so far")),
            false => Refused::new(
                rule,
                format!("{why}, and nothing is on its way that could stand in a commitment"),
            ),
        })
    }

    /// Whether more of the amount that the host claims may yet be `committed`. If not, the rest is dust, and waiting would only let the
    /// deadline of its HTLCs pass.
    ///
    /// A host asks when the phone has seen the HTLCs in the latest commitments of both sides. So a small HTLC that is not in both is dust;
    /// one that is may lack the peer's revocation. A larger one is awaited in any case.
    fn may_become_more(&self, payment: &Payment, op: &GetPreimage, committed: &Committed) -> bool {
        let amounts = op.htlcs.iter().map(|htlc| htlc.amount_msat);
        let larger = amounts.filter(|amount_msat| *amount_msat >= DUST_MSAT);
        let larger_msat = larger.fold(0, u64::saturating_add);
        let latest = self.standing(&payment.payment_hash, 1);
        op.htlcs.is_empty()
            || larger_msat > committed.msat.saturating_sub(committed.small_msat)
            || latest.msat > committed.msat
    }

    /// The HTLCs with this hash that are irrevocably committed on both sides (BOLT 2): in the owner's latest validated
    /// commitment, so that the owner can claim them alone, and in *every* commitment that the peer could still broadcast,
    /// so that the peer cannot take them back.
    fn committed(&self, payment_hash: &[u8; 32]) -> Committed {
        self.standing(payment_hash, usize::MAX)
    }

    /// The HTLCs with this hash that are in the owner's latest commitment and in the `latest` ones of the peer.
    fn standing(&self, payment_hash: &[u8; 32], latest: usize) -> Committed {
        let mut committed = Committed::default();
        for channel in self.state.channels.values() {
            let Some(holder) = channel.holder.first().filter(|_| !channel.peer.is_empty()) else {
                continue;
            };
            let mut htlcs = htlcs(&holder.commitment, payment_hash, Side::Holder);
            for peer in channel.peer.iter().take(latest) {
                let theirs = self::htlcs(&peer.commitment, payment_hash, Side::Peer);
                htlcs.retain(|htlc, count| {
                    *count = (*count).min(theirs.get(htlc).copied().unwrap_or(0));
                    *count > 0
                });
            }
            for ((amount_msat, _), count) in htlcs {
                committed.add(amount_msat, count);
            }
        }
        committed
    }

    /// Sum of the HTLCs that the host claims and that are too small for an output in a commitment. Dust limits are lower in most channels,
    /// so that some of them may be among the `committed` ones: those are not counted again.
    ///
    /// These HTLCs cannot be proved. So they count for invoices with an amount only, and for no more than can ever be dust (546 sat, the
    /// highest dust limit in use): a host can steal that much of an invoice.
    fn dust_msat(&self, op: &GetPreimage, committed: &Committed) -> u64 {
        let open = |keys_id: &[u8]| {
            let channel = <[u8; 32]>::try_from(keys_id)
                .ok()
                .and_then(|id| self.state.channels.get(&id));
            channel.is_some_and(|channel| !channel.holder.is_empty() && !channel.peer.is_empty())
        };
        let dust = op
            .htlcs
            .iter()
            .filter(|htlc| htlc.amount_msat < DUST_MSAT && open(&htlc.channel_keys_id));
        let said_msat = dust.fold(0u64, |sum, htlc| sum.saturating_add(htlc.amount_msat));
        let more_msat = said_msat.saturating_sub(committed.small_msat);
        more_msat.min(DUST_MSAT)
    }

    /// The owner's payments that are in a holder commitment for the first time.
    pub(crate) fn payments_seen(
        &self,
        commitment: &CommitmentTransaction,
        at_unix_s: u64,
    ) -> Vec<Change> {
        let hashes: BTreeSet<[u8; 32]> = commitment
            .nondust_htlcs()
            .iter()
            .filter(|htlc| !htlc.offered)
            .map(|htlc| htlc.payment_hash.0)
            .collect();
        let unseen = |hash: &[u8; 32]| {
            self.state
                .payments
                .get(hash)
                .is_some_and(|p| p.public.seen_unix_s.is_none())
        };
        let seen = |hash: [u8; 32]| entry::PaymentSeen {
            payment_hash: hash.to_vec(),
            at_unix_s,
        };
        hashes
            .into_iter()
            .filter(unseen)
            .map(seen)
            .map(Change::PaymentSeen)
            .collect()
    }
}

/// Whether the payment came after its invoice had expired.
///
/// An HTLC that is in no commitment has no date here, and the phone may have been away since it came. So for invoices whose HTLCs are
/// not proved ([`Signer::dust_msat`]) their date is not either: LDK on an honest host fails late ones back, and a dishonest host could
/// claim that money in any case.
fn came_late(payment: &Payment, now_unix_s: u64) -> bool {
    match payment.seen_unix_s {
        Some(seen_unix_s) => seen_unix_s > payment.expires_unix_s,
        None => !may_be_dust(payment) && now_unix_s > payment.expires_unix_s,
    }
}

/// Whether all of the payment may be in HTLCs that are too small for an output in a commitment.
fn may_be_dust(payment: &Payment) -> bool {
    payment.amount_msat > 0 && payment.amount_msat <= DUST_MSAT
}

/// The incoming HTLCs with this hash in a commitment, by (amount_msat, cltv_expiry), and how many there are of each.
fn htlcs(
    commitment: &CommitmentTransaction,
    payment_hash: &[u8; 32],
    side: Side,
) -> BTreeMap<(u64, u32), u64> {
    let mut found = BTreeMap::new();
    for htlc in commitment.nondust_htlcs() {
        // `offered` is from the view of the commitment's owner.
        if htlc.payment_hash.0 == *payment_hash && htlc.offered == (side == Side::Peer) {
            *found
                .entry((htlc.amount_msat, htlc.cltv_expiry))
                .or_insert(0) += 1;
        }
    }
    found
}

/// SHA-256 of a preimage.
pub(crate) fn payment_hash(preimage: &[u8; 32]) -> [u8; 32] {
    sha256::Hash::hash(preimage).to_byte_array()
}
