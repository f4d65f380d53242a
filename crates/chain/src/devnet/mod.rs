//! `devnet`: a regtest in this process, on Bitcoin Core's consensus library.
//!
//! For tests and for trying things out. The library on which Bitcoin Core itself runs validates blocks and scripts;
//! around it are a mempool, a miner with a wallet, Bitcoin Core's JSON-RPC and, on request, Esplora's REST. A [`Devnet`] is used in the process by
//! its methods, and from elsewhere (also by a stock lnd) over RPC.
//!
//! [`Devnet::in_process`] has no sockets and no tasks at all, and [`Devnet::direct_source`] reaches a devnet without
//! RPC: that is for simulations, where the same seed has to give the same blocks.
//!
//! Inside: `state` has all of it under one lock; `chain` mirrors the decisions of `kernel`, `log` stores the
//! blocks, and `filters` makes their compact filters; `mempool` is the structure and `policy` the rules (`standard`, `locks`, `replacement`, `truc`); `miner` and
//! `wallet` make blocks and payments; `rpc` serves JSON-RPC, `esplora` serves REST, and `direct` is the source in the
//! process.

mod chain;
mod direct;
mod error;
mod esplora;
mod filters;
mod kernel;
mod listen;
mod locks;
mod log;
mod mempool;
mod miner;
mod policy;
mod replacement;
mod rpc;
mod standard;
mod state;
mod truc;
mod wallet;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::secp256k1::SecretKey;
use bitcoin::{Address, Amount, Block, BlockHash, Network, ScriptBuf, Transaction, Txid};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::chain::{ChainState, Scratch};
pub use self::direct::DirectSource;
pub use self::error::DevnetError;
use self::log::{BlockLog, Record};
use self::state::State;
use self::wallet::MinerWallet;
use crate::{BitcoindAuth, BitcoindSource, BlockRef, FeeRates};

/// Files in the data directory.
const LOG_FILE: &str = "blocks.log";
const KEY_FILE: &str = "miner.key";
/// The library's block files, which are not used after a restart.
const SCRATCH_DIR: &str = "kernel";

/// How a [`Devnet`] is run.
#[derive(Clone)]
pub struct DevnetConfig {
    /// Directory of the blocks and the miner's key; `None` for a chain that is not kept after the process.
    pub data_dir: Option<PathBuf>,
    /// Address of JSON-RPC; port 0 takes a free one.
    pub rpc_bind: SocketAddr,
    /// Address of Esplora's REST, which anybody can use who reaches it; port 0 takes a free one, `None` serves none.
    pub esplora_bind: Option<SocketAddr>,
    /// The RPC user.
    pub user: String,
    /// The RPC password.
    pub password: String,
    /// Interval at which a block is mined to the wallet; `None` for mining on request alone.
    pub block_interval: Option<Duration>,
    /// Blocks mined to the wallet when the chain is new; with more than 100 the faucet has mature coins at once.
    pub premine: u32,
}

impl Default for DevnetConfig {
    fn default() -> DevnetConfig {
        DevnetConfig {
            data_dir: None,
            rpc_bind: SocketAddr::from(([127, 0, 0, 1], 0)),
            esplora_bind: None,
            user: "devnet".into(),
            password: "devnet".into(),
            block_interval: None,
            premine: 110,
        }
    }
}

/// A chain to start with: mined once, and loaded quickly as often as wanted.
#[derive(Clone)]
pub struct PreparedChain {
    /// Its blocks from height 1 on, in order.
    pub blocks: Vec<Block>,
    /// The key of the built-in wallet, which has the rewards of the blocks.
    pub miner_key: SecretKey,
}

impl std::fmt::Debug for PreparedChain {
    /// Shows no key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PreparedChain({} blocks)", self.blocks.len())
    }
}

