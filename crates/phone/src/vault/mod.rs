//! The vault: the phone's files, which outlive the process and may be read by nobody else. They are in a [`Storage`] that is handed in,
//! such as a [`Directory`].
//!
//! | file | content |
//! |---|---|
//! | `seed.age` | the words, the data key and the link's key, under the passphrase (`secrets.rs`) |
//! | `ledger` | the signer's records, under the data key (`ledger.rs`) |
//! | `ledger.head` | the count of its entries (`head.rs`) |
//! | `host` | the host the phone is paired with, under the data key |
//! | `ways.json` | which ways to the host worked |
//! | `refusals.sealed` | what the phone has refused, sealed |
//! | `headers`, `checkpoint` | the block headers that the phone knows (`headers.rs`) |
//! | `filters.sealed` | what filters of blocks have shown of its channels, sealed |
//! | `lock` | in a directory: locked by the one process that may use the rest |
//! | `control.sock` | in a directory: the control socket of a running phone (not this module's) |
//!
//! The meaning of a record is the signer's.

#[cfg(not(target_family = "wasm"))]
mod directory;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub(crate) mod head;
mod headers;
pub(crate) mod ledger;
mod seal;
mod secrets;
mod storage;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use longhand_link::DiscoverySeed;
use longhand_signer::{Filters, Seed, SeedError};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::witness::Witness;
use headers::HeaderFile;
use ledger::{Ledger, Records};
use seal::Sealer;
pub(crate) use seal::fill_random;

#[cfg(not(target_family = "wasm"))]
pub use directory::{Directory, exists};
pub use secrets::{Secrets, Words};
pub use storage::{ReplaceError, Storage};

const SEED_NAME: &str = "seed.age";
pub(crate) const HOST_NAME: &str = "host";
/// What the phone has refused.
const REFUSALS_NAME: &str = "refusals.sealed";
const REFUSALS_PLACE: &[u8] = b"longhand refusals 1";
/// The longest file of refusals that is read.
const MAX_REFUSALS: usize = 256 << 10;
/// What filters of blocks have shown of the channels.
const FILTERS_NAME: &str = "filters.sealed";
const FILTERS_PLACE: &[u8] = b"longhand filters 1";
/// The longest file of it that is read: that of the most outputs which are followed, and more.
const MAX_FILTERS: usize = 2 << 20;
/// Which ways to the host worked.
const WAYS_NAME: &str = "ways.json";
/// Bytes of it that are taken.
const MAX_WAYS: usize = 64 << 10;
/// The block headers that the phone knows.
const HEADERS_NAME: &str = "headers";
/// The block before the first of them.
const CHECKPOINT_NAME: &str = "checkpoint";
/// All of them, as files of a directory.
#[cfg(not(target_family = "wasm"))]
const FILES: [&str; 9] = [
    SEED_NAME,
    ledger::NAME,
    head::NAME,
    HOST_NAME,
    WAYS_NAME,
    REFUSALS_NAME,
    FILTERS_NAME,
    HEADERS_NAME,
    CHECKPOINT_NAME,
];
const HOST_PLACE: &[u8] = b"longhand paired host 1";
const LEDGER_KEY: &[u8] = b"longhand ledger key 1";

/// A passphrase in memory; wiped when dropped.
pub type Passphrase = age::secrecy::SecretString;

/// The host a phone belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairedHost {
    /// The host's static key, pinned at pairing.
    pub key: [u8; 32],
    /// Its addresses, in the order to dial.
    pub addresses: Vec<String>,
    /// The host has acknowledged the phone's `Register`.
    pub registered: bool,
    /// The node id of the host's hub when the phone registered, 33 bytes; empty when it has none.
    pub hub_node_id: Vec<u8>,
    /// An earlier pairing with this host had been acknowledged when this one began: there may be channels, so that no other
    /// host may take its place. Files of earlier versions do not have it.
    #[serde(default)]
    pub was_registered: bool,
    /// Kept of the pairing, to find the host's onion service. Files of earlier versions do not have it.
    #[serde(default, with = "discovery")]
    pub discovery: Option<DiscoverySeed>,
}

