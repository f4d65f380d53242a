//! Headers for a signer that follows the chain: it is shown the chain that the node follows, up to the newest block of the node.
//!
//! The signer says with the attach which blocks it knows. What it lacks goes before the first batch, so that no operation is judged by an
//! old tip, and costs no round trip; after that each new block is sent when the node has it.

use std::time::{Duration, Instant};

use bitcoin::Network;
use bitcoin::block::Header;
use bitcoin::consensus::serialize;
use longhand_chain::{BlockRef, ChainError, HeadersReply, HeadersRequest};
use longhand_proto::signer::ExtendHeaders;
use longhand_proto::signer::signer_op::Op;

use crate::machine::turn::Turn;

/// Headers of one operation.
const PER_OP: usize = 2_016;

/// The first batches wait so long for headers: the source may be slow, or away.
const PATIENCE: Duration = Duration::from_secs(3);

/// See the module.
#[derive(Default)]
pub(crate) struct SignerHeaders {
    /// Blocks that the signer knows, from its tip down; empty without a signer, or with one that follows no chain.
    known: Vec<BlockRef>,
    /// The node's newest block.
    tip: Option<BlockRef>,
    asks: Asks,
    /// Until then the batches of a signer that has just been attached wait for its headers.
    held_until: Option<Instant>,
    /// The signer was sent headers from its checkpoint on, since it had refused others. Not more than once.
    has_begun_anew: bool,
}

/// Where a request for headers is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Asks {
    #[default]
    Nothing,
    /// To be made.
    Due,
    /// Made, and not answered.
    UnderWay,
}

impl SignerHeaders {
    /// A signer that knows these blocks is attached.
    pub fn attached(&mut self, turn: &Turn, known: Vec<BlockRef>) {
        // Of an earlier link.
        let _ = turn.remote().map(|remote| remote.take_refused_headers());
        self.set_known(known);
        let follows = self.follows();
        self.held_until = follows.then(|| turn.now.instant + PATIENCE);
        self.has_begun_anew = false;
        if follows {
            self.asks = Asks::Due;
        }
    }

    /// The signer is gone.
    pub fn lost(&mut self) {
        self.set_known(Vec::new());
        self.held_until = None;
    }

    fn set_known(&mut self, known: Vec<BlockRef>) {
        self.known = known;
        self.asks = Asks::Nothing;
    }

    /// Whether a signer is attached that follows the chain.
    pub fn follows(&self) -> bool {
        !self.known.is_empty()
    }

    /// Whether headers are missing that are asked for.
    pub fn is_behind(&self) -> bool {
        self.asks != Asks::Nothing
    }

    /// Until when batches have to wait for headers.
    pub fn held_until(&self) -> Option<Instant> {
        self.held_until
    }

    /// Whether batches have to wait for headers.
    pub fn holds_batches(&self, now: Instant) -> bool {
        self.held_until.is_some_and(|until| now < until)
    }

    /// The headers took too long.
    pub fn hold_no_longer(&mut self) {
        self.held_until = None;
    }

    /// A request to be answered with [`SignerHeaders::answered`].
    pub fn request(&mut self, network: Network) -> Option<HeadersRequest> {
        if self.asks != Asks::Due {
            return None;
        }
        self.asks = Asks::UnderWay;
        Some(HeadersRequest {
            after: self.known.clone(),
            with_solutions: network == Network::Signet,
        })
    }

    /// A request that failed is made again.
    pub fn retry(&mut self) {
        if let Some(tip) = self.tip {
            self.compare(tip);
        }
    }

    /// The chain has answered a request.
    pub fn answered(&mut self, turn: &Turn, reply: Result<HeadersReply, ChainError>) {
        if self.asks != Asks::UnderWay {
            return;
        }
        self.asks = Asks::Nothing;
        match reply {
            Ok(reply) => self.send(turn, &reply),
            Err(error) => {
                self.held_until = None;
                tracing::warn!(%error, "no headers for the signer: they are asked for again");
            }
        }
    }

    fn send(&mut self, turn: &Turn, reply: &HeadersReply) {
        let Some(remote) = turn.remote() else { return };
        for op in operations(reply).into_iter().rev() {
            remote.ask_first(op);
        }
        let sent = u32::try_from(reply.headers.len()).unwrap_or(u32::MAX);
        let last = reply.headers.last().map(|last| BlockRef {
            height: reply.after.height.saturating_add(sent),
            hash: last.block_hash(),
        });
        self.known.retain(|known| known.height < reply.after.height);
        self.known.insert(0, reply.after);
        if let Some(last) = last {
            self.known.insert(0, last);
        }
        let is_at_tip = last.unwrap_or(reply.after) == reply.tip;
        if is_at_tip {
            self.held_until = None;
        }
        // A block may have come while the request was under way.
        let is_newer = self.tip.is_some_and(|tip| tip.height > reply.tip.height);
        if !is_at_tip || is_newer {
            self.asks = Asks::Due;
        }
    }

    /// The node is at the chain's tip.
    pub fn synced(&mut self, tip: BlockRef) {
        self.tip = Some(tip);
        self.compare(tip);
    }

    /// The signer has refused headers: it knows other blocks than it said, since it has started again meanwhile, with headers that it could not
    /// store.
    pub fn refused(&mut self) {
        if !self.has_begun_anew && self.follows() {
            self.has_begun_anew = true;
            self.known.drain(..self.known.len().saturating_sub(1));
            self.asks = Asks::Due;
        }
    }

    fn compare(&mut self, tip: BlockRef) {
        let is_ahead = |known: &BlockRef| known.height > tip.height || *known == tip;
        let is_behind = self.known.first().is_some_and(|known| !is_ahead(known));
        if is_behind && self.asks == Asks::Nothing {
            self.asks = Asks::Due;
        }
    }

    /// Blocks above `fork` have left the chain.
    pub fn disconnected(&mut self, fork: BlockRef) {
        let knows_fork = self.known.first().is_some_and(|it| it.height > fork.height);
        self.known.retain(|known| known.height <= fork.height);
        if knows_fork && self.known.first() != Some(&fork) {
            self.known.insert(0, fork);
        }
    }
}

/// A reply as operations.
fn operations(reply: &HeadersReply) -> Vec<Op> {
    let mut solutions = reply.solutions.chunks(PER_OP);
    let chunks = reply.headers.chunks(PER_OP);
    let operations = chunks.map(|headers: &[Header]| {
        Op::ExtendHeaders(ExtendHeaders {
            headers: headers.iter().flat_map(serialize).collect(),
            solutions: solutions.next().unwrap_or_default().to_vec(),
        })
    });
    operations.collect()
}

#[cfg(test)]
#[path = "tests/signer_headers.rs"]
mod tests;
