//! `longhand admin`: the operator's requests to a running host, through its operator API.
//!
//! One answer goes to standard output, as text or with `--json` as one object; an error is one line on
//! standard error: `error[CODE]: what failed, why; what to do`.

mod show;

use std::path::PathBuf;
use std::process::ExitCode;

use bitcoin::hex::FromHex;
use clap::{ArgGroup, Args, Subcommand};
use longhand_host::HostConfig;
use longhand_host::client::{self, Client};
use longhand_phone::input::OnchainAmount;
use longhand_proto::Code;
use longhand_proto::operator::*;
use tonic::Status;

use crate::serving::{days_from_now, environment};
use show::Shown;

/// Ask a running host, as its operator.
#[derive(Debug, Args)]
pub struct AdminArgs {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Debug, Args)]
struct Options {
    /// The host's configuration file, which has the address of its operator API
    #[arg(long, global = true, value_name = "PATH", env = "LONGHAND_CONFIG")]
    config: Option<PathBuf>,
    /// The host's data directory, when it is not in the configuration
    #[arg(long, global = true, value_name = "PATH")]
    data_dir: Option<String>,
    /// The operator's API: unix:PATH, or a loopback address
    #[arg(long, global = true, value_name = "ADDRESS")]
    operator: Option<String>,
    /// The file with the token, for an address
    #[arg(long, global = true, value_name = "PATH")]
    token_file: Option<String>,
    /// Answer with one JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    /// Show the status of the host
    Status,
    /// Make owners, and pairing codes for their phones
    #[command(subcommand)]
    Owner(OwnerCommand),
    /// Connect apps to an owner's node, which may only read
    #[command(subcommand)]
    App(AppCommand),
    /// List the owners' nodes
    Nodes,
    /// Show what happens at the host, a line for each change, until the host stops
    Watch,
    /// Use the host's own node
    #[command(subcommand)]
    Hub(HubCommand),
}

#[derive(Debug, Subcommand)]
enum AppCommand {
    /// Connect an app: shows ten words for Lightning Node Connect, and a macaroon for apps.listen
    Connect {
        owner: String,
        /// What you call it
        name: String,
        /// Disconnect it after so many days [default: never]
        #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: Option<u32>,
    },
    /// List an owner's apps
    List { owner: String },
    /// Disconnect one
    Disconnect { owner: String, name: String },
}

#[derive(Debug, Subcommand)]
enum OwnerCommand {
    /// Make an owner, and show the pairing code
    Create {
        name: String,
        /// POSTed to when the phone is needed
        #[arg(long, value_name = "URL", default_value = "")]
        wake_url: String,
        /// How long the code is valid [default: the host's]
        #[arg(
            long,
            value_name = "SECONDS",
            default_value_t = 0,
            hide_default_value = true
        )]
        expires: u32,
    },
    /// List the owners
    List,
    /// Show the URLs that are called when an owner's phone is needed, or change the operator's
    WakeUrl {
        name: String,
        /// In place of the operator's before
        url: Option<String>,
        /// Remove the operator's
        #[arg(long, conflicts_with = "url")]
        clear: bool,
        /// Remove those that the owner's phone gave
        #[arg(long)]
        clear_phones: bool,
    },
    /// Make a new pairing code, and shut out the phone that used the previous one
    Renew {
        name: String,
        /// How long the code is valid [default: the host's]
        #[arg(
            long,
            value_name = "SECONDS",
            default_value_t = 0,
            hide_default_value = true
        )]
        expires: u32,
    },
}

