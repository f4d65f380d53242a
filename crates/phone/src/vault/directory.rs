//! A vault's storage in a directory of an operating system, for its user alone.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use longhand_base::files::{create_private_directory, sync_directory};

use super::storage::{ReplaceError, Storage};
use super::{FILES, LockedVault, Passphrase, SEED_NAME, Secrets, Vault, VaultError};

const LOCK_NAME: &str = "lock";

/// The directory of a vault, locked: no other process can open it as long as this lives.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// `None` once it is released.
    open: Mutex<Option<Open>>,
}

#[derive(Debug, Default)]
struct Open {
    /// Those that were written before.
    files: HashMap<String, File>,
    /// Locked until it is closed.
    _lock: Option<File>,
}

impl Directory {
    /// Locks a directory, which is made if there is none.
    ///
    /// # Errors
    /// [`VaultError::InUse`]; those of the file system.
    pub fn lock(path: &Path) -> Result<Directory, VaultError> {
        create_private_directory(path)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK_NAME))?;
        match file.try_lock() {
            Ok(()) => Directory::new(path, Some(file)).without_leftovers(),
            Err(TryLockError::WouldBlock) => Err(VaultError::InUse(path.display().to_string())),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    /// Removes the files that a process has staged, and was killed before it put them in place.
    fn without_leftovers(self) -> Result<Directory, VaultError> {
        for name in FILES {
            match std::fs::remove_file(self.staged(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(self)
    }

    pub(super) fn new(path: &Path, lock: Option<File>) -> Directory {
        let open = Open {
            files: HashMap::new(),
            _lock: lock,
        };
        Directory {
            path: path.to_owned(),
            open: Mutex::new(Some(open)),
        }
    }

    /// Writes a whole file beside the one in use, durably. The first half of [`Storage::replace`].
    pub fn stage(&self, name: &str, bytes: &[u8]) -> io::Result<File> {
        self.while_open(|_| {
            let new = self.staged(name);
            let written = (|| {
                let mut file = OpenOptions::new()
                    .read(true)
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
        })
    }

    /// Puts the file that [`Directory::stage`] wrote in place of the one in use. The second half of [`Storage::replace`].
    pub fn put_in_place(&self, name: &str, file: File) -> io::Result<()> {
        self.while_open(|open| {
            open.files.remove(name);
            std::fs::rename(self.staged(name), self.path.join(name))?;
            sync_directory(&self.path)?;
            open.files.insert(name.to_owned(), file);
            Ok(())
        })
    }

    /// Writes into a file, without making that durable. The first half of [`Storage::append`].
    pub fn write(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.with_file(name, |file| file.write_all_at(bytes, at))
    }

    /// Makes the content of a file durable, but not its name. The second half of [`Storage::append`].
    pub fn sync_content(&self, name: &str) -> io::Result<()> {
        self.with_file(name, |file| file.sync_data())
    }

    /// Calls `act` with the file, opened now or before.
    fn with_file<T>(
        &self,
        name: &str,
        act: impl FnOnce(&mut File) -> io::Result<T>,
    ) -> io::Result<T> {
        self.while_open(|open| {
            let file = match open.files.entry(name.to_owned()) {
                Entry::Occupied(file) => file.into_mut(),
                Entry::Vacant(place) => {
                    let path = self.path.join(name);
                    place.insert(OpenOptions::new().read(true).write(true).open(path)?)
                }
            };
            act(file)
        })
    }

    /// Calls `act`, unless the directory is released; [`Storage::release`] waits until it is done.
    fn while_open<T>(&self, act: impl FnOnce(&mut Open) -> io::Result<T>) -> io::Result<T> {
        let mut open = self.lock_open();
        let open = open.as_mut();
        act(open.ok_or_else(|| io::Error::other("this phone has given its directory up"))?)
    }

    fn lock_open(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn staged(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.new"))
    }
}

impl Storage for Directory {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.while_open(|open| {
            // Its owner may have put another file there: the next write opens it anew.
            open.files.remove(name);
            match std::fs::read(self.path.join(name)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                bytes => bytes.map(Some),
            }
        })
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<(), ReplaceError> {
        let failed = |may_be_replaced| {
            move |error| ReplaceError {
                error,
                may_be_replaced,
            }
        };
        let file = self.stage(name, bytes).map_err(failed(false))?;
        self.put_in_place(name, file).map_err(failed(true))
    }

    fn append(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(name, at, bytes)?;
        self.sync_content(name)
    }

    fn cut(&self, name: &str, length: u64) -> io::Result<()> {
        self.with_file(name, |file| {
            file.set_len(length)?;
            file.sync_data()
        })
    }

    fn overwrite(&self, name: &str, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.write(name, at, bytes)
    }

    fn sync(&self, name: &str) -> io::Result<()> {
        self.sync_content(name)?;
        sync_directory(&self.path)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.while_open(|open| {
            open.files.remove(name);
            std::fs::remove_file(self.path.join(name))?;
            sync_directory(&self.path)
        })
    }

    fn release(&self) {
        *self.lock_open() = None;
    }
}

impl Vault {
    /// Makes `dir` a vault with `secrets`, under `passphrase`; see [`Vault::create_in`].
    pub fn create(
        dir: &Path,
        secrets: Secrets,
        passphrase: &Passphrase,
        work_factor: Option<u8>,
    ) -> Result<Vault, VaultError> {
        Vault::create_in(Directory::lock(dir)?, secrets, passphrase, work_factor)
    }

    /// Locks and opens the vault in `dir`.
    pub fn open(dir: &Path, passphrase: &Passphrase) -> Result<Vault, VaultError> {
        Vault::lock(dir)?.open(passphrase)
    }

    /// Locks the vault in `dir`, before its owner is asked for the passphrase.
    pub fn lock(dir: &Path) -> Result<LockedVault, VaultError> {
        match dir.join(SEED_NAME).try_exists()? {
            true => LockedVault::new(Directory::lock(dir)?),
            false => Err(VaultError::Missing(dir.display().to_string())),
        }
    }
}

/// True when `dir` holds a vault.
pub fn exists(dir: &Path) -> bool {
    dir.join(SEED_NAME).exists()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn another_process_may_write_only_when_this_one_has_written_its_last() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::lock(dir.path()).unwrap();
        let (is_writing, writing) = mpsc::channel();
        thread::scope(|scope| {
            let write = || {
                directory.while_open(|_| {
                    is_writing.send(()).unwrap();
                    // For as long as it is not done, nobody else has the directory.
                    let refused = (0..100).all(|_| Directory::lock(dir.path()).is_err());
                    Ok(refused)
                })
            };
            let writer = scope.spawn(write);
            writing.recv().unwrap();
            directory.release();
            Directory::lock(dir.path()).unwrap();
            assert!(writer.join().unwrap().unwrap());
        });
        assert!(directory.write("ledger", 0, b"late").is_err());
        assert!(directory.read("ledger").is_err());
    }

    #[test]
    fn a_file_that_its_owner_has_replaced_is_read_and_written_anew() {
        let dir = tempfile::tempdir().unwrap();
        let directory = Directory::lock(dir.path()).unwrap();
        directory.replace("ledger", b"one").unwrap();
        directory.append("ledger", 3, b"!").unwrap();
        std::fs::write(dir.path().join("copy"), b"two").unwrap();
        std::fs::rename(dir.path().join("copy"), dir.path().join("ledger")).unwrap();
        assert_eq!(directory.read("ledger").unwrap().unwrap(), b"two");
        directory.append("ledger", 3, b"?").unwrap();
        assert_eq!(directory.read("ledger").unwrap().unwrap(), b"two?");
    }
}
