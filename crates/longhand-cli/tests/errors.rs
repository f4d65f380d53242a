//! What the program prints when a command fails: one line with a code.
#![allow(clippy::unwrap_used)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use longhand_proto::Code;

const PROGRAM: &str = env!("CARGO_BIN_EXE_longhand");

/// 2,500 micro-bitcoin, of BOLT 11.
const INVOICE: &str = "lnbc2500u1pvjluezsp5zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zyg3zygspp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpu9qrsgquk0rl77nj30yxdy8j9vdx85fkpmdla2087ne0xh8nhedh8w27kyke0lp53ut353s06fv3qfegext0eh0ymjpf39tuven09sam30g4vgpfna3rh";

/// What a command prints that must fail. It has no terminal, no input, and no settings of whoever runs the tests.
fn fails(home: &Path, args: &[&str]) -> String {
    // A session of its own: a passphrase is asked for at the terminal even when standard input is none.
    let mut command = Command::new("setsid");
    command.args(["--wait", PROGRAM]).args(args);
    let ended = alone(&mut command, home)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!ended.status.success(), "{args:?}");
    String::from_utf8(ended.stderr).unwrap()
}

/// All that such a command prints on a terminal where this is typed.
fn fails_at_a_terminal(home: &Path, args: &str, typed: &str) -> String {
    let mut command = Command::new("script");
    command.args(["-qec", &format!("\"$PROGRAM\" {args}"), "/dev/null"]);
    let mut running = alone(&mut command, home)
        .envs([("PROGRAM", PROGRAM), ("SHELL", "/bin/sh")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut terminal = running.stdin.take().unwrap();
    terminal.write_all(typed.as_bytes()).unwrap();
    drop(terminal);
    let ended = running.wait_with_output().unwrap();
    assert!(!ended.status.success(), "{args}");
    String::from_utf8(ended.stdout).unwrap()
}

fn alone<'a>(command: &'a mut Command, home: &Path) -> &'a mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LONGHAND_") {
            command.env_remove(name);
        }
    }
    command.env("HOME", home)
}

fn assert_code(printed: &str, code: Code) {
    assert!(printed.contains(&code.line("")), "not {code}: {printed}");
}

#[test]
fn a_command_whose_input_is_empty_says_so() {
    let home = tempfile::tempdir().unwrap();
    let failed = fails(home.path(), &["phone", "pair", "-"]);
    assert_code(&failed, Code::InputMissing);
}

#[test]
fn a_passphrase_that_nobody_can_be_asked_for_is_missing() {
    let home = tempfile::tempdir().unwrap();
    let failed = fails(home.path(), &["phone", "new"]);
    assert_code(&failed, Code::PassphraseMissing);
}

#[test]
fn a_new_passphrase_has_to_be_typed_twice_in_the_same_way() {
    let home = tempfile::tempdir().unwrap();
    let failed = fails_at_a_terminal(home.path(), "phone new", "one\ntwo\n");
    assert_code(&failed, Code::PassphraseDiffers);
    assert!(!home.path().join(".longhand/phone").exists());
}

#[test]
fn nothing_is_paid_without_a_yes() {
    let home = tempfile::tempdir().unwrap();
    let pay = format!("phone pay {INVOICE}");
    let failed = fails_at_a_terminal(home.path(), &pay, "n\n");
    assert_code(&failed, Code::NotConfirmed);
}

#[test]
fn an_operator_is_told_when_the_host_does_not_answer() {
    let home = tempfile::tempdir().unwrap();
    let nobody = home.path().join("operator.sock");
    let operator = format!("unix:{}", nobody.display());
    let failed = fails(home.path(), &["admin", "status", "--operator", &operator]);
    assert_code(&failed, Code::OperatorUnreachable);
}

#[test]
fn a_demo_needs_a_place_for_its_files() {
    let home = tempfile::tempdir().unwrap();
    let nowhere = home.path().join("nowhere");
    let mut command = Command::new(PROGRAM);
    let demo = command.arg("demo").env("TMPDIR", nowhere).output().unwrap();
    assert!(!demo.status.success());
    let printed = String::from_utf8(demo.stderr).unwrap();
    assert_code(&printed, Code::Environment);
}

#[test]
fn a_tor_process_is_started_by_a_host_of_a_program_with_tor() {
    let home = tempfile::tempdir().unwrap();
    let failed = fails(home.path(), &["tor"]);
    let code = match cfg!(feature = "tor") {
        true => Code::TorByHand,
        false => Code::NoTor,
    };
    assert_code(&failed, code);
}

#[test]
fn a_phone_does_not_run_with_allowances_that_cannot_be_read() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("allow.toml");
    std::fs::write(&path, "pay_sats = 7").unwrap();
    let path = path.to_str().unwrap();
    let printed = fails(home.path(), &["phone", "run", "--allow", path]);
    assert_code(&printed, Code::LimitMalformed);
    assert!(printed.contains("pay_sats"), "{printed}");
    assert_eq!(printed.lines().count(), 1, "{printed}");
    let printed = fails(home.path(), &["phone", "run", "--allow", "none"]);
    assert_code(&printed, Code::FileUnreadable);
}
