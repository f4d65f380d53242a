//! The storage of a vault: a few files by name, handed in. [`Directory`](super::Directory) is that of an operating system.
//!
//! The calls block. The phone makes them where that delays no other task (`Runtime::run_blocking`); a browser's phone is in a worker, where
//! files of the origin can be written and flushed by blocking calls.

use std::io;

/// The length of a ledger that is read in a moment.
const COMPACT_FROM_BYTES: u64 = 1 << 20;

/// Files by name. Each is used by one phone at a time: whoever hands a storage in has ensured that no other process has it.
pub trait Storage: Send + Sync + 'static {
    /// Where it is, for messages to the owner.
    fn place(&self) -> String;

    /// The whole file, as it is now; `None` when there is none.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Replaces the file by a new one, or makes it: whole or not at all, and durable when this returns.
    ///
    /// # Errors
    /// Says whether the new file may be there all the same.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), ReplaceError>;

    /// Adds `bytes` at the end of the file, which is at `at`; durable when this returns. After an error some of the bytes may be there.
    fn append(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file to `length` bytes; durable when this returns.
    fn cut(&self, name: &str, length: u64) -> io::Result<()>;

    /// Writes over a part of the file. Durable after the next [`Storage::sync`], but any later process reads it already.
    fn overwrite(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes the file durable, as it is.
    fn sync(&self, name: &str) -> io::Result<()>;

    /// Removes the file; durable when this returns. Fails when there is none.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// The length in bytes from which the ledger is replaced by a snapshot, which costs a few writes.
    fn compact_from_bytes(&self) -> u64 {
        COMPACT_FROM_BYTES
    }

    /// Gives the storage up: another process may use it from now on, and every later call fails.
    fn release(&self);
}

/// A file was not replaced, or it is not known whether it was.
#[derive(Debug)]
pub struct ReplaceError {
    /// The reason.
    pub error: io::Error,
    /// Whether the new file may be in place of the old one, now or after a crash.
    pub may_be_replaced: bool,
}

impl From<ReplaceError> for io::Error {
    fn from(failed: ReplaceError) -> io::Error {
        failed.error
    }
}
