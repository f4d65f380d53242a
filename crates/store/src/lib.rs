//! Where a host keeps what must outlive it: one trait, and the stores behind it.
//!
//! A [`Store`] holds small values under `(namespace, key)`. A node has one namespace;
//! it reads all of it once when it loads, and from then on only writes, one atomic
//! [`Batch`] for each turn. What a turn has to say to the phone, to its peers or to
//! the chain waits until [`Store::commit`] has returned.

//!
//! - [`SqliteStore`]: one file, for a host; `sqlite.rs`, with its thread in `sqlite/worker.rs`.
//! - [`MemoryStore`]: for tests and for nodes that may be forgotten.
//! - [`testing`]: what every store must pass, and a store that fails on request.

mod memory;
mod sqlite;
pub mod testing;

use std::fmt;

use async_trait::async_trait;

pub use memory::MemoryStore;
pub use sqlite::SqliteStore;

/// What a store must do. Implementations are shared by all nodes of a host.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Every entry of `namespace`, in the order of its keys.
    async fn load(&self, namespace: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// The value of one key.
    async fn get(&self, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let entries = self.load(namespace).await?;
        Ok(entries
            .into_iter()
            .find(|(at, _)| at == key)
            .map(|(_, value)| value))
    }

    /// All namespaces that begin with `prefix` and hold at least one entry, in order.
    async fn namespaces(&self, prefix: &str) -> Result<Vec<String>, StoreError>;

    /// Makes all writes of `batch` durable, or none of them.
    ///
    /// Fails with [`StoreError::Fenced`] when a newer lease on the namespace has been
    /// taken than the batch was made under. A caller that stops waiting does not take the
    /// batch back: it may become durable all the same.
    async fn commit(&self, batch: Batch) -> Result<(), StoreError>;

    /// Takes the lease of `namespace`: every batch of an older epoch fails from now on.
    /// Returns the new epoch.
    async fn take_lease(&self, namespace: &str) -> Result<u64, StoreError>;
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

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another host has taken the lease.
    #[error(
        "another host has taken over {namespace} (lease {held}, now {current}): this one must let go"
    )]
    Fenced {
        /// The namespace that was written to.
        namespace: String,
        /// The writer's epoch.
        held: u64,
        /// The epoch in force.
        current: u64,
    },
    /// The disk is full; nothing of the batch was written. Retry when there is room.
    #[error("the disk that holds the database is full: free some space; nothing was changed")]
    Full,
    /// Another process has the database open.
    #[error("the database {0} is in use by another process: stop that one first")]
    Locked(String),
    /// The file is not a Longhand database.
    #[error("{0} is not a Longhand database: choose another file")]
    Foreign(String),
    /// The file was written by a newer Longhand.
    #[error(
        "the database has version {found}, this program knows up to {known}: use a newer Longhand"
    )]
    Newer {
        /// Version in the file.
        found: u32,
        /// Newest version this program reads.
        known: u32,
    },
    /// Anything else that the store reports.
    #[error("the database failed: {0}")]
    Other(String),
}
