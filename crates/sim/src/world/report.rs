//! What came of many runs, as a table.

use std::fmt;
use std::time::Duration;

use crate::world::check::Class;
use crate::world::plan::{Counts, Interruption, Kind};
use crate::world::run::Verdict;
use crate::world::scenario::Scenario;

/// What came of all runs of one scenario.
pub(crate) struct Row {
    pub scenario: Scenario,
    /// Steps of each kind, undisturbed.
    pub steps: Counts,
    /// Runs with a single interruption of each kind.
    singles: Counts,
    pairs: u32,
    /// Interruptions planned for steps that did not come.
    too_late: u32,
    /// By class.
    pub faults: [u32; Class::NAMES.len()],
    time: Duration,
}

impl Row {
    /// `calm`: of the undisturbed run.
    pub fn new(scenario: Scenario, calm: &Verdict) -> Row {
        let mut row = Row {
            scenario,
            steps: calm.steps,
            singles: Counts::default(),
            pairs: 0,
            too_late: 0,
            faults: [0; Class::NAMES.len()],
            time: Duration::ZERO,
        };
        row.count_faults(calm);
        row
    }

    pub fn count(&mut self, interruptions: &[Interruption], verdict: &Verdict, time: Duration) {
        match interruptions {
            [Interruption { kind, .. }] => self.singles[*kind as usize] += 1,
            _ => self.pairs += 1,
        }
        self.too_late += interruptions.len().saturating_sub(verdict.happened) as u32;
        self.time += time;
        self.count_faults(verdict);
    }

    fn count_faults(&mut self, verdict: &Verdict) {
        for fault in &verdict.wrong {
            self.faults[fault.class as usize] += 1;
        }
    }

    fn runs(&self) -> u32 {
        self.singles.iter().sum::<u32>() + self.pairs
    }
}

/// What came of all runs; as text a Markdown table.
pub struct Report {
    rows: Vec<Row>,
    time: Duration,
}

impl Report {
    pub(crate) fn new(rows: Vec<Row>, time: Duration) -> Report {
        Report { rows, time }
    }

    /// Runs with an interruption.
    pub fn runs(&self) -> u32 {
        self.rows.iter().map(Row::runs).sum()
    }

    /// Nothing is wrong in any run.
    pub fn is_clean(&self) -> bool {
        self.rows
            .iter()
            .all(|row| row.faults == [0; Class::NAMES.len()])
    }
}

impl fmt::Display for Report {
    /// A row for each scenario: runs with one interruption of each kind, pairs, and all faults. Then the faults by class.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = Kind::ALL.map(Kind::name);
        writeln!(
            f,
            "| scenario | {} | pairs | faults | ms a run |",
            kinds.join(" | ")
        )?;
        writeln!(f, "|---|{}", "---|".repeat(kinds.len() + 3))?;
        for row in &self.rows {
            write!(f, "| {} |", row.scenario.name())?;
            for number in row.singles {
                write!(f, " {number} |")?;
            }
            let faults: u32 = row.faults.iter().sum();
            let each = row.time.as_millis() / u128::from(row.runs().max(1));
            writeln!(f, " {} | {faults} | {each} |", row.pairs)?;
        }
        let count = |class: usize| self.rows.iter().map(|row| row.faults[class]).sum::<u32>();
        let faults = Class::NAMES.iter().enumerate();
        let faults: Vec<_> = faults
            .map(|(class, name)| format!("{name} {}", count(class)))
            .collect();
        let too_late: u32 = self.rows.iter().map(|row| row.too_late).sum();
        write!(
            f,
            "\n{} runs in {} s; {}. {too_late} interruptions were planned for steps that did not come.",
            self.runs(),
            self.time.as_secs(),
            faults.join(", ")
        )
    }
}
