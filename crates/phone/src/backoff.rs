//! Backoff: the wait before dialling again.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);

/// A link that lasted this long resets the waits.
pub(crate) const GOOD_AFTER: Duration = Duration::from_secs(5);

/// Waits that double up to 30 s, each reduced at random by up to a half, so that the phones of a host that was restarted do not
/// dial at the same time.
#[derive(Debug)]
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) fn new() -> Backoff {
        Backoff(FIRST)
    }

    /// The next wait. `random` is any number.
    pub(crate) fn next(&mut self, random: u32) -> Duration {
        let whole = self.0;
        self.0 = LONGEST.min(whole * 2);
        let half = whole / 2;
        half + half.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn waits_double_up_to_half_a_minute() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..9).map(|_| backoff.next(u32::MAX).as_millis()).collect();
        assert_eq!(
            waits,
            [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]
        );
    }

    #[test]
    fn chance_takes_off_up_to_a_half() {
        assert_eq!(Backoff::new().next(0), FIRST / 2);
        let middle = Backoff::new().next(u32::MAX / 2);
        assert!(FIRST / 2 < middle && middle < FIRST);
    }
}