/// A seed as 32 numbers, as [`PairedHost::key`].
mod discovery {
    use longhand_link::DiscoverySeed;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(
        seed: &Option<DiscoverySeed>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        seed.as_ref().map(|seed| *seed.to_bytes()).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<DiscoverySeed>, D::Error> {
        let bytes = Option::<[u8; 32]>::deserialize(from)?;
        Ok(bytes.map(DiscoverySeed::from_bytes))
    }
}

/// An opened vault; no other process can open it as long as this lives.
pub struct Vault {
    storage: Arc<dyn Storage>,
    unlocked: Unlocked,
    sealer: Sealer,
    witness: Option<Arc<dyn Witness>>,
    /// The content of `host`, kept in memory: a phone without a network would read it with each attempt to dial.
    host: Mutex<Option<PairedHost>>,
    header_file: HeaderFile,
}

/// The content of `seed.age`, and the seed that is derived from it with much work. Clones share it; wiped with the last one.
#[derive(Clone)]
pub struct Unlocked {
    secrets: Arc<Secrets>,
    seed: Arc<OnceLock<Seed>>,
}

impl Unlocked {
    fn new(secrets: Secrets) -> Unlocked {
        Unlocked {
            secrets: Arc::new(secrets),
            seed: Arc::default(),
        }
    }
}

impl Vault {
    /// Makes an empty storage a vault with `secrets`, under `passphrase`.
    ///
    /// `work_factor` is scrypt's log2(N); `None` takes about a second on this machine.
    /// Fails when there is a vault already.
    pub fn create_in(
        storage: impl Storage,
        secrets: Secrets,
        passphrase: &Passphrase,
        work_factor: Option<u8>,
    ) -> Result<Vault, VaultError> {
        if storage.read(SEED_NAME)?.is_some() || ledger::has_entries(&storage)? {
            return Err(VaultError::Exists(storage.place()));
        }
        let sealed = secrets.encrypt(passphrase, work_factor)?;
        Ledger::create(&storage, &Sealer::new(&secrets.data_key))?;
        // The seed is written last: without it there is no vault, and creation can begin anew.
        storage
            .replace(SEED_NAME, &sealed)
            .map_err(io::Error::from)?;
        Ok(Vault::of(Arc::new(storage), Unlocked::new(secrets)))
    }

    fn of(storage: Arc<dyn Storage>, unlocked: Unlocked) -> Vault {
        Vault {
            storage,
            sealer: Sealer::new(&unlocked.secrets.data_key),
            unlocked,
            witness: None,
            host: Mutex::default(),
            header_file: HeaderFile::default(),
        }
    }

    /// Reports all answers of the signer to `witness` from now on.
    pub fn with_witness(self, witness: Arc<dyn Witness>) -> Vault {
        Vault {
            witness: Some(witness),
            ..self
        }
    }

    /// Reads the ledger and opens it for writing.
    pub(crate) fn ledger(&self) -> Result<(Ledger, Records), VaultError> {
        Ledger::open(self.storage.clone(), self.sealer.clone())
    }

    /// The key by which the signer recognises this ledger. The data key is as old as the ledger: a vault made of the same words has
    /// a new one.
    pub(crate) fn ledger_key(&self) -> Zeroizing<[u8; 32]> {
        let mut mac = HmacEngine::<sha256::Hash>::new(self.unlocked.secrets.data_key.as_slice());
        mac.input(LEDGER_KEY);
        Zeroizing::new(Hmac::from_engine(mac).to_byte_array())
    }

    /// The secrets in `seed.age`.
    pub fn secrets(&self) -> &Secrets {
        &self.unlocked.secrets
    }

    /// The seed of the words.
    pub(crate) fn seed(&self) -> Result<Seed, SeedError> {
        if let Some(seed) = self.unlocked.seed.get() {
            return Ok(seed.clone());
        }
        let seed = Seed::from_words(&self.unlocked.secrets.mnemonic)?;
        Ok(self.unlocked.seed.get_or_init(|| seed).clone())
    }

    pub(crate) fn witness(&self) -> Option<&dyn Witness> {
        self.witness.as_deref()
    }

    /// Lets another process open the vault. Every later write fails.
    pub(crate) fn release(&self) {
        self.storage.release();
    }

    /// The host the phone is paired with, if it is.
    pub fn host(&self) -> Result<Option<PairedHost>, VaultError> {
        let mut known = self.known_host();
        if known.is_none() {
            *known = self.read_host()?;
        }
        Ok(known.clone())
    }

