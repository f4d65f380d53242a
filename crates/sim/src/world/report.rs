//! Results of many runs, as a table.

use std::fmt;
use std::time::Duration;

use crate::world::fault::Class;
use crate::world::plan::{Counts, Interruption};
use crate::world::route::Route;
use crate::world::run::Verdict;
use crate::world::scenario::Scenario;

/// Results of all runs of one scenario.
pub(crate) struct Row {
    pub scenario: Scenario,
    /// Steps of each kind, undisturbed.
    pub steps: Counts,
    /// Runs with a single interruption of each kind.
    singles: Counts,
    pairs: u32,
    /// Of both, the runs in which the event that the scenario is named after happened.
    as_named: u32,
    /// Other runs: not all that was planned has happened.
    partly: u32,
    /// Plans that never happened, however often they were tried.
    never: u32,
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
            as_named: 0,
            partly: 0,
            never: 0,
            faults: [0; Class::NAMES.len()],
            time: Duration::ZERO,
        };
        row.count_faults(calm);
        row
    }

    /// A run in which all has happened.
    pub fn count(&mut self, interruptions: &[Interruption], verdict: &Verdict, time: Duration) {
        match interruptions {
            [Interruption { kind, .. }] => self.singles[*kind as usize] += 1,
            _ => self.pairs += 1,
        }
        self.as_named += u32::from(!verdict.is_beside);
        self.time += time;
        self.count_faults(verdict);
    }

    /// One in which not all has happened, and whether it was tried for the last time.
    pub fn count_partly(&mut self, is_last: bool, verdict: &Verdict) {
        self.partly += 1;
        self.never += u32::from(is_last);
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

/// Results of all runs; as text a Markdown table.
pub struct Report {
    rows: Vec<Row>,
    route: Route,
    time: Duration,
}

impl Report {
    pub(crate) fn new(rows: Vec<Row>, route: Route, time: Duration) -> Report {
        Report { rows, route, time }
    }

    /// Runs in which all that was planned has happened.
    pub fn runs(&self) -> u32 {
        self.rows.iter().map(Row::runs).sum()
    }

    /// Nothing is wrong in any run, and all that was planned has happened.
    pub fn is_clean(&self) -> bool {
        let is_clean = |row: &Row| row.never == 0 && row.faults == [0; Class::NAMES.len()];
        self.rows.iter().all(is_clean)
    }
}

impl fmt::Display for Report {
    /// A row for each scenario: runs with one interruption of each kind, pairs, and all faults. Then the faults by class.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = self.route.kinds();
        let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
        writeln!(
            f,
            "| scenario | {} | pairs | as named | faults | ms a run |",
            names.join(" | ")
        )?;
        writeln!(f, "|---|{}", "---|".repeat(kinds.len() + 4))?;
        for row in &self.rows {
            write!(f, "| {} |", row.scenario.name())?;
            for kind in kinds {
                write!(f, " {} |", row.singles[*kind as usize])?;
            }
            let faults: u32 = row.faults.iter().sum();
            let each = row.time.as_millis() / u128::from(row.runs().max(1));
            let (pairs, as_named) = (row.pairs, row.as_named);
            writeln!(f, " {pairs} | {as_named} | {faults} | {each} |")?;
        }
        let count = |class: usize| self.rows.iter().map(|row| row.faults[class]).sum::<u32>();
        let faults = Class::NAMES.iter().enumerate();
        let faults: Vec<_> = faults
            .map(|(class, name)| format!("{name} {}", count(class)))
            .collect();
        let sum = |of: fn(&Row) -> u32| self.rows.iter().map(of).sum::<u32>();
        let (partly, never) = (sum(|row| row.partly), sum(|row| row.never));
        write!(
            f,
            "\n{} runs in {} s; {}. In {partly} more not all that was planned has happened; {never} plans never came about.",
            self.runs(),
            self.time.as_secs(),
            faults.join(", ")
        )
    }
}
