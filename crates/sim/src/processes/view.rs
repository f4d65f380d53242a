//! Progress for a person: one live line in a terminal, otherwise a line from time to time.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Where the progress is shown.
pub(super) enum View {
    Live(ProgressBar),
    /// With `--json` standard output is left alone.
    Lines {
        to_stderr: bool,
    },
}

impl View {
    pub fn new(json: bool) -> View {
        if !std::io::stderr().is_terminal() {
            return View::Lines { to_stderr: json };
        }
        let bar = ProgressBar::new_spinner();
        // The template is ours, and a wrong one only looks bad.
        let style = ProgressStyle::with_template("{spinner:.cyan} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.enable_steady_tick(Duration::from_millis(80));
        View::Live(bar)
    }

    /// Shows the current state.
    pub fn now(&self, text: String) {
        if let View::Live(bar) = self {
            bar.set_message(text);
        }
    }

    /// Shows a line that stays visible.
    pub fn line(&self, text: &str) {
        match self {
            View::Live(bar) => bar.println(text),
            View::Lines { to_stderr: true } => eprintln!("{text}"),
            View::Lines { to_stderr: false } => println!("{text}"),
        }
    }

    /// Removes the live line.
    pub fn close(&self) {
        if let View::Live(bar) = self {
            bar.finish_and_clear();
        }
    }
}
