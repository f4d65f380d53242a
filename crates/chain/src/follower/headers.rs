//! Headers of the best chain for signers that follow it, and proofs of transactions in its blocks.
//!
//! All signers of a host are shown the same headers: they are fetched once, and kept in memory from the oldest that anybody asked for up to
//! the tip.

use std::collections::HashMap;
use std::sync::Arc;

use bitcoin::block::Header;
use bitcoin::{BlockHash, Txid};
use longhand_spv::{Proof, SignetProof};
use tokio::sync::{Mutex, Semaphore};

use crate::{BlockReader, BlockRef, ChainError, HeadersReply, HeadersRequest};

/// The most headers of one reply: twenty weeks.
const MOST_PER_REPLY: usize = 20_160;
/// The same with the solutions of their blocks, for each of which a block is read: a day.
const MOST_SOLVED_PER_REPLY: usize = 144;
/// The most headers that are kept: five years, some 20 MB.
const MOST_KEPT: u32 = 262_800;
/// Headers that are fetched from the source at once.
const CHUNK: u32 = 2_016;
/// Solutions of a signet's blocks that are kept.
const MOST_SOLUTIONS: usize = 20_160;
/// Blocks that are read for proofs at once.
const PROOFS_AT_ONCE: usize = 2;

/// See the module.
pub(super) struct HeaderServer {
    known: Mutex<KnownHeaders>,
    /// Older headers are fetched for one request at a time; others, which need none, do not wait for it.
    older: Mutex<()>,
    solutions: Mutex<HashMap<BlockHash, Arc<[u8]>>>,
    proofs: Semaphore,
}

/// The newest headers.
#[derive(Default)]
struct KnownHeaders {
    /// The height of the first.
    first: u32,
    /// Each follows the one before it.
    headers: Vec<Header>,
    /// Of the last one.
    tip: Option<BlockRef>,
}

/// Where the headers of a reply begin.
enum Start {
    After(BlockRef),
    /// Headers from this height on are missing.
    Below(u32),
}

impl HeaderServer {
    pub fn new() -> HeaderServer {
        HeaderServer {
            known: Mutex::default(),
            older: Mutex::default(),
            solutions: Mutex::default(),
            proofs: Semaphore::new(PROOFS_AT_ONCE),
        }
    }

    /// The follower has come to a block: its header is kept if it follows the newest that is.
    pub async fn connected(&self, block: BlockRef, header: &Header) {
        let mut known = self.known.lock().await;
        if known.tip.map(|tip| tip.hash) == Some(header.prev_blockhash) {
            known.headers.push(*header);
            known.tip = Some(block);
        }
    }

    /// The headers after the first block of `request` that is in the best chain.
    pub async fn after(
        &self,
        source: &dyn BlockReader,
        tip: BlockRef,
        request: &HeadersRequest,
    ) -> Result<HeadersReply, ChainError> {
        let mut reply = match self.reply(source, tip, request).await? {
            Ok(reply) => reply,
            Err(below) => {
                let _one = self.older.lock().await;
                self.reach_down(source, below).await?;
                let again = self.reply(source, tip, request).await?;
                again.map_err(|_| moved())?
            }
        };
        if request.with_solutions {
            reply.headers.truncate(MOST_SOLVED_PER_REPLY);
            reply.solutions = self.solutions(source, &reply.headers).await?;
        }
        Ok(reply)
    }

    /// The headers of the blocks up to `tip` from a height on, `most` of them at most: one chain.
    pub async fn at(
        &self,
        source: &dyn BlockReader,
        tip: BlockRef,
        from: u32,
        most: usize,
    ) -> Result<Vec<Header>, ChainError> {
        if let Some(headers) = self.kept(source, tip, from, most).await? {
            return Ok(headers);
        }
        if tip.height.saturating_sub(from) > MOST_KEPT {
            return Err(too_many());
        }
        let _one = self.older.lock().await;
        self.reach_down(source, from).await?;
        let kept = self.kept(source, tip, from, most).await?;
        kept.ok_or_else(moved)
    }

    /// The same, unless some of them are missing.
    async fn kept(
        &self,
        source: &dyn BlockReader,
        tip: BlockRef,
        from: u32,
        most: usize,
    ) -> Result<Option<Vec<Header>>, ChainError> {
        let mut known = self.known.lock().await;
        known.go_to(source, tip).await?;
        Ok(known.from(from, most))
    }

    /// A reply, or the height from which on headers are missing for it.
    async fn reply(
        &self,
        source: &dyn BlockReader,
        tip: BlockRef,
        request: &HeadersRequest,
    ) -> Result<Result<HeadersReply, u32>, ChainError> {
        let mut known = self.known.lock().await;
        known.go_to(source, tip).await?;
        let after = match known.find(source, &request.after).await? {
            Start::After(after) => after,
            Start::Below(height) => return Ok(Err(height)),
        };
        Ok(Ok(HeadersReply {
            headers: known.above(after.height),
            after,
            solutions: Vec::new(),
            tip,
        }))
    }

    /// Fetches the headers from `height` up to the first that is kept.
    async fn reach_down(&self, source: &dyn BlockReader, height: u32) -> Result<(), ChainError> {
        loop {
            let first = self.known.lock().await.first;
            if height >= first {
                return Ok(());
            }
            let count = CHUNK.min(first - height);
            let below = source.headers(first - count, count).await?;
            self.known.lock().await.prepend(first, below)?;
        }
    }

