//! What a second source of the owner's choice says of the channels, beside the host: whether their funding outputs are spent.

use std::collections::BTreeMap;

use bitcoin::{OutPoint, Txid};
use longhand_spv::Headers;

/// An answer counts for so long, however many blocks its host shows the phone: a host could close a channel after it.
const FRESH_S: u64 = 60;

/// What a source says of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputState {
    /// No transaction that the source knows spends it.
    Unspent,
    /// A transaction spends it that is in no block yet.
    Spending,
    /// A transaction in the best chain spends it: this one, if the source says so.
    Spent(Option<Txid>),
}

/// The source's last answer about an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceAnswer {
    /// The height of the source's tip when it answered.
    pub height: u32,
    /// When it answered, by the phone's clock.
    pub at_unix_s: u64,
    /// What it said.
    pub state: OutputState,
}

/// The answers of a source, in memory: they are asked for again after a start.
#[derive(Clone, Debug, Default)]
pub(crate) struct Source(BTreeMap<OutPoint, SourceAnswer>);

impl Source {
    /// Whether the source has just said, at the newest block that the phone knows, that an output is unspent, or in a block spent.
    pub fn is_sure_of(&self, outpoint: &OutPoint, headers: &Headers, now_unix_s: u64) -> bool {
        self.0.get(outpoint).is_some_and(|answer| {
            let age_s = now_unix_s.abs_diff(answer.at_unix_s);
            let is_fresh = answer.height >= headers.height() && age_s <= FRESH_S;
            is_fresh && answer.state != OutputState::Spending
        })
    }

    /// Whether the output is spent in a block, as the source said last, and by which transaction.
    pub fn spent(&self, outpoint: &OutPoint) -> Option<Option<Txid>> {
        match self.0.get(outpoint)?.state {
            OutputState::Spent(txid) => Some(txid),
            OutputState::Unspent | OutputState::Spending => None,
        }
    }

    /// Keeps the source's answer about an output, in place of an earlier one.
    pub fn insert(&mut self, outpoint: OutPoint, answer: SourceAnswer) {
        self.0.insert(outpoint, answer);
    }

    /// Another source is asked from now on.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}
