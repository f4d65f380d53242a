//! `longhand devnet`: a regtest to try things on, and requests to one that runs.
//!
//! Without a subcommand it runs one until Ctrl-C. The subcommands are clients of its JSON-RPC, which is Bitcoin
//! Core's: `bitcoin-cli` works on it just as well.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bitcoin::Amount;
use clap::{Args, Subcommand};
use longhand_chain::{ChainError, Devnet, DevnetConfig, DevnetError};
use longhand_proto::Code;
use longhand_testkit::rpc::Rpc;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

/// A regtest, with blocks and coins on request.
#[derive(Debug, Args)]
pub struct DevnetArgs {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    command: Option<DevnetCommand>,
}

#[derive(Debug, Args)]
struct Options {
    /// Where blocks are kept; without it the chain ends with the process
    #[arg(long, value_name = "PATH")]
    data_dir: Option<PathBuf>,
    /// Where JSON-RPC is served, or asked; port 0 takes a free one
    #[arg(
        long,
        global = true,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:18443"
    )]
    rpc_bind: SocketAddr,
    /// Where Esplora's REST is served too, to everybody who reaches it; port 0 takes a free one [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    esplora: Option<SocketAddr>,
    /// The RPC user
    #[arg(
        long,
        global = true,
        env = "LONGHAND_DEVNET_USER",
        default_value = "devnet"
    )]
    user: String,
    /// The RPC password
    #[arg(
        long,
        global = true,
        env = "LONGHAND_DEVNET_PASSWORD",
        default_value = "devnet",
        hide_env_values = true
    )]
    password: String,
    /// Mine a block this often [default: on request alone]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    block_interval: Option<u64>,
    /// Answer with one JSON object
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum DevnetCommand {
    /// Mine blocks, with what is in the mempool
    Mine {
        #[arg(default_value_t = 1)]
        blocks: u32,
    },
    /// Send coins to an address; they confirm in the next block
    Faucet { address: String, amount_sat: u64 },
    /// Replace the last blocks by one more than there were
    Reorg { depth: u32 },
}

/// Runs a devnet, or asks one.
pub async fn run(DevnetArgs { options, command }: DevnetArgs) -> ExitCode {
    let ended = match command {
        None => serve(options).await,
        Some(command) => ask(options, command).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            eprintln!("{line}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(options: Options) -> Result<(), String> {
    let config = DevnetConfig {
        data_dir: options.data_dir,
        rpc_bind: options.rpc_bind,
        esplora_bind: options.esplora,
        user: options.user,
        password: options.password,
        block_interval: options.block_interval.map(Duration::from_secs),
        ..DevnetConfig::default()
    };
    let (user, password) = (config.user.clone(), config.password.clone());
    // Before the start, so that a signal in the middle of it is not lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| Code::Environment.line(e))?;
    let devnet = Devnet::start(config).await.map_err(|e| failed(&e))?;
    let at = devnet.rpc_addr();
    let height = devnet.tip().height;
    let esplora = devnet.esplora_url();
    let by_rest = esplora
        .as_ref()
        .map(|url| format!("  curl {url}/blocks/tip/height\n"));
    print(
        options.json,
        &json!({
            "rpc": devnet.rpc_url(),
            "user": user,
            "password": password,
            "esplora": esplora,
            "height": height,
        }),
        format!(
            "devnet runs at height {height}\n  bitcoin-cli -regtest -rpcconnect={} -rpcport={} -rpcuser={user} -rpcpassword={password} getblockchaininfo\n{}Ctrl-C ends it",
            at.ip(),
            at.port(),
            by_rest.unwrap_or_default(),
        ),
    );
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
    devnet.shutdown().await;
    Ok(())
}

async fn ask(options: Options, command: DevnetCommand) -> Result<(), String> {
    let rpc = Rpc::new(options.rpc_bind, options.user, options.password);
    let asked = match command {
        DevnetCommand::Mine { blocks } => rpc
            .mine(blocks)
            .await
            .map(|()| (json!({ "mined": blocks }), format!("mined {blocks}"))),
        DevnetCommand::Faucet {
            address,
            amount_sat,
        } => rpc
            .faucet(&address, Amount::from_sat(amount_sat))
            .await
            .map(|txid| {
                (
                    json!({ "txid": txid }),
                    format!("sent by {txid}; mine a block to confirm it"),
                )
            }),
        DevnetCommand::Reorg { depth } => rpc
            .call("devnet_reorg", &[json!(depth)])
            .await
            .map(|blocks| (json!({ "blocks": blocks }), format!("replaced {depth}"))),
    };
    let (object, text) = asked.map_err(|e| refused(&e))?;
    print(options.json, &object, text);
    Ok(())
}

fn failed(error: &DevnetError) -> String {
    let code = match error {
        DevnetError::Bind { .. } => Code::CannotListen,
        DevnetError::Data(_) => Code::DevnetData,
        _ => Code::Devnet,
    };
    code.line(error)
}

/// One line of a refusal, in devnet's own words.
fn refused(error: &ChainError) -> String {
    match error {
        ChainError::Unreachable { url, reason } => Code::DevnetUnreachable.line(format_args!(
            "no devnet at {url} ({reason}): start one, or give its --rpc-bind"
        )),
        ChainError::Unauthorized => Code::ChainUnauthorized
            .line("devnet refused the credentials: give its --user and --password"),
        ChainError::NotFound(reason) | ChainError::Rejected { reason, .. } => {
            Code::DevnetRefused.line(reason)
        }
        other => Code::Devnet.line(other),
    }
}

fn print(as_json: bool, object: &Value, text: String) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    // An output that is closed is no reason to stop.
    let _ = match as_json {
        true => writeln!(out, "{object}"),
        false => writeln!(out, "{text}"),
    }
    .and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn at(rpc_bind: SocketAddr) -> Options {
        let config = DevnetConfig::default();
        Options {
            data_dir: None,
            rpc_bind,
            esplora: None,
            user: config.user,
            password: config.password,
            block_interval: None,
            json: false,
        }
    }

    async fn refused_at(rpc_bind: SocketAddr) -> String {
        let nowhere = DevnetCommand::Faucet {
            address: "nowhere".into(),
            amount_sat: 1,
        };
        ask(at(rpc_bind), nowhere).await.unwrap_err()
    }

    fn assert_code(line: &str, code: Code) {
        assert!(line.starts_with(&code.line("")), "not {code}: {line}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_devnet_that_refuses_is_told_from_one_that_is_not_there() {
        let devnet = Devnet::start(DevnetConfig::default()).await.unwrap();
        let address = devnet.rpc_addr();
        assert_code(&refused_at(address).await, Code::DevnetRefused);
        devnet.shutdown().await;
        assert_code(&refused_at(address).await, Code::DevnetUnreachable);
    }

    #[tokio::test]
    async fn what_is_no_devnet_gives_an_answer_that_cannot_be_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert_ne!(stream.read(&mut [0; 4096]).await.unwrap(), 0);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\nnothing";
            stream.write_all(answer).await.unwrap();
            // Open until the answer was read.
            while stream.read(&mut [0; 4096]).await.is_ok_and(|read| read > 0) {}
        });
        assert_code(&refused_at(address).await, Code::Devnet);
    }

    #[tokio::test]
    async fn a_file_is_no_directory_for_a_chain() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let options = Options {
            data_dir: Some(file.path().into()),
            ..at(([127, 0, 0, 1], 0).into())
        };
        let failed = serve(options).await.unwrap_err();
        assert_code(&failed, Code::DevnetData);
    }
}
