//! The reasons for which headers are refused.

use bitcoin::{BlockHash, CompactTarget};

use super::{MAX_BATCH, MAX_SIDE_HEADERS};
use crate::signet::SignetError;

/// The reason for which a batch of headers is refused. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HeaderError {
    /// More than [`MAX_BATCH`].
    #[error("{0} headers at once are too many: send at most {MAX_BATCH}")]
    TooMany(usize),
    /// The block before the first one is not known.
    #[error(
        "block {0}, which the first header follows, is not known here: send headers from a block of the locator on"
    )]
    Unconnected(BlockHash),
    /// One does not follow the one before it in the batch; counted from 0.
    #[error(
        "header {0} of the batch does not follow the one before it: send them in order, without gaps"
    )]
    Broken(usize),
    /// The difficulty is not the one that the rules give.
    #[error(
        "the header at height {height} has difficulty {found:08x}, and the rules give {expected:08x}: it is of another chain"
    )]
    Bits {
        /// Its height.
        height: u32,
        /// What the rules give.
        expected: CompactTarget,
        /// What it has.
        found: CompactTarget,
    },
    /// Its hash is above its target.
    #[error("the header at height {0} has no proof of work: it was not mined")]
    Work(u32),
    /// Its time is not later than the median of the eleven blocks before it.
    #[error(
        "the header at height {height} is of time {time}, not later than the median {median} of the blocks before it: it is of no valid chain"
    )]
    TooOld {
        /// Its height.
        height: u32,
        /// Its time in unix seconds.
        time: u32,
        /// The median of the times of the eleven blocks before it.
        median: u32,
    },
    /// Its time is more than two hours in the future.
    #[error(
        "the header at height {height} is of time {time}, more than two hours after the clock's {now}: check the clock"
    )]
    TooNew {
        /// Its height.
        height: u32,
        /// Its time in unix seconds.
        time: u32,
        /// The time that was handed in.
        now: u64,
    },
    /// The first block of a period on testnet4 is more than ten minutes older than the block before it (BIP 94, rule 3).
    #[error(
        "the header at height {0} is more than ten minutes older than the one before it: testnet4 takes no such block"
    )]
    Timewarp(u32),
    /// Higher than heights go.
    #[error("there are no heights above {max}", max = u32::MAX)]
    Height,
    /// They are of a chain with less work, and there is no room for it.
    #[error(
        "the headers are of a chain with less work, for which there is no room beside {MAX_SIDE_HEADERS} others: begin again from the checkpoint with the source that has most work"
    )]
    SideFull,
    /// On a signet the solutions of the blocks belong to the headers.
    #[error(
        "headers of a signet come with the solution of each block: there are {solutions} for {headers}"
    )]
    Solutions {
        /// How many headers there are.
        headers: usize,
        /// How many solutions there are.
        solutions: usize,
    },
    /// The block at this height does not solve the signet's challenge (BIP 325).
    #[error("the block at height {height} is not one of this signet: {source}")]
    Signet {
        /// Its height.
        height: u32,
        /// Why.
        source: SignetError,
    },
}

/// The reason for which stored headers are not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoredError {
    /// Not a file of headers.
    #[error("these are no stored headers: fetch the headers again")]
    Unknown,
    /// Of another version.
    #[error(
        "the stored headers are of version {0}, which this program cannot read: fetch the headers again"
    )]
    Version(u8),
    /// They begin elsewhere.
    #[error("the stored headers begin at another checkpoint: fetch the headers again")]
    Checkpoint,
    /// One is damaged, or of another chain.
    #[error("the stored headers are damaged ({0}): fetch the headers again")]
    Damaged(#[source] HeaderError),
}
