//! What the lying host asks for is refused by the rule that it is about, and by no other.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use longhand_lying_host::{Case, Verdict, cases, judge};
use longhand_signer::Rule;

/// Rules without cases: an operation that cannot be read is every parser's affair, and tried by fuzzing.
const WITHOUT_CASES: [Rule; 1] = [Rule::Malformed];

/// Rules that refuse while an operation is read, before there is anything to judge.
const WHILE_READING: [Rule; 3] = [Rule::UnknownChannel, Rule::Headers, Rule::Filters];

/// Rules that some refusals bear which are made while an operation is read: of a secret that is no key, say.
const REFUSES_WHILE_READING_TOO: [Rule; 5] = [
    Rule::Duplicate,
    Rule::InvoiceMismatch,
    Rule::PreimageUnknown,
    Rule::RevocationSecret,
    Rule::Proof,
];

/// Rules behind which others stand, or whose operations lack what it takes to carry them out: without an HTLC nothing was received, and
/// without a proof nothing was shown.
const NOT_ALONE: [Rule; 8] = [
    Rule::PreimageUnknown,
    Rule::PreimageNotCommitted,
    Rule::PreimageOnion,
    Rule::PreimageUnderpaid,
    Rule::PreimageUnproven,
    Rule::PreimageUnwatched,
    Rule::PreimageLate,
    Rule::Proof,
];

#[test]
fn every_attack_is_refused_by_its_rule_and_every_honest_operation_is_carried_out() {
    let wrong: Vec<String> = cases()
        .iter()
        .filter_map(|case| {
            let verdict = judge(case, |_| ());
            let is_right = verdict == case.expected();
            (!is_right).then(|| format!("{case:?}: {verdict}"))
        })
        .collect();
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn every_rule_has_honest_cases_and_attacks_and_no_attack_counts_twice() {
    let cases = cases();
    let names: BTreeSet<String> = cases.iter().map(|case| format!("{case:?}")).collect();
    assert_eq!(names.len(), cases.len());
    let rules = |is_honest| -> BTreeSet<Rule> {
        let of = cases.iter().filter(move |case| case.is_honest == is_honest);
        of.map(|case| case.rule).collect()
    };
    let expected: BTreeSet<Rule> = Rule::ALL
        .iter()
        .filter(|rule| !WITHOUT_CASES.contains(rule))
        .copied()
        .collect();
    assert_eq!(rules(true), expected);
    assert_eq!(rules(false), expected);
}

/// Without this the table of refusals could not fail: another rule would refuse the same.
#[test]
fn with_a_rule_switched_off_its_attacks_are_not_refused_by_it_and_some_are_signed() {
    let mut signed: BTreeMap<Rule, bool> = BTreeMap::new();
    let cases = cases();
    let attacks = cases
        .iter()
        .filter(|case| !case.is_honest && !WHILE_READING.contains(&case.rule));
    for case in attacks {
        let verdict = without_its_rule(case);
        let refused_by_it = Some(Verdict::Refused(case.rule));
        assert!(
            REFUSES_WHILE_READING_TOO.contains(&case.rule) || verdict != refused_by_it,
            "{case:?}"
        );
        let is_signed = signed.entry(case.rule).or_default();
        *is_signed |= matches!(verdict, None | Some(Verdict::Signed));
    }
    let never: Vec<Rule> = signed
        .into_iter()
        .filter(|(rule, is_signed)| !is_signed && !NOT_ALONE.contains(rule))
        .map(|(rule, _)| rule)
        .collect();
    assert_eq!(never, []);
}

/// `None` when LDK panicked, as it does for a commitment that no rule has looked at: it was not refused, which is the point here.
fn without_its_rule(case: &Case) -> Option<Verdict> {
    let played = || judge(case, |phone| phone.signer.switch_off(case.rule));
    catch_unwind(AssertUnwindSafe(played)).ok()
}
