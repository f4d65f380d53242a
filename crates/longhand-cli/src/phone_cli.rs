//! `longhand phone`: a phone on a desktop.
//!
//! Every command attaches, does its work and detaches; when `longhand phone run` is attached, it goes through that
//! process instead. One answer goes to standard output, as text or with `--json` as one object; an error is one line
//! on standard error: `error[CODE]: what failed, why; what to do`.

mod confirm;
mod network;
mod search;
mod second_source;
mod secret;
mod show;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bitcoin::Network;
use clap::{Args, Subcommand, ValueEnum};
use longhand_link::carrier::hashmail::{Phrase, pairing_code};
use longhand_link::carrier::tor::Tor;
use longhand_link::{Address, Carriers};
use longhand_phone::approval::Allowances;
use longhand_phone::command::{AppRights, CloseHow};
use longhand_phone::control::{ControlSocket, through_running};
use longhand_phone::input::{
    DEFAULT_EXPIRY_S, InputError, OnchainAmount, PeerAddress, onchain_amount,
};
use longhand_phone::preview::PaymentPreview;
use longhand_phone::{
    Birthday, DialOptions, ErrorReport, OwnerCommand, Phone, PhoneError, Secrets, Vault,
    VaultError, Words, vault,
};
use longhand_proto::Code;
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use crate::serving::days_from_now;
use crate::tor;
use show::{Attached, Created, Paired};

/// How long a command waits for another one that uses the phone, and its pause between two attempts.
const IN_USE_PATIENCE: Duration = Duration::from_secs(10);
const IN_USE_PAUSE: Duration = Duration::from_millis(100);

/// A phone on this machine: its keys, its link and its owner's commands.
#[derive(Debug, Args)]
pub struct PhoneArgs {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: PhoneCommand,
}

#[derive(Debug, Args)]
struct Options {
    /// The phone's directory [default: ~/.longhand/phone]
    #[arg(long, global = true, env = "LONGHAND_PHONE_DIR", value_name = "PATH")]
    dir: Option<PathBuf>,
    /// The chain: bitcoin, testnet, testnet4, signet or regtest [default for a new phone: regtest]
    #[arg(long, global = true, env = "LONGHAND_NETWORK")]
    network: Option<Network>,
    /// Read the passphrase from this file (else from LONGHAND_PASSPHRASE, else from the terminal)
    #[arg(long, global = true, value_name = "PATH")]
    passphrase_file: Option<PathBuf>,
    /// Trust these certificates (PEM) below a carrier with TLS, such as grpcs:// or wss://
    #[arg(long, global = true, value_name = "PATH")]
    ca_file: Option<PathBuf>,
    /// Attach over this kind of carrier only [default: all that the host offers, the best first]
    #[arg(long, global = true, value_name = "KIND")]
    carrier: Option<CarrierKind>,
    /// Answer with one JSON object
    #[arg(long, global = true)]
    json: bool,
    /// Another Tor network than the public one: a file of Arti's configuration (TOML)
    #[arg(long, global = true, hide = true, env = tor::NETWORK_FILE)]
    tor_network_file: Option<PathBuf>,
    /// scrypt's log2(N); less than the default makes the passphrase easier to guess
    #[arg(long, global = true, hide = true, value_parser = clap::value_parser!(u8).range(1..=22))]
    kdf_work_factor: Option<u8>,
    /// Simulated one-way distance to the host
    #[arg(long, global = true, hide = true)]
    link_delay_ms: Option<u64>,
}

/// A kind of carrier, as a person names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum CarrierKind {
    /// gRPC to the host
    Grpc,
    /// WebSocket to the host
    Websocket,
    /// A mailbox, over either
    Mailbox,
    /// A hashmail mailbox, such as aperture
    Hashmail,
    /// The same inside Lightning Node Connect
    Lnc,
    /// Tor, to the host's onion service
    Tor,
}

impl CarrierKind {
    fn schemes(self) -> Vec<String> {
        let schemes: &[&str] = match self {
            CarrierKind::Grpc => &["grpc", "grpcs"],
            CarrierKind::Websocket => &["ws", "wss"],
            CarrierKind::Mailbox => &["mailbox+ws", "mailbox+wss", "mailbox+grpc", "mailbox+grpcs"],
            CarrierKind::Hashmail => &["hashmail+grpc", "hashmail+grpcs"],
            CarrierKind::Lnc => &["lnc+grpc", "lnc+grpcs"],
            CarrierKind::Tor => &[longhand_tor::SCHEME],
        };
        schemes.iter().map(|&scheme| scheme.to_owned()).collect()
    }
}

