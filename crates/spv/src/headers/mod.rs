//! The chain of headers: what has most proof of work of all that was shown (Nakamoto's rule).
//!
//! ```text
//! checkpoint ── … ── fork ── … ── tip          the best chain, stored
//!                      └──── … ── …            branches with less work, a bounded number, in memory
//! ```
//! In memory a header takes 80 bytes. Everything that comes in is taken to be an adversary's. A header costs its maker the proof of work that
//! the rules ask for, which is nearly nothing on regtest and right after the genesis blocks; so a later checkpoint is worth having.

mod error;
mod line;
mod lookup;
mod rules;
mod side;
mod store;

use bitcoin::{BlockHash, Work, block::Header};

pub use self::error::{HeaderError, StoredError};
use self::line::{Line, no_work, total_work};
use self::side::{Branch, Side};
pub use self::store::{Restored, STORED_HEADER_BYTES, StoredChange};
use crate::checkpoint::Checkpoint;
use crate::params::Params;
use crate::signet::{self, SignetProof};

/// The most headers of a batch: two weeks of them.
pub const MAX_BATCH: usize = 2016;
/// The most headers that are kept of branches with less work: some 1.3 MB.
pub const MAX_SIDE_HEADERS: usize = 8 * MAX_BATCH;
/// The most branches with less work.
pub const MAX_BRANCHES: usize = 16;

/// What a batch did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a change has to be stored"]
pub enum Extended {
    /// All of it was known.
    Known,
    /// The tip went on.
    Appended {
        /// So many new headers.
        count: u32,
        /// To be stored.
        change: StoredChange,
    },
    /// Another chain has more work. Blocks above the fork are not in the chain any more: whatever was learned from them is to be taken
    /// back.
    Reorganised {
        /// The last height that both chains share.
        fork_height: u32,
        /// So many blocks are not in the chain any more.
        disconnected: u32,
        /// So many are instead.
        connected: u32,
        /// To be stored.
        change: StoredChange,
    },
    /// Valid headers of a chain that does not have more work. They are kept in memory for when it has.
    Side {
        /// The last height that they share with the best chain.
        fork_height: u32,
        /// The height up to which that chain is known.
        height: u32,
    },
}

impl Extended {
    /// What is to be stored; `None` when the best chain is as it was.
    pub fn into_change(self) -> Option<StoredChange> {
        match self {
            Extended::Appended { change, .. } | Extended::Reorganised { change, .. } => {
                Some(change)
            }
            Extended::Known | Extended::Side { .. } => None,
        }
    }
}

/// The headers that a phone knows. See the module.
#[derive(Clone, Debug)]
pub struct Headers {
    params: Params,
    checkpoint: Checkpoint,
    /// The best chain, from the checkpoint's header on.
    best: Vec<Header>,
    tip_hash: BlockHash,
    /// Of all headers after the checkpoint.
    work: Work,
    side: Side,
}

/// Where a batch belongs.
struct Place {
    /// The last height that its chain shares with the best one.
    fork: u32,
    /// The headers between the fork and the first new one.
    before: Vec<Header>,
    /// The branch whose tip it extends.
    extends: Option<usize>,
    /// So many of its headers are known.
    known: usize,
}

impl Headers {
    /// None but the checkpoint, which has to be of the network of `params`.
    pub fn new(params: Params, checkpoint: Checkpoint) -> Headers {
        debug_assert_eq!(params.network(), checkpoint.network());
        Headers {
            params,
            best: vec![*checkpoint.header()],
            tip_hash: checkpoint.hash(),
            work: no_work(),
            side: Side::default(),
            checkpoint,
        }
    }

    /// Reads back what [`Headers::stored`] and the changes since have written, and checks all of it anew: proof of work, difficulty and
    /// median times, not the limit of the future, and not the solutions of a signet. A record at the end that was not written whole is
    /// left out. An empty file is one without headers. Branches with less work are not stored.
    ///
    /// # Errors
    /// See [`StoredError`]: in each case the headers have to be fetched again, into a file that begins with [`Headers::stored`].
    pub fn from_stored(
        params: Params,
        checkpoint: Checkpoint,
        bytes: &[u8],
    ) -> Result<Restored, StoredError> {
        store::read(params, checkpoint, bytes)
    }

