//! The figures of the attacks.

use super::cores::Cores;
use super::tally::Counts;
use crate::bench::figure::{Measured, Report, Target};

/// A payment under attack takes at most so many times as long as before.
const SLOWER: Target = Target::AtMost(2.0);
/// Growth of the resident memory in MB.
const GROWTH: Target = Target::AtMost(50.0);

/// Texts and names of the figures of each attack: median, its ratio, growth.
const FIGURES: [[(&str, &str); 3]; 3] = [
    [
        (
            "a payment while streams are opened, median",
            "streams_payment_ms",
        ),
        (
            "the same, against one without an attack",
            "streams_payment_ratio",
        ),
        (
            "growth of resident memory by these streams",
            "streams_growth_mb",
        ),
    ],
    [
        (
            "a payment during ConnectPeers to nobody, median",
            "connect_payment_ms",
        ),
        (
            "the same, against one without an attack",
            "connect_payment_ratio",
        ),
        (
            "growth of resident memory by these commands",
            "connect_growth_mb",
        ),
    ],
    [
        (
            "a payment while tarpits are dialled, median",
            "tarpit_payment_ms",
        ),
        (
            "the same, against one without an attack",
            "tarpit_payment_ratio",
        ),
        (
            "growth of resident memory by these tarpits",
            "tarpit_growth_mb",
        ),
    ],
];

/// All that was measured.
pub struct Measurements {
    /// Payments of each median.
    pub runs: u32,
    /// The median of a payment without an attack.
    pub calm_ms: f64,
    /// Resident bytes before the first attack.
    pub before: u64,
    /// Stream opens, commands to nobody, commands to tarpits.
    pub attacks: [Attack; 3],
}

/// One attack.
pub struct Attack {
    /// Its name, for people.
    pub what: &'static str,
    /// The median of a payment meanwhile.
    pub ms: f64,
    /// Until the payments were made.
    pub counts: Counts,
    /// The same.
    pub seconds: f64,
    /// Resident bytes more than before the first attack.
    pub growth: u64,
}

impl Measurements {
    pub fn report(&self, cores: &Cores) -> Report {
        let mut figures = vec![
            figure(
                ("a payment without an attack, median", "calm_payment_ms"),
                "ms",
                self.calm_ms,
                None,
            ),
            figure(
                ("resident memory before the attacks", "before_mb"),
                "MB",
                mb(self.before),
                None,
            ),
        ];
        for ([median, ratio, growth], attack) in FIGURES.into_iter().zip(&self.attacks) {
            let slower = attack.ms / self.calm_ms;
            figures.push(figure(median, "ms", attack.ms, None));
            figures.push(figure(ratio, "x", slower, Some(SLOWER)));
            figures.push(figure(growth, "MB", mb(attack.growth), Some(GROWTH)));
        }
        Report {
            bench: "hostile",
            figures,
            notes: self.notes(cores),
        }
    }

    fn notes(&self, cores: &Cores) -> Vec<String> {
        let how = format!(
            "{} payments of each median, one after the other, between two phones on loopback. Memory is that of one \
             process with the host, these two phones and a devnet: the larger of the sizes at the end of the attack, \
             while its connections are open, and after it. {}",
            self.runs,
            cores.note()
        );
        let attacks = self.attacks.iter().map(Attack::note);
        std::iter::once(how).chain(attacks).collect()
    }
}

impl Attack {
    fn note(&self) -> String {
        format!(
            "{} {} from one address in {:.1} s, {:.0} a second. {}.",
            self.counts.made,
            self.what,
            self.seconds,
            self.counts.made as f64 / self.seconds,
            self.counts.others_text()
        )
    }
}

fn figure(
    (what, key): (&'static str, &'static str),
    unit: &'static str,
    measured: f64,
    target: Option<Target>,
) -> Measured {
    Measured {
        what,
        key,
        unit,
        measured,
        target,
    }
}

fn mb(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attack(ms: f64, growth: u64) -> Attack {
        Attack {
            what: "commands",
            ms,
            counts: Counts::default(),
            seconds: 2.0,
            growth,
        }
    }

    fn is_reached(attack_of_last: Attack) -> bool {
        let measured = Measurements {
            runs: 3,
            calm_ms: 20.0,
            before: 100_000_000,
            attacks: [attack(20.0, 0), attack(40.0, 0), attack_of_last],
        };
        let cores = Cores {
            host: None,
            attackers: None,
        };
        measured.report(&cores).is_reached()
    }

    #[test]
    fn each_attack_has_a_limit_for_the_payments_and_one_for_the_memory() {
        assert!(is_reached(attack(40.0, 50_000_000)));
        assert!(!is_reached(attack(40.5, 0)));
        assert!(!is_reached(attack(20.0, 50_100_000)));
    }
}
