//! Logs of the processes, searched for panics and errors.

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use longhand_proto::Code;

/// Lines found in the logs since the last search.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    pub panics: Vec<String>,
    /// Lines at the level ERROR that nothing explains.
    pub errors: Vec<String>,
    /// Lines at the level ERROR that a full disk explains.
    pub full_disk: u64,
}

/// Reads each log once, from where it ended the last time.
#[derive(Default)]
pub(super) struct Logs {
    read: HashMap<PathBuf, u64>,
}

impl Logs {
    /// Searches all logs in `dir`. `disk_was_full`: whether the host's disk was full meanwhile.
    pub fn search(&mut self, dir: &Path, disk_was_full: bool) -> io::Result<Found> {
        let mut found = Found::default();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let is_log = path.extension().is_some_and(|extension| extension == "log");
            if !is_log {
                continue;
            }
            let at = self.read.entry(path.clone()).or_default();
            let mut file = std::fs::File::open(&path)?;
            file.seek(SeekFrom::Start(*at))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            // A line that is still being written is left for the next time.
            let whole = bytes.iter().rposition(|byte| *byte == b'\n');
            let whole = whole.map_or(0, |at| at + 1);
            *at += whole as u64;
            let text = String::from_utf8_lossy(&bytes[..whole]);
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            found.sort(&name, &text, disk_was_full);
        }
        Ok(found)
    }
}

impl Found {
    fn sort(&mut self, name: &str, text: &str, disk_was_full: bool) {
        for line in text.lines() {
            let is_error = line.contains(" ERROR ") || line.starts_with("error[");
            if line.contains("panicked") || line.contains("a panic was caught") {
                self.panics.push(format!("{name}: {line}"));
            } else if is_error && disk_was_full && is_about_a_full_disk(line) {
                self.full_disk += 1;
            } else if is_error {
                self.errors.push(format!("{name}: {line}"));
            }
        }
    }
}

fn is_about_a_full_disk(line: &str) -> bool {
    line.contains("disk") && line.contains("full") || line.contains(Code::DiskFull.as_str())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const FULL: &str = "2026-01-01T00:00:00Z ERROR longhand_node: the disk that holds the database is full: free some space; nothing was changed\n";

    #[test]
    fn panics_and_errors_are_found_once() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("host.log");
        let mut logs = Logs::default();
        let text = "2026-01-01T00:00:00Z  INFO longhand: well\n\
            thread 'main' panicked at crates/x.rs:1:1:\n\
            2026-01-01T00:00:00Z ERROR longhand: bad\n\
            2026-01-01T00:00:00Z ERROR longhand: half a li";
        std::fs::write(&log, text).unwrap();
        let found = logs.search(dir.path(), false).unwrap();
        assert_eq!((found.panics.len(), found.errors.len()), (1, 1));
        assert!(found.errors[0].contains("bad"));

        std::fs::write(&log, format!("{text}ne\n")).unwrap();
        let found = logs.search(dir.path(), false).unwrap();
        assert_eq!((found.panics.len(), found.errors.len()), (0, 1));
        assert!(found.errors[0].contains("half a line"));
        assert_eq!(logs.search(dir.path(), false).unwrap(), Found::default());
    }

    #[test]
    fn a_full_disk_explains_its_own_lines_only_while_it_is_full() {
        let mut found = Found::default();
        found.sort("host", FULL, true);
        assert_eq!((found.full_disk, found.errors.len()), (1, 0));
        found.sort("host", FULL, false);
        assert_eq!((found.full_disk, found.errors.len()), (1, 1));
    }
}
