//! Directories for one run.

use std::path::PathBuf;

use tempfile::TempDir;

/// A directory. In memory where the system has `/dev/shm`, because files are synced many times.
pub(crate) fn dir() -> TempDir {
    let memory = PathBuf::from("/dev/shm");
    let place = if memory.is_dir() {
        memory
    } else {
        std::env::temp_dir()
    };
    TempDir::new_in(place).expect("a directory")
}