    fn known_host(&self) -> MutexGuard<'_, Option<PairedHost>> {
        self.host.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_host(&self) -> Result<Option<PairedHost>, VaultError> {
        let Some(sealed) = self.storage.read(HOST_NAME)? else {
            return Ok(None);
        };
        let plain = self
            .sealer
            .open(HOST_PLACE, &sealed)
            .map_err(|_| VaultError::DamagedHost)?;
        serde_json::from_slice(&plain)
            .map(Some)
            .map_err(|_| VaultError::DamagedHost)
    }

    /// Forgets the host, for a pairing that the host refused.
    pub fn forget_host(&self) -> Result<(), VaultError> {
        // Read from the file next time, whether it was removed or not.
        let mut known = self.known_host();
        *known = None;
        Ok(self.storage.remove(HOST_NAME)?)
    }

    /// Remembers the host the phone is paired with.
    pub fn set_host(&self, host: &PairedHost) -> Result<(), VaultError> {
        let plain = serde_json::to_vec(host).map_err(io::Error::other)?;
        let sealed = self.sealer.seal(HOST_PLACE, &plain)?;
        let mut known = self.known_host();
        *known = None;
        let replaced = self.storage.replace(HOST_NAME, &sealed);
        Ok(replaced.map_err(io::Error::from)?)
    }

    /// What [`Vault::save_ways`] saved last; empty when there is nothing.
    pub(crate) fn ways(&self) -> Vec<u8> {
        let saved = self.storage.read(WAYS_NAME).ok().flatten();
        saved
            .filter(|bytes| bytes.len() <= MAX_WAYS)
            .unwrap_or_default()
    }

    /// What [`Vault::save_refusals`] saved last; empty when there is nothing that can be read.
    pub(crate) fn refusals(&self) -> Vec<u8> {
        self.read_sealed(REFUSALS_NAME, REFUSALS_PLACE, MAX_REFUSALS)
            .unwrap_or_default()
    }

    /// Keeps what was refused. No rule depends on it.
    pub(crate) fn save_refusals(&self, plain: &[u8]) -> io::Result<()> {
        self.save_sealed(REFUSALS_NAME, REFUSALS_PLACE, plain)
    }

    /// What [`Vault::save_filters`] saved last; nothing when there is nothing that can be read: the host shows the filters again then.
    pub(crate) fn filters(&self) -> Filters {
        let plain = self.read_sealed(FILTERS_NAME, FILTERS_PLACE, MAX_FILTERS);
        let filters = plain.and_then(|plain| Filters::decode(&plain).ok());
        filters.unwrap_or_default()
    }

    /// Keeps what filters have shown. Sealed, since a preimage is released by it.
    pub(crate) fn save_filters(&self, filters: &Filters) -> io::Result<()> {
        self.save_sealed(FILTERS_NAME, FILTERS_PLACE, &filters.encode())
    }

    fn read_sealed(&self, name: &str, place: &[u8], most_bytes: usize) -> Option<Vec<u8>> {
        let sealed = self.storage.read(name).ok().flatten();
        let sealed = sealed.filter(|bytes| bytes.len() <= most_bytes)?;
        let plain = self.sealer.open(place, &sealed).ok()?;
        Some(plain.to_vec())
    }

    fn save_sealed(&self, name: &str, place: &[u8], plain: &[u8]) -> io::Result<()> {
        let sealed = self.sealer.seal(place, plain);
        let sealed = sealed.map_err(io::Error::other)?;
        Ok(self.storage.replace(name, &sealed)?)
    }

    /// Keeps which ways to the host worked: a cache without a secret, whose loss costs some time.
    pub(crate) fn save_ways(&self, bytes: &[u8]) -> io::Result<()> {
        Ok(self.storage.replace(WAYS_NAME, bytes)?)
    }
}

/// A vault that no other process can open, and this one has not yet.
pub struct LockedVault {
    storage: Arc<dyn Storage>,
    pub(crate) sealed: Vec<u8>,
}

impl LockedVault {
    /// The vault in a storage.
    ///
    /// # Errors
    /// [`VaultError::Missing`]; those of the storage.
    pub fn new(storage: impl Storage) -> Result<LockedVault, VaultError> {
        let sealed = storage.read(SEED_NAME)?;
        Ok(LockedVault {
            sealed: sealed.ok_or_else(|| VaultError::Missing(storage.place()))?,
            storage: Arc::new(storage),
        })
    }

