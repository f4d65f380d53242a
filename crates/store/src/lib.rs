//! The store of a host's durable state: one trait, and its implementations.
//!
//! A [`Store`] holds small values under `(namespace, key)`. A node has one namespace;
//! it reads its live records once when it loads, its history page by page when somebody asks, and writes one atomic
//! [`Batch`] for each turn. Messages to the phone, to peers or to the chain that follow from a turn wait until
//! [`Store::commit`] has returned.
//!
//! - [`StoreError`]: why a store failed, and whether another attempt can help.
//! - [`SqliteStore`]: one file, for a host; `sqlite.rs`, with its thread in `sqlite/worker.rs`. Feature `sqlite`, on by
//!   default.
//! - [`MemoryStore`]: for tests and for nodes that may be forgotten.
//! - [`testing`]: the tests that every store must pass, and a store that fails on request.

mod error;
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;
pub mod testing;

use std::fmt;

use async_trait::async_trait;

pub use error::StoreError;
pub use memory::MemoryStore;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteStore;

/// The promises of a store. One is shared by all nodes of a host. `testing::conformance` tests each promise.
///
/// # Errors
/// [`StoreError`]. A write that fails with [`StoreError::Unavailable`] or [`StoreError::Halted`] may have become
/// durable all the same: only the answer may be lost. A caller that goes on reads the stored values back first.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Every entry of `namespace`, in the order of its keys.
    async fn load(&self, namespace: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Entries of `namespace` whose keys are in `range`, in descending order of their keys: the last `range.limit` of them.
    /// Reads nothing else of the namespace, which may be large.
    async fn range(
        &self,
        namespace: &str,
        range: KeyRange,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// The value of one key; reads nothing else of the namespace, which may be large.
    async fn get(&self, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// All namespaces that begin with `prefix` and hold at least one entry, in order.
    async fn namespaces(&self, prefix: &str) -> Result<Vec<String>, StoreError>;

    /// Makes all writes of `batch` durable, or none of them.
    ///
    /// Fails with [`StoreError::Fenced`] when a newer lease on the namespace has been
    /// taken than the batch was made under. A caller that stops waiting does not take the
    /// batch back: it may become durable all the same.
    async fn commit(&self, batch: Batch) -> Result<(), StoreError>;

    /// Takes the lease of `namespace`: every batch of an older epoch fails from now on.
    /// Returns the new epoch, which is durable.
    async fn take_lease(&self, namespace: &str) -> Result<u64, StoreError>;

    /// Finishes the calls that were begun before, and releases the file or the connection, so that another process may open
    /// the store. Every later call fails with [`StoreError::Closed`]; closing again does nothing.
    ///
    /// The caller that opened a store closes it. After an error, the file or the connection may still be held; all
    /// committed batches are durable nevertheless.
    async fn close(&self) -> Result<(), StoreError>;
}

/// Keys of one namespace that are next to each other, in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key that may be in it.
    pub from: String,
    /// The first key after it. With `to` at or before `from` it is empty.
    pub to: String,
    /// The most entries that are read; `None` for all.
    pub limit: Option<u32>,
}

/// Writes of one namespace that become durable together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The namespace all writes go to.
    pub namespace: String,
    /// The epoch from [`Store::take_lease`] that the writer holds; 0 where no lease was ever taken.
    pub epoch: u64,
    /// In order; a later write of the same key wins.
    pub writes: Vec<Write>,
}

/// One write.
#[derive(Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets the value of a key.
    Put(String, Vec<u8>),
    /// Removes a key; nothing happens when it is not there.
    Delete(String),
}

impl fmt::Debug for Write {
    /// Values may be secret: only their size is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Write::Put(key, value) => write!(f, "Put({key}, {} bytes)", value.len()),
            Write::Delete(key) => write!(f, "Delete({key})"),
        }
    }
}
