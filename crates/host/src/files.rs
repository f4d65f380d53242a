//! Small secret files: made once, readable by the host's user alone, and never written again.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use longhand_base::files::{create_private_directory, sync_name};
use zeroize::Zeroizing;

/// Why a file of the host cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// The file system refused it.
    #[error("{path} cannot be used ({reason}): check the path and its permissions")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The file system's error.
        reason: String,
    },
    /// Others on this machine can read it.
    #[error(
        "{0} holds a secret and can be read by others: run chmod 600 on it, and think of it as known to them"
    )]
    Exposed(PathBuf),
    /// It does not hold a secret.
    #[error("{0} does not hold 64 hexadecimal digits: restore it from a backup, do not delete it")]
    Malformed(PathBuf),
}

/// Makes the directory with its parents, durably; a new one is for the host's user alone.
pub(crate) fn create_directory(path: &Path) -> Result<(), FileError> {
    create_private_directory(path).map_err(|e| io_error(path, &e))
}

/// The 32 bytes in the file, as hexadecimal; `None` when there is no file.
pub(crate) fn read_secret(path: &Path) -> Result<Option<Zeroizing<[u8; 32]>>, FileError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io_error(path, &e)),
    };
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = file
            .metadata()
            .map_err(|e| io_error(path, &e))?
            .permissions()
            .mode();
        if mode & 0o077 != 0 {
            return Err(FileError::Exposed(path.to_owned()));
        }
    }
    let mut text = Zeroizing::new(String::with_capacity(128));
    let read = (&mut file).take(128).read_to_string(&mut text);
    let malformed = || FileError::Malformed(path.to_owned());
    read.map_err(|_| malformed())?;
    from_hex(text.trim()).map(Some).ok_or_else(malformed)
}

/// Writes 32 bytes to a file that must not exist yet. It is whole and durable when this returns, and not
/// there when it fails: it is written under another name and then linked to its own.
pub(crate) fn write_secret(path: &Path, secret: &[u8; 32]) -> Result<(), FileError> {
    let failed = |e: std::io::Error| io_error(path, &e);
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = PathBuf::from(draft);
    let _ = std::fs::remove_file(&draft);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&draft).map_err(failed)?;
    let text = Zeroizing::new(to_hex(secret) + "\n");
    file.write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    let linked = std::fs::hard_link(&draft, path);
    let removed = std::fs::remove_file(&draft);
    linked.and(removed).map_err(failed)?;
    sync_name(path).map_err(failed)
}

/// 32 random bytes of the operating system.
pub(crate) fn random_secret(path: &Path) -> Result<Zeroizing<[u8; 32]>, FileError> {
    let mut bytes = Zeroizing::new([0; 32]);
    getrandom::fill(bytes.as_mut()).map_err(|e| FileError::Io {
        path: path.to_owned(),
        reason: e.to_string(),
    })?;
    Ok(bytes)
}

/// The secret in the file, which is made with random bytes when it is missing.
pub(crate) fn read_or_make_secret(path: &Path) -> Result<Zeroizing<[u8; 32]>, FileError> {
    if let Some(secret) = read_secret(path)? {
        return Ok(secret);
    }
    let secret = random_secret(path)?;
    write_secret(path, &secret)?;
    Ok(secret)
}

/// Lower-case hexadecimal.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    bitcoin::hex::DisplayHex::to_lower_hex_string(bytes)
}

fn from_hex(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    <[u8; 32] as bitcoin::hex::FromHex>::from_hex(text)
        .ok()
        .map(Zeroizing::new)
}

fn io_error(path: &Path, error: &std::io::Error) -> FileError {
    FileError::Io {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        assert!(read_secret(&path).unwrap().is_none());
        let made = read_or_make_secret(&path).unwrap();
        assert_eq!(read_or_make_secret(&path).unwrap(), made);
        assert!(
            write_secret(&path, &[1; 32]).is_err(),
            "an existing secret is never replaced"
        );
        assert_eq!(read_secret(&path).unwrap(), Some(made));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_without_a_secret_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        write_secret(&path, &[1; 32]).unwrap();
        for content in ["", "00", &"zz".repeat(32), &"00".repeat(33)] {
            std::fs::write(&path, content).unwrap();
            assert!(
                matches!(read_secret(&path), Err(FileError::Malformed(_))),
                "{content}"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_that_others_can_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        write_secret(&path, &[1; 32]).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(read_secret(&path), Err(FileError::Exposed(_))));
    }
}
