//! The store of a host: one SQLite file.
//!
//! One thread owns the only connection (`worker.rs`). Batches that wait while it syncs the disk
//! become one transaction, so that a hundred nodes share one `fsync`. Here is how the
//! file is opened: what is not ours is refused before a byte of it changes.

mod worker;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::oneshot;

use crate::{Batch, Store, StoreError};
use worker::{Job, Worker};

/// "LnHd": says in the file's header that it is ours.
const APPLICATION_ID: i32 = 0x4c6e_4864;
/// Version of the schema below.
const SCHEMA_VERSION: u32 = 1;
const SCHEMA: &str = "
    CREATE TABLE entry (
        namespace TEXT NOT NULL,
        key TEXT NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (namespace, key)
    ) STRICT;
    CREATE TABLE lease (
        namespace TEXT NOT NULL PRIMARY KEY,
        epoch INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
";

/// Keeps its entries in one SQLite file, in WAL mode with `synchronous=FULL`.
///
/// The file is this process's alone until the store is closed or dropped.
#[derive(Debug)]
pub struct SqliteStore {
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    jobs: mpsc::Sender<Job>,
    thread: JoinHandle<()>,
}

impl SqliteStore {
    /// Opens the database at `path`, or makes it there, readable by its owner alone.
    ///
    /// Fails with [`StoreError::Locked`], [`StoreError::Foreign`] or [`StoreError::Newer`], and has then
    /// changed nothing. Blocks for as long as the disk takes.
    pub fn open(path: impl AsRef<Path>) -> Result<SqliteStore, StoreError> {
        Self::start(open_connection(path.as_ref())?)
    }

    fn start(connection: Connection) -> Result<SqliteStore, StoreError> {
        let (jobs, queue) = mpsc::channel();
        let mut worker = Worker::new(connection);
        let thread = std::thread::Builder::new()
            .name("longhand-store".into())
            .spawn(move || worker.run(&queue))
            .map_err(|e| StoreError::Other(format!("its thread could not be started: {e}")))?;
        Ok(SqliteStore {
            open: Mutex::new(Some(Open { jobs, thread })),
        })
    }

    /// Ends what is queued and closes the file; whoever asks later gets an error. Blocks until that
    /// is done. Dropping the store does the same.
    pub fn close(&self) {
        let open = self.lock().take();
        if let Some(Open { jobs, thread }) = open {
            drop(jobs);
            if thread.join().is_err() {
                tracing::error!("the store's thread ended by a panic");
            }
        }
    }

    fn jobs(&self) -> Option<mpsc::Sender<Job>> {
        self.lock().as_ref().map(|open| open.jobs.clone())
    }

    fn lock(&self) -> MutexGuard<'_, Option<Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands a job to the thread and waits for the answer.
    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job,
    ) -> Result<T, StoreError> {
        let gone = || StoreError::Other("it is closed".into());
        let (reply, answer) = oneshot::channel();
        self.jobs()
            .ok_or_else(gone)?
            .send(job(reply))
            .map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.close();
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn load(&self, namespace: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let namespace = namespace.to_owned();
        self.ask(|reply| Job::Load { namespace, reply }).await
    }

    async fn get(&self, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        self.ask(|reply| Job::Get {
            namespace,
            key,
            reply,
        })
        .await
    }

    async fn namespaces(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let prefix = prefix.to_owned();
        self.ask(|reply| Job::Namespaces { prefix, reply }).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.ask(|reply| Job::Commit { batch, reply }).await
    }

    async fn take_lease(&self, namespace: &str) -> Result<u64, StoreError> {
        let namespace = namespace.to_owned();
        self.ask(|reply| Job::TakeLease { namespace, reply }).await
    }
}

fn open_connection(path: &Path) -> Result<Connection, StoreError> {
    let named = |e| name_error(path, e);
    let is_new = create_private(path)?;
    if !is_new {
        inspect(path)?;
    }
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(named)?;
    // The holder keeps its lock for as long as it lives: waiting would not help.
    connection.busy_timeout(Duration::ZERO).map_err(named)?;
    connection
        .pragma_update(None, "locking_mode", "EXCLUSIVE")
        .map_err(named)?;
    connection
        .pragma_update(None, "synchronous", "FULL")
        .map_err(named)?;
    prepare(&connection, path)?;
    if is_new {
        sync_directory(path)?;
    }
    Ok(connection)
}

/// Creates the file when it is missing; `true` when it was. SQLite gives its `-wal` the same mode.
fn create_private(path: &Path) -> Result<bool, StoreError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(cannot_open(path, &e)),
    }
}

