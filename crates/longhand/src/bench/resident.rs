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

/// Resident pages of this process, by `/proc/self/statm` (proc(5)).
pub fn resident_bytes() -> Result<u64, KitError> {
    let text = std::fs::read_to_string("/proc/self/statm")?;
    let pages = text
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse::<u64>().ok());
    pages
        .map(|pages| pages * PAGE)
        .ok_or_else(|| KitError::Unexpected("/proc/self/statm cannot be read".into()))
}
