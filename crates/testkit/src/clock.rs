//! The system's clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// The time of the system's clock, in seconds since 1970.
///
/// # Panics
/// When the clock shows an earlier year.
pub fn unix_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}
