//! A digest of all data that passed through the parts of a world: two runs with the same one were the same run.

use std::hash::{DefaultHasher, Hash, Hasher};

use tokio::time::Instant;

use crate::world::plan::Kind;

/// Every step of every kind so far, with its time and content, also while steps do not count.
#[derive(Default)]
pub struct Trace {
    began: Option<Instant>,
    digest: DefaultHasher,
}

impl Trace {
    /// Adds a step of `kind`, with the data that identifies it.
    pub fn add(&mut self, kind: Kind, what: impl Hash) {
        let now = Instant::now();
        let since = now - *self.began.get_or_insert(now);
        (kind as u8, since, what).hash(&mut self.digest);
    }

    /// Digest of all steps so far. The same in every process of one build.
    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }
}
