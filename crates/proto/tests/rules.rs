//! Names of rules are an interface, and `docs/THREATS.md` lists them. After a change of a rule, `UPDATE_DOCS=1 cargo test -p
//! longhand-proto --test rules` writes that list again.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use longhand_proto::rule::{Kind, Retry, Rule, UnknownRule};
use longhand_proto::signer::Refusal;

const BEGIN: &str = "<!-- rules: begin, written by crates/proto/tests/rules.rs -->\n";
const END: &str = "<!-- rules: end -->\n";

#[test]
fn a_name_is_unique_and_finds_its_rule() {
    for rule in Rule::ALL {
        assert_eq!(rule.to_string().parse(), Ok(*rule));
        let letters = |c: char| c.is_ascii_lowercase() || c == '-';
        assert!(rule.name().chars().all(letters), "{rule}");
    }
    let names: BTreeSet<&str> = Rule::ALL.iter().map(|rule| rule.name()).collect();
    assert_eq!(names.len(), Rule::ALL.len());
    assert_eq!("of-a-later-version".parse::<Rule>(), Err(UnknownRule));
}

#[test]
fn rules_of_one_kind_stand_together() {
    let kinds: Vec<Kind> = Rule::ALL.iter().map(|rule| rule.kind()).collect();
    assert!(kinds.is_sorted(), "{kinds:?}");
}

#[test]
fn a_refusal_is_recognised_by_its_rule() {
    let refusal = Refusal {
        rule: Rule::SetupLedger.name().into(),
        ..Default::default()
    };
    assert!(refusal.is_by(Rule::SetupLedger));
    assert!(!refusal.is_by(Rule::SetupKeys));
}

#[test]
fn the_table_in_threats_is_that_of_the_enum() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/THREATS.md");
    let document = fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (listed, after) = rest.split_once(END).unwrap();
    let table = table();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, [before, BEGIN, &table, END, after].concat()).unwrap();
    } else {
        assert_eq!(listed, table, "write it with UPDATE_DOCS=1");
    }
}

fn table() -> String {
    let head =
        "| subject | rule | refuses | may be answered later | VLS |\n|---|---|---|---|---|\n";
    let rows = Rule::ALL.iter().map(|rule| {
        let tags: Vec<String> = rule.tags().iter().map(|tag| format!("`{tag}`")).collect();
        let (subject, summary) = (subject(rule.kind()), rule.summary());
        let (later, tags) = (later(rule.retry()), tags.join(", "));
        format!("| {subject} | `{rule}` | {summary} | {later} | {tags} |\n")
    });
    [head.to_string()].into_iter().chain(rows).collect()
}

fn subject(kind: Kind) -> &'static str {
    match kind {
        Kind::Form => "operation",
        Kind::Setup => "setup",
        Kind::Commitment => "commitment",
        Kind::Revocation => "revocation",
        Kind::Close => "close",
        Kind::Onchain => "on chain",
        Kind::Payment => "incoming payment",
        Kind::Gossip => "gossip",
        Kind::Handshake => "handshake",
        Kind::Chain => "chain",
    }
}

fn later(retry: Retry) -> &'static str {
    match retry {
        Retry::Never => "no",
        Retry::Sometimes => "sometimes",
        Retry::Always => "yes",
    }
}