    /// All of it as bytes: what a new file begins with. Changes append to it. See [`StoredChange`].
    pub fn stored(&self) -> Vec<u8> {
        let mut bytes = store::head(&self.checkpoint);
        store::write(&self.best[1..], &mut bytes);
        bytes
    }

    /// Takes headers each of which follows the one before it. The first follows a block that is known, of the best chain or of a branch. Those
    /// that are known already are passed over. `now_unix_s` is the phone's clock.
    ///
    /// # Errors
    /// See [`HeaderError`]; nothing is changed then. On a signet whose challenge asks for a signature they come by
    /// [`Headers::extend_signed`] alone.
    pub fn extend(&mut self, headers: &[Header], now_unix_s: u64) -> Result<Extended, HeaderError> {
        let challenge = self.params.challenge();
        if challenge.is_some_and(|script| !signet::is_trivial(script)) {
            return Err(HeaderError::Solutions {
                headers: headers.len(),
                solutions: 0,
            });
        }
        self.take(headers, None, now_unix_s)
    }

    /// The same on a signet, with the solution of each block, in order.
    ///
    /// # Errors
    /// See [`HeaderError`]; nothing is changed then.
    pub fn extend_signed(
        &mut self,
        headers: &[Header],
        solutions: &[SignetProof],
        now_unix_s: u64,
    ) -> Result<Extended, HeaderError> {
        if headers.len() != solutions.len() {
            return Err(HeaderError::Solutions {
                headers: headers.len(),
                solutions: solutions.len(),
            });
        }
        self.take(headers, Some(solutions), now_unix_s)
    }

    fn take(
        &mut self,
        headers: &[Header],
        solutions: Option<&[SignetProof]>,
        now_unix_s: u64,
    ) -> Result<Extended, HeaderError> {
        let hashes = connected_hashes(headers)?;
        let Some(place) = self.place(headers, &hashes)? else {
            return Ok(Extended::Known);
        };
        let mut side = place.before;
        for (at, header) in headers.iter().enumerate().skip(place.known) {
            let above = u32::try_from(side.len() + 1).map_err(|_| HeaderError::Height)?;
            let height = place.fork.checked_add(above).ok_or(HeaderError::Height)?;
            let line = self.line(place.fork, &side);
            rules::check(
                &self.params,
                &line,
                height,
                header,
                hashes[at],
                Some(now_unix_s),
            )?;
            self.check_solution(solutions, at, height, header)?;
            side.push(*header);
        }
        let tip_hash = hashes.last().copied().unwrap_or(self.tip_hash);
        let above_fork = &self.best[self.index(place.fork) + 1..];
        let lost = total_work(above_fork);
        let won = total_work(&side);
        let branch = Branch {
            fork: place.fork,
            headers: side,
            tip_hash,
            work: self.work - lost + won,
        };
        match won > lost {
            true => Ok(self.switch(branch)),
            false => self.keep(branch, place.extends),
        }
    }

    fn check_solution(
        &self,
        solutions: Option<&[SignetProof]>,
        at: usize,
        height: u32,
        header: &Header,
    ) -> Result<(), HeaderError> {
        match (solutions, self.params.challenge()) {
            (Some(solutions), Some(challenge)) => solutions[at]
                .verify(header, challenge)
                .map_err(|source| HeaderError::Signet { height, source }),
            _ => Ok(()),
        }
    }

