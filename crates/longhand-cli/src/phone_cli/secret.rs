//! Sources of passphrases and words: a file, the environment, the terminal, standard input.

use std::io::{BufRead, IsTerminal, Read};
use std::path::Path;

use longhand_phone::{ErrorReport, Passphrase};
use longhand_proto::Code;
use zeroize::{Zeroize, Zeroizing};

use super::{cannot_read, report};

const VARIABLE: &str = "LONGHAND_PASSPHRASE";

/// The passphrase of an existing phone.
pub(super) fn passphrase(file: Option<&Path>) -> Result<Passphrase, ErrorReport> {
    match given(file)? {
        Some(passphrase) => Ok(passphrase),
        None => Ok(prompt("passphrase: ")?.into()),
    }
}

/// The passphrase of a new phone; on a terminal it is asked for twice.
pub(super) fn new_passphrase(file: Option<&Path>) -> Result<Passphrase, ErrorReport> {
    if let Some(passphrase) = given(file)? {
        return Ok(passphrase);
    }
    let first = prompt("passphrase for this phone: ")?;
    let second = Zeroizing::new(prompt("the same again: ")?);
    if first != *second {
        return Err(report(
            Code::PassphraseDiffers,
            "the two passphrases differ: try again",
        ));
    }
    Ok(first.into())
}

fn given(file: Option<&Path>) -> Result<Option<Passphrase>, ErrorReport> {
    if let Some(path) = file {
        let mut text = std::fs::read_to_string(path).map_err(|error| cannot_read(path, &error))?;
        let passphrase = text.strip_suffix('\n').unwrap_or(&text).to_owned();
        text.zeroize();
        return Ok(Some(passphrase.into()));
    }
    Ok(std::env::var(VARIABLE).ok().map(Passphrase::from))
}

fn prompt(question: &str) -> Result<String, ErrorReport> {
    rpassword::prompt_password(question).map_err(|_| {
        report(
            Code::PassphraseMissing,
            format!("there is no terminal to ask for the passphrase: set {VARIABLE} or give --passphrase-file"),
        )
    })
}

/// The words of a phone to be restored: one line, not shown when it is typed.
pub(super) fn words() -> Result<Zeroizing<String>, ErrorReport> {
    if std::io::stdin().is_terminal() {
        return Ok(prompt("the words, in one line: ")?.into());
    }
    line()
}

/// The longest file that can have a pairing code.
const MOST_CODE_BYTES: u64 = 64 * 1024;

/// A pairing code: from a file, from standard input for `-`, or as it was given.
pub(super) fn code(
    given: Option<String>,
    file: Option<&Path>,
) -> Result<Zeroizing<String>, ErrorReport> {
    match (file, given.as_deref()) {
        (Some(path), _) => {
            let mut text = Zeroizing::new(String::new());
            let read = std::fs::File::open(path)
                .and_then(|file| file.take(MOST_CODE_BYTES).read_to_string(&mut text));
            read.map_err(|error| cannot_read(path, &error))?;
            Ok(text)
        }
        (None, Some("-")) => line(),
        (None, _) => Ok(given.unwrap_or_default().into()),
    }
}

/// One line of standard input.
pub(super) fn line() -> Result<Zeroizing<String>, ErrorReport> {
    let mut line = Zeroizing::new(String::new());
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(1..) => Ok(line),
        Ok(0) => Err(report(
            Code::InputMissing,
            "standard input is empty: give one line",
        )),
        Err(error) => Err(report(
            Code::InputMissing,
            format!("standard input cannot be read ({error})"),
        )),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_pairing_code_is_read_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("code");
        std::fs::write(&file, "longhand1code\n").unwrap();
        assert_eq!(*code(None, Some(&file)).unwrap(), "longhand1code\n");
        assert_eq!(*code(Some("longhand1".into()), None).unwrap(), "longhand1");
        let missing = code(None, Some(&dir.path().join("none"))).unwrap_err();
        assert_eq!(missing.code, Code::FileUnreadable);
    }
}
