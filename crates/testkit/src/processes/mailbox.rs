//! A mailbox, at which a host and phones meet.

use super::process::{Launcher, Restartable, Start};
use crate::KitError;

/// The mailbox.
pub struct MailboxProcess {
    /// Killed and stopped here.
    pub process: Restartable,
    /// Where hosts and phones reach it, for `link.mailboxes`; the same after a restart.
    pub address: String,
    listen: String,
    launcher: Launcher,
}

impl MailboxProcess {
    /// Starts one that listens at `listen`, such as `ws://127.0.0.1:0`; port 0 takes a free one.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(launcher: &Launcher, listen: &str) -> Result<MailboxProcess, KitError> {
        let mut mailbox = MailboxProcess {
            process: Restartable::new("the mailbox"),
            address: String::new(),
            listen: listen.to_owned(),
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
        let args = [
            "mailbox",
            "--json",
            "--metrics-listen",
            "",
            "--listen",
            &self.listen,
        ];
        self.process.spawn(Start {
            launcher: &self.launcher,
            name: "mailbox",
            args: args.map(str::to_owned).into(),
            env: vec![],
        })?;
        let ready = self.process.wait_until_ready().await?;
        let Some(listen) = ready["link"][0].as_str() else {
            let text = format!("the mailbox does not report its address: {ready}");
            return Err(KitError::Unexpected(text));
        };
        self.listen = listen.to_owned();
        self.address = format!("mailbox+{listen}");
        Ok(())
    }
}
