//! `longhand host`: runs a host until a signal stops it.
//!
//! When everything listens, the addresses go to standard output, as text or with `--json` as one object, so that
//! ports that were left to the system can be read from there. Logs go to standard error.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use longhand_host::config::LogConfig;
use longhand_host::{Addresses, Host, HostConfig, HostError, OperatorListen};
use serde_json::json;

use crate::logging;
use crate::serving::{self, StopSignals, environment, parse_setting};
use crate::tor;

/// Run many nodes whose keys are on phones.
///
/// Every setting of docs/host.example.toml can be given in a file, in the environment as
/// LONGHAND_HOST_SECTION_KEY, or here; the last of these wins.
#[derive(Debug, Args)]
pub struct HostArgs {
    /// The configuration file
    #[arg(long, value_name = "PATH", env = "LONGHAND_CONFIG")]
    config: Option<PathBuf>,
    /// Where the host keeps its database and keys
    #[arg(long, value_name = "PATH")]
    data_dir: Option<String>,
    /// The chain: bitcoin, testnet, testnet4, signet or regtest
    #[arg(long)]
    network: Option<String>,
    /// Bitcoin Core's JSON-RPC
    #[arg(long, value_name = "URL")]
    chain_url: Option<String>,
    /// Bitcoin Core's cookie file
    #[arg(long, value_name = "PATH")]
    chain_cookie: Option<String>,
    /// Where phones attach, separated by commas; empty with a mailbox = nowhere
    #[arg(long, value_name = "grpc://IP:PORT")]
    link_listen: Option<String>,
    /// Addresses of the host in pairing codes, separated by commas
    #[arg(long, value_name = "grpc://HOST:PORT")]
    link_addresses: Option<String>,
    /// Mailboxes at which the host waits for phones, separated by commas
    #[arg(long, value_name = "mailbox+wss://HOST:PORT")]
    link_mailboxes: Option<String>,
    /// Where peers of the hub connect
    #[arg(long, value_name = "ADDRESS")]
    peer_listen: Option<String>,
    /// The operator's API: unix:PATH, or a loopback address
    #[arg(long, value_name = "ADDRESS")]
    operator_listen: Option<String>,
    /// Prometheus metrics; empty = off
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<String>,
    /// Log filter, such as info,longhand_node=debug
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Any other setting. Other users of this machine can see arguments: give a password in the file or the environment
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
    /// Show the addresses as one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs a host until SIGTERM or SIGINT.
pub async fn run(args: HostArgs) -> ExitCode {
    let json = args.json;
    match serve(args, json).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}", error.code().line(error));
            ExitCode::FAILURE
        }
    }
}

async fn serve(args: HostArgs, json: bool) -> Result<ExitCode, HostError> {
    let config = load(args)?;
    if config.tor.enabled && config.tor.program.as_os_str().is_empty() && !tor::IS_BUILT_IN {
        let text = format!("tor.enabled: {}, or give tor.program", tor::NOT_BUILT_IN);
        return Err(longhand_host::ConfigError::Invalid(text).into());
    }
    start_log(&config.log)?;
    // Before the start, so that a signal in the middle of it is not lost.
    let mut stop = StopSignals::new().map_err(longhand_host::ConfigError::Invalid)?;
    let host = Host::start(config).await?;
    if let Some(addresses) = host.addresses() {
        show(addresses, json);
    }
    stop.next().await;
    tokio::select! {
        () = host.stop() => Ok(ExitCode::SUCCESS),
        // A second signal: unfinished work is as after a crash, which the store survives.
        () = stop.next() => Ok(ExitCode::FAILURE),
    }
}

fn load(args: HostArgs) -> Result<HostConfig, HostError> {
    for (key, _) in args.set.iter().filter(|(key, _)| is_secret(key)) {
        eprintln!("{}", secret_in_arguments(key));
    }
    let named = [
        ("data_dir", args.data_dir),
        ("network", args.network),
        ("chain.bitcoind.url", args.chain_url),
        ("chain.bitcoind.cookie_file", args.chain_cookie),
        ("link.listen", args.link_listen),
        ("link.addresses", args.link_addresses),
        ("link.mailboxes", args.link_mailboxes),
        ("peer.listen", args.peer_listen),
        ("operator.listen", args.operator_listen),
        ("metrics.listen", args.metrics_listen),
        ("log.filter", args.log),
    ];
    let named = named
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)));
    let flags = named.chain(args.set);
    Ok(HostConfig::load(
        args.config.as_deref(),
        environment(),
        flags,
    )?)
}

/// Whether a setting is a secret.
fn is_secret(key: &str) -> bool {
    key.rsplit('.').next() == Some("password")
}

fn secret_in_arguments(key: &str) -> String {
    let variable = key.replace('.', "_").to_ascii_uppercase();
    format!(
        "warning[SECRET_IN_ARGUMENTS]: other users of this machine can see {key}: give it in the file of --config, or as \
         LONGHAND_HOST_{variable} in the environment"
    )
}

fn start_log(log: &LogConfig) -> Result<(), HostError> {
    logging::start(&log.filter, log.json).map_err(|e| {
        longhand_host::ConfigError::Invalid(format!("log.filter is {:?}: {e}", log.filter)).into()
    })
}

fn show(addresses: &Addresses, json: bool) {
    let operator = match &addresses.operator {
        OperatorListen::Unix(path) => format!("unix:{}", path.display()),
        OperatorListen::Tcp(address) => address.to_string(),
    };
    let metrics = addresses
        .metrics
        .map(|address| format!("http://{address}/metrics"));
    let onion = addresses.peer_onion.as_ref();
    let peers = onion.map_or_else(
        || addresses.peer.to_string(),
        |onion| format!("{}, {onion}", addresses.peer),
    );
    let links: Vec<String> = addresses.link.iter().map(ToString::to_string).collect();
    let text = match json {
        true => json!({
            "link": links,
            "peer": addresses.peer.to_string(),
            "peer_onion": addresses.peer_onion,
            "operator": operator,
            "metrics": metrics,
        })
        .to_string(),
        false => format!(
            "the host runs\n  phones    {}\n  peers     {}\n  operator  {operator}\n  metrics   {}",
            links.join(", "),
            peers,
            metrics.as_deref().unwrap_or("off"),
        ),
    };
    serving::show(&text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_the_arguments_is_warned_of_with_the_way_to_give_it() {
        assert!(is_secret("chain.bitcoind.password") && is_secret("chain.password"));
        assert!(!is_secret("chain.bitcoind.user"));
        let warning = secret_in_arguments("chain.bitcoind.password");
        assert!(warning.contains("LONGHAND_HOST_CHAIN_BITCOIND_PASSWORD"));
    }
}