    /// Opens it. Takes about a second of work.
    ///
    /// # Errors
    /// [`VaultError::WrongPassphrase`], [`VaultError::DamagedSeed`].
    pub fn open(self, passphrase: &Passphrase) -> Result<Vault, VaultError> {
        let unlocked = self.unlock(passphrase)?;
        Ok(self.open_unlocked(unlocked))
    }

    /// The secrets, for [`LockedVault::open_unlocked`]. Takes about a second of work.
    ///
    /// # Errors
    /// As [`LockedVault::open`].
    pub fn unlock(&self, passphrase: &Passphrase) -> Result<Unlocked, VaultError> {
        Secrets::decrypt(&self.sealed, passphrase).map(Unlocked::new)
    }

    /// Opens it with the secrets that were unlocked before, in a program that has kept them.
    pub fn open_unlocked(self, unlocked: Unlocked) -> Vault {
        Vault::of(self.storage, unlocked)
    }
}

impl std::fmt::Debug for LockedVault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LockedVault({})", self.storage.place())
    }
}

/// Fresh random bytes for a key.
pub(crate) fn random_key() -> Result<Zeroizing<[u8; 32]>, VaultError> {
    let mut key = Zeroizing::new([0; 32]);
    fill_random(key.as_mut_slice())?;
    Ok(key)
}

/// The reason for which the phone's directory cannot be used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    /// There is no vault.
    #[error("there is no phone in {0}: make one with `longhand phone new` or `restore`")]
    Missing(String),
    /// There is one already.
    #[error("there is a phone in {0} already: choose another directory with --dir")]
    Exists(String),
    /// Another process has it open.
    #[error("the phone in {0} is in use by another process: stop that one first")]
    InUse(String),
    /// The passphrase does not open it.
    #[error("the passphrase is wrong: try again")]
    WrongPassphrase,
    /// The passphrase is empty.
    #[error("the passphrase is empty: choose one, it protects the seed")]
    EmptyPassphrase,
    /// `seed.age` cannot be read.
    #[error("seed.age is damaged ({0}): restore the phone from its words")]
    DamagedSeed(&'static str),
    /// `host` cannot be read.
    #[error("the file `host` is damaged: remove it and pair again with a new code")]
    DamagedHost,
    /// `ledger` is missing, or another program's.
    #[error("the file `ledger` is missing or none: put it back; without it nothing can be signed")]
    NoLedger,
    /// `ledger.head` is missing or damaged.
    #[error(
        "the file `ledger.head` is missing or damaged: put it back; without it an old ledger cannot be recognised"
    )]
    NoHead,
    /// An entry is neither whole nor the unfinished last one.
    #[error(
        "the ledger is damaged at entry {entry}: put the newest copy back; nothing is signed until then"
    )]
    Damaged {
        /// Number of the entry, counted from 0 over the phone's whole life.
        entry: u64,
    },
    /// The ledger is an old copy: signing by it could lose money.
    #[error(
        "the ledger is an old copy (it has {found} entries, there were {expected}): put the newest one back"
    )]
    Older {
        /// Entries up to the end of the file.
        found: u64,
        /// Entries by the count in `ledger.head`.
        expected: u64,
    },
    /// The file is of a newer version of Longhand.
    #[error(
        "the phone was written by a newer Longhand (format {found}, known up to {known}): use that one"
    )]
    NewerFormat {
        /// Version in the file.
        found: u8,
        /// Newest version known.
        known: u8,
    },
    /// The disk is full.
    #[error("the disk is full: free some space; nothing was signed")]
    Full,
    /// A write failed before, and the file has to be read again.
    #[error("the ledger could not be written before: start the phone again")]
    NeedsReopening,
    /// Any other error of the system.
    #[error("the phone's files cannot be used ({0}): check the directory and the disk")]
    Io(#[source] io::Error),
}

impl From<io::Error> for VaultError {
    fn from(error: io::Error) -> VaultError {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => VaultError::Full,
            _ => VaultError::Io(error),
        }
    }
}