#[derive(Debug, Subcommand)]
enum HubCommand {
    /// Show a new address of the hub's on-chain wallet
    Address,
    /// Show the hub's balance
    Balance,
    /// Open a channel to an owner's node or to another peer
    #[command(group(ArgGroup::new("with").required(true).args(["owner", "to"])))]
    Open {
        amount_sat: u64,
        /// An owner, whose phone is attached
        #[arg(long, value_name = "NAME")]
        owner: Option<String>,
        /// Another peer
        #[arg(long, value_name = "NODE_ID@HOST:PORT", value_parser = parse_peer)]
        to: Option<Peer>,
        /// Given to the peer when the channel opens
        #[arg(long, default_value_t = 0)]
        push_msat: u64,
        /// Announce the channel to the network
        #[arg(long)]
        announce: bool,
        /// Of the funding, in satoshis per 1,000 weight units (250 = 1 sat/vB) [default: the host's estimate]
        #[arg(
            long,
            value_name = "SAT_PER_KW",
            default_value_t = 0,
            hide_default_value = true
        )]
        feerate: u32,
    },
    /// Close a channel
    Close {
        #[arg(value_parser = parse_hex)]
        channel_id: Bytes,
        /// Without the peer: the money comes after a delay
        #[arg(long)]
        force: bool,
    },
    /// Make an invoice
    Invoice {
        /// 0 = any amount
        amount_msat: u64,
        #[arg(long, default_value = "")]
        description: String,
        /// Seconds until it can no longer be paid
        #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
        expiry: u32,
    },
    /// Pay an invoice, and wait until it is paid
    Pay {
        bolt11: String,
        /// For an invoice that leaves the amount open
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        amount_msat: u64,
        /// The most that routing may cost
        #[arg(long)]
        max_fee_msat: Option<u64>,
    },
    /// Connect to a peer
    Connect {
        #[arg(value_name = "NODE_ID@HOST:PORT", value_parser = parse_peer)]
        to: Peer,
    },
    /// List the hub's channels
    Channels,
    /// Send from the hub's on-chain wallet; the reserve for its channels stays
    Send {
        address: String,
        /// In satoshis, or `all`
        amount: OnchainAmount,
        /// In satoshis per 1,000 weight units (250 = 1 sat/vB) [default: the host's estimate]
        #[arg(
            long,
            value_name = "SAT_PER_KW",
            default_value_t = 0,
            hide_default_value = true
        )]
        feerate: u32,
    },
    /// List the hub's on-chain payments, newest first
    Sends,
    /// Raise the fee of an unconfirmed on-chain payment, or of a channel's funding
    Bump {
        txid: String,
        /// In satoshis per 1,000 weight units (250 = 1 sat/vB) [default: what is needed]
        #[arg(
            long,
            value_name = "SAT_PER_KW",
            default_value_t = 0,
            hide_default_value = true
        )]
        feerate: u32,
    },
    /// Give up an unconfirmed on-chain payment: send it back to the hub's wallet instead
    Abandon {
        txid: String,
        /// In satoshis per 1,000 weight units (250 = 1 sat/vB) [default: what is needed]
        #[arg(
            long,
            value_name = "SAT_PER_KW",
            default_value_t = 0,
            hide_default_value = true
        )]
        feerate: u32,
    },
    /// Show what the hub takes for forwarding payments, or set it
    Fees {
        /// For each payment, in millisatoshis
        #[arg(long, value_name = "MSAT")]
        base_msat: Option<u32>,
        /// In millionths of the amount
        #[arg(long, value_name = "MILLIONTHS")]
        ppm: Option<u32>,
    },
    /// List the newest payments that the hub made or received itself
    Payments {
        /// How many
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
    /// List the newest payments that the hub forwarded, and what it earned in all
    Forwards {
        /// How many
        #[arg(long, default_value_t = 100)]
        limit: u32,
    },
}

/// Bytes given as hexadecimal.
#[derive(Clone, Debug)]
struct Bytes(Vec<u8>);

#[derive(Clone, Debug)]
struct Peer {
    node_id: Vec<u8>,
    address: String,
}

fn parse_hex(text: &str) -> Result<Bytes, String> {
    Vec::from_hex(text)
        .map(Bytes)
        .map_err(|_| "give hexadecimal digits".into())
}

