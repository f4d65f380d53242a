//! A payment is shown before it is made; on a terminal its owner is asked.

use std::io::{BufRead, IsTerminal, Write};

use longhand_phone::ErrorReport;
use longhand_phone::preview::PaymentPreview;
use longhand_proto::Code;

use super::report;
use super::show::payment_preview;

/// Shows the payment on standard error, and asks when standard input is a terminal. With `json` nothing is shown that
/// nobody is asked about.
pub(super) fn payment(preview: &PaymentPreview, yes: bool, json: bool) -> Result<(), ErrorReport> {
    let asks = !yes && std::io::stdin().is_terminal();
    let mut out = std::io::stderr().lock();
    if asks || !json {
        // An output that is closed is no error.
        let _ = out.write_all(payment_preview(preview).as_bytes());
    }
    if !asks {
        return Ok(());
    }
    let _ = write!(out, "pay? [y/N] ").and_then(|()| out.flush());
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    match read.is_ok() && is_yes(&answer) {
        true => Ok(()),
        false => Err(report(
            Code::NotConfirmed,
            "nothing was paid: answer y to pay, or give --yes",
        )),
    }
}

fn is_yes(answer: &str) -> bool {
    let answer = answer.trim();
    ["y", "yes"]
        .iter()
        .any(|yes| answer.eq_ignore_ascii_case(yes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_yes_is_one() {
        assert!(is_yes("y\n") && is_yes(" YES "));
        for no in ["", "\n", "n", "yess", "ye", "j"] {
            assert!(!is_yes(no), "{no}");
        }
    }
}
