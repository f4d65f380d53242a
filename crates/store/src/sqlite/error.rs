//! SQLite's result codes (<https://www.sqlite.org/rescode.html>) as [`StoreError`]s.

use std::path::Path;

use rusqlite::{Error, ErrorCode, ffi};

use crate::StoreError;

/// An error of the open database.
pub(super) fn store_error(error: &Error) -> StoreError {
    let Some(sqlite) = error.sqlite_error() else {
        return error_of_value(error);
    };
    let reason = format!("SQLite error {}: {error}", sqlite.extended_code);
    match sqlite.code {
        ErrorCode::DiskFull => StoreError::Full,
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => StoreError::Corrupt(reason),
        ErrorCode::SystemIoFailure => match sqlite.extended_code {
            // A wrong checksum, a damaged file system, a file that is shorter than its header says.
            ffi::SQLITE_IOERR_DATA | ffi::SQLITE_IOERR_CORRUPTFS | ffi::SQLITE_IOERR_SHORT_READ => {
                StoreError::Corrupt(reason)
            }
            _ => StoreError::Unavailable(reason),
        },
        // `CannotOpen` is of a second file here, such as the log: the process may have too many open.
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::FileLockingProtocolFailed
        | ErrorCode::OutOfMemory
        | ErrorCode::OperationInterrupted
        | ErrorCode::OperationAborted
        | ErrorCode::SchemaChanged
        | ErrorCode::CannotOpen => StoreError::Unavailable(reason),
        ErrorCode::ReadOnly
        | ErrorCode::PermissionDenied
        | ErrorCode::AuthorizationForStatementDenied => StoreError::Unusable(format!(
            "{reason}; let the host's user write to the file and to its directory, then restart the host"
        )),
        // Left are a value that is too large, and errors of our own statements: the same call would fail again.
        _ => StoreError::Unusable(reason),
    }
}

/// An error while the file at `path` is opened.
pub(super) fn open_error(path: &Path, error: &Error) -> StoreError {
    let place = path.display();
    match error.sqlite_error_code() {
        // The holder keeps its lock until it closes the file.
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            StoreError::InUse(place.to_string())
        }
        Some(ErrorCode::NotADatabase) => StoreError::Foreign(place.to_string()),
        Some(ErrorCode::CannotOpen) => StoreError::Unusable(format!(
            "{place} cannot be opened: check the path, and that the host's user may write there"
        )),
        _ => store_error(error),
    }
}

/// An error of rusqlite: a column of a type that no store has written is damage, all else is an error of our own.
fn error_of_value(error: &Error) -> StoreError {
    match error {
        Error::FromSqlConversionFailure(..)
        | Error::IntegralValueOutOfRange(..)
        | Error::InvalidColumnType(..)
        | Error::Utf8Error(..) => StoreError::Corrupt(error.to_string()),
        _ => StoreError::Unusable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use longhand_proto::Code;

    use super::*;

    fn of(code: i32) -> StoreError {
        store_error(&Error::SqliteFailure(ffi::Error::new(code), None))
    }

    #[test]
    fn codes_that_may_pass_are_transient() {
        for code in [
            ffi::SQLITE_BUSY,
            ffi::SQLITE_BUSY_RECOVERY,
            ffi::SQLITE_LOCKED,
            ffi::SQLITE_PROTOCOL,
            ffi::SQLITE_NOMEM,
            ffi::SQLITE_INTERRUPT,
            ffi::SQLITE_ABORT,
            ffi::SQLITE_SCHEMA,
            ffi::SQLITE_CANTOPEN,
            ffi::SQLITE_IOERR_READ,
            ffi::SQLITE_IOERR_LOCK,
            ffi::SQLITE_IOERR_NOMEM,
        ] {
            let error = of(code);
            assert!(
                matches!(error, StoreError::Unavailable(_)),
                "{code}: {error:?}"
            );
            assert_eq!(error.code(), Code::DatabaseUnavailable, "{code}");
            assert!(error.is_transient(), "{code}");
        }
        assert_eq!(of(ffi::SQLITE_FULL), StoreError::Full);
        assert!(StoreError::Full.is_transient());
    }

    #[test]
    fn codes_of_damage_are_final() {
        for code in [
            ffi::SQLITE_CORRUPT,
            ffi::SQLITE_CORRUPT_INDEX,
            ffi::SQLITE_NOTADB,
            ffi::SQLITE_IOERR_DATA,
            ffi::SQLITE_IOERR_CORRUPTFS,
            ffi::SQLITE_IOERR_SHORT_READ,
        ] {
            let error = of(code);
            assert!(matches!(error, StoreError::Corrupt(_)), "{code}: {error:?}");
            assert!(!error.is_transient(), "{code}");
        }
    }

    #[test]
    fn codes_that_would_come_again_are_final() {
        for code in [
            ffi::SQLITE_READONLY,
            ffi::SQLITE_READONLY_DBMOVED,
            ffi::SQLITE_PERM,
            ffi::SQLITE_AUTH,
            ffi::SQLITE_NOLFS,
            ffi::SQLITE_TOOBIG,
            ffi::SQLITE_CONSTRAINT,
            ffi::SQLITE_MISMATCH,
            ffi::SQLITE_MISUSE,
            ffi::SQLITE_RANGE,
            ffi::SQLITE_NOTFOUND,
            ffi::SQLITE_INTERNAL,
            ffi::SQLITE_ERROR,
        ] {
            let error = of(code);
            assert!(
                matches!(error, StoreError::Unusable(_)),
                "{code}: {error:?}"
            );
            assert!(!error.is_transient(), "{code}");
        }
    }

    #[test]
    fn the_reason_has_the_extended_code_to_search_for() {
        let line = of(ffi::SQLITE_IOERR_READ).to_string();
        assert!(line.contains("266"), "{line}");
    }
}