fn parse_peer(text: &str) -> Result<Peer, String> {
    let (node_id, address) = text.split_once('@').unwrap_or((text, ""));
    match text.parse::<bitcoin::secp256k1::PublicKey>() {
        Ok(key) if address.is_empty() => Ok(Peer {
            node_id: key.serialize().to_vec(),
            address: String::new(),
        }),
        _ => {
            let key: bitcoin::secp256k1::PublicKey = node_id
                .parse()
                .map_err(|_| "give NODE_ID@HOST:PORT; the node id has 66 digits")?;
            Ok(Peer {
                node_id: key.serialize().to_vec(),
                address: address.to_owned(),
            })
        }
    }
}

/// Asks the host, and shows its answer.
pub async fn run(args: AdminArgs) -> ExitCode {
    let json = args.options.json;
    let answer = match reach(args.options).await {
        Ok(client) => ask(client, args.command, json)
            .await
            .map_err(|status| refused(&status)),
        Err(error) => Err(error),
    };
    match answer {
        Ok(shown) => {
            shown.print(json);
            ExitCode::SUCCESS
        }
        Err(line) => {
            eprintln!("{line}");
            ExitCode::FAILURE
        }
    }
}

async fn reach(options: Options) -> Result<Client, String> {
    let named = [
        ("data_dir", options.data_dir),
        ("operator.listen", options.operator),
        ("operator.token_file", options.token_file),
    ];
    let flags = named
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)));
    let config_error = |e| Code::Config.line(e);
    let config =
        HostConfig::load(options.config.as_deref(), environment(), flags).map_err(config_error)?;
    let listen = config.operator_listen().map_err(config_error)?;
    let client = client::connect(&listen, &config.operator_token_file()).await;
    client.map_err(|e| Code::OperatorUnreachable.line(e))
}

async fn ask(mut host: Client, command: AdminCommand, json: bool) -> Result<Shown, Status> {
    match command {
        AdminCommand::Watch => Err(watch(host, json).await),
        AdminCommand::Status => Ok(show::status(
            &host.status(StatusRequest {}).await?.into_inner(),
        )),
        AdminCommand::Nodes => Ok(show::nodes(
            &host.list_nodes(ListNodesRequest {}).await?.into_inner(),
        )),
        AdminCommand::Owner(command) => ask_owner(host, command).await,
        AdminCommand::App(command) => ask_apps(host, command).await,
        AdminCommand::Hub(command) => ask_hub(host, command).await,
    }
}

/// Shows changes as they come. Returns the end of the stream.
async fn watch(mut host: Client, json: bool) -> Status {
    let mut changes = match host.watch(WatchRequest {}).await {
        Ok(changes) => changes.into_inner(),
        Err(status) => return status,
    };
    loop {
        match changes.message().await {
            Ok(Some(change)) => show::change(&change).print(json),
            Err(status) if status.code() == tonic::Code::Unauthenticated => return status,
            // A host that stops ends its connections as they are, and gRPC reports that in words of its own.
            Ok(None) | Err(_) => return ended(),
        }
    }
}

fn ended() -> Status {
    let message =
        "the host has stopped, or the connection broke: run it again when the host is back";
    Status::unavailable(format!("{}: {message}", Code::HostStopped))
}

async fn ask_apps(mut host: Client, command: AppCommand) -> Result<Shown, Status> {
    match command {
        AppCommand::Connect { owner, name, days } => {
            let request = ConnectAppRequest {
                owner,
                name,
                expires_unix_s: days.map_or(0, days_from_now),
            };
            Ok(show::connected_app(
                &host.connect_app(request).await?.into_inner(),
            ))
        }
        AppCommand::List { owner } => Ok(show::apps(
            &host
                .list_apps(ListAppsRequest { owner })
                .await?
                .into_inner(),
        )),
        AppCommand::Disconnect { owner, name } => {
            let request = DisconnectAppRequest { owner, name };
            Ok(show::apps(
                &host.disconnect_app(request).await?.into_inner(),
            ))
        }
    }
}

