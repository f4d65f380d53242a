//! Measured figures, with their targets.

use serde_json::{Value, json};

/// The figures of one subcommand.
pub struct Report {
    pub bench: &'static str,
    pub figures: Vec<Measured>,
    /// How it was measured, for people.
    pub notes: Vec<String>,
}

/// One figure.
pub struct Measured {
    /// For people.
    pub what: &'static str,
    /// For programs.
    pub key: &'static str,
    pub unit: &'static str,
    pub measured: f64,
    /// None for a figure that is only shown beside the others.
    pub target: Option<Target>,
}

/// The limit of a figure.
#[derive(Clone, Copy)]
pub enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Measured {
    pub fn is_reached(&self) -> bool {
        match self.target {
            Some(Target::AtMost(most)) => self.measured <= most,
            Some(Target::AtLeast(least)) => self.measured >= least,
            None => true,
        }
    }

    fn target_text(&self) -> String {
        match self.target {
            Some(Target::AtMost(most)) => format!("<= {most}"),
            Some(Target::AtLeast(least)) => format!(">= {least}"),
            None => "-".into(),
        }
    }

    fn json(&self) -> Value {
        let (target, limit) = match self.target {
            Some(Target::AtMost(most)) => (json!(most), json!("at_most")),
            Some(Target::AtLeast(least)) => (json!(least), json!("at_least")),
            None => (Value::Null, Value::Null),
        };
        json!({
            "name": self.key,
            "unit": self.unit,
            "measured": rounded(self.measured),
            "target": target,
            "limit": limit,
            "ok": self.is_reached(),
        })
    }
}

impl Report {
    pub fn is_reached(&self) -> bool {
        self.figures.iter().all(Measured::is_reached)
    }

    /// One object.
    pub fn json(&self) -> Value {
        json!({
            "bench": self.bench,
            "ok": self.is_reached(),
            "figures": self.figures.iter().map(Measured::json).collect::<Vec<_>>(),
            "notes": self.notes,
        })
    }

    /// Lines for a person.
    pub fn table(&self) -> String {
        let width = self.figures.iter().map(|f| f.what.len()).max().unwrap_or(0);
        let mut text = format!("{:width$}  {:>9}  {:>9}\n", "", "target", "measured");
        for figure in &self.figures {
            let missed = if figure.is_reached() { "" } else { "  MISSED" };
            text += &format!(
                "{:width$}  {:>9}  {:>9}  {}{missed}\n",
                figure.what,
                figure.target_text(),
                rounded(figure.measured),
                figure.unit,
            );
        }
        for note in &self.notes {
            text += &format!("\n{note}");
        }
        text + if self.notes.is_empty() { "" } else { "\n" }
    }
}

/// To a tenth: nothing here is more exact than that.
fn rounded(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// The median; 0 of no values.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.get(middle), values.len() % 2) {
        (Some(&upper), 0) => (values[middle - 1] + upper) / 2.0,
        (Some(&middle), _) => middle,
        (None, _) => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(measured: f64, target: Target) -> Report {
        let figure = Measured {
            what: "a thing",
            key: "thing",
            unit: "ms",
            measured,
            target: Some(target),
        };
        Report {
            bench: "things",
            figures: vec![figure],
            notes: vec![],
        }
    }

    #[test]
    fn a_target_is_reached_at_its_very_value_and_missed_beyond() {
        assert!(report(150.0, Target::AtMost(150.0)).is_reached());
        assert!(report(50.0, Target::AtLeast(50.0)).is_reached());
        let missed = report(150.04, Target::AtMost(150.0));
        assert!(!missed.is_reached());
        assert!(missed.table().contains("MISSED"));
        assert_eq!(missed.json()["ok"], false);
    }

    #[test]
    fn the_median_is_the_middle_or_between_two() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(vec![]), 0.0);
    }
}
