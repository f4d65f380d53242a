//! The budget of calls for payments: strangers decide how many payments come, and a push service is not to be called without a
//! limit because of them.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use longhand_link::OwnerId;
use tokio::time::Instant;

/// The time that a budget is for.
const HOUR: Duration = Duration::from_secs(3_600);

/// The calls of each owner's phone within the last hour.
pub(crate) struct Budget {
    per_hour: usize,
    calls: HashMap<OwnerId, VecDeque<Instant>>,
}

impl Budget {
    /// Allows each owner `per_hour` calls within any hour.
    pub fn new(per_hour: u32) -> Budget {
        Budget {
            per_hour: usize::try_from(per_hour).unwrap_or(usize::MAX),
            calls: HashMap::new(),
        }
    }

    /// Takes one call from the owner's budget; false when nothing of it is left.
    pub fn take(&mut self, owner: OwnerId, now: Instant) -> bool {
        let is_over = |at: &Instant| now.duration_since(*at) >= HOUR;
        let calls = self.calls.entry(owner).or_default();
        while calls.front().is_some_and(is_over) {
            calls.pop_front();
        }
        let is_left = calls.len() < self.per_hour;
        if is_left {
            calls.push_back(now);
        }
        is_left
    }

    /// Forgets the owners whose last call was more than an hour ago.
    pub fn forget(&mut self, now: Instant) {
        let is_recent = |at: &Instant| now.duration_since(*at) < HOUR;
        self.calls
            .retain(|_, calls| calls.back().is_some_and(is_recent));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: OwnerId = OwnerId([1; 16]);
    const BOB: OwnerId = OwnerId([2; 16]);

    #[test]
    fn an_owner_has_so_many_calls_in_any_hour_and_no_more() {
        let (mut budget, start) = (Budget::new(2), Instant::now());
        let at = |minutes: u64| start + Duration::from_secs(60 * minutes);
        let taken = [
            (0, true),
            (30, true),
            (59, false),
            (60, true),
            (61, false),
            (90, true),
        ];
        for (minutes, is_left) in taken {
            assert_eq!(
                budget.take(ANN, at(minutes)),
                is_left,
                "after {minutes} minutes"
            );
        }
        assert!(
            budget.take(BOB, at(90)),
            "each owner has a budget of its own"
        );
    }

    #[test]
    fn owners_who_were_not_called_for_an_hour_are_forgotten() {
        let (mut budget, start) = (Budget::new(2), Instant::now());
        budget.take(ANN, start);
        budget.take(BOB, start + HOUR / 2);
        budget.forget(start + HOUR);
        assert_eq!(budget.calls.keys().collect::<Vec<_>>(), [&BOB]);
    }
}