async fn ask_owner(mut host: Client, command: OwnerCommand) -> Result<Shown, Status> {
    match command {
        OwnerCommand::Create {
            name,
            wake_url,
            expires,
        } => {
            let request = CreateOwnerRequest {
                name,
                wake_url,
                pairing_expires_s: expires,
            };
            Ok(show::pairing_code(
                &host.create_owner(request).await?.into_inner(),
            ))
        }
        OwnerCommand::Renew { name, expires } => {
            let request = RenewPairingRequest {
                owner: name,
                pairing_expires_s: expires,
            };
            Ok(show::pairing_code(
                &host.renew_pairing(request).await?.into_inner(),
            ))
        }
        OwnerCommand::WakeUrl {
            name,
            url,
            clear,
            clear_phones,
        } => {
            let request = SetWakeUrlRequest {
                owner: name,
                wake_url: url.or(clear.then(String::new)),
                clear_phones,
            };
            Ok(show::wake_urls(
                &host.set_wake_url(request).await?.into_inner(),
            ))
        }
        OwnerCommand::List => Ok(show::owners(
            &host.list_owners(ListOwnersRequest {}).await?.into_inner(),
        )),
    }
}

async fn ask_hub(mut host: Client, command: HubCommand) -> Result<Shown, Status> {
    match command {
        HubCommand::Address => Ok(show::hub_address(
            &host.hub_address(HubAddressRequest {}).await?.into_inner(),
        )),
        HubCommand::Balance => Ok(show::hub_balance(
            &host.hub_balance(HubBalanceRequest {}).await?.into_inner(),
        )),
        HubCommand::Open {
            amount_sat,
            owner,
            to,
            push_msat,
            announce,
            feerate,
        } => {
            let Peer { node_id, address } = to.unwrap_or(Peer {
                node_id: Vec::new(),
                address: String::new(),
            });
            let request = HubOpenChannelRequest {
                owner: owner.unwrap_or_default(),
                node_id,
                address,
                amount_sat,
                push_msat,
                announced: announce,
                feerate_sat_per_kw: feerate,
            };
            Ok(show::hub_opened(
                &host.hub_open_channel(request).await?.into_inner(),
            ))
        }
        HubCommand::Close { channel_id, force } => {
            let request = HubCloseChannelRequest {
                channel_id: channel_id.0,
                force,
            };
            host.hub_close_channel(request).await?;
            Ok(show::done("closing"))
        }
        HubCommand::Invoice {
            amount_msat,
            description,
            expiry,
        } => {
            let request = HubInvoiceRequest {
                amount_msat,
                description,
                expiry_s: expiry,
            };
            Ok(show::hub_invoice(
                &host.hub_invoice(request).await?.into_inner(),
            ))
        }
        HubCommand::Pay {
            bolt11,
            amount_msat,
            max_fee_msat,
        } => {
            let request = HubPayRequest {
                bolt11,
                amount_msat,
                max_fee_msat,
            };
            Ok(show::hub_paid(&host.hub_pay(request).await?.into_inner()))
        }
        HubCommand::Connect {
            to: Peer { node_id, address },
        } => {
            host.hub_connect(HubConnectRequest { node_id, address })
                .await?;
            Ok(show::done("connected"))
        }
        HubCommand::Channels => Ok(show::hub_channels(
            &host.hub_channels(HubChannelsRequest {}).await?.into_inner(),
        )),
        HubCommand::Send {
            address,
            amount,
            feerate,
        } => {
            let (amount_sat, all) = match amount {
                OnchainAmount::Sat(sat) => (sat, false),
                OnchainAmount::All => (0, true),
            };
            let request = HubSendRequest {
                address,
                amount_sat,
                all,
                feerate_sat_per_kw: feerate,
                id: Vec::new(),
            };
            Ok(show::hub_sent(&host.hub_send(request).await?.into_inner()))
        }
        HubCommand::Sends => {
            let sends = host.hub_sends(HubSendsRequest {}).await?;
            Ok(show::hub_sends(&sends.into_inner()))
        }
        HubCommand::Bump { txid, feerate } => {
            let request = HubReplaceRequest {
                txid,
                feerate_sat_per_kw: feerate,
            };
            Ok(show::hub_sent(&host.hub_bump(request).await?.into_inner()))
        }
        HubCommand::Abandon { txid, feerate } => {
            let request = HubReplaceRequest {
                txid,
                feerate_sat_per_kw: feerate,
            };
            let sent = host.hub_abandon(request).await?;
            Ok(show::hub_sent(&sent.into_inner()))
        }
        HubCommand::Fees { base_msat, ppm } => {
            let request = HubFeesRequest {
                base_msat,
                proportional_millionths: ppm,
            };
            Ok(show::hub_fees(&host.hub_fees(request).await?.into_inner()))
        }
        HubCommand::Payments { limit } => {
            let request = HubPaymentsRequest { limit };
            Ok(show::hub_payments(
                &host.hub_payments(request).await?.into_inner(),
            ))
        }
        HubCommand::Forwards { limit } => {
            let request = HubForwardsRequest { limit };
            Ok(show::hub_forwards(
                &host.hub_forwards(request).await?.into_inner(),
            ))
        }
    }
}

