//! The vault: the phone's directory, whose files outlive the process and may be read by nobody else.
//!
//! | file | content |
//! |---|---|
//! | `seed.age` | the words, the data key and the link's key, under the passphrase (`secrets.rs`) |
//! | `ledger` | the signer's records, under the data key (`ledger.rs`) |
//! | `ledger.head` | the count of its entries (`head.rs`) |
//! | `host` | the host the phone is paired with, under the data key |
//! | `lock` | locked by the one process that may use the rest |
//! | `control.sock` | the control socket of a running phone (not this module's) |
//!
//! All are readable by their owner only. The meaning of a record is the signer's.

pub(crate) mod disk;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod head;
pub(crate) mod ledger;
mod seal;
mod secrets;
#[cfg(test)]
mod tests;

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use longhand_base::files::{create_private_directory, sync_directory};
use longhand_link::DiscoverySeed;
use longhand_signer::{Seed, SeedError};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use disk::{Disk, DiskWrite, put_in_place, write_new};
use ledger::{Ledger, Records};
use seal::Sealer;
pub(crate) use seal::fill_random;

pub use secrets::{Secrets, Words};

const SEED_NAME: &str = "seed.age";
const HOST_NAME: &str = "host";
/// Which ways to the host worked.
const WAYS_NAME: &str = "ways.json";
/// Bytes that are read of it.
const MAX_WAYS: u64 = 64 << 10;
const HOST_PLACE: &[u8] = b"longhand paired host 1";
const LEDGER_KEY: &[u8] = b"longhand ledger key 1";
const LOCK_NAME: &str = "lock";

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
    dir: PathBuf,
    disk: Arc<Disk>,
    #[cfg(any(test, feature = "testing"))]
    witness: Option<Arc<dyn crate::testing::Witness>>,
    opened: Opened,
    sealer: Sealer,
    /// The content of `host`, kept in memory: a phone without a network would read it with each attempt to dial.
    host: Mutex<Option<PairedHost>>,
    /// Held as long as this lives.
    _lock: File,
}

/// The content of `seed.age`, and the seed that is derived from it with much work.
#[derive(Clone)]
pub(crate) struct Opened {
    secrets: Arc<Secrets>,
    seed: Arc<OnceLock<Seed>>,
}

impl Opened {
    fn new(secrets: Secrets) -> Opened {
        Opened {
            secrets: Arc::new(secrets),
            seed: Arc::default(),
        }
    }
}

impl Vault {
    /// Makes `dir` a vault with `secrets`, under `passphrase`.
    ///
    /// `work_factor` is scrypt's log2(N); `None` takes about a second on this machine.
    /// Fails when there is a vault already.
    pub fn create(
        dir: &Path,
        secrets: Secrets,
        passphrase: &Passphrase,
        work_factor: Option<u8>,
    ) -> Result<Vault, VaultError> {
        create_private_directory(dir)?;
        let lock = lock(dir)?;
        if dir.join(SEED_NAME).exists() || ledger::has_entries(dir) {
            return Err(VaultError::Exists(dir.to_owned()));
        }
        let sealed = secrets.encrypt(passphrase, work_factor)?;
        let sealer = Sealer::new(&secrets.data_key);
        Ledger::create(dir, &sealer)?;
        // The seed is written last: without it there is no vault, and creation can begin anew.
        write_new(dir, SEED_NAME, &sealed)?;
        put_in_place(dir, SEED_NAME)?;
        Ok(Vault {
            dir: dir.to_owned(),
            disk: Arc::default(),
            #[cfg(any(test, feature = "testing"))]
            witness: None,
            opened: Opened::new(secrets),
            sealer,
            host: Mutex::default(),
            _lock: lock,
        })
    }

    /// Locks and opens the vault in `dir`.
    pub fn open(dir: &Path, passphrase: &Passphrase) -> Result<Vault, VaultError> {
        Vault::lock(dir)?.open(passphrase)
    }