#[derive(Debug, Subcommand)]
enum PhoneCommand {
    /// Make a new phone, and show its words once
    New {
        /// How many words: 12 or 24
        #[arg(long, default_value = "12", value_parser = parse_words)]
        words: Words,
    },
    /// Make a phone from words, read from standard input
    Restore {
        /// The first block that can have coins of these words [default: the first of segwit]
        #[arg(long, value_name = "HEIGHT", conflicts_with = "birthday_date")]
        birthday_height: Option<u32>,
        /// The day on which these words got their first coins, or an earlier one
        #[arg(long, value_name = "YYYY-MM-DD")]
        birthday_date: Option<String>,
    },
    /// Pair with a host
    Pair {
        /// The host's code, or its ten words; - reads it from standard input. Other users of this machine can see arguments, and
        /// who has the code first has the node
        #[arg(required_unless_present = "code_file")]
        code: Option<String>,
        /// Read the code, or the words, from this file
        #[arg(long, value_name = "PATH", conflicts_with = "code")]
        code_file: Option<PathBuf>,
        /// The mailbox at which the host gives a code for ten words, such as lnc+grpcs://relay.example:443
        #[arg(long, value_name = "ADDRESS")]
        mailbox: Option<String>,
    },
    /// Attach and stay, until Ctrl-C
    Run {
        /// Carry out no command that spends more than this file allows (TOML): pay_sat, send_onchain_sat and open_sat for one
        /// command each, close = true or false, app_pay_sat and app_send_onchain_sat for what apps ask for. What it does not
        /// name is not carried out. Without it you are asked about what apps ask for, in a terminal
        #[arg(long, value_name = "PATH")]
        allow: Option<PathBuf>,
    },
    /// Show the node's state
    Info,
    /// Show the owner's balance
    Balance,
    /// Show a new address of the on-chain wallet
    Address,
    /// Open a channel, to the host's hub or another peer
    Open {
        amount_sat: u64,
        /// The peer
        #[arg(long, value_name = "NODE_ID@HOST:PORT")]
        to: Option<PeerAddress>,
        /// Announce the channel to the network
        #[arg(long)]
        announce: bool,
        /// Answer when the channel is usable, not when it is funded
        #[arg(long)]
        wait: bool,
        /// Of the funding, in satoshis per 1,000 weight units (250 = 1 sat/vB) [default: the host's estimate]
        #[arg(long, value_name = "SAT_PER_KW")]
        feerate: Option<u32>,
    },
    /// Make an invoice
    Invoice {
        /// In millisatoshis; any amount without one, where the limits of `longhand phone limits` allow it
        #[arg(value_name = "AMOUNT_MSAT")]
        amount: Option<u64>,
        /// The amount is in satoshis
        #[arg(long, requires = "amount")]
        sat: bool,
        /// Description in the invoice
        #[arg(long, default_value = "")]
        description: String,
        /// Seconds until it can no longer be paid
        #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_EXPIRY_S)]
        expiry: u32,
    },
    /// Pay an invoice, and wait until it is paid. On a terminal, you are asked first
    Pay {
        bolt11: String,
        /// For an invoice that leaves the amount open
        #[arg(long)]
        amount_msat: Option<u64>,
        /// The most that routing may cost [default: 50 sat and 1 %]
        #[arg(long)]
        max_fee_msat: Option<u64>,
        /// Pay without asking
        #[arg(long)]
        yes: bool,
    },
    /// Send from the on-chain wallet
    SendOnchain {
        /// An address, or a bitcoin: URI
        address: String,
        /// In satoshis, or `all` [default: the amount of the URI]
        amount: Option<OnchainAmount>,
        /// In satoshis per 1,000 weight units (250 = 1 sat/vB) [default: the host's estimate]
        #[arg(long, value_name = "SAT_PER_KW")]
        feerate: Option<u32>,
    },
    /// List the channels
    Channels,
    /// List the payments over Lightning, newest first
    Payments {
        /// The most of them; the host gives 1,000 at most [default: 100]
        #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
        limit: Option<u32>,
        /// Those after the page that showed this
        #[arg(long, value_name = "PLACE")]
        before: Option<String>,
    },
    /// Show one payment
    Payment { payment_hash: String },
    /// List the invoices that nobody has paid yet
    Invoices,
    /// List the on-chain payments, newest first
    Sends,
    /// Raise the fee of an unconfirmed on-chain payment, or of a channel's funding
    Bump {
        txid: String,
        /// In satoshis per 1,000 weight units (250 = 1 sat/vB) [default: what is needed]
        #[arg(long, value_name = "SAT_PER_KW")]
        feerate: Option<u32>,
    },
    /// Give up an unconfirmed on-chain payment: send it back to the on-chain wallet instead
    Abandon {
        txid: String,
        /// In satoshis per 1,000 weight units (250 = 1 sat/vB) [default: what is needed]
        #[arg(long, value_name = "SAT_PER_KW")]
        feerate: Option<u32>,
    },
    /// Close a channel
    Close {
        channel_id: String,
        /// Without the peer: the money comes after a delay. Also allows it for a channel that the node has closed since its peer failed
        #[arg(long)]
        force: bool,
        /// Pay your part to this address [default: the on-chain wallet]
        #[arg(long)]
        address: Option<String>,
        /// In satoshis per 1,000 weight units (250 = 1 sat/vB) [default: the host's estimate]
        #[arg(long, value_name = "SAT_PER_KW")]
        feerate: Option<u32>,
    },
    /// Show the limits of what the phone signs, or set one. Needs no host
    Limits {
        /// The limit's name, or a rule's
        #[arg(requires = "value")]
        name: Option<String>,
        /// Its new value; for a rule: refuse, or warn
        value: Option<String>,
    },
    /// List what the phone has refused to sign, the latest first. Needs no host
    Refusals,
    /// Show what the phone sees of the chain by itself: blocks, its channels in them, and deadlines. Needs no host
    Chain,
    /// Connect the node to a peer, or to the host's hub
    Connect {
        #[arg(value_name = "NODE_ID@HOST:PORT")]
        to: Option<PeerAddress>,
    },
    /// Connect an app over Lightning Node Connect, such as Zeus: shows ten words to type into it. It sees at least the node's name
    ConnectApp {
        /// What you call it
        name: String,
        /// It may see balances, channels and payments
        #[arg(long)]
        read: bool,
        /// It may make invoices and addresses
        #[arg(long)]
        invoices: bool,
        /// It may ask this phone for payments: `longhand phone run` asks you about each
        #[arg(long)]
        pay: bool,
        /// Disconnect it after so many days [default: never]
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: Option<u32>,
    },
    /// List the apps that are connected
    Apps,
    /// Disconnect an app
    DisconnectApp {
        /// Its name
        name: String,
    },
    /// Show the URLs that the host calls when it needs this phone, or give it others in their place
    WakeUrl {
        /// All of them, at most 4
        #[arg(value_name = "URL")]
        urls: Vec<String>,
        /// Have the host call none of them
        #[arg(long, conflicts_with = "urls")]
        clear: bool,
    },
}

