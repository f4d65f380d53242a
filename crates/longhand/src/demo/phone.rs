//! The demo's phones: a process each, asked as `longhand phone` asks a phone that runs.

use std::path::{Path, PathBuf};
use std::time::Duration;

use longhand_phone::command::{Channel, Invoice, OpenedChannel, Payment};
use longhand_phone::control::through_running;
use longhand_phone::{OwnerCommand, OwnerReply, PhoneError};

use super::DemoError;
use super::processes::{Process, Start, run};
use super::world::in_time;

/// Of the demo's phones, whose coins are worth nothing.
pub(super) const PASSPHRASE: &str = "demo";
/// scrypt's log2(N): weak on purpose, so that a phone starts at once.
const KDF_WORK_FACTOR: &str = "8";
/// How far the phones are away, one way: as far as a mobile phone is.
pub(super) const DISTANCE: Duration = Duration::from_millis(50);

/// A phone: its directory and, when it runs, its process.
pub(super) struct Phone {
    pub name: &'static str,
    pub dir: PathBuf,
    base: PathBuf,
    process: Option<Process>,
}

impl Phone {
    pub fn new(base: &Path, name: &'static str) -> Phone {
        Phone {
            name,
            dir: base.join(name),
            base: base.to_owned(),
            process: None,
        }
    }

    fn start_with<'a>(&'a self, command: &[&str]) -> Start<'a> {
        let dir = self.dir.display().to_string();
        let distance = DISTANCE.as_millis().to_string();
        let mut args: Vec<String> = [
            "phone",
            "--json",
            "--dir",
            &dir,
            "--link-delay-ms",
            &distance,
        ]
        .map(str::to_owned)
        .into();
        args.extend(command.iter().map(|&arg| arg.to_owned()));
        let env = vec![("LONGHAND_PASSPHRASE", PASSPHRASE.to_owned())];
        Start {
            name: self.name,
            dir: &self.base,
            args,
            env,
        }
    }

    /// Makes its keys.
    pub async fn make(&self) -> Result<(), DemoError> {
        run(self.start_with(&["--kdf-work-factor", KDF_WORK_FACTOR, "new"]))
            .await
            .map(|_| ())
    }

    /// Meets the host.
    pub async fn pair(&self, code: &str) -> Result<(), DemoError> {
        run(self.start_with(&["pair", code])).await.map(|_| ())
    }

    /// Attaches and stays.
    pub async fn start(&mut self) -> Result<(), DemoError> {
        self.process = Some(Process::start(self.start_with(&["run"])).await?);
        Ok(())
    }

    /// SIGKILL.
    pub async fn kill(&mut self) -> Result<(), DemoError> {
        match self.process.take() {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// SIGTERM: it detaches before it ends.
    pub async fn stop(&mut self) -> Result<(), DemoError> {
        match self.process.take() {
            Some(process) => process.stop().await,
            None => Ok(()),
        }
    }

    /// Asks the running phone, as `longhand phone` does. What is returned goes on without the phone being borrowed.
    pub fn ask(
        &self,
        command: OwnerCommand,
    ) -> impl Future<Output = Result<OwnerReply, DemoError>> + Send + use<> {
        let (dir, name) = (self.dir.clone(), self.name);
        async move {
            let asked = through_running(&dir, &command);
            match in_time(&format!("{name}'s phone answers"), asked).await? {
                Some(answer) => Ok(answer?),
                None => Err(DemoError::Off(format!("{name}'s phone does not run"))),
            }
        }
    }

    pub async fn channels(&self) -> Result<Vec<Channel>, DemoError> {
        match self.ask(OwnerCommand::Channels).await? {
            OwnerReply::Channels(list) => Ok(list.channels),
            reply => Err(unexpected(&reply)),
        }
    }

    pub async fn address(&self) -> Result<String, DemoError> {
        match self.ask(OwnerCommand::Address).await? {
            OwnerReply::Address(address) => Ok(address.address),
            reply => Err(unexpected(&reply)),
        }
    }

    pub async fn invoice(&self, amount_msat: u64) -> Result<Invoice, DemoError> {
        let command = OwnerCommand::Invoice {
            amount_msat: Some(amount_msat),
            description: "demo".into(),
            expiry_s: 3_600,
        };
        match self.ask(command).await? {
            OwnerReply::Invoice(invoice) => Ok(invoice),
            reply => Err(unexpected(&reply)),
        }
    }

    /// Ends when the payment has succeeded; its proof is checked by the phone.
    pub fn pay(
        &self,
        bolt11: String,
    ) -> impl Future<Output = Result<Payment, DemoError>> + Send + use<> {
        let asked = self.ask(OwnerCommand::Pay {
            bolt11,
            amount_msat: None,
            max_fee_msat: None,
        });
        async move {
            match asked.await? {
                OwnerReply::Paid(payment) => Ok(payment),
                reply => Err(unexpected(&reply)),
            }
        }
    }

    /// To the hub.
    pub async fn open(&self, amount_sat: u64) -> Result<OpenedChannel, DemoError> {
        let command = OwnerCommand::Open {
            amount_sat,
            to: None,
            announced: false,
            wait: false,
        };
        match self.ask(command).await? {
            OwnerReply::Opened(opened) => Ok(opened),
            reply => Err(unexpected(&reply)),
        }
    }

    pub async fn close(&self, channel_id: &str, force: bool) -> Result<(), DemoError> {
        let command = OwnerCommand::Close {
            channel_id: channel_id.to_owned(),
            force,
        };
        match self.ask(command).await? {
            OwnerReply::Closing(_) => Ok(()),
            reply => Err(unexpected(&reply)),
        }
    }
}

fn unexpected(reply: &OwnerReply) -> DemoError {
    DemoError::Phone(PhoneError::Control(format!(
        "an answer to another question: {reply:?}"
    )))
}
