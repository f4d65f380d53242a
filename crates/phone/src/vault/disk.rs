//! Durable writes of a vault, once it has been made. All go through here.
//!
//! A write has two parts: bytes, of which a power cut may leave some, and the step that makes them valid, such as a sync or a rename.
//! Tests put their faults before, between and after them.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use longhand_base::files::sync_directory;

#[cfg(any(test, feature = "testing"))]
use crate::testing::Faults;

/// The kinds of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DiskWrite {
    /// An entry at the end of the ledger: the records of one reply.
    LedgerAppend,
    /// The removal of an entry that was not written whole, after a failed append or when the ledger is opened.
    LedgerCut,
    /// A sync of the ledger when it is opened: a process that was killed may have written it without one.
    LedgerSync,
    /// The count of entries, after an append or a compaction, or behind them when the ledger is opened.
    HeadRaise,
    /// A snapshot in place of the ledger's history.
    LedgerCompact,
    /// The host that the phone is paired with.
    Host,
    /// The removal of that host.
    HostForget,
}

/// The size in bytes below which a ledger is not compacted.
pub(crate) const COMPACT_FROM_BYTES: u64 = 1 << 20;

/// The way of all durable writes, shared by all files of one vault.
#[derive(Default)]
pub(crate) struct Disk {
    #[cfg(any(test, feature = "testing"))]
    pub(crate) faults: Faults,
}

impl Disk {
    /// Does one write: `put` takes the bytes, `settle` makes them durable.
    #[cfg(any(test, feature = "testing"))]
    pub(super) fn write<T, U>(
        &self,
        what: DiskWrite,
        bytes: &[u8],
        put: impl FnOnce(&[u8]) -> io::Result<T>,
        settle: impl FnOnce(T) -> io::Result<U>,
    ) -> io::Result<U> {
        self.faults.write(what, bytes, put, settle)
    }

    /// Does one write: `put` takes the bytes, `settle` makes them durable.
    #[cfg(not(any(test, feature = "testing")))]
    pub(super) fn write<T, U>(
        &self,
        _: DiskWrite,
        bytes: &[u8],
        put: impl FnOnce(&[u8]) -> io::Result<T>,
        settle: impl FnOnce(T) -> io::Result<U>,
    ) -> io::Result<U> {
        settle(put(bytes)?)
    }

    /// The size in bytes from which a ledger is compacted.
    pub(super) fn compact_from_bytes(&self) -> u64 {
        #[cfg(any(test, feature = "testing"))]
        return self.faults.compact_from_bytes();
        #[cfg(not(any(test, feature = "testing")))]
        COMPACT_FROM_BYTES
    }

    /// Fails when a test has cut the power.
    pub(super) fn check(&self) -> io::Result<()> {
        #[cfg(any(test, feature = "testing"))]
        self.faults.check()?;
        Ok(())
    }

    /// Replaces a file by a new one, whole or not at all. `true` in the error: it may have been replaced all the same.
    pub(super) fn replace(
        &self,
        what: DiskWrite,
        dir: &Path,
        name: &str,
        bytes: &[u8],
    ) -> Result<File, (io::Error, bool)> {
        let mut is_placed = false;
        let replaced = self.write(
            what,
            bytes,
            |bytes| write_new(dir, name, bytes),
            |file| {
                is_placed = true;
                put_in_place(dir, name)?;
                Ok(file)
            },
        );
        replaced.map_err(|error| (error, is_placed))
    }
}

/// Writes a whole file beside the one in use, durably.
pub(super) fn write_new(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<File> {
    let new = dir.join(format!("{name}.new"));
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(file)
    })();
    written.inspect_err(|_| {
        // Best effort: the next one overwrites it.
        let _ = std::fs::remove_file(&new);
    })
}

/// Renames the file that [`write_new`] wrote, in place of the one in use.
pub(super) fn put_in_place(dir: &Path, name: &str) -> io::Result<()> {
    std::fs::rename(dir.join(format!("{name}.new")), dir.join(name))?;
    sync_directory(dir)
}
