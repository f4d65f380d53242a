//! How far a Tor client has come, and where it is stuck.

use std::fmt;
#[cfg(any(feature = "arti", test))]
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The steps from nothing to a stream, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// This machine's clock is so wrong that relays, or the directory, look expired.
    Clock,
    /// Connecting to relays.
    Guards,
    /// Loading the directory of all relays.
    Directory,
    /// All is there for streams; a service that is dialled may still be away.
    Service,
}

/// Where a client is. As text one line for a person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The step that is not done yet; [`Step::Service`] when the client can open streams.
    pub step: Step,
    /// Of the directory and connections, 0 to 100.
    pub percent: u8,
    /// Why it does not go on, where that is known.
    pub problem: Option<String>,
}

impl Progress {
    /// Of a client that has not begun.
    pub fn none() -> Progress {
        Progress {
            step: Step::Guards,
            percent: 0,
            problem: None,
        }
    }

    /// Whether streams can be opened.
    pub fn is_ready(&self) -> bool {
        self.step == Step::Service
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = match self.step {
            Step::Clock => "this machine's clock is wrong: set it right",
            Step::Guards => "no relay of the Tor network answers yet",
            Step::Directory => "the directory of the Tor network is being loaded",
            Step::Service => "the Tor network is reached",
        };
        f.write_str(step)?;
        if !self.is_ready() {
            write!(f, " ({} %)", self.percent)?;
        }
        match &self.problem {
            Some(problem) => write!(f, " ({problem})"),
            None => Ok(()),
        }
    }
}

/// What is seen of a client.
#[cfg(any(feature = "arti", test))]
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// A relay has answered, and was authenticated.
    pub relays_answer: bool,
    /// The directory is there too: streams can be opened.
    pub is_ready: bool,
    /// From 0 to 1.
    pub fraction: f32,
    /// Certificates of relays look expired.
    pub certificates_expired: bool,
    /// By how much the clock is ahead of those of relays, in seconds.
    pub clock_ahead_s: Option<f64>,
    /// Why Tor does not go on.
    pub blocked: Option<String>,
}

/// The directory may be used for hours before and after its time; with a clock that is further off it is refused.
#[cfg(any(feature = "arti", test))]
const CLOCK_TOLERANCE: Duration = Duration::from_secs(3 * 60 * 60);

/// The progress of a client that is observed so.
#[cfg(any(feature = "arti", test))]
pub fn progress(observed: &Observed) -> Progress {
    let far = |ahead_s: &f64| ahead_s.abs() > CLOCK_TOLERANCE.as_secs_f64();
    let clock_ahead_s = observed.clock_ahead_s.filter(far);
    let step = if observed.is_ready {
        Step::Service
    } else if observed.certificates_expired || clock_ahead_s.is_some() {
        Step::Clock
    } else if !observed.relays_answer {
        Step::Guards
    } else {
        Step::Directory
    };
    let problem = match clock_ahead_s {
        _ if observed.is_ready => None,
        Some(ahead_s) => Some(clock_text(ahead_s)),
        None => observed.blocked.clone(),
    };
    let percent = (observed.fraction.clamp(0.0, 1.0) * 100.0) as u8;
    Progress {
        step,
        percent,
        problem,
    }
}

#[cfg(any(feature = "arti", test))]
fn clock_text(ahead_s: f64) -> String {
    let hours = (ahead_s.abs() / 3_600.0).round();
    let direction = if ahead_s > 0.0 { "ahead" } else { "behind" };
    match hours {
        hours if hours >= 48.0 => format!("it is about {:.0} days {direction}", hours / 24.0),
        hours => format!("it is about {hours:.0} hours {direction}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed() -> Observed {
        Observed {
            relays_answer: true,
            is_ready: true,
            fraction: 1.0,
            ..Observed::default()
        }
    }

    #[test]
    fn a_client_names_the_first_step_that_is_not_done() {
        let step = |observed: Observed| progress(&observed).step;
        assert_eq!(step(Observed::default()), Step::Guards);
        let connected = Observed {
            is_ready: false,
            fraction: 0.15,
            ..observed()
        };
        assert_eq!(step(connected), Step::Directory);
        assert_eq!(step(observed()), Step::Service);
        assert!(progress(&observed()).is_ready());
    }

    #[test]
    fn a_wrong_clock_is_named_with_its_error() {
        let stuck = Observed {
            is_ready: false,
            fraction: 0.15,
            clock_ahead_s: Some(-30.0 * 3_600.0),
            blocked: Some("no consensus".into()),
            ..observed()
        };
        let progress = progress(&stuck);
        assert_eq!(progress.step, Step::Clock);
        let shown =
            "this machine's clock is wrong: set it right (15 %) (it is about 30 hours behind)";
        assert_eq!(progress.to_string(), shown);
    }

    #[test]
    fn a_clock_that_is_wrong_by_days_is_seen_by_expired_certificates_alone() {
        let stuck = Observed {
            certificates_expired: true,
            fraction: 0.08,
            ..Observed::default()
        };
        assert_eq!(progress(&stuck).step, Step::Clock);
    }

    #[test]
    fn a_clock_that_tor_bears_is_not_blamed() {
        let loading = Observed {
            is_ready: false,
            clock_ahead_s: Some(7_000.0),
            blocked: Some("downloads fail".into()),
            ..observed()
        };
        let progress = progress(&loading);
        assert_eq!(progress.step, Step::Directory);
        assert_eq!(progress.problem.as_deref(), Some("downloads fail"));
    }

    #[test]
    fn a_client_that_is_ready_reports_no_problem_of_the_past() {
        let ready = Observed {
            blocked: Some("offline".into()),
            ..observed()
        };
        assert_eq!(progress(&ready).problem, None);
    }
}