    async fn solutions(
        &self,
        source: &dyn BlockReader,
        headers: &[Header],
    ) -> Result<Vec<Vec<u8>>, ChainError> {
        let mut solutions = Vec::with_capacity(headers.len());
        for header in headers {
            let hash = header.block_hash();
            let kept = self.solutions.lock().await.get(&hash).cloned();
            let solution = match kept {
                Some(solution) => solution,
                None => {
                    let proof = SignetProof::prove(&source.block(&hash).await?);
                    let empty = || ChainError::Malformed("a block without transactions".into());
                    let solution: Arc<[u8]> = proof.ok_or_else(empty)?.encode().into();
                    let mut kept = self.solutions.lock().await;
                    if kept.len() >= MOST_SOLUTIONS {
                        kept.clear();
                    }
                    kept.insert(hash, solution.clone());
                    solution
                }
            };
            solutions.push(solution.to_vec());
        }
        Ok(solutions)
    }

    /// The proof that a transaction is in a block.
    pub async fn prove(
        &self,
        source: &dyn BlockReader,
        block: BlockHash,
        txid: Txid,
    ) -> Result<Proof, ChainError> {
        let _permit = self.proofs.acquire().await;
        let block = source.block(&block).await?;
        let mut transactions = block.txdata.iter();
        let position = transactions.position(|tx| tx.compute_txid() == txid);
        let position = position.and_then(|position| u32::try_from(position).ok());
        let not_there = || ChainError::NotFound(format!("transaction {txid} in the block"));
        let proof = Proof::prove(&block, position.ok_or_else(not_there)?);
        proof.map_err(|error| ChainError::Malformed(error.to_string()))
    }
}

impl KnownHeaders {
    /// Those above a height, as many as one reply has.
    fn above(&self, height: u32) -> Vec<Header> {
        let above = self.from(height.saturating_add(1), MOST_PER_REPLY);
        above.unwrap_or_default()
    }

    /// Those from a height on, `most` of them at most; `None` when they begin above it.
    fn from(&self, height: u32, most: usize) -> Option<Vec<Header>> {
        let at = usize::try_from(height.checked_sub(self.first)?).ok()?;
        let from = self.headers.get(at..).unwrap_or_default();
        Some(from[..from.len().min(most)].to_vec())
    }

    /// Follows the best chain to `tip`.
    async fn go_to(&mut self, source: &dyn BlockReader, tip: BlockRef) -> Result<(), ChainError> {
        if self.tip == Some(tip) {
            return Ok(());
        }
        // Headers that have left the chain are taken off the end.
        while let Some(last) = self.tip {
            if last.height <= tip.height && source.hash_at(last.height).await? == last.hash {
                break;
            }
            self.pop();
        }
        let from = match self.tip {
            Some(last) => last.height.saturating_add(1),
            None => {
                self.first = tip.height;
                tip.height
            }
        };
        let mut next = from;
        while next <= tip.height {
            let count = CHUNK.min(tip.height - next + 1);
            for header in source.headers(next, count).await? {
                self.push(next, header)?;
                next += 1;
            }
        }
        match self.tip == Some(tip) {
            true => Ok(()),
            false => Err(moved()),
        }
    }

    fn push(&mut self, height: u32, header: Header) -> Result<(), ChainError> {
        if self
            .tip
            .is_some_and(|tip| tip.hash != header.prev_blockhash)
        {
            return Err(moved());
        }
        let hash = header.block_hash();
        self.headers.push(header);
        self.tip = Some(BlockRef { height, hash });
        Ok(())
    }

    fn pop(&mut self) {
        let header = self.headers.pop();
        let below = header.filter(|_| !self.headers.is_empty());
        self.tip = below.zip(self.tip).map(|(header, tip)| BlockRef {
            height: tip.height.saturating_sub(1),
            hash: header.prev_blockhash,
        });
    }

    /// The first of `blocks`, which go down from a tip, that is in the best chain.
    async fn find(
        &self,
        source: &dyn BlockReader,
        blocks: &[BlockRef],
    ) -> Result<Start, ChainError> {
        let tip = self.tip.map_or(0, |tip| tip.height);
        for block in blocks.iter().filter(|block| block.height <= tip) {
            if block.height >= self.first {
                if self.hash(block.height) == Some(block.hash) {
                    return Ok(Start::After(*block));
                }
                continue;
            }
            // One question for each below what is kept: an unknown block costs no more.
            if source.hash_at(block.height).await? == block.hash {
                return match tip - block.height <= MOST_KEPT {
                    true => Ok(Start::Below(block.height)),
                    false => Err(too_many()),
                };
            }
        }
        let message = "a block that the signer knows: is the signer on another network?";
        Err(ChainError::NotFound(message.into()))
    }

    fn hash(&self, height: u32) -> Option<BlockHash> {
        let tip = self.tip?;
        if height == tip.height {
            return Some(tip.hash);
        }
        let next = height.checked_sub(self.first)?.checked_add(1)?;
        let next = self.headers.get(usize::try_from(next).ok()?)?;
        Some(next.prev_blockhash)
    }

    /// Adds headers that end before `first`, unless somebody else has, or the chain is another one.
    fn prepend(&mut self, first: u32, mut below: Vec<Header>) -> Result<(), ChainError> {
        let joins = below.last().map(Header::block_hash)
            == self.headers.first().map(|first| first.prev_blockhash);
        let count = u32::try_from(below.len()).map_err(|_| moved())?;
        if self.first != first || !joins {
            return Err(moved());
        }
        below.append(&mut self.headers);
        self.headers = below;
        self.first = first.saturating_sub(count);
        Ok(())
    }
}

fn too_many() -> ChainError {
    ChainError::NotFound("so many headers at once: update the program of the phone".into())
}

/// The source's chain was reorganised between two answers: whoever asked asks again with the next tip.
pub(super) fn moved() -> ChainError {
    ChainError::NotFound("one chain from one request to the next: it was reorganised".into())
}

#[cfg(test)]
#[path = "tests/headers.rs"]
mod tests;