/// A running devnet. Dropping it stops it and, without a data directory, removes all its files.
///
/// All methods but [`Devnet::start`] and [`Devnet::shutdown`] may be called inside or outside of a runtime; they block
/// for milliseconds.
pub struct Devnet {
    shared: Arc<Shared>,
    rpc_addr: SocketAddr,
    esplora_addr: Option<SocketAddr>,
    user: String,
    password: String,
    interval: watch::Sender<Option<Duration>>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

/// State shared by the handle, the RPC server and the mining timer.
struct Shared {
    state: Mutex<State>,
    interval: watch::Sender<Option<Duration>>,
    started: std::time::Instant,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Devnet {
    /// Starts a devnet: loads its blocks, mines the first ones of a new chain, serves RPC and, if configured, REST.
    ///
    /// # Errors
    /// [`DevnetError::Data`] when the directory is in use, unreadable or holds something else; [`DevnetError::Bind`]
    /// when the port is taken.
    pub async fn start(config: DevnetConfig) -> Result<Devnet, DevnetError> {
        let (listener, rpc_addr) = bind(config.rpc_bind).await?;
        let esplora = match config.esplora_bind {
            Some(addr) => Some(bind(addr).await?),
            None => None,
        };
        let mut state = open(config.data_dir.as_deref())?;
        if state.chain.tip().height == 0 {
            let script = state.wallet.script();
            state.mine(config.premine, &script)?;
        }
        let mut devnet = Devnet::without_sockets(state);
        devnet.interval.send_replace(config.block_interval);
        let (shared, stopped) = (devnet.shared.clone(), devnet.stop.subscribe());
        let server = rpc::serve(
            listener,
            shared.clone(),
            &config.user,
            &config.password,
            stopped.clone(),
        );
        devnet.tasks.push(tokio::spawn(server));
        if let Some((listener, addr)) = esplora {
            let server = esplora::serve(listener, shared.clone(), stopped.clone());
            devnet.tasks.push(tokio::spawn(server));
            devnet.esplora_addr = Some(addr);
        }
        let timer = mine_by_timer(shared, devnet.interval.subscribe(), stopped);
        devnet.tasks.push(tokio::spawn(timer));
        devnet.rpc_addr = rpc_addr;
        devnet.user = config.user;
        devnet.password = config.password;
        tracing::info!(%rpc_addr, height = devnet.tip().height, "devnet is up");
        Ok(devnet)
    }

    /// A devnet for a test: in a temporary directory, RPC on a free loopback port, mining on request, and a faucet with
    /// mature coins.
    ///
    /// # Errors
    /// As [`Devnet::start`].
    pub async fn start_default() -> Result<Devnet, DevnetError> {
        Devnet::start(DevnetConfig::default()).await
    }

    /// A devnet in this process alone: no RPC, no tasks, mining on request, in a temporary directory. Its first
    /// `premine` blocks are mined to the wallet; with more than 100 the faucet has mature coins at once.
    ///
    /// # Errors
    /// [`DevnetError::Data`] when there is no temporary directory.
    pub fn in_process(premine: u32) -> Result<Devnet, DevnetError> {
        let mut state = open(None)?;
        let script = state.wallet.script();
        state.mine(premine, &script)?;
        Ok(Devnet::without_sockets(state))
    }

    /// As [`Devnet::in_process`], with blocks that were mined before, which are validated again.
    ///
    /// # Errors
    /// [`DevnetError::Block`] when they are no chain, or from the future; as [`Devnet::in_process`].
    pub fn in_process_from(prepared: &PreparedChain) -> Result<Devnet, DevnetError> {
        let records = prepared.blocks.iter().cloned().map(Record::Block).collect();
        let chain = ChainState::open(scratch()?, None, records)?;
        if chain.best_chain().count() != prepared.blocks.len() {
            return Err(DevnetError::Block(
                "the prepared blocks are not one chain from the first block on".into(),
            ));
        }
        let wallet = MinerWallet::new(prepared.miner_key);
        Ok(Devnet::without_sockets(State::new(chain, wallet)))
    }

    /// As [`Devnet::in_process_from`], for a chain of another devnet of this process. Its blocks are not validated, nor
    /// are blocks mined from the mempool, whose transactions were validated one by one, until a block may be invalid
    /// (one of a reorganisation, or from outside), or [`Devnet::validate`] is called.
    ///
    /// # Errors
    /// [`DevnetError::Block`] when they are no chain; as [`Devnet::in_process`].
    pub fn in_process_trusting(prepared: &PreparedChain) -> Result<Devnet, DevnetError> {
        let chain = ChainState::trusting(scratch()?, prepared.blocks.iter().cloned())?;
        let wallet = MinerWallet::new(prepared.miner_key);
        Ok(Devnet::without_sockets(State::new(chain, wallet)))
    }

    /// Validates all blocks that [`Devnet::in_process_trusting`] has not validated yet. Any other devnet has validated
    /// all of its blocks.
    ///
    /// # Errors
    /// [`DevnetError::Block`] when one is not valid; as [`Devnet::in_process`].
    pub fn validate(&self) -> Result<(), DevnetError> {
        self.shared.state().chain.validate()
    }

    fn without_sockets(state: State) -> Devnet {
        let interval = watch::Sender::new(None);
        let shared = Shared {
            state: Mutex::new(state),
            interval: interval.clone(),
            started: std::time::Instant::now(),
        };
        Devnet {
            shared: Arc::new(shared),
            rpc_addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            esplora_addr: None,
            user: String::new(),
            password: String::new(),
            interval,
            stop: watch::Sender::new(false),
            tasks: vec![],
        }
    }

    /// The best chain and the wallet's key, for [`Devnet::in_process_from`].
    pub fn prepared(&self) -> PreparedChain {
        let state = self.shared.state();
        PreparedChain {
            blocks: state
                .chain
                .best_chain()
                .map(|block| (**block).clone())
                .collect(),
            miner_key: state.wallet.key(),
        }
    }

    /// Address of JSON-RPC; port 0 when this devnet serves none.
    pub fn rpc_addr(&self) -> SocketAddr {
        self.rpc_addr
    }

    /// [`Devnet::rpc_addr`] as `http://host:port`.
    pub fn rpc_url(&self) -> String {
        format!("http://{}", self.rpc_addr)
    }

    /// The base of Esplora's REST, `http://host:port`, if this devnet serves it.
    pub fn esplora_url(&self) -> Option<String> {
        self.esplora_addr.map(|addr| format!("http://{addr}"))
    }

    /// The credentials of the RPC server.
    pub fn rpc_auth(&self) -> BitcoindAuth {
        BitcoindAuth::UserPassword {
            user: self.user.clone(),
            password: self.password.clone(),
        }
    }

    /// A source that reaches this devnet over RPC.
    pub fn source(&self) -> BitcoindSource {
        BitcoindSource::new(self.rpc_url(), self.rpc_auth(), Network::Regtest)
    }

    /// A source that reaches this devnet without RPC, with the same answers. It never waits, and works inside or
    /// outside of a runtime.
    pub fn direct_source(&self) -> DirectSource {
        DirectSource {
            shared: self.shared.clone(),
        }
    }

    /// Sets the fee rates of both sources, and the mempool's minimum. At first all are at the floor.
    ///
    /// A source never reports a rate below that of a farther target, nor one below [`FeeRates::FLOOR`].
    pub fn set_fee_rates(&self, fee_rates: FeeRates) {
        self.shared.state().set_fee_rates(fee_rates);
    }

    /// The best block.
    pub fn tip(&self) -> BlockRef {
        self.shared.state().chain.tip()
    }

    /// A block, in the best chain or out of it.
    pub fn block(&self, hash: &BlockHash) -> Option<Block> {
        self.shared
            .state()
            .chain
            .block(hash)
            .map(|stored| (*stored.block).clone())
    }

    /// The hash at a height of the best chain.
    pub fn hash_at(&self, height: u32) -> Option<BlockHash> {
        self.shared.state().chain.hash_at(height)
    }

    /// The height of the block of the best chain that has this transaction.
    pub fn confirmed_at(&self, txid: &Txid) -> Option<u32> {
        self.shared
            .state()
            .chain
            .block_of(txid)
            .map(|stored| stored.height)
    }

    /// A transaction, in the mempool or the best chain.
    pub fn transaction(&self, txid: &Txid) -> Option<Transaction> {
        let state = self.shared.state();
        if let Some(entry) = state.pool.get(txid) {
            return Some((*entry.tx).clone());
        }
        let stored = state.chain.block_of(txid)?;
        stored
            .block
            .txdata
            .iter()
            .find(|tx| tx.compute_txid() == *txid)
            .cloned()
    }

    /// An unspent output of the best chain (the mempool does not count).
    pub fn unspent(&self, outpoint: &bitcoin::OutPoint) -> Option<bitcoin::TxOut> {
        self.shared
            .state()
            .chain
            .coin(outpoint)
            .map(|coin| coin.output.clone())
    }

    /// Mines `n` blocks from the mempool, their reward to `script`. Returns their hashes, the new tip last.
    ///
    /// # Errors
    /// [`DevnetError::Data`] when the disk fails, [`DevnetError::Clock`] when the clock went back too far.
    pub fn mine(&self, n: u32, script: ScriptBuf) -> Result<Vec<BlockHash>, DevnetError> {
        self.shared.state().mine(n, &script)
    }

    /// Mines `n` blocks from the mempool, their reward to the built-in wallet.
    ///
    /// # Errors
    /// As [`Devnet::mine`].
    pub fn mine_to_wallet(&self, n: u32) -> Result<Vec<BlockHash>, DevnetError> {
        let mut state = self.shared.state();
        let script = state.wallet.script();
        state.mine(n, &script)
    }

    /// Disconnects the last `depth` blocks and mines `depth + 1` others: the first with `txs` (and nothing else), the
    /// rest empty. Transactions of the old blocks that are still valid return to the mempool. Returns the new blocks.
    ///
    /// # Errors
    /// [`DevnetError::Invalid`] when the chain is not that long, [`DevnetError::Block`] when `txs` are not valid there.
    pub fn reorg(&self, depth: u32, txs: Vec<Transaction>) -> Result<Vec<BlockHash>, DevnetError> {
        self.shared.state().reorg(depth, txs)
    }

    /// Sends from the built-in wallet; the transaction is then in the mempool, not yet in a block. Mines first when
    /// the wallet has too little that is mature.
    ///
    /// # Errors
    /// [`DevnetError::Faucet`] when the wallet has too little, [`DevnetError::Rejected`] for dust.
    pub fn faucet(&self, address: &Address, amount: Amount) -> Result<Txid, DevnetError> {
        self.shared.state().faucet(&address.script_pubkey(), amount)
    }

    /// As [`Devnet::faucet`], to any script.
    ///
    /// # Errors
    /// As [`Devnet::faucet`].
    pub fn faucet_to_script(&self, script: ScriptBuf, amount: Amount) -> Result<Txid, DevnetError> {
        self.shared.state().faucet(&script, amount)
    }

    /// Adds a transaction to the mempool.
    ///
    /// # Errors
    /// [`DevnetError::Rejected`] with Bitcoin Core's reason.
    pub fn submit(&self, tx: &Transaction) -> Result<Txid, DevnetError> {
        let submitted = self.shared.state().submit(&Arc::new(tx.clone()));
        submitted.map_err(|reject| DevnetError::Rejected(reject.message()))
    }

    /// The transactions in the mempool, parents first.
    pub fn mempool(&self) -> Vec<Transaction> {
        self.shared
            .state()
            .pool
            .in_order()
            .into_iter()
            .map(|entry| (*entry.tx).clone())
            .collect()
    }

    /// The HTTP status and body with which the RPC server answers `body`.
    #[cfg(feature = "fuzzing")]
    pub fn answer_rpc(&self, body: &[u8]) -> (u16, Option<String>) {
        rpc::answer_body(&self.shared, body)
    }

    /// Sets the interval at which a block is mined to the wallet; `None` for none. Has no effect in a devnet without
    /// RPC, which has no task.
    pub fn set_block_interval(&self, interval: Option<Duration>) {
        self.interval.send_replace(interval);
    }

    /// Stops serving and mining; returns when that is done.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        for task in std::mem::take(&mut self.tasks) {
            if let Err(error) = task.await {
                tracing::warn!(%error, "a devnet task ended badly");
            }
        }
    }
}

