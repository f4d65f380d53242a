//! Every story of the lying host goes as it should: each theft is refused by its rule, and the owner can go on.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use longhand_lying_host::Verdict;
use longhand_lying_host::stories::{Played, Restarts, Step, stories};
use longhand_signer::audit::{Audit, Violation};

/// The steps that did not go as they should, and answers that a phone must never give.
fn wrong(restarts: Restarts) -> Vec<String> {
    let mut wrong = Vec::new();
    for story in stories() {
        let played = story.play(restarts);
        for Step { name, verdict, .. } in played.steps.iter().filter(|it| it.verdict != it.expected)
        {
            wrong.push(format!("{}: {name}: {verdict}", story.name));
        }
        if let Err(violation) = audit(&played) {
            wrong.push(format!("{}: {violation}", story.name));
        }
    }
    wrong
}

fn audit(played: &Played) -> Result<(), Violation> {
    let mut audit = Audit::default();
    for (payment_hash, amount_msat) in &played.invoices_msat {
        audit.saw_invoice(*payment_hash, *amount_msat)?;
    }
    let mut said = played.said.iter();
    said.try_for_each(|(op, answer)| audit.saw(op, answer))
}

#[test]
fn every_theft_is_refused_by_its_rule_and_the_owner_goes_on() {
    assert_eq!(wrong(Restarts::Never), Vec::<String>::new());
}

#[test]
fn a_phone_that_starts_again_after_each_operation_refuses_the_same() {
    assert_eq!(wrong(Restarts::EachStep), Vec::<String>::new());
}

#[test]
fn every_story_has_thefts_and_an_honest_end() {
    for story in stories() {
        let steps = story.play(Restarts::Never).steps;
        let is_theft = |it: &Step| it.expected != Verdict::Signed;
        assert!(steps.iter().any(is_theft), "{}", story.name);
        assert!(!steps.last().is_some_and(is_theft), "{}", story.name);
    }
}
