//! Faults for tests and simulations: a phone on one thread whose disk fails as told, and whose power goes at any write.
//!
//! - [`FaultyDirectory`] is a vault's directory that calls a [`DiskFaults`] before each durable write;
//! - [`OneThread`] is a runtime that does work for the disk in the task that needs it, so that the order of events depends on tokio's runtime
//!   alone;
//! - [`FaultyDirectory::witness`] hands a phone's answers to a [`Witness`] for as long as its power is on.
//!
//! [`Phone::stop_now`](crate::Phone::stop_now) ends a phone as SIGKILL does.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use age::secrecy::ExposeSecret;
use bitcoin::hashes::{Hash, sha256};
use longhand_base::runtime::{BoxFuture, Runtime, Tokio};
use tokio::time::Instant;

use crate::vault::head::NAME as HEAD;
use crate::vault::ledger::NAME as LEDGER;
use crate::vault::{
    Directory, HOST_NAME as HOST, LockedVault, Passphrase, ReplaceError, Storage, Unlocked, Vault,
    VaultError,
};
use crate::witness::{Said, Witness};

/// The kinds of durable writes.
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

/// Decides the result of the durable writes of one vault.
pub trait DiskFaults: Send + Sync + 'static {
    /// Called before each write, with the number of bytes in it (0 for [`DiskWrite::LedgerCut`],
    /// [`DiskWrite::LedgerSync`] and [`DiskWrite::HostForget`], which have none).
    fn before(&self, write: DiskWrite, bytes: usize) -> DiskFate;

    /// Called when the power is gone, by the last result of [`DiskFaults::before`]: nothing of this vault is written any more. It comes
    /// before the write returns to the phone, so that the phone's next messages can be suppressed.
    fn power_gone(&self);

    /// The size in bytes from which the ledger is compacted.
    fn compact_from_bytes(&self) -> u64 {
        1 << 20
    }

    /// The time until which the last write, and all that come meanwhile, take: no call returns before it. They are
    /// durable already. Asked by [`OneThread`].
    fn busy_until(&self) -> Option<Instant> {
        None
    }
}

/// The result of a write.
#[derive(Debug)]
pub enum DiskFate {
    /// It succeeds.
    GoOn,
    /// It fails with this error after so many of its bytes; later writes may succeed.
    Fail {
        /// Such as [`io::ErrorKind::StorageFull`].
        error: io::Error,
        /// Bytes that are written all the same; all of them at most.
        written: usize,
    },
    /// The power goes before any of it is written.
    PowerGoneBefore,
    /// The power goes after so many of its bytes. When a file is replaced they are bytes of the new file, which never replaces the old
    /// one.
    PowerGoneTorn {
        /// Bytes that are written; all of them at most.
        written: usize,
    },
    /// The power goes when all of it is durable, before the write returns.
    PowerGoneAfter,
}

/// A vault's directory with faults. Clones are the same one.
#[derive(Clone)]
pub struct FaultyDirectory(Arc<Faulty>);

struct Faulty {
    directory: Directory,
    decide: Arc<dyn DiskFaults>,
    is_gone: AtomicBool,
}

impl FaultyDirectory {
    /// Locks a directory. `decide` is called before each durable write of a vault that has been made before.
    ///
    /// # Errors
    /// As [`Directory::lock`].
    pub fn lock(path: &Path, decide: Arc<dyn DiskFaults>) -> Result<FaultyDirectory, VaultError> {
        Ok(FaultyDirectory(Arc::new(Faulty {
            directory: Directory::lock(path)?,
            decide,
            is_gone: AtomicBool::new(false),
        })))
    }

    /// The vault in it.
    ///
    /// # Errors
    /// As [`LockedVault::new`].
    pub fn vault(&self) -> Result<LockedVault, VaultError> {
        LockedVault::new(self.clone())
    }

    /// The same witness, which learns nothing once the power is gone: a process that is dead says nothing.
    pub fn witness(&self, witness: Arc<dyn Witness>) -> Arc<dyn Witness> {
        Arc::new(WhileAlive {
            witness,
            directory: self.clone(),
        })
    }

    /// Does one write, as far as its fault allows: `put` takes the bytes, `settle` makes them durable.
    fn write<T>(
        &self,
        what: DiskWrite,
        bytes: &[u8],
        put: impl FnOnce(&Directory, &[u8]) -> io::Result<T>,
        settle: impl FnOnce(&Directory, T) -> io::Result<()>,
    ) -> io::Result<()> {
        self.check()?;
        let directory = &self.0.directory;
        let first = |count: usize| &bytes[..count.min(bytes.len())];
        match self.0.decide.before(what, bytes.len()) {
            DiskFate::GoOn => settle(directory, put(directory, bytes)?),
            DiskFate::Fail { error, written } => {
                put(directory, first(written))?;
                Err(error)
            }
            DiskFate::PowerGoneBefore => Err(self.cut_power()),
            DiskFate::PowerGoneTorn { written } => {
                put(directory, first(written))?;
                Err(self.cut_power())
            }
            DiskFate::PowerGoneAfter => {
                settle(directory, put(directory, bytes)?)?;
                Err(self.cut_power())
            }
        }
    }

    /// Fails when the power is gone.
    fn check(&self) -> io::Result<()> {
        match self.0.is_gone.load(Ordering::SeqCst) {
            true => Err(power_gone()),
            false => Ok(()),
        }
    }

    fn cut_power(&self) -> io::Error {
        self.0.is_gone.store(true, Ordering::SeqCst);
        self.0.decide.power_gone();
        power_gone()
    }
}

