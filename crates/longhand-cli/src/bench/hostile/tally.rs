//! The counts of one attack.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts that grow while an attack goes on. Clones share them.
#[derive(Clone, Default)]
pub struct Tally(Arc<Mutex<Counts>>);

/// The counts at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Stream opens or commands that were sent.
    pub made: u64,
    /// By name, for people: answers, and the most of something at one time.
    pub others: BTreeMap<String, u64>,
}

impl Tally {
    /// So many more stream opens or commands were sent.
    pub fn made(&self, more: u64) {
        self.lock().made += more;
    }

    /// So many more of this.
    pub fn count(&self, name: &str, more: u64) {
        if more > 0 {
            *self.lock().others.entry(name.to_owned()).or_default() += more;
        }
    }

    /// So many of this at one time; the most is kept.
    pub fn at_once(&self, name: &str, now: u64) {
        let mut counts = self.lock();
        let most = counts.others.entry(name.to_owned()).or_default();
        *most = now.max(*most);
    }

    /// All counts until now.
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counts {
    /// `name: count`, with commas.
    pub fn others_text(&self) -> String {
        let others = self.others.iter();
        let others: Vec<String> = others.map(|(name, n)| format!("{name}: {n}")).collect();
        match others.is_empty() {
            true => "none answered".into(),
            false => others.join(", "),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_added_up_and_of_numbers_at_once_the_most_is_kept() {
        let tally = Tally::default();
        let clone = tally.clone();
        clone.made(3);
        for (more, open) in [(1, 5), (0, 9), (2, 4)] {
            clone.count("busy", more);
            clone.at_once("open at most", open);
        }
        let counts = tally.counts();
        assert_eq!(counts.made, 3);
        assert_eq!(counts.others_text(), "busy: 3, open at most: 9");
    }
}
