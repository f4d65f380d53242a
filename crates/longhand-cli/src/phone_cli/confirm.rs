//! A payment is shown before it is made; on a terminal its owner is asked.

use std::io::{BufRead, IsTerminal, Write};

use async_trait::async_trait;
use bitcoin::hex::DisplayHex;
use longhand_phone::ErrorReport;
use longhand_phone::approval::{Approve, Denied, Wish};
use longhand_phone::preview::PaymentPreview;
use longhand_proto::Code;
use tokio::sync::{Mutex, mpsc};

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

/// Asks the owner in the terminal about what apps ask for, one question after the other. Commands of the owner's are not asked about
/// again.
pub(super) struct Terminal {
    /// Lines of standard input.
    lines: Mutex<mpsc::Receiver<String>>,
}

impl Terminal {
    pub fn new() -> Terminal {
        let (read, lines) = mpsc::channel(1);
        // A read cannot be cancelled: it goes on in its thread when a question is withdrawn.
        std::thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                let Ok(line) = line else { return };
                if read.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        Terminal {
            lines: Mutex::new(lines),
        }
    }
}

#[async_trait]
impl Approve for Terminal {
    async fn approve(&self, _: &Wish) -> Result<(), Denied> {
        Ok(())
    }

    async fn approve_for_app(&self, app: &str, wish: &Wish) -> Result<(), Denied> {
        let mut lines = self.lines.lock().await;
        // What was typed before the question is no answer to it.
        while lines.try_recv().is_ok() {}
        let mut out = std::io::stderr();
        let _ = write!(
            out,
            "the app {app:?} wants to {}. Allow? [y/N] ",
            wish_text(wish)
        )
        .and_then(|()| out.flush());
        let withdrawn = Withdrawn;
        let answer = lines.recv().await;
        std::mem::forget(withdrawn);
        match answer.is_some_and(|line| is_yes(&line)) {
            true => Ok(()),
            false => Err(Denied("the owner said no".into())),
        }
    }
}

/// Dropped when a question is withdrawn before it is answered.
struct Withdrawn;

impl Drop for Withdrawn {
    fn drop(&mut self) {
        let _ = writeln!(std::io::stderr(), "\nthe app no longer waits for an answer");
    }
}

fn wish_text(wish: &Wish) -> String {
    match wish {
        Wish::Pay {
            payment_hash,
            amount_msat,
            max_fee_msat,
        } => format!(
            "pay {} msat over Lightning, and at most {max_fee_msat} msat of fees (payment hash {})",
            amount_msat,
            payment_hash.to_lower_hex_string()
        ),
        Wish::SendOnchain {
            address,
            amount_sat: 0,
            max_fee_sat,
        } => format!(
            "send all coins of the on-chain wallet to {address}, and at most {max_fee_sat} sat of fees"
        ),
        Wish::SendOnchain {
            address,
            amount_sat,
            max_fee_sat,
        } => format!(
            "send {amount_sat} sat on chain to {address}, and at most {max_fee_sat} sat of fees"
        ),
        other => format!("do what apps cannot ask for ({other:?})"),
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
