//! The count of the ledger's entries, in a file of its own.
//!
//! A copy of the ledger from yesterday is whole and authentic, and a signer restored from it
//! would sign what it has revoked since. This second file detects it: a ledger with fewer entries
//! than the count is refused. It is no defence against somebody who puts both back, only against
//! a restored backup; docs/THREATS.md says so.
//!
//! It is written after the ledger is durable and before the reply leaves, into two slots in turn,
//! so that a torn write leaves the other. It is synced only when opened: a power cut can leave it
//! behind the ledger, which then raises it again, but never ahead.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use longhand_base::files::sync_directory;

use super::VaultError;
use super::disk::{Disk, DiskWrite};
use super::seal::{OVERHEAD, Sealer};

const NAME: &str = "ledger.head";
const PLACE: &[u8] = b"longhand ledger head 1";
const SLOT_BYTES: usize = 64;
const SEALED_BYTES: usize = OVERHEAD + 8;

/// The open file and the count in it.
pub(crate) struct Head {
    file: File,
    entries: u64,
}

impl Head {
    /// Writes 0, in a new vault, also over a file that an interrupted creation left.
    pub(crate) fn create(dir: &Path, sealer: &Sealer) -> Result<(), VaultError> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(dir.join(NAME))?;
        file.set_len(2 * SLOT_BYTES as u64)?;
        let (sealed, at) = slot(sealer, 0)?;
        file.write_all_at(&sealed, at)?;
        file.sync_all()?;
        sync_directory(dir)?;
        Ok(())
    }

    /// Reads the higher of the two slots.
    pub(crate) fn open(dir: &Path, sealer: &Sealer) -> Result<Head, VaultError> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(dir.join(NAME));
        let mut file = file.map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => VaultError::NoHead,
            _ => error.into(),
        })?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let entries = bytes
            .chunks_exact(SLOT_BYTES)
            .filter_map(|slot| {
                let plain = sealer.open(PLACE, &slot[..SEALED_BYTES]).ok()?;
                Some(u64::from_be_bytes(*plain.first_chunk()?))
            })
            .max()
            .ok_or(VaultError::NoHead)?;
        Ok(Head { file, entries })
    }

    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// Writes the count `entries`.
    pub(crate) fn raise(
        &mut self,
        disk: &Disk,
        sealer: &Sealer,
        entries: u64,
    ) -> Result<(), VaultError> {
        if entries > self.entries {
            let (sealed, at) = slot(sealer, entries)?;
            let put = |bytes: &[u8]| self.file.write_all_at(bytes, at);
            disk.write(DiskWrite::HeadRaise, &sealed, put, Ok)?;
            self.entries = entries;
        }
        Ok(())
    }

    /// Returns when the count is durable.
    pub(crate) fn sync(&self) -> Result<(), VaultError> {
        Ok(self.file.sync_data()?)
    }
}

/// The bytes of a slot with the count `entries`, and its offset.
fn slot(sealer: &Sealer, entries: u64) -> std::io::Result<(Vec<u8>, u64)> {
    let sealed = sealer.seal(PLACE, &entries.to_be_bytes())?;
    Ok((sealed, (entries % 2) * SLOT_BYTES as u64))
}
