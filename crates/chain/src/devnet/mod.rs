//! `devnet`: a regtest in this process, on Bitcoin Core's consensus library.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bitcoin::{Address, Amount, Block, BlockHash, ScriptBuf, Transaction, Txid};

use crate::{BitcoindSource, BlockRef};

/// How a [`Devnet`] is run.
#[derive(Clone)]
pub struct DevnetConfig {
    /// Where blocks and the miner's key are kept; `None` for a chain that ends with the process.
    pub data_dir: Option<PathBuf>,
    /// Where JSON-RPC is served; port 0 takes a free one.
    pub rpc_bind: SocketAddr,
    /// The RPC user.
    pub user: String,
    /// The RPC password.
    pub password: String,
    /// Mines a block to the wallet this often; `None` for mining on request alone.
    pub block_interval: Option<Duration>,
    /// Blocks mined to the wallet when the chain is new; more than 100 make the faucet ready at once.
    pub premine: u32,
}

impl Default for DevnetConfig {
    fn default() -> DevnetConfig {
        DevnetConfig {
            data_dir: None,
            rpc_bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            user: "devnet".into(),
            password: "devnet".into(),
            block_interval: None,
            premine: 110,
        }
    }
}

/// A running devnet. Dropping it stops it and, without a data directory, removes all it wrote.
pub struct Devnet {}

impl Devnet {
    /// Starts a devnet: reads back its blocks, mines the first ones of a new chain, serves RPC.
    pub async fn start(_config: DevnetConfig) -> Result<Devnet, DevnetError> {
        Err(DevnetError::Data("not yet".into()))
    }
    /// A devnet for a test: in a temporary directory, RPC on a free loopback port.
    pub async fn start_default() -> Result<Devnet, DevnetError> {
        Devnet::start(DevnetConfig::default()).await
    }
    /// Where JSON-RPC is served.
    pub fn rpc_addr(&self) -> SocketAddr {
        unreachable!()
    }
    /// [`Devnet::rpc_addr`] as `http://host:port`.
    pub fn rpc_url(&self) -> String {
        unreachable!()
    }
    /// A source that reaches this devnet over RPC, with its credentials.
    pub fn source(&self) -> BitcoindSource {
        unreachable!()
    }
    /// The best block.
    pub fn tip(&self) -> BlockRef {
        unreachable!()
    }
    /// A block, in the best chain or out of it.
    pub fn block(&self, _hash: &BlockHash) -> Option<Block> {
        unreachable!()
    }
    /// Mines `n` blocks from the mempool, their reward to `script`.
    pub fn mine(&self, _n: u32, _script: ScriptBuf) -> Result<Vec<BlockHash>, DevnetError> {
        unreachable!()
    }
    /// Mines `n` blocks from the mempool, their reward to the built-in wallet.
    pub fn mine_to_wallet(&self, _n: u32) -> Result<Vec<BlockHash>, DevnetError> {
        unreachable!()
    }
    /// Disconnects the last `depth` blocks and mines `depth + 1` others.
    pub fn reorg(
        &self,
        _depth: u32,
        _txs: Vec<Transaction>,
    ) -> Result<Vec<BlockHash>, DevnetError> {
        unreachable!()
    }
    /// Sends from the built-in wallet; the transaction is then in the mempool, not yet in a block.
    pub fn faucet(&self, _address: &Address, _amount: Amount) -> Result<Txid, DevnetError> {
        unreachable!()
    }
    /// Takes a transaction into the mempool.
    pub fn submit(&self, _tx: &Transaction) -> Result<Txid, DevnetError> {
        unreachable!()
    }
    /// The transactions in the mempool, parents first.
    pub fn mempool(&self) -> Vec<Transaction> {
        unreachable!()
    }
    /// Mines a block this often from now on; `None` stops it.
    pub fn set_block_interval(&self, _interval: Option<Duration>) {}
    /// Stops serving and mining; returns when that is done.
    pub async fn shutdown(self) {}
}

/// Why a devnet could not start or do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DevnetError {
    /// The data directory cannot be used.
    #[error("devnet's data cannot be used: {0}")]
    Data(String),
    /// The RPC port cannot be bound.
    #[error("devnet cannot serve RPC on {addr} ({reason}): choose another port")]
    Bind {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        reason: String,
    },
    /// The mempool does not take the transaction: Bitcoin Core's reject reason.
    #[error("the transaction was refused: {0}")]
    Rejected(String),
    /// The consensus library does not take a block.
    #[error("the block was refused: {0}")]
    Block(String),
    /// The wallet has too little.
    #[error("the faucet has {have} and cannot send {want}: ask for less")]
    Faucet {
        /// What could be spent.
        have: Amount,
        /// What was asked for.
        want: Amount,
    },
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The consensus library failed.
    #[error("Bitcoin Core's consensus library failed: {0}")]
    Kernel(String),
}