    /// Finds the place of a batch; `None` when all of it is known.
    fn place(
        &self,
        headers: &[Header],
        hashes: &[BlockHash],
    ) -> Result<Option<Place>, HeaderError> {
        let Some(first) = headers.first() else {
            return Ok(None);
        };
        let parent = first.prev_blockhash;
        let mut place = self.height_of(parent).map(|height| {
            let above = &self.best[self.index(height) + 1..];
            let known = above.iter().zip(headers);
            let known = known.take_while(|(own, of)| own == of).count();
            Place {
                fork: height.saturating_add(u32::try_from(known).unwrap_or(u32::MAX)),
                before: Vec::new(),
                extends: None,
                known,
            }
        });
        let on_best = place.as_ref().map(|place| (place.fork, place.known));
        for (at, branch) in self.side.branches().iter().enumerate() {
            let start = match branch.up_to(parent) {
                Some(count) => Some((count, 0)),
                None => on_best
                    .filter(|(fork, _)| *fork == branch.fork)
                    .map(|(_, known)| (0, known)),
            };
            let Some((count, known)) = start else {
                continue;
            };
            let shared = branch.shared(count, &hashes[known..]);
            let known = known + shared;
            let better = place.as_ref().is_none_or(|place| known > place.known);
            if better {
                let before = count + shared;
                place = Some(Place {
                    fork: branch.fork,
                    before: branch.headers[..before].to_vec(),
                    extends: (before == branch.headers.len()).then_some(at),
                    known,
                });
            }
        }
        let place = place.ok_or(HeaderError::Unconnected(parent))?;
        Ok((place.known < headers.len()).then_some(place))
    }

    /// Makes a branch the best chain: it has more work above its fork.
    fn switch(&mut self, branch: Branch) -> Extended {
        let after_fork = self.index(branch.fork) + 1;
        let old = self.best.split_off(after_fork);
        let old = Branch {
            fork: branch.fork,
            headers: old,
            tip_hash: self.tip_hash,
            work: self.work,
        };
        let mut append = Vec::new();
        store::write(&branch.headers, &mut append);
        let change = StoredChange {
            keep_bytes: store::length(after_fork - 1),
            append,
        };
        self.best.extend_from_slice(&branch.headers);
        self.tip_hash = branch.tip_hash;
        self.work = branch.work;
        let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let disconnected = count(old.headers.len());
        let connected = count(branch.headers.len());
        if disconnected == 0 {
            return Extended::Appended {
                count: connected,
                change,
            };
        }
        self.side.reorganise(old, &branch.headers);
        Extended::Reorganised {
            fork_height: branch.fork,
            disconnected,
            connected,
            change,
        }
    }

    /// Keeps a branch that has no more work than the best chain.
    fn keep(&mut self, branch: Branch, extends: Option<usize>) -> Result<Extended, HeaderError> {
        let fork_height = branch.fork;
        let above = u32::try_from(branch.headers.len()).map_err(|_| HeaderError::Height)?;
        let height = fork_height.checked_add(above).ok_or(HeaderError::Height)?;
        match self.side.add(branch, extends) {
            true => Ok(Extended::Side {
                fork_height,
                height,
            }),
            false => Err(HeaderError::SideFull),
        }
    }

    fn line<'a>(&'a self, fork: u32, side: &'a [Header]) -> Line<'a> {
        Line {
            checkpoint: &self.checkpoint,
            best: &self.best,
            fork,
            side,
        }
    }

    /// The place in `best` of a height that it has.
    fn index(&self, height: u32) -> usize {
        let above = height.saturating_sub(self.checkpoint.height());
        usize::try_from(above).map_or(self.best.len() - 1, |at| at.min(self.best.len() - 1))
    }
}

/// The hashes of headers each of which follows the one before it.
fn connected_hashes(headers: &[Header]) -> Result<Vec<BlockHash>, HeaderError> {
    if headers.len() > MAX_BATCH {
        return Err(HeaderError::TooMany(headers.len()));
    }
    let mut hashes: Vec<BlockHash> = Vec::with_capacity(headers.len());
    for (at, header) in headers.iter().enumerate() {
        if hashes
            .last()
            .is_some_and(|last| *last != header.prev_blockhash)
        {
            return Err(HeaderError::Broken(at));
        }
        hashes.push(header.block_hash());
    }
    Ok(hashes)
}
