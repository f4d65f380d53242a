//! The ledger: an append-only file of the signer's records, of all that it has signed, revoked and approved.
//!
//! ```text
//! file   = magic(8) first(u64) entry*
//! entry  = length(u32) !length(u32) nonce(24) ciphertext(length - 24)
//! inside = (length(u32) record)*
//! ```
//! Integers are big-endian. An entry holds the records of one reply, so they become durable
//! together. Entries are numbered for ever, also across compactions: `first` is the number of a
//! file's first entry, and each entry is bound to `first` and its own number as associated data.
//! It can be neither moved nor left out, except for the newest ones: for those a second file,
//! [`Head`], has the count of entries.
//!
//! A crash may leave an entry that was not written whole. Its reply was never sent, so it is cut off
//! when the file is opened. The length is written twice, so that damage in the middle of the
//! file is not taken for such an end. Everything else that cannot be read back is an error.

use std::io;
use std::sync::Arc;

use zeroize::{Zeroize, Zeroizing};

use super::VaultError;
use super::head::Head;
use super::seal::{OVERHEAD, Sealer};
use super::storage::Storage;

const MAGIC: &[u8; 8] = b"LHLEDG\0\x01";
const HEADER_BYTES: u64 = 16;
const LENGTH_BYTES: usize = 8;

/// The name of its file.
pub(crate) const NAME: &str = "ledger";

/// Records of one phone, as the signer gave them. They are secret, and wiped after use.
pub(crate) type Records = Vec<Zeroizing<Vec<u8>>>;

/// The open ledger. The vault's lock ensures that there is only one.
pub(crate) struct Ledger {
    storage: Arc<dyn Storage>,
    sealer: Sealer,
    head: Head,
    /// Number of the file's first entry.
    first: u64,
    /// Number of the next entry.
    next: u64,
    /// Length of the file up to that entry.
    length: u64,
    /// Length after the last compaction; 0 when there was none.
    compacted_length: u64,
    /// True after a failed write: the file has to be read again.
    failed: bool,
}

impl Ledger {
    /// An empty ledger and its head, in a new vault.
    pub(crate) fn create(storage: &dyn Storage, sealer: &Sealer) -> Result<(), VaultError> {
        storage.replace(NAME, &header(0)).map_err(io::Error::from)?;
        Head::create(storage, sealer)
    }

    /// Reads and checks the whole ledger; cuts off an entry that a crash left unfinished.
    pub(crate) fn open(
        storage: Arc<dyn Storage>,
        sealer: Sealer,
    ) -> Result<(Ledger, Records), VaultError> {
        let bytes = storage.read(NAME)?.ok_or(VaultError::NoLedger)?;
        let mut head = Head::open(storage.as_ref(), &sealer)?;

        let first = read_header(&bytes)?;
        let found = read_entries(&bytes, first, &sealer)?;
        // A file that begins after entry 0 begins with a snapshot. Without one, the header alone would give the number of entries,
        // and anybody can write a header.
        if first > 0 && found.next == first {
            return Err(VaultError::Damaged { entry: first });
        }
        if found.next < head.entries() {
            return Err(VaultError::Older {
                found: found.next,
                expected: head.entries(),
            });
        }
        if found.length < bytes.len() as u64 {
            tracing::warn!(
                entry = found.next,
                "cut off an unfinished entry of the ledger"
            );
            storage.cut(NAME, found.length)?;
        }
        // Entries that the head does not count yet may be in the page cache only, and the head must not outlive them.
        if found.next > head.entries() {
            storage.sync(NAME)?;
        }
        head.raise(storage.as_ref(), &sealer, found.next)?;
        head.sync(storage.as_ref())?;
        let ledger = Ledger {
            storage,
            sealer,
            head,
            first,
            next: found.next,
            length: found.length,
            compacted_length: if first > 0 { found.first_end } else { 0 },
            failed: false,
        };
        Ok((ledger, found.records))
    }

    /// Makes `records` durable together. On an error none of them is on record, and the ledger has to be opened again.
    pub(crate) fn append(&mut self, records: &[Zeroizing<Vec<u8>>]) -> Result<(), VaultError> {
        if records.is_empty() {
            return Ok(());
        }
        if self.failed {
            return Err(VaultError::NeedsReopening);
        }
        let entry = seal_entry(&self.sealer, self.first, self.next, records)?;
        if let Err(error) = self.storage.append(NAME, self.length, &entry) {
            self.failed = true;
            // The reply is not sent, so that nobody has seen the entry and it can be removed.
            if let Err(cut) = self.storage.cut(NAME, self.length) {
                tracing::warn!(%cut, "a failed write could not be taken back; the next start will");
            }
            return Err(error.into());
        }
        self.length += entry.len() as u64;
        self.next += 1;
        self.raise_head()
    }

    /// True when a snapshot would take much less room than the history.
    pub(crate) fn wants_compaction(&self) -> bool {
        let from = self.storage.compact_from_bytes();
        self.length > from.max(4 * self.compacted_length)
    }

    /// Replaces the file by a new one with `snapshot` alone. On an error before the rename, the old file stays in use and nothing is
    /// lost.
    pub(crate) fn compact(&mut self, snapshot: &[Zeroizing<Vec<u8>>]) -> Result<(), VaultError> {
        if self.failed {
            return Err(VaultError::NeedsReopening);
        }
        let mut bytes = header(self.next);
        bytes.extend(seal_entry(&self.sealer, self.next, self.next, snapshot)?);
        if let Err(failed) = self.storage.replace(NAME, &bytes) {
            // Nothing may be added to a file of which nobody knows whether it is the new one.
            self.failed |= failed.may_be_replaced && !self.is_in_use();
            return Err(failed.error.into());
        }
        self.first = self.next;
        self.next += 1;
        self.length = bytes.len() as u64;
        self.compacted_length = self.length;
        self.raise_head()
    }

