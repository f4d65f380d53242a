//! The table of error codes against the documentation, the sources and the tests.
//!
//! `UPDATE_DOCS=1 cargo test -p longhand-proto --test errors` writes `docs/ERRORS.md` anew.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use longhand_proto::Code;
use longhand_proto::command::error::Action;

/// Other names in upper case: of environment variables, and codes of tests that no version knows.
const NO_CODES: &[&str] = &[
    "LONGHAND_",
    "CARGO_",
    "OUT_DIR",
    "RUST_",
    "BAKERY_",
    "UPDATE_DOCS",
    "SOMETHING_NEW",
    "OTHER_SEED",
];

#[test]
fn the_documentation_has_every_code_with_what_to_do() {
    let path = root().join("docs/ERRORS.md");
    let expected = documentation();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &expected).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let is_up_to_date = written == expected;
    assert!(
        is_up_to_date,
        "docs/ERRORS.md is not what the table makes: see the head of this test"
    );
}

fn documentation() -> String {
    let mut text = String::from(
        "# Error codes\n\n\
         Made from the table in `crates/proto/src/code.rs`: change that, and see `crates/proto/tests/errors.rs`.\n\n\
         Every error has a stable code for programs, and one line for a person, which may change. Commands print \
         `error[CODE]: what failed, why; what to do` on standard error. \
         The operator's gRPC calls have `CODE: message` for their status' message. Replies to a phone's commands carry the code, what \
         to do, and whether it is final.\n\n\
         Final: the command has ended with this, so the same command again is a new one. After a code that is not \
         final the first command may still be carried out: repeat it as it is, and it is done once.\n",
    );
    let mut group = "";
    for code in Code::ALL {
        if code.group() != group {
            group = code.group();
            let head = "| code | meaning | what to do | final |\n|---|---|---|---|";
            writeln!(text, "\n## {group}\n\n{head}").unwrap();
        }
        let is_final = if code.is_final() { "yes" } else { "" };
        writeln!(
            text,
            "| `{code}` | {} | {} | {is_final} |",
            code.meaning(),
            advice(*code)
        )
        .unwrap();
    }
    text
}

fn advice(code: Code) -> &'static str {
    match code.action() {
        Action::WaitForPhone => "wait for the phone",
        Action::FixInput => "change the input or the setting",
        Action::Retry => "try again",
        Action::GiveUp | Action::Unspecified => "a person has to look",
    }
}

#[test]
fn no_source_writes_a_code_out() {
    let sources = sources();
    // lnd's RPC has names of values that look like a code.
    let is_lnds = |source: &&Source| source.path.components().any(|it| it.as_os_str() == "lnd");
    let others = sources.iter().filter(|source| !is_lnds(source));
    let found: Vec<String> = others.flat_map(written_out).collect();
    assert!(
        found.is_empty(),
        "use longhand_proto::Code:\n{}",
        found.join("\n")
    );
}

/// The codes that a source has as text. A test may say how a whole line looks.
fn written_out(source: &Source) -> Vec<String> {
    let literals = literals(&source.text).filter(|literal| looks_like_a_code(literal));
    let shown = source
        .product()
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let shown = shown.filter_map(|line| line.split_once("error[")?.1.split(']').next());
    let codes = literals.chain(shown.filter(|code| code.starts_with(is_upper)));
    codes
        .map(|code| format!("{}: {code}", source.path.display()))
        .collect()
}

fn is_upper(c: char) -> bool {
    c.is_ascii_uppercase()
}

fn looks_like_a_code(literal: &str) -> bool {
    let is_part = |c: char| is_upper(c) || c == '_' || c.is_ascii_digit();
    literal.contains('_')
        && literal.starts_with(is_upper)
        && literal.chars().all(is_part)
        && !NO_CODES.iter().any(|prefix| literal.starts_with(prefix))
}

#[test]
fn every_code_is_produced_by_a_test() {
    let mut named = BTreeSet::new();
    for source in sources() {
        for rest in source.tests().split("Code::").skip(1) {
            named.insert(
                rest.split(|c: char| !c.is_alphanumeric())
                    .next()
                    .unwrap()
                    .to_owned(),
            );
        }
    }
    let name = |code: &Code| format!("{code:?}");
    let missing: Vec<String> = Code::ALL
        .iter()
        .map(name)
        .filter(|it| !named.contains(it))
        .collect();
    assert!(missing.is_empty(), "in no test: {}", missing.join(", "));
}

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// A test module stands at the end of its file.
    const TESTS: &str = "\n#[cfg(test)]\nmod ";

    fn is_test(&self) -> bool {
        self.path
            .iter()
            .any(|part| part == "tests" || part == "tests.rs")
    }

    fn tests(&self) -> &str {
        match self.is_test() {
            true => &self.text,
            false => self
                .text
                .split_once(Source::TESTS)
                .map_or("", |(_, tests)| tests),
        }
    }

    fn product(&self) -> &str {
        match self.is_test() {
            true => "",
            false => self.text.split(Source::TESTS).next().unwrap_or_default(),
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All Rust sources of the workspace but the table and this file.
fn sources() -> Vec<Source> {
    let mut directories = vec![root().join("crates"), root().join("tests")];
    let mut sources = Vec::new();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let is_own =
                path.ends_with("proto/src/code.rs") || path.ends_with("proto/tests/errors.rs");
            if path.is_dir() {
                directories.push(path);
            } else if path.extension() == Some(OsStr::new("rs")) && !is_own {
                let text = std::fs::read_to_string(&path).unwrap();
                sources.push(Source { path, text });
            }
        }
    }
    sources
}

/// Whole string literals, but for the names of values in `--help`.
fn literals(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//") && !line.contains("value_name"))
        .flat_map(|line| line.split('"').skip(1).step_by(2))
}
