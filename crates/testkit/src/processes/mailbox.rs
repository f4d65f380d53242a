//! A mailbox, at which a host and phones meet.

use serde_json::Value;

use super::process::{Launcher, Restartable, Start};
use crate::KitError;

/// The mailbox.
pub struct MailboxProcess {
    /// Killed and stopped here.
    pub process: Restartable,
    /// Where hosts and phones reach it, for `link.mailboxes`; the same after a restart.
    pub address: String,
    /// As `address`: its hashmail, without and with Lightning Node Connect.
    pub hashmail: [String; 2],
    listen: String,
    hashmail_listen: String,
    launcher: Launcher,
}

impl MailboxProcess {
    /// Starts one that listens at `listen`, such as `ws://127.0.0.1:0`, and serves hashmail at a port of loopback; port 0 takes a
    /// free one.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(launcher: &Launcher, listen: &str) -> Result<MailboxProcess, KitError> {
        let mut mailbox = MailboxProcess {
            process: Restartable::new("the mailbox"),
            address: String::new(),
            hashmail: Default::default(),
            listen: listen.to_owned(),
            hashmail_listen: "grpc://127.0.0.1:0".to_owned(),
            launcher: launcher.clone(),
        };
        mailbox.start_again().await?;
        Ok(mailbox)
    }

    /// Starts it again on its address; what waited in it is lost.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_again(&mut self) -> Result<(), KitError> {
        let hashmail = format!("hashmail.listen={}", self.hashmail_listen);
        let args = [
            "mailbox",
            "--json",
            "--metrics-listen",
            "",
            "--listen",
            &self.listen,
            "--set",
            &hashmail,
        ];
        self.process.spawn(Start {
            launcher: &self.launcher,
            name: "mailbox",
            args: args.map(str::to_owned).into(),
            env: vec![],
        })?;
        let ready = self.process.wait_until_ready().await?;
        self.listen = reported(ready, "link")?;
        self.hashmail_listen = reported(ready, "hashmail")?;
        self.address = format!("mailbox+{}", self.listen);
        self.hashmail = ["hashmail", "lnc"].map(|kind| format!("{kind}+{}", self.hashmail_listen));
        Ok(())
    }
}

/// The first address of a kind that it shows when it is ready.
fn reported(ready: &Value, kind: &str) -> Result<String, KitError> {
    let address = ready[kind][0].as_str().map(str::to_owned);
    address.ok_or_else(|| {
        let text = format!("the mailbox does not report its {kind} address: {ready}");
        KitError::Unexpected(text)
    })
}
