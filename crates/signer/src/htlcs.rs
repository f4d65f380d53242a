//! The HTLCs of a commitment from the owner's view, and the difference between two commitments.

use std::collections::BTreeMap;

use lightning::ln::chan_utils::{CommitmentTransaction, HTLCOutputInCommitment};

use crate::commitment::Side;

/// An HTLC that has an output in a commitment. Two HTLCs of a channel may be equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Htlc {
    /// Whether the owner has offered it.
    pub is_outgoing: bool,
    pub payment_hash: [u8; 32],
    pub amount_msat: u64,
    pub cltv_expiry: u32,
}

impl Htlc {
    /// One of a commitment of `side`.
    pub fn of(htlc: &HTLCOutputInCommitment, side: Side) -> Htlc {
        Htlc {
            // `offered` is from the view of the commitment's owner.
            is_outgoing: htlc.offered == (side == Side::Holder),
            payment_hash: htlc.payment_hash.0,
            amount_msat: htlc.amount_msat,
            cltv_expiry: htlc.cltv_expiry,
        }
    }
}

/// A multiset of HTLCs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Htlcs(BTreeMap<Htlc, u64>);

impl Htlcs {
    /// Those of a commitment of `side`.
    pub fn of(commitment: &CommitmentTransaction, side: Side) -> Htlcs {
        let htlcs = commitment.nondust_htlcs().iter();
        htlcs.map(|htlc| Htlc::of(htlc, side)).collect()
    }

    /// Those that are here more often than in `other`.
    pub fn without(&self, other: &Htlcs) -> Htlcs {
        let more = |(htlc, count): (&Htlc, &u64)| {
            let count = count.saturating_sub(other.count(htlc));
            (count > 0).then_some((*htlc, count))
        };
        Htlcs(self.0.iter().filter_map(more).collect())
    }

    /// Those that are in both.
    pub fn common(&self, other: &Htlcs) -> Htlcs {
        let both = |(htlc, count): (&Htlc, &u64)| {
            let count = *count.min(&other.count(htlc));
            (count > 0).then_some((*htlc, count))
        };
        Htlcs(self.0.iter().filter_map(both).collect())
    }

    /// For each HTLC, the larger of the two counts.
    pub fn union(mut self, other: &Htlcs) -> Htlcs {
        for (htlc, count) in &other.0 {
            let here = self.0.entry(*htlc).or_insert(0);
            *here = (*here).max(*count);
        }
        self
    }

    pub fn filter(mut self, is_wanted: impl Fn(&Htlc) -> bool) -> Htlcs {
        self.0.retain(|htlc, _| is_wanted(htlc));
        self
    }

    pub fn count(&self, htlc: &Htlc) -> u64 {
        self.0.get(htlc).copied().unwrap_or(0)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each HTLC with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&Htlc, u64)> {
        self.0.iter().map(|(htlc, count)| (htlc, *count))
    }

    pub fn add(&mut self, htlc: Htlc, count: u64) {
        if count == 0 {
            return;
        }
        let here = self.0.entry(htlc).or_insert(0);
        *here = here.saturating_add(count);
    }

    /// Sum of the amounts, in millisatoshis.
    pub fn sum_msat(&self) -> u64 {
        self.iter().fold(0, |sum: u64, (htlc, count)| {
            sum.saturating_add(htlc.amount_msat.saturating_mul(count))
        })
    }
}

impl FromIterator<Htlc> for Htlcs {
    fn from_iter<I: IntoIterator<Item = Htlc>>(htlcs: I) -> Htlcs {
        let mut all = Htlcs::default();
        htlcs.into_iter().for_each(|htlc| all.add(htlc, 1));
        all
    }
}