/// Looks at an existing file without locking or changing it, so that one that is not ours stays
/// as it is. Through SQLite: closing a handle of our own would drop the locks that a
/// store in this process holds on the same file (POSIX).
fn inspect(path: &Path) -> Result<(), StoreError> {
    let text = path.to_str().ok_or_else(|| {
        StoreError::Other(format!(
            "the path {} is not UTF-8: choose another",
            path.display()
        ))
    })?;
    let escaped = text
        .replace('%', "%25")
        .replace('?', "%3f")
        .replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let named = |e| name_error(path, e);
    let file =
        Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags).map_err(named)?;
    check_header(&file, path).map(drop)
}

/// Whether the schema is there; an error when the database is another program's or a newer one.
fn check_header(file: &Connection, path: &Path) -> Result<bool, StoreError> {
    let number = |sql| file.query_row(sql, [], |row| row.get::<_, i64>(0));
    let named = |e| name_error(path, e);
    let application = number("PRAGMA application_id").map_err(named)?;
    let version = number("PRAGMA user_version").map_err(named)?;
    if application == 0 && version == 0 {
        let tables = number("SELECT count(*) FROM sqlite_schema").map_err(named)?;
        if tables == 0 {
            return Ok(false);
        }
    }
    if application != i64::from(APPLICATION_ID) {
        return Err(StoreError::Foreign(path.display().to_string()));
    }
    match u32::try_from(version) {
        Ok(SCHEMA_VERSION) => Ok(true),
        Ok(found) if found > SCHEMA_VERSION => Err(StoreError::Newer {
            found,
            known: SCHEMA_VERSION,
        }),
        _ => Err(StoreError::Foreign(path.display().to_string())),
    }
}

/// Brings the database to the current schema. The schema is written before the switch to WAL, so that the
/// file's header says whose it is from the first moment, whatever is left in a `-wal`.
fn prepare(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let named = |e| name_error(path, e);
    connection.execute_batch("BEGIN IMMEDIATE").map_err(named)?;
    if !check_header(connection, path)? {
        connection.execute_batch(SCHEMA).map_err(named)?;
        connection
            .pragma_update(None, "application_id", APPLICATION_ID)
            .map_err(named)?;
        connection
            .pragma_update(None, "user_version", SCHEMA_VERSION)
            .map_err(named)?;
    }
    connection.execute_batch("COMMIT").map_err(named)?;
    let mode: String = connection
        .query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))
        .map_err(named)?;
    if mode != "wal" {
        return Err(StoreError::Other(format!(
            "the file system of {} cannot hold a database in WAL mode: choose another place",
            path.display()
        )));
    }
    Ok(())
}

/// Makes the name of a new file as durable as its content will be.
fn sync_directory(path: &Path) -> Result<(), StoreError> {
    #[cfg(unix)]
    {
        let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
        let directory = parent.unwrap_or(Path::new("."));
        std::fs::File::open(directory)
            .and_then(|d| d.sync_all())
            .map_err(|e| cannot_open(path, &e))?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

fn cannot_open(path: &Path, error: &std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::StorageFull => StoreError::Full,
        _ => StoreError::Other(format!("{} cannot be opened: {error}", path.display())),
    }
}

fn name_error(path: &Path, error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StoreError::Locked(path.display().to_string())
        }
        Some(ErrorCode::NotADatabase) => StoreError::Foreign(path.display().to_string()),
        Some(ErrorCode::CannotOpen) => StoreError::Other(format!(
            "{} cannot be opened: check the path",
            path.display()
        )),
        _ => store_error(error),
    }
}

fn store_error(error: rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => StoreError::Full,
        _ => StoreError::Other(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
