//! The scores of channels, learnt from the payments of all nodes of a host.

use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use lightning::routing::scoring::LockableScore;

use super::Scorer;

/// The scores behind a lock that outlives a panic: one node that panics while it updates them leaves one estimate half
/// updated, and LDK's own lock would then make each payment of every node panic.
pub(crate) struct Scores(RwLock<Scorer>);

impl Scores {
    pub fn new(scorer: Scorer) -> Scores {
        Scores(RwLock::new(scorer))
    }
}

impl<'a> LockableScore<'a> for Scores {
    type ScoreUpdate = Scorer;
    type ScoreLookUp = Scorer;
    type WriteLocked = RwLockWriteGuard<'a, Scorer>;
    type ReadLocked = RwLockReadGuard<'a, Scorer>;

    fn read_lock(&'a self) -> RwLockReadGuard<'a, Scorer> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_lock(&'a self) -> RwLockWriteGuard<'a, Scorer> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