/// One line of a refusal. A code of the host's stands before its message; what gRPC itself refuses has none.
fn refused(status: &Status) -> String {
    let message = status.message();
    // Also one of a newer host.
    let is_code = |text: &str| text.chars().all(|c| c.is_ascii_uppercase() || c == '_');
    match message.split_once(": ") {
        Some((code, line)) if !code.is_empty() && is_code(code) => format!("error[{code}]: {line}"),
        _ => code_of(status.code()).line(message),
    }
}

fn code_of(kind: tonic::Code) -> Code {
    match kind {
        tonic::Code::InvalidArgument => Code::OperatorInput,
        tonic::Code::Unauthenticated => Code::Unauthenticated,
        tonic::Code::Unimplemented => Code::UnknownCommand,
        tonic::Code::Unavailable => Code::OperatorUnreachable,
        _ => Code::Internal,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        admin: AdminArgs,
    }

    #[test]
    fn a_wake_url_is_given_or_cleared_and_not_both() {
        use clap::Parser;
        let parsed = |words: &[&str]| {
            let line = [&["admin", "owner", "wake-url", "ann"], words].concat();
            match Cli::try_parse_from(line).ok()?.admin.command {
                AdminCommand::Owner(OwnerCommand::WakeUrl {
                    url,
                    clear,
                    clear_phones,
                    ..
                }) => Some((url, clear, clear_phones)),
                _ => None,
            }
        };
        let url = "https://push.example/";
        assert_eq!(parsed(&[]), Some((None, false, false)));
        assert_eq!(parsed(&[url]), Some((Some(url.into()), false, false)));
        assert_eq!(
            parsed(&["--clear", "--clear-phones"]),
            Some((None, true, true))
        );
        assert_eq!(parsed(&[url, "--clear"]), None);
    }

    const NODE: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

    #[test]
    fn a_peer_is_a_node_id_with_or_without_an_address() {
        let peer = parse_peer(&format!("{NODE}@[::1]:9735")).unwrap();
        assert_eq!(
            (peer.node_id.len(), peer.address.as_str()),
            (33, "[::1]:9735")
        );
        assert_eq!(parse_peer(NODE).unwrap().address, "");
        for text in ["", "@host:1", "02@host:1", &NODE[1..]] {
            assert!(parse_peer(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_refusal_shows_the_hosts_code_or_grpcs() {
        let host = Status::failed_precondition("SIGNER_AWAY: the phone is away");
        assert_eq!(refused(&host), "error[SIGNER_AWAY]: the phone is away");
        let grpc = Status::not_found("there is no owner bob: see the list");
        let line = Code::Internal.line("there is no owner bob: see the list");
        assert_eq!(refused(&grpc), line);
    }
}
