//! Report of a run, and whether anything was off.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::plan::Blow;

/// Counts of one run.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub seed: u64,
    pub seconds: u64,
    pub rounds: u32,
    pub checks: u32,
    pub killed_host: u32,
    pub killed_phone: u32,
    pub killed_both: u32,
    pub killed_devnet: u32,
    pub full_disk: u32,
    /// Log lines about a full disk.
    pub full_disk_lines: u64,
    pub payments_tried: u32,
    pub payments_succeeded: u32,
    pub payments_failed: u32,
    /// Errors that the payers of those got, and how often.
    pub failed_because: BTreeMap<String, u32>,
    pub force_closes_unasked: u32,
    pub payments_lost: u32,
    /// Not answered for a minute by a process that ran all the time.
    pub payments_late: u32,
    pub satoshis_unaccounted: u64,
    pub panics: u32,
    /// All that was off, for a person.
    pub faults: Vec<String>,
    /// Stopped by a signal before its time.
    pub was_stopped: bool,
}

impl Report {
    /// Counts a blow.
    pub fn count(&mut self, blow: Blow) {
        let counter = match blow {
            Blow::Host => &mut self.killed_host,
            Blow::Phone(_) => &mut self.killed_phone,
            Blow::Both(_) => &mut self.killed_both,
            Blow::Devnet => &mut self.killed_devnet,
            Blow::Disk(_) => &mut self.full_disk,
        };
        *counter += 1;
    }

    /// All SIGKILLs; one of host and phone at once counts once.
    pub fn kills(&self) -> u32 {
        self.killed_host + self.killed_phone + self.killed_both + self.killed_devnet
    }

    /// Whether nothing was off so far.
    pub fn is_clean(&self) -> bool {
        self.faults.is_empty()
            && self.force_closes_unasked == 0
            && self.payments_lost == 0
            && self.payments_late == 0
            && self.satoshis_unaccounted == 0
            && self.panics == 0
    }

    /// Whether the run shows something, and nothing was off. A run without a payment shows nothing, and neither does a
    /// full disk that caused no error.
    pub fn is_ok(&self) -> bool {
        let full_disk_was_felt = self.full_disk == 0 || self.full_disk_lines > 0;
        self.is_clean() && self.checks > 0 && self.payments_succeeded > 0 && full_disk_was_felt
    }

    fn rows(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("rounds", self.rounds.into()),
            ("SIGKILL of the host", self.killed_host.into()),
            ("SIGKILL of a phone", self.killed_phone.into()),
            ("SIGKILL of both at once", self.killed_both.into()),
            ("SIGKILL of the devnet", self.killed_devnet.into()),
            ("disk filled up", self.full_disk.into()),
            ("errors that said so", self.full_disk_lines),
            ("payments tried", self.payments_tried.into()),
            ("payments succeeded", self.payments_succeeded.into()),
            ("payments failed", self.payments_failed.into()),
            ("times all was checked", self.checks.into()),
            ("force closes unasked", self.force_closes_unasked.into()),
            ("payments lost", self.payments_lost.into()),
            ("payments late", self.payments_late.into()),
            ("satoshis unaccounted", self.satoshis_unaccounted),
            ("panics", self.panics.into()),
        ]
    }

    /// For a person.
    pub fn table(&self) -> String {
        let minutes = format!("{}:{:02} min", self.seconds / 60, self.seconds % 60);
        let stopped = match self.was_stopped {
            true => ", stopped before its time",
            false => "",
        };
        let mut text = format!("\nseed {}, {minutes}{stopped}", self.seed);
        for (name, count) in self.rows() {
            text.push_str(&format!("\n  {name:<26} {count:>8}"));
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "ok": self.is_ok(),
            "seed": self.seed,
            "seconds": self.seconds,
            "stopped": self.was_stopped,
            "rounds": self.rounds,
            "checks": self.checks,
            "kills": {
                "host": self.killed_host,
                "phone": self.killed_phone,
                "both": self.killed_both,
                "devnet": self.killed_devnet,
            },
            "full_disk": { "times": self.full_disk, "lines": self.full_disk_lines },
            "payments": {
                "tried": self.payments_tried,
                "succeeded": self.payments_succeeded,
                "failed": self.payments_failed,
                "failed_because": self.failed_because,
                "lost": self.payments_lost,
                "late": self.payments_late,
            },
            "force_closes_unasked": self.force_closes_unasked,
            "satoshis_unaccounted": self.satoshis_unaccounted,
            "panics": self.panics,
            "faults": self.faults,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::processes::plan::Meanwhile;

    fn good() -> Report {
        Report {
            checks: 1,
            payments_tried: 3,
            payments_succeeded: 2,
            payments_failed: 1,
            ..Report::default()
        }
    }

    #[test]
    fn anything_off_is_not_ok() {
        assert!(good().is_ok());
        let spoil: [fn(&mut Report); 9] = [
            |r| r.faults.push("a line".into()),
            |r| r.force_closes_unasked = 1,
            |r| r.payments_lost = 1,
            |r| r.payments_late = 1,
            |r| r.satoshis_unaccounted = 1,
            |r| r.panics = 1,
            |r| r.checks = 0,
            |r| r.payments_succeeded = 0,
            |r| r.full_disk = 1,
        ];
        for (index, spoil) in spoil.into_iter().enumerate() {
            let mut report = good();
            spoil(&mut report);
            assert!(!report.is_ok(), "{index}");
            assert_eq!(report.json()["ok"], false);
        }
    }

    #[test]
    fn blows_are_counted_by_kind() {
        let mut report = good();
        for blow in [
            Blow::Host,
            Blow::Phone(1),
            Blow::Both(0),
            Blow::Devnet,
            Blow::Disk(Meanwhile::IsKilled),
        ] {
            report.count(blow);
        }
        assert_eq!((report.kills(), report.full_disk), (4, 1));
        assert_eq!(report.json()["kills"]["both"], 1);
    }
}