    /// Locks the vault in `dir`, before its owner is asked for the passphrase.
    pub fn lock(dir: &Path) -> Result<LockedVault, VaultError> {
        match std::fs::read(dir.join(SEED_NAME)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(VaultError::Missing(dir.to_owned()))
            }
            sealed => Ok(LockedVault {
                dir: dir.to_owned(),
                sealed: sealed?,
                lock: lock(dir)?,
            }),
        }
    }

    /// Reads the ledger and opens it for writing.
    pub(crate) fn ledger(&self) -> Result<(Ledger, Records), VaultError> {
        Ledger::open(&self.dir, Arc::clone(&self.disk), self.sealer.clone())
    }

    /// The key by which the signer recognises this ledger. The data key is as old as the ledger: a vault made of the same words has
    /// a new one.
    pub(crate) fn ledger_key(&self) -> Zeroizing<[u8; 32]> {
        let mut mac = HmacEngine::<sha256::Hash>::new(self.opened.secrets.data_key.as_slice());
        mac.input(LEDGER_KEY);
        Zeroizing::new(Hmac::from_engine(mac).to_byte_array())
    }

    /// The secrets in `seed.age`.
    pub fn secrets(&self) -> &Secrets {
        &self.opened.secrets
    }

    /// The seed of the words.
    pub(crate) fn seed(&self) -> Result<Seed, SeedError> {
        if let Some(seed) = self.opened.seed.get() {
            return Ok(seed.clone());
        }
        let seed = Seed::from_words(&self.opened.secrets.mnemonic)?;
        Ok(self.opened.seed.get_or_init(|| seed).clone())
    }

    /// The vault's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
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
        let sealed = match std::fs::read(self.dir.join(HOST_NAME)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read?,
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
        let forget = |()| {
            std::fs::remove_file(self.dir.join(HOST_NAME))?;
            sync_directory(&self.dir)
        };
        Ok(self
            .disk
            .write(DiskWrite::HostForget, &[], |_| Ok(()), forget)?)
    }

    /// Remembers the host the phone is paired with.
    pub fn set_host(&self, host: &PairedHost) -> Result<(), VaultError> {
        let plain = serde_json::to_vec(host).map_err(io::Error::other)?;
        let sealed = self.sealer.seal(HOST_PLACE, &plain)?;
        let mut known = self.known_host();
        *known = None;
        let replaced = self
            .disk
            .replace(DiskWrite::Host, &self.dir, HOST_NAME, &sealed);
        Ok(replaced.map(drop).map_err(|(error, _)| error)?)
    }

    /// What [`Vault::save_ways`] saved last; empty when there is nothing.
    pub(crate) fn ways(&self) -> Vec<u8> {
        let file = File::open(self.dir.join(WAYS_NAME));
        let mut bytes = Vec::new();
        let read = file.and_then(|file| file.take(MAX_WAYS).read_to_end(&mut bytes));
        read.map_or_else(|_| Vec::new(), |_| bytes)
    }

    /// Keeps which ways to the host worked: a cache without a secret, whose loss costs some time.
    pub(crate) fn save_ways(&self, bytes: &[u8]) -> io::Result<()> {
        self.disk.check()?;
        disk::write_new(&self.dir, WAYS_NAME, bytes)?;
        disk::put_in_place(&self.dir, WAYS_NAME)
    }

    /// Calls `faults` before each durable write from now on, but not while a vault is created.
    #[cfg(any(test, feature = "testing"))]
    pub fn with_disk_faults(mut self, faults: Arc<dyn crate::testing::DiskFaults>) -> Vault {
        self.disk = Arc::new(Disk {
            faults: crate::testing::Faults::new(faults),
        });
        self
    }

    /// See [`DiskFaults::busy_until`](crate::testing::DiskFaults::busy_until).
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn disk_is_busy_until(&self) -> Option<tokio::time::Instant> {
        self.disk.faults.busy_until()
    }

    /// Reports all answers of the signer to `witness` from now on.
    #[cfg(any(test, feature = "testing"))]
    pub fn with_witness(mut self, witness: Arc<dyn crate::testing::Witness>) -> Vault {
        self.witness = Some(witness);
        self
    }

    /// The witness, unless the power is gone.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn witness(&self) -> Option<&dyn crate::testing::Witness> {
        let witness = self.witness.as_deref();
        witness.filter(|_| self.disk.check().is_ok())
    }

    /// Stops all writes and lets another process open the vault, as when this one was killed.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn kill(&self) {
        self.disk.faults.kill();
        if let Err(error) = self._lock.unlock() {
            tracing::warn!(%error, "a killed phone's vault stays locked until it is dropped");
        }
    }
}

/// A vault that no other process can open, and this one has not yet.
#[derive(Debug)]
pub struct LockedVault {
    dir: PathBuf,
    sealed: Vec<u8>,
    lock: File,
}

impl LockedVault {
    /// Opens it. Takes about a second of work.
    pub fn open(self, passphrase: &Passphrase) -> Result<Vault, VaultError> {
        let LockedVault { dir, sealed, lock } = self;
        let open = || Secrets::decrypt(&sealed, passphrase).map(Opened::new);
        #[cfg(any(test, feature = "testing"))]
        let opened = crate::testing::open_once(&sealed, passphrase, open)?;
        #[cfg(not(any(test, feature = "testing")))]
        let opened = open()?;
        let sealer = Sealer::new(&opened.secrets.data_key);
        Ok(Vault {
            dir,
            disk: Arc::default(),
            #[cfg(any(test, feature = "testing"))]
            witness: None,
            opened,
            sealer,
            host: Mutex::default(),
            _lock: lock,
        })
    }
}

/// True when `dir` holds a vault.
pub fn exists(dir: &Path) -> bool {
    dir.join(SEED_NAME).exists()
}

fn lock(dir: &Path) -> Result<File, VaultError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join(LOCK_NAME))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(VaultError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(error.into()),
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
pub enum VaultError {
    /// There is no vault.
    #[error("there is no phone in {0}: make one with `longhand phone new` or `restore`")]
    Missing(PathBuf),
    /// There is one already.
    #[error("there is a phone in {0} already: choose another directory with --dir")]
    Exists(PathBuf),
    /// Another process has it open.
    #[error("the phone in {0} is in use by another process: stop that one first")]
    InUse(PathBuf),
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
