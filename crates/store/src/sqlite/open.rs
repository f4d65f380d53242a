//! Opening the file. A file of another program is refused before a byte of it changes.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use longhand_base::files::sync_name;
use longhand_base::text::excerpt;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::error::open_error;
use crate::StoreError;

/// "LnHd", in the file's header: the application id of our databases.
const APPLICATION_ID: i32 = 0x4c6e_4864;
/// How long the check of an existing file may take: nodes that do not run watch no channels.
const CHECK_LIMIT: Duration = Duration::from_secs(20);
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

/// The only connection to the file at `path`, which is created when it is missing.
pub(super) fn open_connection(path: &Path) -> Result<Connection, StoreError> {
    let failed = |e| open_error(path, &e);
    let is_new = create_private(path)?;
    if !is_new {
        inspect(path)?;
    }
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(failed)?;
    // The holder keeps its lock for as long as it lives: waiting would not help.
    connection.busy_timeout(Duration::ZERO).map_err(failed)?;
    connection
        .pragma_update(None, "locking_mode", "EXCLUSIVE")
        .map_err(failed)?;
    connection
        .pragma_update(None, "synchronous", "FULL")
        .map_err(failed)?;
    prepare(&connection, path)?;
    match is_new {
        true => sync_name(path).map_err(|e| cannot_open(path, &e))?,
        false => check_pages(&connection, path)?,
    }
    Ok(connection)
}

/// Refuses a file whose pages are damaged, before a node acts on what is left: `quick_check` reads every page, and
/// finds those that cannot be parsed, are used twice or are lost. It reads about 1 GB in a second from memory; a file for
/// which it takes longer than [`CHECK_LIMIT`] is opened without, and damage is found when it is read.
fn check_pages(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let interrupt = connection.get_interrupt_handle();
    let (checked, waits) = mpsc::channel::<()>();
    let watchdog = thread::spawn(move || {
        if waits.recv_timeout(CHECK_LIMIT) == Err(RecvTimeoutError::Timeout) {
            interrupt.interrupt();
        }
    });
    let found = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    drop(checked);
    // It cannot panic, and ends at once.
    let _ = watchdog.join();
    match found {
        Ok(report) if report == "ok" => Ok(()),
        Ok(report) => Err(StoreError::Corrupt(excerpt(&report))),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            let limit_s = CHECK_LIMIT.as_secs();
            tracing::warn!(path = %path.display(), limit_s, "the database is too large to be checked for damage at its start");
            Ok(())
        }
        Err(error) => Err(open_error(path, &error)),
    }
}

/// Creates the file when it is missing; `true` when it was. SQLite gives its `-wal` the same mode.
fn create_private(path: &Path) -> Result<bool, StoreError> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(e) => Err(cannot_open(path, &e)),
    }
}

/// Looks at an existing file without locking or changing it, so that one that is not ours stays
/// as it is. Through SQLite: closing a handle of our own would drop the locks that a
/// store in this process holds on the same file (POSIX).
fn inspect(path: &Path) -> Result<(), StoreError> {
    let text = path.to_str().ok_or_else(|| {
        StoreError::Unusable(format!(
            "the path {} is not UTF-8: choose another",
            path.display()
        ))
    })?;
    let escaped = text
        .replace('%', "%25")
        .replace('?', "%3f")
        .replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let failed = |e| open_error(path, &e);
    let file = Connection::open_with_flags(format!("file:{escaped}?immutable=1"), flags)
        .map_err(failed)?;
    check_header(&file, path).map(drop)
}

/// Whether the schema is there; an error when the database is another program's or a newer one.
fn check_header(file: &Connection, path: &Path) -> Result<bool, StoreError> {
    let number = |sql| file.query_row(sql, [], |row| row.get::<_, i64>(0));
    let failed = |e| open_error(path, &e);
    let application = number("PRAGMA application_id").map_err(failed)?;
    let version = number("PRAGMA user_version").map_err(failed)?;
    if application == 0 && version == 0 {
        let tables = number("SELECT count(*) FROM sqlite_schema").map_err(failed)?;
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

/// Brings the database to the current schema. The schema is written before the switch to WAL, so that the file's
/// header has the application id from the start, whatever is left in a `-wal`.
fn prepare(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |e| open_error(path, &e);
    connection
        .execute_batch("BEGIN IMMEDIATE")
        .map_err(failed)?;
    if !check_header(connection, path)? {
        connection.execute_batch(SCHEMA).map_err(failed)?;
        connection
            .pragma_update(None, "application_id", APPLICATION_ID)
            .map_err(failed)?;
        connection
            .pragma_update(None, "user_version", SCHEMA_VERSION)
            .map_err(failed)?;
    }
    connection.execute_batch("COMMIT").map_err(failed)?;
    let mode: String = connection
        .query_row("PRAGMA journal_mode=WAL", [], |row| row.get(0))
        .map_err(failed)?;
    if mode != "wal" {
        return Err(StoreError::Unusable(format!(
            "the file system of {} cannot hold a database in WAL mode: choose another place",
            path.display()
        )));
    }
    Ok(())
}

fn cannot_open(path: &Path, error: &std::io::Error) -> StoreError {
    let place = path.display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full,
        ErrorKind::NotFound
        | ErrorKind::PermissionDenied
        | ErrorKind::NotADirectory
        | ErrorKind::IsADirectory
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::InvalidInput
        | ErrorKind::InvalidFilename => StoreError::Unusable(format!(
            "{place} cannot be opened ({error}): check the path, and that the host's user may write there"
        )),
        _ => StoreError::Unavailable(format!("{place} cannot be opened: {error}")),
    }
}
