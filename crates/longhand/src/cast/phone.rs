//! The phones: a process each, asked as `longhand phone` asks a phone that runs.

use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use longhand_phone::command::{Channel, Invoice, OpenedChannel, Payment};
use longhand_phone::control::through_running;
use longhand_phone::{OwnerCommand, OwnerReply, PhoneError};

use super::process::{Process, Stage, Start, run};
use super::{CastError, in_time};

/// Of the cast's phones, whose coins are worth nothing.
pub const PASSPHRASE: &str = "demo";
/// scrypt's log2(N): weak on purpose, so that a phone starts at once.
const KDF_WORK_FACTOR: &str = "8";

/// A phone: its directory and, when it runs, its process.
pub struct Phone {
    owner: Owner,
    stage: Stage,
    distance: Duration,
    process: Option<Process>,
}

/// A phone's owner: what can be asked of a phone while it runs, also by those who do not start and kill it.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The owner's, and the phone's.
    pub name: String,
    /// All that the phone keeps.
    pub dir: PathBuf,
}

/// A phone is asked as its owner asks it.
impl Deref for Phone {
    type Target = Owner;

    fn deref(&self) -> &Owner {
        &self.owner
    }
}

impl Phone {
    /// A phone that is not made yet, `distance` away from the host, one way.
    pub fn new(stage: &Stage, name: &str, distance: Duration) -> Phone {
        Phone {
            owner: Owner {
                name: name.to_owned(),
                dir: stage.dir.join(name),
            },
            stage: stage.clone(),
            distance,
            process: None,
        }
    }

    fn start_with<'a>(&'a self, command: &[&str]) -> Start<'a> {
        let dir = self.dir.display().to_string();
        let distance = self.distance.as_millis().to_string();
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
            stage: &self.stage,
            name: &self.name,
            args,
            env,
        }
    }

    /// Makes its keys.
    ///
    /// # Errors
    /// When `longhand phone new` fails.
    pub async fn make(&self) -> Result<(), CastError> {
        run(self.start_with(&["--kdf-work-factor", KDF_WORK_FACTOR, "new"]))
            .await
            .map(|_| ())
    }

    /// Meets the host.
    ///
    /// # Errors
    /// When `longhand phone pair` fails.
    pub async fn pair(&self, code: &str) -> Result<(), CastError> {
        run(self.start_with(&["pair", code])).await.map(|_| ())
    }

    /// Lets it attach and stay.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn start(&mut self) -> Result<(), CastError> {
        self.spawn()?;
        self.wait_until_ready().await
    }

    /// As [`Phone::start`], and does not wait for it.
    ///
    /// # Errors
    /// When the system cannot start it.
    pub fn spawn(&mut self) -> Result<(), CastError> {
        self.process = Some(Process::spawn(self.start_with(&["run"]))?);
        Ok(())
    }

    /// Waits until it is attached.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn wait_until_ready(&mut self) -> Result<(), CastError> {
        match &mut self.process {
            Some(process) => process.wait_until_ready().await,
            None => Err(self.does_not_run()),
        }
    }

    /// Its process, while it runs.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    fn does_not_run(&self) -> CastError {
        CastError::Away(format!("{}'s phone", self.name))
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When the system does not do it.
    pub async fn kill(&mut self) -> Result<(), CastError> {
        match self.process.take() {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// SIGTERM: it detaches before it ends.
    ///
    /// # Errors
    /// When it does not end, or not well.
    pub async fn stop(&mut self) -> Result<(), CastError> {
        match self.process.take() {
            Some(process) => process.stop().await,
            None => Ok(()),
        }
    }
}

impl Owner {
    /// Asks the running phone, as `longhand phone` does. What is returned goes on without the phone being borrowed.
    ///
    /// # Errors
    /// When the phone does not answer, or with an error.
    pub fn ask(
        &self,
        command: OwnerCommand,
    ) -> impl Future<Output = Result<OwnerReply, CastError>> + Send + use<> {
        let (dir, name) = (self.dir.clone(), self.name.clone());
        async move {
            let asked = through_running(&dir, &command);
            match in_time(&format!("{name}'s phone answers"), asked).await? {
                Some(answer) => Ok(answer?),
                None => Err(CastError::Away(format!("{name}'s phone"))),
            }
        }
    }

    /// Its channels.
    ///
    /// # Errors
    /// When the phone does not answer, or with an error.
    pub async fn channels(&self) -> Result<Vec<Channel>, CastError> {
        match self.ask(OwnerCommand::Channels).await? {
            OwnerReply::Channels(list) => Ok(list.channels),
            reply => Err(unexpected(&reply)),
        }
    }

    /// A new address.
    ///
    /// # Errors
    /// When the phone does not answer, or with an error.
    pub async fn address(&self) -> Result<String, CastError> {
        match self.ask(OwnerCommand::Address).await? {
            OwnerReply::Address(address) => Ok(address.address),
            reply => Err(unexpected(&reply)),
        }
    }

    /// A new invoice.
    ///
    /// # Errors
    /// When the phone does not answer, or with an error.
    pub async fn invoice(&self, amount_msat: u64) -> Result<Invoice, CastError> {
        let command = OwnerCommand::Invoice {
            amount_msat: Some(amount_msat),
            description: "a payment".into(),
            expiry_s: 3_600,
        };
        match self.ask(command).await? {
            OwnerReply::Invoice(invoice) => Ok(invoice),
            reply => Err(unexpected(&reply)),
        }
    }

    /// Its payments, as its node has them.
    ///
    /// # Errors
    /// When the phone does not answer, or with an error.
    pub async fn payments(&self) -> Result<Vec<Payment>, CastError> {
        match self.ask(OwnerCommand::Payments).await? {
            OwnerReply::Payments(list) => Ok(list.payments),
            reply => Err(unexpected(&reply)),
        }
    }

    /// Pays. Ends when the payment has succeeded; its proof is checked by the phone.
    ///
    /// # Errors
    /// When the phone does not answer, or with an error.
    pub fn pay(
        &self,
        bolt11: String,
    ) -> impl Future<Output = Result<Payment, CastError>> + Send + use<> {
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

    /// Opens a channel to the hub.
    ///
    /// # Errors
    /// When the phone does not answer, or with an error.
    pub async fn open(&self, amount_sat: u64) -> Result<OpenedChannel, CastError> {
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

    /// Closes a channel.
    ///
    /// # Errors
    /// When the phone does not answer, or with an error.
    pub async fn close(&self, channel_id: &str, force: bool) -> Result<(), CastError> {
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

fn unexpected(reply: &OwnerReply) -> CastError {
    CastError::Phone(PhoneError::Control(format!(
        "an answer to another question: {reply:?}"
    )))
}
