//! The phones: a process each, asked as `longhand phone` asks a phone that runs.

use std::ops::Deref;
use std::path::PathBuf;
use std::time::Duration;

use longhand_phone::command::{Channel, CloseHow, Invoice, OpenedChannel, Payment};
use longhand_phone::control::through_running;
use longhand_phone::{OwnerCommand, OwnerReply, PhoneError};

use super::process::{Launcher, Restartable, Start, run};
use crate::{KitError, Patience};

/// Of all phones here, whose coins are worth nothing.
pub const PASSPHRASE: &str = "demo";
/// scrypt's log2(N): weak on purpose, so that a phone starts at once.
const KDF_WORK_FACTOR: &str = "8";

/// A phone: its directory and, when it runs, its process.
pub struct PhoneProcess {
    /// Killed and stopped here; SIGTERM has it detach before it exits.
    pub process: Restartable,
    client: PhoneClient,
    launcher: Launcher,
    distance: Duration,
    /// The kind of carrier over which it attaches; `None` = any.
    carrier: Option<&'static str>,
}

/// Commands of the owner's, for a phone while it runs.
#[derive(Clone, Debug)]
pub struct PhoneClient {
    /// The owner's, and the phone's.
    pub name: String,
    /// The phone's directory.
    pub dir: PathBuf,
}

impl Deref for PhoneProcess {
    type Target = PhoneClient;

    fn deref(&self) -> &PhoneClient {
        &self.client
    }
}

impl PhoneProcess {
    /// A phone that is not made yet, `distance` away from the host, one way.
    pub fn new(launcher: &Launcher, name: &str, distance: Duration) -> PhoneProcess {
        PhoneProcess {
            client: PhoneClient {
                name: name.to_owned(),
                dir: launcher.dir.join(name),
            },
            launcher: launcher.clone(),
            distance,
            carrier: None,
            process: Restartable::new(&format!("{name}'s phone")),
        }
    }

    /// Creates its keys.
    ///
    /// # Errors
    /// When `longhand phone new` fails.
    pub async fn make(&self) -> Result<(), KitError> {
        run(self.starting(&["--kdf-work-factor", KDF_WORK_FACTOR, "new"]))
            .await
            .map(drop)
    }

    /// Pairs it with the host.
    ///
    /// # Errors
    /// When `longhand phone pair` fails.
    pub async fn pair(&self, code: &str) -> Result<(), KitError> {
        run(self.starting(&["pair", code])).await.map(drop)
    }

    /// Pairs it with the host by ten words, at a mailbox with Lightning Node Connect.
    ///
    /// # Errors
    /// When `longhand phone pair` fails, or the words cannot be given to it.
    pub async fn pair_by_words(&self, words: &str, mailbox: &str) -> Result<(), KitError> {
        // Other users of the machine can see arguments.
        let file = self.client.dir.with_extension("words");
        std::fs::write(&file, words)?;
        let path = file.display().to_string();
        let paired =
            run(self.starting(&["pair", "--code-file", &path, "--mailbox", mailbox])).await;
        std::fs::remove_file(&file)?;
        paired.map(drop)
    }

    /// Has it attach and stay.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn start(&mut self) -> Result<(), KitError> {
        self.spawn()?;
        self.process.wait_until_ready().await.map(drop)
    }

    /// From its next start on it attaches over this kind of carrier only, as `--carrier` names it; `None` = any.
    pub fn only_over(&mut self, carrier: Option<&'static str>) {
        self.carrier = carrier;
    }

    /// As [`PhoneProcess::start`], and does not wait until it is attached.
    ///
    /// # Errors
    /// When the system cannot start it.
    pub fn spawn(&mut self) -> Result<(), KitError> {
        let command: &[&str] = match self.carrier {
            Some(carrier) => &["--carrier", carrier, "run"],
            None => &["run"],
        };
        let start = start(&self.client, &self.launcher, self.distance, command);
        self.process.spawn(start)
    }

    fn starting<'a>(&'a self, command: &[&str]) -> Start<'a> {
        start(&self.client, &self.launcher, self.distance, command)
    }
}

