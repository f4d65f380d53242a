//! What is made for one run: directories, and good bytes that are changed.

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

/// Good bytes, changed: three bytes each time, where (two bytes, little-endian) and how.
pub(crate) fn changed(mut bytes: Vec<u8>, changes: &[u8]) -> Vec<u8> {
    for change in changes.chunks_exact(3) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]]));
        let length = bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(at % length) {
            *byte ^= change[2];
        }
    }
    bytes
}
