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

use std::io;

use super::VaultError;
use super::seal::{OVERHEAD, Sealer};
use super::storage::Storage;

/// The name of its file.
pub(crate) const NAME: &str = "ledger.head";
const PLACE: &[u8] = b"longhand ledger head 1";
const SLOT_BYTES: usize = 64;
const SEALED_BYTES: usize = OVERHEAD + 8;

/// The count in the file.
pub(crate) struct Head {
    entries: u64,
}

impl Head {
    /// Writes 0, in a new vault, also over a file that an interrupted creation left.
    pub(crate) fn create(storage: &dyn Storage, sealer: &Sealer) -> Result<(), VaultError> {
        let (mut slots, _) = slot(sealer, 0)?;
        slots.resize(2 * SLOT_BYTES, 0);
        Ok(storage.replace(NAME, &slots).map_err(io::Error::from)?)
    }

    /// Reads the higher of the two slots.
    pub(crate) fn open(storage: &dyn Storage, sealer: &Sealer) -> Result<Head, VaultError> {
        let bytes = storage.read(NAME)?.ok_or(VaultError::NoHead)?;
        let entries = bytes
            .chunks_exact(SLOT_BYTES)
            .filter_map(|slot| {
                let plain = sealer.open(PLACE, &slot[..SEALED_BYTES]).ok()?;
                Some(u64::from_be_bytes(*plain.first_chunk()?))
            })
            .max()
            .ok_or(VaultError::NoHead)?;
        Ok(Head { entries })
    }

    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// Writes the count `entries`.
    pub(crate) fn raise(
        &mut self,
        storage: &dyn Storage,
        sealer: &Sealer,
        entries: u64,
    ) -> Result<(), VaultError> {
        if entries > self.entries {
            let (sealed, at) = slot(sealer, entries)?;
            storage.overwrite(NAME, at, &sealed)?;
            self.entries = entries;
        }
        Ok(())
    }

    /// Returns when the count is durable.
    pub(crate) fn sync(&self, storage: &dyn Storage) -> Result<(), VaultError> {
        Ok(storage.sync(NAME)?)
    }
}

/// The bytes of a slot with the count `entries`, and its offset.
fn slot(sealer: &Sealer, entries: u64) -> io::Result<(Vec<u8>, u64)> {
    let sealed = sealer.seal(PLACE, &entries.to_be_bytes())?;
    Ok((sealed, (entries % 2) * SLOT_BYTES as u64))
}
