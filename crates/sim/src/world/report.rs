//! What came of many runs, as a table.

use std::fmt;
use std::time::Duration;

use crate::world::check::Class;
use crate::world::plan::{Interruption, Kind};
use crate::world::run::Verdict;
use crate::world::scenario::Scenario;

/// What came of all runs of one scenario.
pub(crate) struct Row {
    pub scenario: Scenario,
    /// Steps of each kind, undisturbed.
    pub steps: [u32; 4],
    /// Runs with a single interruption of each kind, and with pairs.
    tried: [u32; 5],
    /// Interruptions planned for steps that did not come.
    too_late: u32,
    /// By class.
    pub faults: [u32; 6],
    time: Duration,
}

impl Row {
    /// `calm`: of the undisturbed run.
    pub fn new(scenario: Scenario, calm: &Verdict) -> Row {
        let mut row = Row {
            scenario,
            steps: calm.steps,
            tried: [0; 5],
            too_late: 0,
            faults: [0; 6],
            time: Duration::ZERO,
        };
        row.count_faults(calm);
        row
    }

    pub fn count(&mut self, interruptions: &[Interruption], verdict: &Verdict, time: Duration) {
        let column = match interruptions {
            [Interruption { kind, .. }] => *kind as usize,
            _ => Kind::ALL.len(),
        };
        self.tried[column] += 1;
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
        self.tried.iter().sum()
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
        self.rows.iter().all(|row| row.faults == [0; 6])
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = Kind::ALL.map(Kind::name).into_iter().chain(["pairs"]);
        let names: Vec<_> = kinds.chain(Class::NAMES).chain(["ms a run"]).collect();
        writeln!(f, "| scenario | {} |", names.join(" | "))?;
        writeln!(f, "|---|{}", "---|".repeat(names.len()))?;
        for row in &self.rows {
            write!(f, "| {} |", row.scenario.name())?;
            for number in row.tried.iter().chain(&row.faults) {
                write!(f, " {number} |")?;
            }
            let each = row.time.as_millis() / u128::from(row.runs().max(1));
            writeln!(f, " {each} |")?;
        }
        let too_late: u32 = self.rows.iter().map(|row| row.too_late).sum();
        write!(
            f,
            "\n{} runs in {} s; {too_late} interruptions were planned for steps that did not come.",
            self.runs(),
            self.time.as_secs()
        )
    }
}
