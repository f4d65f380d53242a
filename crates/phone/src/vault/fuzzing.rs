//! Entries for fuzz targets: the ledger's files without the vault around them, since every run would wait for scrypt; and files as an
//! attacker could write them.

use std::io;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::ledger::{Ledger, Records, seal_inside};
use super::seal::Sealer;
use super::{Directory, HOST_PLACE, Passphrase, VaultError};

/// A directory with `ledger` and `ledger.head`.
pub struct LedgerFiles {
    directory: Arc<Directory>,
    sealer: Sealer,
}

/// A ledger that was opened, and its records.
pub struct OpenLedger {
    ledger: Ledger,
    /// Its records, oldest first.
    pub records: Vec<Vec<u8>>,
}

impl LedgerFiles {
    /// The files in `dir`, under `data_key`; they need not exist.
    pub fn new(dir: &Path, data_key: &[u8; 32]) -> LedgerFiles {
        LedgerFiles {
            directory: Arc::new(Directory::new(dir, None)),
            sealer: Sealer::new(data_key),
        }
    }

    /// Creates them, empty.
    pub fn create(&self) -> Result<(), VaultError> {
        Ledger::create(self.directory.as_ref(), &self.sealer)
    }

    /// Opens them as a phone does.
    pub fn open(&self) -> Result<OpenLedger, VaultError> {
        let (ledger, records) = Ledger::open(self.directory.clone(), self.sealer.clone())?;
        let records = records.iter().map(|record| record.to_vec()).collect();
        Ok(OpenLedger { ledger, records })
    }

    /// An entry with `inside`, as a holder of the key could write it.
    pub fn seal(&self, first: u64, number: u64, inside: &[u8]) -> io::Result<Vec<u8>> {
        seal_inside(&self.sealer, first, number, inside)
    }
}

impl OpenLedger {
    /// Adds an entry with these records.
    pub fn append(&mut self, records: &[&[u8]]) -> Result<(), VaultError> {
        self.ledger.append(&zeroizing(records))
    }

    /// Replaces all entries by one.
    pub fn compact(&mut self, snapshot: &[&[u8]]) -> Result<(), VaultError> {
        self.ledger.compact(&zeroizing(snapshot))
    }

    /// The number of entries ever written.
    pub fn entries(&self) -> u64 {
        self.ledger.entries()
    }
}

fn zeroizing(records: &[&[u8]]) -> Records {
    let copy = |record: &&[u8]| Zeroizing::new(record.to_vec());
    records.iter().map(copy).collect()
}

/// `seed.age` around any text, as a holder of the passphrase could write it. `work_factor` is scrypt's log2(N).
pub fn seal_seed(text: &[u8], passphrase: &Passphrase, work_factor: u8) -> io::Result<Vec<u8>> {
    let mut recipient = age::scrypt::Recipient::new(passphrase.clone());
    recipient.set_work_factor(work_factor);
    age::encrypt(&recipient, text).map_err(io::Error::other)
}

/// `host` around any bytes, as a holder of the key could write it.
pub fn seal_host(data_key: &[u8; 32], plain: &[u8]) -> io::Result<Vec<u8>> {
    Sealer::new(data_key).seal(HOST_PLACE, plain)
}