    /// Whether the file is the one that this value describes.
    fn is_in_use(&self) -> bool {
        let bytes = self.storage.read(NAME).ok().flatten();
        bytes.is_some_and(|bytes| {
            bytes.len() as u64 == self.length && bytes.starts_with(&header(self.first))
        })
    }

    /// The number of entries ever written, with those of earlier files.
    pub(crate) fn entries(&self) -> u64 {
        self.next
    }

    fn raise_head(&mut self) -> Result<(), VaultError> {
        let raised = self
            .head
            .raise(self.storage.as_ref(), &self.sealer, self.next);
        self.failed |= raised.is_err();
        raised
    }
}

struct Found {
    records: Records,
    next: u64,
    length: u64,
    /// Length up to the end of the first entry, which in a compacted file is the snapshot.
    first_end: u64,
}

/// Reads entries up to the end, or up to one that was not written whole.
fn read_entries(bytes: &[u8], first: u64, sealer: &Sealer) -> Result<Found, VaultError> {
    let mut found = Found {
        records: Vec::new(),
        next: first,
        length: HEADER_BYTES,
        first_end: HEADER_BYTES,
    };
    let mut rest = bytes.get(HEADER_BYTES as usize..).unwrap_or_default();
    loop {
        let entry = found.next;
        let Some((lengths, after)) = rest.split_first_chunk::<LENGTH_BYTES>() else {
            return Ok(found);
        };
        let [a, b, c, d, e, f, g, h] = *lengths;
        let length = u32::from_be_bytes([a, b, c, d]);
        if length != !u32::from_be_bytes([e, f, g, h]) || (length as usize) < OVERHEAD {
            // Some filesystems leave zeros where a write had allocated room and was not finished.
            return if rest.iter().all(|byte| *byte == 0) {
                Ok(found)
            } else {
                Err(VaultError::Damaged { entry })
            };
        }
        let Some((sealed, after)) = after.split_at_checked(length as usize) else {
            return Ok(found);
        };
        let inside = sealer
            .open(&place(first, entry), sealed)
            .map_err(|_| VaultError::Damaged { entry })?;
        split_records(&inside, &mut found.records).ok_or(VaultError::Damaged { entry })?;
        found.next = entry.checked_add(1).ok_or(VaultError::Damaged { entry })?;
        found.length += (LENGTH_BYTES + sealed.len()) as u64;
        if entry == first {
            found.first_end = found.length;
        }
        rest = after;
    }
}

fn split_records(mut inside: &[u8], records: &mut Records) -> Option<()> {
    while !inside.is_empty() {
        let (length, rest) = inside.split_first_chunk::<4>()?;
        let (record, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        records.push(Zeroizing::new(record.to_vec()));
        inside = rest;
    }
    Some(())
}

fn seal_entry(
    sealer: &Sealer,
    first: u64,
    number: u64,
    records: &[Zeroizing<Vec<u8>>],
) -> io::Result<Vec<u8>> {
    let too_long = |_| io::Error::other("a record is too long");
    let size = records.iter().map(|record| record.len() + 4).sum();
    let mut inside = Zeroizing::new(Vec::with_capacity(size));
    for record in records {
        let length = u32::try_from(record.len()).map_err(too_long)?;
        inside.extend_from_slice(&length.to_be_bytes());
        inside.extend_from_slice(record);
    }
    let entry = seal_inside(sealer, first, number, &inside);
    inside.zeroize();
    entry
}

/// An entry with this inside, valid or not.
pub(super) fn seal_inside(
    sealer: &Sealer,
    first: u64,
    number: u64,
    inside: &[u8],
) -> io::Result<Vec<u8>> {
    let too_long = |_| io::Error::other("a record is too long");
    let sealed = sealer.seal(&place(first, number), inside)?;
    let length = u32::try_from(sealed.len()).map_err(too_long)?;
    Ok([
        &length.to_be_bytes(),
        &(!length).to_be_bytes(),
        sealed.as_slice(),
    ]
    .concat())
}

/// The associated data of an entry: it can be decrypted at its own place only.
fn place(first: u64, number: u64) -> Vec<u8> {
    [
        MAGIC.as_slice(),
        &first.to_be_bytes(),
        &number.to_be_bytes(),
    ]
    .concat()
}

pub(super) fn header(first: u64) -> Vec<u8> {
    [MAGIC.as_slice(), &first.to_be_bytes()].concat()
}

fn read_header(bytes: &[u8]) -> Result<u64, VaultError> {
    let (magic, rest) = bytes.split_first_chunk::<8>().ok_or(VaultError::NoLedger)?;
    if magic[..7] != MAGIC[..7] {
        return Err(VaultError::NoLedger);
    }
    if magic[7] != MAGIC[7] {
        return Err(VaultError::NewerFormat {
            found: magic[7],
            known: MAGIC[7],
        });
    }
    let (first, _) = rest.split_first_chunk::<8>().ok_or(VaultError::NoLedger)?;
    Ok(u64::from_be_bytes(*first))
}

/// Whether the storage has a ledger that is not empty.
pub(super) fn has_entries(storage: &dyn Storage) -> io::Result<bool> {
    let ledger = storage.read(NAME)?;
    Ok(ledger.is_some_and(|bytes| bytes.len() as u64 > HEADER_BYTES))
}
