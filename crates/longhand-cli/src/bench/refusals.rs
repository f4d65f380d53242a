//! `longhand bench refusals`: every attack of the lying host against a new phone, every honest operation beside them, and whole stories.

use std::collections::BTreeSet;
use std::process::ExitCode;

use longhand_lying_host::stories::{Restarts, Step, Story, stories};
use longhand_lying_host::{Case, Verdict, cases, judge};
use longhand_proto::rule::Rule;
use serde::Serialize;

/// The cases of one rule.
#[derive(Serialize)]
struct RuleRow {
    rule: &'static str,
    /// Honest operations that were carried out, of `honest`.
    signed: usize,
    honest: usize,
    /// Attacks that this rule refused, of `tried`.
    refused: usize,
    tried: usize,
    /// Its tags in the policy list of VLS.
    tags: &'static [&'static str],
}

/// The operations of one story.
#[derive(Serialize)]
struct StoryRow {
    story: &'static str,
    /// Honest operations that were carried out, of `honest`.
    signed: usize,
    honest: usize,
    /// Thefts that were refused by the rule that is to refuse them, of `tried`.
    refused: usize,
    tried: usize,
}

#[derive(Serialize)]
struct Attacks {
    tried: usize,
    refused: usize,
}

/// The result as JSON.
#[derive(Serialize)]
struct Table {
    attacks: Attacks,
    rules: Vec<RuleRow>,
    stories: Vec<StoryRow>,
    /// Distinct tags of VLS's policy list that have a rule with cases.
    tags_covered: usize,
    /// What did not go as it should.
    wrong: Vec<String>,
}

/// Prints the table. The exit code is 1 when an attack was not refused by its rule, or an honest operation was refused.
pub fn run(json: bool) -> ExitCode {
    let table = make();
    match json {
        true => println!("{}", serde_json::to_string(&table).unwrap_or_default()),
        false => print!("{}", table.text()),
    }
    match table.wrong.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn make() -> Table {
    let judged: Vec<(Case, Verdict)> = cases()
        .into_iter()
        .map(|case| {
            let verdict = judge(&case, |_| ());
            (case, verdict)
        })
        .collect();
    let rules: Vec<RuleRow> = Rule::ALL
        .iter()
        .filter(|rule| judged.iter().any(|(case, _)| case.rule == **rule))
        .map(|rule| row(*rule, &judged))
        .collect();
    let mut wrong: Vec<String> = judged
        .iter()
        .filter(|(case, verdict)| *verdict != case.expected())
        .map(|(case, verdict)| format!("{case:?}: {verdict}"))
        .collect();
    let stories = stories();
    let stories = stories
        .iter()
        .map(|story| tell(story, &mut wrong))
        .collect();
    let tags: BTreeSet<&str> = rules.iter().flat_map(|row| row.tags).copied().collect();
    Table {
        attacks: Attacks {
            tried: rules.iter().map(|row| row.tried).sum(),
            refused: rules.iter().map(|row| row.refused).sum(),
        },
        tags_covered: tags.len(),
        rules,
        stories,
        wrong,
    }
}

fn tell(story: &Story, wrong: &mut Vec<String>) -> StoryRow {
    let steps = story.play(Restarts::Never).steps;
    let is_right = |it: &&Step| it.verdict == it.expected;
    for step in steps.iter().filter(|it| !is_right(it)) {
        wrong.push(format!("{}: {}: {}", story.name, step.name, step.verdict));
    }
    let of = |is_honest: bool| {
        let steps = steps.iter();
        steps.filter(move |it| (it.expected == Verdict::Signed) == is_honest)
    };
    StoryRow {
        story: story.name,
        signed: of(true).filter(is_right).count(),
        honest: of(true).count(),
        refused: of(false).filter(is_right).count(),
        tried: of(false).count(),
    }
}

fn row(rule: Rule, judged: &[(Case, Verdict)]) -> RuleRow {
    let of = |is_honest: bool| {
        let of_rule = judged.iter().filter(move |(case, _)| case.rule == rule);
        of_rule.filter(move |(case, _)| case.is_honest == is_honest)
    };
    let is_right = |(case, verdict): &&(Case, Verdict)| *verdict == case.expected();
    RuleRow {
        rule: rule.name(),
        signed: of(true).filter(is_right).count(),
        honest: of(true).count(),
        refused: of(false).filter(is_right).count(),
        tried: of(false).count(),
        tags: rule.tags(),
    }
}

impl Table {
    fn text(&self) -> String {
        let mut text = line("rule", "honest signed", "attacks refused");
        for it in &self.rules {
            let (honest, attacks) = ((it.signed, it.honest), (it.refused, it.tried));
            text += &line(it.rule, &of(honest), &of(attacks));
        }
        text += "\n";
        text += &line("story", "honest signed", "thefts refused");
        for it in &self.stories {
            let (honest, thefts) = ((it.signed, it.honest), (it.refused, it.tried));
            text += &line(it.story, &of(honest), &of(thefts));
        }
        let Attacks { tried, refused } = self.attacks;
        text += &format!(
            "\n{refused} of {tried} attacks refused by their rule; the rules have {} tags of VLS's policy list\n",
            self.tags_covered
        );
        for wrong in &self.wrong {
            text += &format!("wrong: {wrong}\n");
        }
        text
    }
}

fn line(name: &str, honest: &str, attacks: &str) -> String {
    format!("{name:<42} {honest:>13} {attacks:>17}\n")
}

fn of((some, all): (usize, usize)) -> String {
    format!("{some}/{all}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_attack_counts_once_for_its_rule() {
        let table = make();
        assert_eq!(table.wrong, Vec::<String>::new());
        assert_eq!(table.attacks.tried, table.attacks.refused);
        assert!(table.attacks.tried >= 400, "{}", table.attacks.tried);
    }
}
