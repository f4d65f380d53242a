//! The resident memory of this process.

use std::time::{Duration, Instant};

use longhand_testkit::KitError;

/// A process is at rest when its size has not changed for this long.
const REST: Duration = Duration::from_secs(2);
const PAGE: u64 = 4_096;

/// Waits until the size stays the same.
pub async fn resident_at_rest() -> Result<u64, KitError> {
    let mut last = resident_bytes()?;
    let mut since = Instant::now();
    let begun = Instant::now();
    while since.elapsed() < REST && begun.elapsed() < 15 * REST {
        tokio::time::sleep(REST / 20).await;
        let now = resident_bytes()?;
        if now.abs_diff(last) > 16 * PAGE {
            (last, since) = (now, Instant::now());
        }
    }
    resident_bytes()
}

/// Resident pages of this process.
pub fn resident_bytes() -> Result<u64, KitError> {
    resident_bytes_of(std::process::id())
}

/// The processes that this one has started: the first argument, and the id.
pub fn children() -> Result<Vec<(String, u32)>, KitError> {
    let mut found = Vec::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        let listed = std::fs::read_to_string(task?.path().join("children"))?;
        for pid in listed.split_whitespace().filter_map(|pid| pid.parse().ok()) {
            let arguments = std::fs::read(format!("/proc/{pid}/cmdline"))?;
            let first = arguments
                .split(|byte| *byte == 0)
                .nth(1)
                .unwrap_or_default();
            found.push((String::from_utf8_lossy(first).into_owned(), pid));
        }
    }
    Ok(found)
}

/// Resident pages of a process, by `/proc/PID/statm` (proc(5)).
pub fn resident_bytes_of(pid: u32) -> Result<u64, KitError> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages = text
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages
        .map(|pages| pages * PAGE)
        .ok_or_else(|| KitError::Unexpected("/proc/PID/statm cannot be read".into()))
}