impl Drop for Devnet {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Loads the state of `data_dir`. Without one, it is in memory and in a temporary directory.
fn open(data_dir: Option<&Path>) -> Result<State, DevnetError> {
    let Some(dir) = data_dir else {
        let chain = ChainState::open(scratch()?, None, vec![])?;
        return Ok(State::new(chain, MinerWallet::random()));
    };
    let failed = |e: std::io::Error| DevnetError::Data(format!("{}: {e}", dir.display()));
    std::fs::create_dir_all(dir).map_err(failed)?;
    // First the log, whose lock keeps other processes out of the directory.
    let (log, records) = BlockLog::open(&dir.join(LOG_FILE))?;
    let wallet = MinerWallet::open(&dir.join(KEY_FILE))?;
    let scratch = dir.join(SCRATCH_DIR);
    if scratch.exists() {
        std::fs::remove_dir_all(&scratch).map_err(failed)?;
    }
    let chain = ChainState::open(Scratch::Dir(scratch), Some(log), records)?;
    Ok(State::new(chain, wallet))
}

/// A listener, with its address.
async fn bind(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), DevnetError> {
    let failed = |e: std::io::Error| DevnetError::Bind {
        addr,
        reason: e.to_string(),
    };
    let listener = TcpListener::bind(addr).await.map_err(failed)?;
    let addr = listener.local_addr().map_err(failed)?;
    Ok((listener, addr))
}

/// A temporary directory for the library.
fn scratch() -> Result<Scratch, DevnetError> {
    // With the process's number, since the simulation draws the same random part in each process.
    let prefix = format!("devnet-{}-", std::process::id());
    let dir = tempfile::Builder::new().prefix(&prefix).tempdir();
    let dir = dir.map_err(|e| DevnetError::Data(format!("temporary directory: {e}")))?;
    Ok(Scratch::Temporary(dir))
}

async fn mine_by_timer(
    shared: Arc<Shared>,
    mut interval: watch::Receiver<Option<Duration>>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let wait = *interval.borrow_and_update();
        let tick = async {
            match wait {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => return,
            // Before the tick, so that a timer that was turned off mines no more.
            changed = interval.changed() => if changed.is_err() { return },
            () = tick => {
                let mut state = shared.state();
                let script = state.wallet.script();
                if let Err(error) = state.mine(1, &script) {
                    tracing::error!(%error, "devnet could not mine");
                }
            }
        }
    }
}