/// One command of `longhand phone`.
fn start<'a>(
    client: &'a PhoneClient,
    launcher: &'a Launcher,
    distance: Duration,
    command: &[&str],
) -> Start<'a> {
    let dir = client.dir.display().to_string();
    let distance = distance.as_millis().to_string();
    let options = [
        "phone",
        "--json",
        "--dir",
        &dir,
        "--link-delay-ms",
        &distance,
    ];
    let args = options.iter().chain(command);
    Start {
        launcher,
        name: &client.name,
        args: args.map(|&arg| arg.to_owned()).collect(),
        env: tor_network()
            .chain([("LONGHAND_PASSPHRASE", PASSPHRASE.to_owned())])
            .collect(),
    }
}

/// The Tor network on which this program and its hosts are, for the phone.
fn tor_network() -> impl Iterator<Item = (&'static str, String)> {
    const FILE: &str = "LONGHAND_TOR_NETWORK_FILE";
    std::env::var(FILE)
        .ok()
        .map(|file| (FILE, file))
        .into_iter()
}

impl PhoneClient {
    /// Asks the running phone over its control socket, as `longhand phone` does. The future borrows nothing of the phone.
    ///
    /// # Errors
    /// When the phone does not answer, or with an error.
    pub fn ask(
        &self,
        command: OwnerCommand,
    ) -> impl Future<Output = Result<OwnerReply, KitError>> + Send + use<> {
        let (dir, name) = (self.dir.clone(), self.name.clone());
        async move {
            let what = format!("{name}'s phone answers");
            let asked = through_running(&dir, &command);
            match Patience::REAL.in_time(&what, asked).await? {
                Some(answer) => Ok(answer?),
                None => Err(KitError::Away(format!("{name}'s phone"))),
            }
        }
    }

    /// Its channels.
    ///
    /// # Errors
    /// When the phone does not answer, or with an error.
    pub async fn channels(&self) -> Result<Vec<Channel>, KitError> {
        match self.ask(OwnerCommand::Channels).await? {
            OwnerReply::Channels(list) => Ok(list.channels),
            reply => Err(unexpected(&reply)),
        }
    }

    /// A new address.
    ///
    /// # Errors
    /// When the phone does not answer, or with an error.
    pub async fn address(&self) -> Result<String, KitError> {
        match self.ask(OwnerCommand::Address).await? {
            OwnerReply::Address(address) => Ok(address.address),
            reply => Err(unexpected(&reply)),
        }
    }

    /// A new invoice.
    ///
    /// # Errors
    /// When the phone does not answer, or with an error.
    pub async fn invoice(&self, amount_msat: u64) -> Result<Invoice, KitError> {
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
    pub async fn payments(&self) -> Result<Vec<Payment>, KitError> {
        let (mut payments, mut before) = (Vec::new(), None);
        loop {
            let limit = None;
            let page = OwnerCommand::Payments { limit, before };
            let page = match self.ask(page).await? {
                OwnerReply::Payments(page) => page,
                reply => return Err(unexpected(&reply)),
            };
            payments.extend(page.payments);
            if page.next.is_empty() {
                return Ok(payments);
            }
            before = Some(page.next);
        }
    }

    /// Pays, and waits until the payment has succeeded; the phone checks the preimage.
    ///
    /// # Errors
    /// When the phone does not answer, or with an error.
    pub fn pay(
        &self,
        bolt11: String,
    ) -> impl Future<Output = Result<Payment, KitError>> + Send + use<> {
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
    pub async fn open(&self, amount_sat: u64) -> Result<OpenedChannel, KitError> {
        let command = OwnerCommand::Open {
            amount_sat,
            to: None,
            announced: false,
            wait: false,
            feerate_sat_per_kw: None,
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
    pub async fn close(&self, channel_id: &str, force: bool) -> Result<(), KitError> {
        let command = OwnerCommand::Close {
            channel_id: channel_id.to_owned(),
            how: CloseHow {
                force,
                ..CloseHow::default()
            },
        };
        match self.ask(command).await? {
            OwnerReply::Closing(_) => Ok(()),
            reply => Err(unexpected(&reply)),
        }
    }
}

fn unexpected(reply: &OwnerReply) -> KitError {
    KitError::Phone(PhoneError::Control(format!(
        "an answer to another question: {reply:?}"
    )))
}