impl Storage for FaultyDirectory {
    fn place(&self) -> String {
        self.0.directory.place()
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.check()?;
        self.0.directory.read(name)
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), ReplaceError> {
        let mut may_be_replaced = false;
        let put = |directory: &Directory, bytes: &[u8]| directory.stage(name, bytes);
        let replaced = match kind_of_replacement(name) {
            Some(kind) => self.write(kind, bytes, put, |directory, file| {
                may_be_replaced = true;
                directory.put_in_place(name, file)
            }),
            None => {
                self.check().map_err(|error| ReplaceError {
                    error,
                    may_be_replaced: false,
                })?;
                return self.0.directory.replace(name, bytes);
            }
        };
        replaced.map_err(|error| ReplaceError {
            error,
            may_be_replaced,
        })
    }

    fn append(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(
            DiskWrite::LedgerAppend,
            bytes,
            |directory, bytes| directory.write(name, at, bytes),
            |directory, ()| directory.sync_content(name),
        )
    }

    fn cut(&self, name: &str, length: u64) -> io::Result<()> {
        let settle = |directory: &Directory, ()| directory.cut(name, length);
        self.write(DiskWrite::LedgerCut, &[], |_, _| Ok(()), settle)
    }

    fn overwrite(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        let put = |directory: &Directory, bytes: &[u8]| directory.write(name, at, bytes);
        self.write(DiskWrite::HeadRaise, bytes, put, |_, ()| Ok(()))
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        if name == HEAD {
            self.check()?;
            return self.0.directory.sync(name);
        }
        let settle = |directory: &Directory, ()| directory.sync(name);
        self.write(DiskWrite::LedgerSync, &[], |_, _| Ok(()), settle)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let settle = |directory: &Directory, ()| directory.remove(name);
        self.write(DiskWrite::HostForget, &[], |_, _| Ok(()), settle)
    }

    fn compact_from_bytes(&self) -> u64 {
        self.0.decide.compact_from_bytes()
    }

    fn release(&self) {
        self.0.is_gone.store(true, Ordering::SeqCst);
        self.0.directory.release();
    }
}

/// A file that is no part of a step has no faults.
fn kind_of_replacement(name: &str) -> Option<DiskWrite> {
    match name {
        LEDGER => Some(DiskWrite::LedgerCompact),
        HOST => Some(DiskWrite::Host),
        _ => None,
    }
}

/// Opens a vault; the same one without the derivation of keys when this process has done so before, since a simulated phone is started
/// thousands of times and key derivation takes long on purpose.
///
/// # Errors
/// As [`LockedVault::open`].
pub fn open_once(locked: LockedVault, passphrase: &Passphrase) -> Result<Vault, VaultError> {
    static UNLOCKED: Mutex<BTreeMap<[u8; 32], Unlocked>> = Mutex::new(BTreeMap::new());
    let key = [&locked.sealed, passphrase.expose_secret().as_bytes()].concat();
    let key = sha256::Hash::hash(&key).to_byte_array();
    let known = || UNLOCKED.lock().unwrap_or_else(PoisonError::into_inner);
    let before = known().get(&key).cloned();
    let unlocked = match before {
        Some(unlocked) => unlocked,
        None => locked.unlock(passphrase)?,
    };
    known().insert(key, unlocked.clone());
    Ok(locked.open_unlocked(unlocked))
}

fn power_gone() -> io::Error {
    io::Error::other("the power is gone")
}

/// See [`FaultyDirectory::witness`].
struct WhileAlive {
    witness: Arc<dyn Witness>,
    directory: FaultyDirectory,
}

impl WhileAlive {
    fn alive(&self) -> Option<&dyn Witness> {
        let witness = self.witness.as_ref();
        self.directory.check().is_ok().then_some(witness)
    }
}

impl Witness for WhileAlive {
    fn made(&self, said: Said<'_>, version: u64) {
        self.alive()
            .into_iter()
            .for_each(|it| it.made(said, version));
    }

    fn durable(&self, version: u64) {
        self.alive().into_iter().for_each(|it| it.durable(version));
    }

    fn restored(&self, version: u64) {
        self.alive().into_iter().for_each(|it| it.restored(version));
    }
}

/// Tokio's runtime, but for work that blocks: it is done in the task that needs it, which waits for as long as the disk is said to be
/// busy.
#[derive(Default)]
pub struct OneThread {
    tokio: Tokio,
    disk: Option<Arc<dyn DiskFaults>>,
}

impl OneThread {
    /// With a disk that never takes any time.
    pub fn new() -> Arc<OneThread> {
        Arc::default()
    }

    /// With this disk.
    pub fn with_disk(disk: Arc<dyn DiskFaults>) -> Arc<OneThread> {
        Arc::new(OneThread {
            tokio: Tokio::default(),
            disk: Some(disk),
        })
    }
}

impl Runtime for OneThread {
    fn unix_time(&self) -> Duration {
        self.tokio.unix_time()
    }

    fn uptime(&self) -> Duration {
        self.tokio.uptime()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<()> {
        self.tokio.sleep(duration)
    }

    fn spawn(&self, task: BoxFuture<()>) {
        self.tokio.spawn(task);
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<()> {
        let disk = self.disk.clone();
        Box::pin(async move {
            work();
            let Some(disk) = disk else { return };
            while let Some(until) = disk.busy_until() {
                tokio::time::sleep_until(until).await;
            }
        })
    }
}
