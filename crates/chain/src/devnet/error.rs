//! Errors of a devnet.

use std::net::SocketAddr;

use bitcoin::Amount;

/// Why a devnet could not start, or a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevnetError {
    /// The data directory cannot be used.
    #[error("devnet's data cannot be used: {0}")]
    Data(String),
    /// The port of RPC or of Esplora's REST cannot be bound.
    #[error("devnet cannot listen on {addr} ({reason}): choose another port")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// The error of the system.
        reason: String,
    },
    /// The mempool rejects the transaction: Bitcoin Core's reject reason.
    #[error("the transaction was refused: {0}")]
    Rejected(String),
    /// The consensus library rejects a block.
    #[error("the block was refused: {0}")]
    Block(String),
    /// The time of a block would be in the future, which the consensus library rejects.
    #[error(
        "this machine's clock is {behind_s} s behind the chain: set it right; no block was made"
    )]
    Clock {
        /// Seconds by which the earliest possible time is ahead of the clock.
        behind_s: u64,
    },
    /// The wallet has too little.
    #[error("the faucet has {have} and cannot send {want}: ask for less")]
    Faucet {
        /// The amount that can be spent.
        have: Amount,
        /// The requested amount.
        want: Amount,
    },
    /// The arguments are invalid.
    #[error("{0}")]
    Invalid(String),
    /// The consensus library failed.
    #[error("Bitcoin Core's consensus library failed: {0}")]
    Kernel(String),
}