/// Runs one command; the exit code is 0, or 1 after an error (2, by clap, after a wrong usage).
pub async fn run(args: PhoneArgs) -> ExitCode {
    match carry_out(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(ErrorReport { code, message }) => {
            eprintln!("error[{code}]: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn carry_out(PhoneArgs { options, command }: PhoneArgs) -> Result<(), ErrorReport> {
    use PhoneCommand as C;
    let command = match command {
        C::New { words } => {
            let secrets = Secrets::generate(options.network_of_new(), words)?;
            return create(&options, secrets, true).await;
        }
        C::Restore {
            birthday_height,
            birthday_date,
        } => {
            let network = options.network_of_new();
            let birthday =
                Birthday::restored(birthday_height, birthday_date.as_deref(), now_unix_s())
                    .map_err(PhoneError::from)?;
            let secrets = Secrets::restore(network, &secret::words()?, birthday)?;
            return create(&options, secrets, false).await;
        }
        C::Pair {
            code,
            code_file,
            mailbox,
        } => return pair(&options, code, code_file, mailbox).await,
        C::Run { allow } => return stay(&options, allow.as_deref()).await,
        C::Info => OwnerCommand::Info,
        C::Balance => OwnerCommand::Balance,
        C::Address => OwnerCommand::Address,
        C::Open {
            amount_sat,
            to,
            announce,
            wait,
            feerate,
        } => OwnerCommand::Open {
            amount_sat,
            to,
            announced: announce,
            wait,
            feerate_sat_per_kw: feerate,
        },
        C::Invoice {
            amount,
            sat,
            description,
            expiry,
        } => {
            let amount_msat = amount.map(|amount| to_msat(amount, sat)).transpose()?;
            OwnerCommand::Invoice {
                amount_msat,
                description,
                expiry_s: expiry,
            }
        }
        C::Pay {
            bolt11,
            amount_msat,
            max_fee_msat,
            yes,
        } => {
            let preview = PaymentPreview::of(&bolt11, amount_msat, max_fee_msat);
            confirm::payment(&preview.map_err(PhoneError::from)?, yes, options.json)?;
            OwnerCommand::Pay {
                bolt11,
                amount_msat,
                max_fee_msat,
            }
        }
        C::SendOnchain {
            address,
            amount,
            feerate,
        } => {
            let amount = onchain_amount(&address, amount).map_err(PhoneError::from)?;
            OwnerCommand::SendOnchain {
                address,
                amount,
                feerate_sat_per_kw: feerate,
            }
        }
        C::Channels => OwnerCommand::Channels,
        C::Payments { limit, before } => OwnerCommand::Payments { limit, before },
        C::Payment { payment_hash } => OwnerCommand::Payment { payment_hash },
        C::Invoices => OwnerCommand::Invoices,
        C::Sends => OwnerCommand::Sends,
        C::Bump { txid, feerate } => OwnerCommand::Bump {
            txid,
            feerate_sat_per_kw: feerate,
        },
        C::Abandon { txid, feerate } => OwnerCommand::Abandon {
            txid,
            feerate_sat_per_kw: feerate,
        },
        C::Close {
            channel_id,
            force,
            address,
            feerate,
        } => OwnerCommand::Close {
            channel_id,
            how: CloseHow {
                force,
                address,
                feerate_sat_per_kw: feerate,
            },
        },
        C::Limits {
            name: Some(name),
            value: Some(value),
        } => OwnerCommand::SetLimit { name, value },
        C::Limits { .. } => OwnerCommand::Limits,
        C::Refusals => OwnerCommand::Refusals,
        C::Chain => OwnerCommand::Chain,
        C::Connect { to } => OwnerCommand::Connect { to },
        C::ConnectApp {
            name,
            read,
            invoices,
            pay,
            days,
        } => OwnerCommand::ConnectApp {
            name,
            rights: AppRights {
                read,
                invoices,
                pay,
            },
            expires_unix_s: days.map_or(0, days_from_now),
        },
        C::Apps => OwnerCommand::Apps,
        C::DisconnectApp { name } => OwnerCommand::DisconnectApp { name },
        C::WakeUrl { urls, clear } if urls.is_empty() && !clear => OwnerCommand::WakeUrls,
        C::WakeUrl { urls, .. } => OwnerCommand::SetWakeUrls { urls },
    };
    owner(&options, command).await
}

async fn create(options: &Options, secrets: Secrets, is_new: bool) -> Result<(), ErrorReport> {
    let dir = options.dir()?;
    if vault::exists(&dir) {
        return Err(PhoneError::from(VaultError::Exists(dir.display().to_string())).into());
    }
    let mnemonic = is_new.then(|| secrets.mnemonic.clone());
    let passphrase = secret::new_passphrase(options.passphrase_file.as_deref())?;
    let work_factor = options.kdf_work_factor;
    let vault_dir = dir.clone();
    let vault = move || Vault::create(&vault_dir, secrets, &passphrase, work_factor);
    let phone = Phone::new(blocking(vault).await?, options.dial_options()?)?;
    let created = Created {
        node_id: phone.node_id().to_string(),
        network: phone.network().to_string(),
        dir,
        mnemonic,
    };
    show::print(&created, options.json);
    Ok(())
}

async fn pair(
    options: &Options,
    code: Option<String>,
    file: Option<PathBuf>,
    mailbox: Option<String>,
) -> Result<(), ErrorReport> {
    let code = secret::code(code, file.as_deref())?;
    let code = match mailbox {
        Some(mailbox) => code_for_words(&code, &mailbox, &options.dial_options()?).await?,
        None if Phrase::parse(&code).is_ok() => {
            let message = "words pair a phone at a mailbox: give --mailbox, with the address that the host shows beside them";
            return Err(report(Code::PairingMalformed, message));
        }
        None => code,
    };
    let phone = open(options).await?;
    let _reports = network::report(&phone).await;
    phone.pair(&code).await?;
    let is_restored = phone.vault().secrets().birthday != Birthday::New;
    let paired = Paired {
        node_id: phone.node_id().to_string(),
        is_restored,
    };
    if !is_restored || options.json || !std::io::stderr().is_terminal() {
        phone.detach().await?;
        show::print(&paired, options.json);
        return Ok(());
    }
    show::print(&paired, false);
    let followed = search::follow(&phone, stop_signal()).await;
    phone.detach().await?;
    if let Some(back) = followed? {
        show::print(&back, false);
    }
    Ok(())
}

/// Exchanges ten words for the code that the host has for them.
async fn code_for_words(
    words: &str,
    mailbox: &str,
    options: &DialOptions,
) -> Result<Zeroizing<String>, ErrorReport> {
    let phrase = Phrase::parse(words).map_err(|e| report(Code::PairingMalformed, e.to_string()))?;
    let address = mailbox.parse::<Address>();
    let address = address.map_err(|e| report(Code::PairingMalformed, format!("--mailbox: {e}")))?;
    let code = pairing_code(&phrase, &address, options).await;
    Ok(code.map_err(PhoneError::from)?)
}

async fn stay(options: &Options, allow: Option<&Path>) -> Result<(), ErrorReport> {
    // Read first: a phone with rules that cannot be read would run without them.
    let allowances = allow.map(allowances).transpose()?;
    let phone = open(options).await?;
    match allowances {
        Some(allowances) => phone.set_approver(allowances),
        None if std::io::stdin().is_terminal() => phone.set_approver(confirm::Terminal::new()),
        None => {}
    }
    let _control = ControlSocket::listen(phone.clone(), &options.dir()?)?;
    let _reports = network::report(&phone).await;
    let run = phone.run(stop_signal());
    let show_attached = async {
        if phone.attached().await.is_ok() {
            show::print(
                &Attached {
                    node_id: phone.node_id().to_string(),
                },
                options.json,
            );
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = run => Ok(ended?),
        () = show_attached => Ok(()),
    }
}

fn allowances(path: &Path) -> Result<Allowances, ErrorReport> {
    let text = std::fs::read_to_string(path).map_err(|error| cannot_read(path, &error))?;
    toml::from_str(&text).map_err(|error| {
        // Its message is of several lines, with a picture of the place.
        let what = error.message().to_owned();
        report(
            Code::LimitMalformed,
            format!(
                "{} is no file of allowances ({what}): it may have pay_sat, send_onchain_sat, open_sat and close",
                path.display()
            ),
        )
    })
}

async fn owner(options: &Options, command: OwnerCommand) -> Result<(), ErrorReport> {
    let dir = options.dir()?;
    let since = Instant::now();
    let phone = loop {
        if let Some(answer) = through_running(&dir, &command).await {
            show::print(&answer?, options.json);
            return Ok(());
        }
        match open(options).await {
            // Another command, or a `run` that is about to listen.
            Err(error) if error.code == Code::PhoneInUse && since.elapsed() < IN_USE_PATIENCE => {
                tokio::time::sleep(IN_USE_PAUSE).await;
            }
            opened => break opened?,
        }
    };
    phone.check(&command)?;
    if command.needs_no_host() {
        show::print(&phone.execute(command).await?, options.json);
        return Ok(());
    }
    let _reports = network::report(&phone).await;
    phone.attach().await?;
    let answer = tokio::select! {
        answer = phone.execute(command) => answer.map_err(ErrorReport::from),
        () = stop_signal() => Err(interrupted()),
    };
    let left = phone.detach().await;
    show::print(&answer?, options.json);
    // The command was carried out all the same: both results are printed.
    if let Err(error) = left {
        eprintln!("warning[{}]: {error}", error.code());
    }
    Ok(())
}

async fn open(options: &Options) -> Result<Phone, ErrorReport> {
    let dir = options.dir()?;
    if !vault::exists(&dir) {
        return Err(PhoneError::from(VaultError::Missing(dir.display().to_string())).into());
    }
    let file = options.passphrase_file.clone();
    // Locked first, so that no passphrase is asked for a phone that is in use.
    let locked = Vault::lock(&dir).map_err(PhoneError::from)?;
    let passphrase = secret::passphrase(file.as_deref())?;
    let vault = blocking(move || locked.open(&passphrase)).await?;
    let found = vault.secrets().network;
    match options.network {
        Some(asked) if asked != found => Err(report(
            Code::WrongNetwork,
            format!(
                "this phone is on {found}, not {asked}: leave --network out, or use another --dir"
            ),
        )),
        _ => {
            let phone = Phone::new(vault, options.dial_options()?)?;
            phone.make_sources_with(second_source::make).await?;
            Ok(phone)
        }
    }
}

impl Options {
    fn dir(&self) -> Result<PathBuf, ErrorReport> {
        if let Some(dir) = &self.dir {
            return Ok(dir.clone());
        }
        default_dir(std::env::home_dir())
    }

    fn network_of_new(&self) -> Network {
        self.network.unwrap_or(Network::Regtest)
    }

    fn dial_options(&self) -> Result<DialOptions, ErrorReport> {
        let ca_pem = match &self.ca_file {
            Some(path) => Some(std::fs::read(path).map_err(|error| cannot_read(path, &error))?),
            None => None,
        };
        let dialer = tor::dialer(self.dir()?.join("tor"), self.tor_network_file.clone());
        Ok(DialOptions {
            carriers: Tor::beside(Carriers::default(), dialer),
            ca_pem,
            schemes: self.carrier.map(CarrierKind::schemes),
            delay: self.link_delay_ms.map(Duration::from_millis),
            ..DialOptions::default()
        })
    }
}

fn default_dir(home: Option<PathBuf>) -> Result<PathBuf, ErrorReport> {
    let home = home.filter(|home| !home.as_os_str().is_empty());
    let home =
        home.ok_or_else(|| report(Code::NoHome, "there is no home directory: give --dir"))?;
    Ok(home.join(".longhand").join("phone"))
}

/// By this machine's clock.
fn now_unix_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// Key derivation takes a second of work.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, VaultError> + Send + 'static,
) -> Result<T, ErrorReport> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done.map_err(PhoneError::from)?),
        Err(error) => Err(PhoneError::Stopped(error.to_string()).into()),
    }
}

