//! `longhand mailbox`: runs a mailbox until a signal stops it. As with a host, the addresses go to standard output when
//! everything listens, and logs to standard error.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use longhand_link::{Address, Carriers};
use longhand_mailbox::{ConfigError, Mailbox, MailboxConfig, MailboxError, Settings as _};
use serde_json::json;

use crate::logging;
use crate::serving::{self, StopSignals, environment, parse_setting};

/// Run a mailbox: a relay at which hosts and phones meet, when neither can dial the other. It stores nothing, and cannot read
/// what it relays.
///
/// Every setting of docs/mailbox.example.toml can be given in a file, in the environment as
/// LONGHAND_MAILBOX_SECTION_KEY, or here; the last of these wins.
#[derive(Debug, Args)]
pub struct MailboxArgs {
    /// The configuration file
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
    /// Where hosts and phones connect, separated by commas
    #[arg(long, value_name = "grpc://IP:PORT")]
    listen: Option<String>,
    /// Prometheus metrics; empty = off
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<String>,
    /// Log filter, such as info,longhand_mailbox=debug
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Any other setting. Other users of this machine can see arguments: give a URL with a token in the file or the environment
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
    /// Show the addresses as one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs a mailbox until SIGTERM or SIGINT.
pub async fn run(args: MailboxArgs) -> ExitCode {
    let json = args.json;
    match serve(args, json).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error.code().line(error));
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: MailboxArgs, json: bool) -> Result<(), MailboxError> {
    let config = load(args)?;
    logging::start(&config.log.filter, config.log.json)
        .map_err(|e| ConfigError::Invalid(format!("log.filter is {:?}: {e}", config.log.filter)))?;
    let mut stop = StopSignals::new().map_err(ConfigError::Invalid)?;
    let mailbox = Mailbox::start(config, Carriers::default()).await?;
    show(&mailbox, json);
    stop.next().await;
    mailbox.stop().await;
    Ok(())
}

fn load(args: MailboxArgs) -> Result<MailboxConfig, ConfigError> {
    let named = [
        ("link.listen", args.listen),
        ("metrics.listen", args.metrics_listen),
        ("log.filter", args.log),
    ];
    let named = named
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)));
    MailboxConfig::load(args.config.as_deref(), environment(), named.chain(args.set))
}

fn show(mailbox: &Mailbox, json: bool) {
    let texts = |addresses: &[Address]| -> Vec<String> {
        addresses.iter().map(ToString::to_string).collect()
    };
    let links = texts(mailbox.addresses());
    let hashmail = texts(mailbox.hashmail_addresses());
    let metrics = mailbox.metrics_address();
    let metrics = metrics.map(|address| format!("http://{address}/metrics"));
    if json {
        let all = json!({ "link": links, "hashmail": hashmail, "metrics": metrics });
        return serving::show(&all.to_string());
    }
    let mut text = format!("the mailbox runs\n  clients   {}\n", links.join(", "));
    if !hashmail.is_empty() {
        text.push_str(&format!("  hashmail  {}\n", hashmail.join(", ")));
    }
    text.push_str(&format!(
        "  metrics   {}\nhosts and phones reach it as mailbox+ADDRESS, such as mailbox+{}",
        metrics.as_deref().unwrap_or("off"),
        links.first().map_or("", String::as_str),
    ));
    serving::show(&text);
}
