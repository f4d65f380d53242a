//! Names of files and directories that last.
//!
//! `fsync` of a file makes its content durable, not its name: that is in the directory, which has to be synced too
//! (`fsync(2)`). Without it a new file can be missing after a crash.

use std::fs::DirBuilder;
use std::io;
use std::path::{Path, PathBuf};

/// Makes the directory and those above it that are missing, for the user alone, and durably. One that exists stays as
/// it is.
///
/// # Errors
/// Those of the file system; a directory that was made before stays.
pub fn create_private_directory(path: &Path) -> io::Result<()> {
    create_with(path, sync_directory)
}

/// Makes new, renamed and removed names in `directory` durable.
///
/// # Errors
/// Those of the file system.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    #[cfg(unix)]
    std::fs::File::open(directory)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = directory;
    Ok(())
}

/// Makes the name of the file or directory at `path` durable.
///
/// # Errors
/// Those of the file system.
pub fn sync_name(path: &Path) -> io::Result<()> {
    sync_directory(parent(path))
}

fn create_with(path: &Path, mut sync: impl FnMut(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    for directory in missing(path) {
        match builder.create(&directory) {
            Ok(()) => sync(parent(&directory))?,
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
            Err(error) => return Err(error),
        }
    }
    match path.is_dir() {
        true => Ok(()),
        false => Err(io::ErrorKind::NotADirectory.into()),
    }
}

/// The directories of `path` that are not there, the outermost first.
fn missing(path: &Path) -> Vec<PathBuf> {
    let all = path.ancestors();
    let named = all.take_while(|it| !it.as_os_str().is_empty() && !it.exists());
    let mut missing: Vec<PathBuf> = named.map(Path::to_owned).collect();
    missing.reverse();
    missing
}

/// The directory that has the name of `path`.
fn parent(path: &Path) -> &Path {
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn every_new_directory_is_synced_in_its_parent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one/two");
        let mut synced = vec![];
        let mut record = |parent: &Path| {
            synced.push(parent.to_owned());
            Ok(())
        };
        create_with(&path, &mut record).unwrap();
        create_with(&path, &mut record).unwrap();
        assert_eq!(synced, [dir.path().to_owned(), dir.path().join("one")]);
        assert!(path.is_dir());
    }

    #[test]
    fn a_directory_that_cannot_be_synced_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let failed = create_with(&dir.path().join("one"), |_| {
            Err(io::Error::other("the disk is gone"))
        });
        assert!(failed.is_err());
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "").unwrap();
        assert!(create_private_directory(&path).is_err());
        assert!(create_private_directory(&path.join("below")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn new_directories_are_for_the_user_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("one/two");
        create_private_directory(&path).unwrap();
        for made in [&path, path.parent().unwrap()] {
            let mode = std::fs::metadata(made).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700);
        }
    }
}
