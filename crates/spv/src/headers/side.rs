//! Branches that have less work than the best chain, of which a bounded number is kept.

use std::cmp::Reverse;

use bitcoin::{BlockHash, Work, block::Header};

use super::{MAX_BRANCHES, MAX_SIDE_HEADERS};

/// Headers that leave the best chain at a fork.
#[derive(Clone, Debug)]
pub(super) struct Branch {
    /// The height of the last block that it shares with the best chain.
    pub fork: u32,
    pub headers: Vec<Header>,
    pub tip_hash: BlockHash,
    /// Since the checkpoint, of its tip.
    pub work: Work,
}

impl Branch {
    fn hash(&self, at: usize) -> Option<BlockHash> {
        match self.headers.get(at + 1) {
            Some(next) => Some(next.prev_blockhash),
            None => (at + 1 == self.headers.len()).then_some(self.tip_hash),
        }
    }

    /// How many of its headers there are up to the block with this hash.
    pub fn up_to(&self, hash: BlockHash) -> Option<usize> {
        (0..self.headers.len())
            .rev()
            .find(|&at| self.hash(at) == Some(hash))
            .map(|at| at + 1)
    }

    /// How many of `hashes` it continues with after its first `count` headers.
    pub fn shared(&self, count: usize, hashes: &[BlockHash]) -> usize {
        let own = (count..).map_while(|at| self.hash(at));
        own.zip(hashes).take_while(|(own, of)| own == *of).count()
    }

    /// The best chain has left the blocks of `old`. A branch that began above the fork begins there now, with the old blocks that it shares.
    fn leave(&mut self, old: &Branch) {
        let Some(above) = self.fork.checked_sub(old.fork).filter(|above| *above > 0) else {
            return;
        };
        let shared = usize::try_from(above).unwrap_or(usize::MAX);
        let shared = &old.headers[..shared.min(old.headers.len())];
        self.fork = old.fork;
        // One that gets too long is emptied, and is left out next.
        if shared.len() + self.headers.len() <= MAX_SIDE_HEADERS {
            self.headers.splice(..0, shared.iter().copied());
        } else {
            self.headers.clear();
        }
    }

    /// Leaves out the blocks that the best chain has now. `false` when nothing is left.
    fn follow(&mut self, best: &[Header]) -> bool {
        let pairs = self.headers.iter().zip(best);
        let shared = pairs.take_while(|(own, of)| own == of).count();
        self.headers.drain(..shared);
        self.fork = self
            .fork
            .saturating_add(u32::try_from(shared).unwrap_or(u32::MAX));
        !self.headers.is_empty()
    }
}

/// All branches.
#[derive(Clone, Debug, Default)]
pub(super) struct Side {
    branches: Vec<Branch>,
}

impl Side {
    pub fn branches(&self) -> &[Branch] {
        &self.branches
    }

    pub fn count(&self) -> usize {
        self.branches.iter().map(|one| one.headers.len()).sum()
    }

    /// Keeps a branch, in the place of the one that it extends. When there are too many, those with the least work go. `false` when it
    /// has the least itself: then nothing is changed.
    #[must_use]
    pub fn add(&mut self, branch: Branch, extends: Option<usize>) -> bool {
        let added = branch.tip_hash;
        let others = self.branches.iter().enumerate();
        let others = others.filter(|(at, _)| Some(*at) != extends);
        let mut all: Vec<&Branch> = others.map(|(_, one)| one).collect();
        all.push(&branch);
        let kept: Vec<BlockHash> = heaviest(all).iter().map(|one| one.tip_hash).collect();
        if !kept.contains(&added) {
            return false;
        }
        if let Some(at) = extends.filter(|at| *at < self.branches.len()) {
            self.branches.remove(at);
        }
        self.branches.push(branch);
        self.branches.retain(|one| kept.contains(&one.tip_hash));
        true
    }

    /// After the best chain has left the blocks of `old` at their fork for `best`, which begins with the block after the fork.
    pub fn reorganise(&mut self, old: Branch, best: &[Header]) {
        let fork = old.fork;
        let mut branches = std::mem::take(&mut self.branches);
        for branch in &mut branches {
            branch.leave(&old);
        }
        branches.push(old);
        branches.retain_mut(|branch| branch.fork != fork || branch.follow(best));
        let kept = heaviest(branches.iter().collect());
        let kept: Vec<BlockHash> = kept.iter().map(|one| one.tip_hash).collect();
        branches.retain(|one| kept.contains(&one.tip_hash));
        self.branches = branches;
    }
}

/// Those with most work for which there is room.
fn heaviest(mut branches: Vec<&Branch>) -> Vec<&Branch> {
    branches.sort_by_key(|one| Reverse(one.work));
    let mut room = MAX_SIDE_HEADERS;
    let mut kept = Vec::new();
    for branch in branches {
        let Some(rest) = room.checked_sub(branch.headers.len()) else {
            continue;
        };
        if kept.len() < MAX_BRANCHES {
            room = rest;
            kept.push(branch);
        }
    }
    kept
}
