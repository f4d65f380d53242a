//! A disk that fills up: a small file system of its own for the host's data.
//!
//! It is a tmpfs, whose writes fail with `ENOSPC` as those on any full disk do. A limit on the size of files
//! (`RLIMIT_FSIZE`) would not do: its writes fail with `EFBIG`, which no full disk returns. Mounting needs no root
//! rights: the program runs itself again in its own user and mount namespace (`unshare` of util-linux). No other
//! process sees the mount, and it goes with the namespace's last process.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// More than a host needs that runs for hours, and little enough to be filled in a moment.
const SIZE: &str = "64m";
const FILLER: &str = "filler";
const CHUNK_BYTES: usize = 256 << 10;
/// Argument of the program when it runs itself again. See [`enter`].
pub(super) const ENTERED: &str = "--own-mounts";

/// Whether this system lets a program mount a file system of its own.
///
/// # Errors
/// Why not, for a person.
pub(super) fn is_possible() -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut tried = unshare(OsStr::new("mount"));
    tried.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]);
    let output = tried.arg(dir.path()).stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("unshare cannot be run: {e}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

/// Runs this program again, with the same arguments and [`ENTERED`], where it can mount. The process stays the same.
/// Returns only when that fails.
pub(super) fn enter() -> io::Error {
    match std::env::current_exe() {
        Ok(program) => unshare(program.as_os_str())
            .args(std::env::args_os().skip(1))
            .arg(ENTERED)
            .exec(),
        Err(error) => error,
    }
}

fn unshare(program: &OsStr) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--user", "--map-root-user", "--mount", "--"])
        .arg(program);
    command
}

/// A small disk.
#[derive(Debug)]
pub(super) struct Disk {
    dir: PathBuf,
}

impl Disk {
    /// Mounts one at `dir`, which is made.
    pub fn mount(dir: &Path) -> Result<Disk, String> {
        std::fs::create_dir_all(dir).map_err(|e| e.to_string())?;
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={SIZE},mode=700"),
                "tmpfs",
            ])
            .arg(dir)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| format!("mount cannot be run: {e}"))?;
        match mounted.status.success() {
            true => Ok(Disk {
                dir: dir.to_owned(),
            }),
            false => Err(String::from_utf8_lossy(&mounted.stderr).trim().to_owned()),
        }
    }

    /// Fills all free space.
    pub fn fill(&self) -> io::Result<()> {
        fill(&mut File::create(self.dir.join(FILLER))?)
    }

    /// Frees the space again.
    pub fn free(&self) -> io::Result<()> {
        match std::fs::remove_file(self.dir.join(FILLER)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Copies its files to a directory that outlives it.
    pub fn keep(&self, to: &Path) -> io::Result<()> {
        self.free()?;
        std::fs::create_dir_all(to)?;
        for entry in std::fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                std::fs::copy(entry.path(), to.join(entry.file_name()))?;
            }
        }
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The mount would go with the last process anyway, but its directory has to be removed before. Lazily: a
        // process that was killed may not be gone yet.
        let mut unmount = Command::new("umount");
        unmount.arg("--lazy").arg(&self.dir);
        let _ = unmount.stderr(Stdio::null()).status();
    }
}

fn fill(file: &mut impl Write) -> io::Result<()> {
    let chunk = vec![0xff; CHUNK_BYTES];
    let mut size = CHUNK_BYTES;
    while size > 0 {
        match file.write(&chunk[..size]) {
            Ok(1..) => {}
            Ok(0) => size /= 2,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => size /= 2,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    struct Room(usize);

    impl Write for Room {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if bytes.len() > self.0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0 -= bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn not_a_byte_of_room_is_left() {
        let mut room = Room(3 * CHUNK_BYTES + 4_097);
        fill(&mut room).unwrap();
        assert_eq!(room.0, 0);
    }
}
