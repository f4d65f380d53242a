//! The cast: a chain, a host and phones, each a real process of the `longhand` binary, that a program starts, asks,
//! kills and starts again.
//!
//! `process` is any of them, and sees to it that none outlives the program; `chain`, `host` and `phone` know how each
//! is started and asked; `accounts` holds every satoshi against the chain, and `audit` asks the cast for what that
//! takes. The demo and `longhand-sim processes` are played with them.

pub mod accounts;
pub mod audit;
mod chain;
mod host;
mod phone;
mod process;
mod rpc;

use std::time::{Duration, Instant};

use bitcoin::{Address, ScriptBuf, Txid};
use longhand_chain::{BlockReader, ChainError};
use longhand_phone::PhoneError;
use tokio::signal::unix::{SignalKind, signal};

pub use chain::Chain;
pub use host::{Host, HostSettings, Operator};
pub use phone::{Owner, PASSPHRASE, Phone};
pub use process::{Process, Stage, Start, end_with_parent};
pub use rpc::Rpc;

/// Nothing takes this long; what does, hangs.
const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(10);

/// What went wrong, for a person.
#[derive(Debug, thiserror::Error)]
pub enum CastError {
    /// The system would not.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The chain would not.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The host answered an operator's call with an error.
    #[error("the host answered {}: {}", .0.code(), .0.message())]
    Host(#[from] tonic::Status),
    /// The host's operator API does not answer.
    #[error(transparent)]
    Unreachable(#[from] longhand_host::client::ClientError),
    /// A phone answered a command with an error.
    #[error("{code}: {0}", code = .0.code())]
    Phone(#[from] PhoneError),
    /// A process does not do what it was started for.
    #[error("{name}: {reason}; its log is {log}")]
    Process {
        /// Of the process.
        name: String,
        /// What it does instead.
        reason: String,
        /// Where to look.
        log: String,
    },
    /// It does not run, so nothing was asked.
    #[error("{0} does not run")]
    Away(String),
    /// Something takes too long.
    #[error("waited {seconds} s and still not: {what}")]
    Late {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
    },
    /// Something is not as it has to be.
    #[error("{0}")]
    Off(String),
}

/// Asks again and again until there is an answer; for a minute.
///
/// # Errors
/// What `ask` fails with, and [`CastError::Late`].
pub async fn until<T>(
    what: &str,
    mut ask: impl AsyncFnMut() -> Result<Option<T>, CastError>,
) -> Result<T, CastError> {
    let since = Instant::now();
    while since.elapsed() < PATIENCE {
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        tokio::time::sleep(POLL).await;
    }
    Err(late(what))
}

/// Waits for work, and not for ever: for a minute.
///
/// # Errors
/// [`CastError::Late`].
pub async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> Result<T, CastError> {
    tokio::time::timeout(PATIENCE, work)
        .await
        .map_err(|_| late(what))
}

fn late(what: &str) -> CastError {
    CastError::Late {
        what: what.to_owned(),
        seconds: PATIENCE.as_secs(),
    }
}

/// Mines, and waits until the host has seen it.
///
/// # Errors
/// When either does not answer.
pub async fn mine(chain: &Chain, host: &Host, blocks: u32) -> Result<(), CastError> {
    chain.rpc.mine(blocks).await?;
    let height = chain.rpc.source().tip().await?.height;
    until("the host has seen the new blocks", async || {
        Ok((host.status().await?.block_height >= height).then_some(()))
    })
    .await
}

/// Coins from the faucet for an address of the cast, confirmed. Returns what the books are to know of it.
///
/// # Errors
/// When the chain or the host does not answer.
pub async fn give(
    chain: &Chain,
    host: &Host,
    address: &str,
    amount_sat: u64,
) -> Result<(Txid, ScriptBuf), CastError> {
    let txid = chain.faucet(address, amount_sat).await?;
    let wrong = |_| CastError::Off(format!("{address} is not an address"));
    let script = address
        .parse::<Address<_>>()
        .map_err(wrong)?
        .assume_checked()
        .script_pubkey();
    mine(chain, host, 1).await?;
    Ok((txid, script))
}

/// Returns when the process is asked to end, by Ctrl-C or otherwise.
pub async fn asked_to_stop() {
    let kinds = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
        SignalKind::quit(),
    ];
    let mut signals: Vec<_> = kinds
        .into_iter()
        .filter_map(|kind| signal(kind).ok())
        .collect();
    let any = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
    futures::future::select_all(any).await;
}
