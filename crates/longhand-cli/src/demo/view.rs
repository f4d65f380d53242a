//! Progress for a person: in a terminal a live view, else plain lines.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::report::{Report, Step};

/// Where it is shown.
pub(super) struct View {
    screen: Screen,
    /// The step that is under way.
    current: Mutex<Option<Running>>,
}

enum Screen {
    /// Spinners, and a table of all balances.
    Live {
        all: MultiProgress,
        board: ProgressBar,
    },
    Lines {
        to_stderr: bool,
    },
}

struct Running {
    name: &'static str,
    since: Instant,
    spinner: Option<ProgressBar>,
}

/// The balances of one node, in satoshis.
#[derive(Clone, Debug)]
pub(super) struct Holdings {
    pub name: String,
    pub state: String,
    pub onchain_sat: u64,
    pub lightning_sat: u64,
    pub closing_sat: u64,
}

impl View {
    /// With `json` standard output is left alone.
    pub fn new(json: bool) -> View {
        let live = std::io::stderr().is_terminal() && (json || std::io::stdout().is_terminal());
        let screen = match live {
            false => Screen::Lines { to_stderr: json },
            true => {
                let all = MultiProgress::new();
                let board = all.add(ProgressBar::new_spinner().with_style(style("{msg}")));
                Screen::Live { all, board }
            }
        };
        View {
            screen,
            current: Mutex::new(None),
        }
    }

    /// Whether a table can be shown.
    pub fn is_live(&self) -> bool {
        matches!(self.screen, Screen::Live { .. })
    }

    /// A step begins.
    pub fn begin(&self, name: &'static str) {
        let spinner = match &self.screen {
            Screen::Lines { .. } => None,
            Screen::Live { all, board } => {
                let bar = ProgressBar::new_spinner();
                let spinner = all.insert_before(board, bar);
                spinner.set_style(style("{spinner:.cyan} {msg}  {elapsed:.dim}"));
                spinner.set_message(name);
                spinner.enable_steady_tick(Duration::from_millis(80));
                Some(spinner)
            }
        };
        *self.lock() = Some(Running {
            name,
            since: Instant::now(),
            spinner,
        });
    }

    /// The step has ended.
    pub fn end(&self, ok: bool) -> Option<Step> {
        let Running {
            name,
            since,
            spinner,
        } = self.lock().take()?;
        let ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        if let Some(spinner) = spinner {
            spinner.finish_and_clear();
        }
        let mark = match (self.is_live(), ok) {
            (true, true) => "\x1b[32m✓\x1b[0m ",
            (true, false) => "\x1b[31m✗\x1b[0m ",
            (false, true) => "ok    ",
            (false, false) => "FAILED",
        };
        self.line(&format!("{mark} {:>8}  {name}", seconds(ms)));
        Some(Step { name, ok, ms })
    }

    /// Shows a line within the step.
    pub fn say(&self, text: &str) {
        match self.is_live() {
            true => self.line(&format!("             \x1b[2m{text}\x1b[0m")),
            false => self.line(&format!("                   {text}")),
        }
    }

    /// Shows all balances.
    pub fn show(&self, holdings: &[Holdings]) {
        if let Screen::Live { board, .. } = &self.screen {
            board.set_message(table(holdings));
            board.tick();
        }
    }

    /// Shows all balances at the end, and the figures.
    pub fn summary(&self, holdings: &[Holdings], report: &Report) {
        self.close();
        self.line(&table(holdings));
        self.line("\nsequential signer round trips");
        for (name, count, target) in report.round_trips.all() {
            let count = count.map_or("-".into(), |count| count.to_string());
            self.line(&format!("  {name:<20} {count:>2}   (at most {target})"));
        }
        let (tried, succeeded) = (report.payments_tried, report.payments_succeeded);
        self.line(&format!("payments that succeeded  {succeeded} of {tried}"));
        self.line(&format!(
            "closes not asked for     {}",
            report.force_closes_unasked
        ));
        if let Some(ms) = report.attach_ms_median() {
            self.line(&format!("attach, median           {ms:.1} ms"));
        }
    }

    /// Ends the live view. A step that is under way has failed, and is returned.
    pub fn close(&self) -> Option<Step> {
        let failed = self.end(false);
        if let Screen::Live { board, .. } = &self.screen {
            board.finish_and_clear();
        }
        failed
    }

    fn line(&self, text: &str) {
        match &self.screen {
            // An output that is closed is no reason to stop.
            Screen::Live { all, .. } => drop(all.println(text)),
            Screen::Lines { to_stderr: true } => eprintln!("{text}"),
            Screen::Lines { to_stderr: false } => println!("{text}"),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.current
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A table of all balances.
pub(super) fn table(holdings: &[Holdings]) -> String {
    let mut text = format!(
        "\n{:<8} {:<8} {:>14} {:>14} {:>14}   sat",
        "", "", "on chain", "lightning", "closing"
    );
    for of in holdings {
        text.push_str(&format!(
            "\n{:<8} {:<8} {:>14} {:>14} {:>14}",
            of.name,
            of.state,
            grouped(of.onchain_sat),
            grouped(of.lightning_sat),
            grouped(of.closing_sat)
        ));
    }
    text
}

fn style(template: &str) -> ProgressStyle {
    // The templates are ours, and a wrong one only looks bad.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn seconds(ms: u64) -> String {
    format!("{}.{:02} s", ms / 1_000, ms % 1_000 / 10)
}

/// 1,234,567.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn the_table_is_aligned() {
        let of = |name: &str, onchain_sat| Holdings {
            name: name.into(),
            state: "active".into(),
            onchain_sat,
            lightning_sat: 0,
            closing_sat: 0,
        };
        let text = table(&[of("hub", 1_234_567), of("alice", 5)]);
        let ends: Vec<_> = text.lines().skip(2).map(str::len).collect();
        assert_eq!(ends[0], ends[1]);
        assert!(text.contains("1,234,567"));
    }

    #[test]
    fn times_are_in_seconds() {
        assert_eq!(seconds(12), "0.01 s");
        assert_eq!(seconds(61_250), "61.25 s");
    }
}