/// Returns at the first Ctrl-C or SIGTERM.
async fn stop_signal() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

fn interrupted() -> ErrorReport {
    report(
        Code::Interrupted,
        "stopped before the answer: what was sent goes on; ask again to see its end",
    )
}

fn cannot_read(path: &Path, error: &std::io::Error) -> ErrorReport {
    report(
        Code::FileUnreadable,
        format!(
            "{} cannot be read ({error}): check the path",
            path.display()
        ),
    )
}

fn report(code: Code, message: impl Into<String>) -> ErrorReport {
    ErrorReport {
        code: code.into(),
        message: message.into(),
    }
}

fn to_msat(amount: u64, is_sat: bool) -> Result<u64, PhoneError> {
    let factor = if is_sat { 1_000 } else { 1 };
    Ok(amount
        .checked_mul(factor)
        .ok_or(InputError::AmountTooLarge)?)
}

fn parse_words(text: &str) -> Result<Words, String> {
    match text {
        "12" => Ok(Words::Twelve),
        "24" => Ok(Words::TwentyFour),
        _ => Err("12 or 24".into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn without_a_home_a_directory_has_to_be_given() {
        for home in [None, Some(PathBuf::new())] {
            assert_eq!(default_dir(home).unwrap_err().code, Code::NoHome);
        }
        let in_home = default_dir(Some("/home/ann".into())).unwrap();
        assert_eq!(in_home, Path::new("/home/ann/.longhand/phone"));
    }
}
