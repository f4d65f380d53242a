//! How often a node does what it does by the clock.
//!
//! LDK counts its patience in ticks, of a minute each: none of its counts is longer than an hour. A node that has no peers,
//! and to which nothing has come for that long, has nothing left to count; its claims it looks after with every block. So
//! thousands of such nodes seldom wake for nothing.

use std::time::Duration;

use tokio::time::Instant;

/// LDK's longest count of ticks.
const QUIET_AFTER: Duration = Duration::from_secs(3600);
const QUIET_PERIOD: Duration = Duration::from_secs(3600);

/// See the module.
pub(super) struct Pace {
    busy_at: Instant,
}

impl Pace {
    pub fn new(now: Instant) -> Pace {
        Pace { busy_at: now }
    }

    /// Something has come, or a peer is there.
    pub fn busy(&mut self, now: Instant) {
        self.busy_at = now;
    }

    /// What `usual` becomes.
    fn period(&self, now: Instant, usual: Duration) -> Duration {
        match now.duration_since(self.busy_at) < QUIET_AFTER {
            true => usual,
            false => QUIET_PERIOD.max(usual),
        }
    }

    /// Whether it is time, and when it will be again: a node that wakes does not wait for what it planned when it was quiet.
    pub fn is_due(&self, next: &mut Instant, now: Instant, usual: Duration) -> bool {
        let is_due = now >= *next;
        let again = now + self.period(now, usual);
        *next = if is_due { again } else { again.min(*next) };
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_node_to_which_nothing_comes_ticks_seldom_after_an_hour_and_as_before_when_something_does()
    {
        let begin = Instant::now();
        let mut pace = Pace::new(begin);
        let (mut now, mut next, mut ticks) = (begin, begin, Vec::new());
        while now < begin + 200 * MINUTE {
            if pace.is_due(&mut next, now, MINUTE) {
                ticks.push((now - begin).as_secs() / 60);
            }
            now = next;
        }
        let in_the_first_hour: Vec<u64> = (0..=60).collect();
        assert_eq!(ticks[..61], in_the_first_hour);
        assert_eq!(ticks[61..], [120, 180]);

        let now = begin + 200 * MINUTE;
        pace.busy(now);
        assert!(!pace.is_due(&mut next, now, MINUTE));
        assert_eq!(next, now + MINUTE);
    }
}
