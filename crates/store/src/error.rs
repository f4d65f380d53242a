//! Errors of a store, with messages for the operator, and whether another attempt can help.

use longhand_proto::Code;

/// Why a call of a store failed. The variants are those of any store: a file, or a server.
///
/// Callers ask [`StoreError::is_transient`] and do not list variants, so that a store may add one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Busy, out of reach, or a read that failed. The text is the reported error.
    #[error("the database is unavailable ({0}): check its disk, or the connection to its server")]
    Unavailable(String),
    /// There is no room; nothing of the batch was written.
    #[error("the disk that holds the database is full: free some space; nothing was changed")]
    Full,
    /// The stored data is damaged. The text is the reported error.
    #[error(
        "the database is damaged ({0}): stop the host, check the disk, then repair the database or restore its \
         newest backup; a backup older than the last payment must not be started"
    )]
    Corrupt(String),
    /// A write failed in a way that leaves it unknown what is on the disk, so that nothing more is written. The text
    /// is the reported error.
    #[error(
        "an earlier write failed ({0}), and what the disk holds is unknown: check the disk, then restart the host"
    )]
    Halted(String),
    /// Another host has taken the lease; nothing of the batch was written.
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
    /// Another process has the database open. The text names the database.
    #[error("the database {0} is in use by another process: stop that one first")]
    InUse(String),
    /// It holds data of another program. The text names it.
    #[error(
        "{0} is not a Longhand database: choose another place; if it was one, its first page is damaged: check the disk"
    )]
    Foreign(String),
    /// It was written by a newer Longhand.
    #[error(
        "the database has version {found}, this program knows up to {known}: use a newer Longhand"
    )]
    Newer {
        /// Version in the database.
        found: u32,
        /// Newest version this program reads.
        known: u32,
    },
    /// The call can never succeed: a permission is missing, a path does not exist, a value is too large. The text has
    /// the cause, and what to do.
    #[error("the database cannot be used: {0}")]
    Unusable(String),
    /// [`Store::close`](crate::Store::close) was called before.
    #[error("the database was closed: open it again")]
    Closed,
}

impl StoreError {
    /// Whether the same call may succeed later, with this process still running: then it is worth another attempt.
    /// All other errors are final, and a person has to act.
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::Unavailable(_) | StoreError::Full)
    }

    /// A stable code for programs.
    pub fn code(&self) -> Code {
        match self {
            StoreError::Unavailable(_) => Code::DatabaseUnavailable,
            StoreError::Full => Code::DiskFull,
            StoreError::Corrupt(_) => Code::DatabaseCorrupt,
            StoreError::Fenced { .. } => Code::DatabaseFenced,
            StoreError::InUse(_) => Code::DatabaseLocked,
            StoreError::Foreign(_) => Code::DatabaseForeign,
            StoreError::Newer { .. } => Code::DatabaseNewer,
            StoreError::Halted(_) | StoreError::Unusable(_) | StoreError::Closed => {
                Code::DatabaseFailed
            }
        }
    }
}
