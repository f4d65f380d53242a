//! The chain: a devnet in a process of its own, asked over JSON-RPC.

use std::net::SocketAddr;

use bitcoin::{Amount, Txid};
use serde_json::json;

use super::process::{Launcher, Restartable, Start};
use crate::rpc::Rpc;
use crate::{KitError, Patience};

const PATIENCE: Patience = Patience::REAL;

/// The devnet.
pub struct ChainProcess {
    /// A client of its JSON-RPC.
    pub rpc: Rpc,
    /// Where JSON-RPC is served; the same after a restart.
    pub rpc_bind: SocketAddr,
    /// Where Esplora's REST is served, if it is; the same after a restart.
    pub esplora_bind: Option<SocketAddr>,
    /// User and password of JSON-RPC.
    pub auth: (String, String),
    /// Killed and stopped here.
    pub process: Restartable,
    launcher: Launcher,
}

impl ChainProcess {
    /// Starts one that keeps its blocks on the disk; port 0 takes a free one.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(
        launcher: &Launcher,
        rpc_bind: SocketAddr,
    ) -> Result<ChainProcess, KitError> {
        ChainProcess::start_with(launcher, rpc_bind, None).await
    }

    /// As [`ChainProcess::start`], with Esplora's REST at `esplora_bind`.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_with(
        launcher: &Launcher,
        rpc_bind: SocketAddr,
        esplora_bind: Option<SocketAddr>,
    ) -> Result<ChainProcess, KitError> {
        let mut process = Restartable::new("the devnet");
        process.spawn(start(launcher, rpc_bind, esplora_bind))?;
        let ready = process.wait_until_ready().await?;
        let text = |key: &str| ready[key].as_str().unwrap_or_default().to_owned();
        let address = |key: &str| {
            let url = text(key);
            url.trim_start_matches("http://").parse().map_err(|_| {
                KitError::Unexpected(format!("devnet does not report its address: {ready}"))
            })
        };
        let rpc_bind = address("rpc")?;
        let esplora_bind = esplora_bind.map(|_| address("esplora")).transpose()?;
        let auth = (text("user"), text("password"));
        Ok(ChainProcess {
            rpc: Rpc::new(rpc_bind, auth.0.clone(), auth.1.clone()),
            rpc_bind,
            esplora_bind,
            auth,
            process,
            launcher: launcher.clone(),
        })
    }

    /// Starts it again on its address and its files, and does not wait until it is ready.
    ///
    /// # Errors
    /// When the system cannot start it.
    pub fn spawn_again(&mut self) -> Result<(), KitError> {
        let start = start(&self.launcher, self.rpc_bind, self.esplora_bind);
        self.process.spawn(start)
    }

    /// Waits until the mempool has a transaction.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn in_mempool(&self, txid: &str) -> Result<(), KitError> {
        PATIENCE
            .until(&format!("{txid} is in the mempool"), async || {
                let pool = self.rpc.call("getrawmempool", &[]).await?;
                Ok(pool
                    .as_array()
                    .is_some_and(|pool| pool.iter().any(|t| t == txid))
                    .then_some(()))
            })
            .await
    }

    /// Waits until the mempool has a transaction that spends an output, `txid:vout`. Returns its id.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn spent_in_mempool(&self, outpoint: &str) -> Result<Txid, KitError> {
        let (txid, vout) = outpoint.split_once(':').unwrap_or((outpoint, "0"));
        let output = json!([{ "txid": txid, "vout": vout.parse::<u32>().unwrap_or(0) }]);
        PATIENCE
            .until(&format!("{outpoint} is being spent"), async || {
                let spent = self
                    .rpc
                    .call("gettxspendingprevout", std::slice::from_ref(&output))
                    .await?;
                Ok(spent[0]["spendingtxid"]
                    .as_str()
                    .and_then(|txid| txid.parse().ok()))
            })
            .await
    }

    /// Sends coins from the faucet, without a block.
    ///
    /// # Errors
    /// When the devnet does not do it.
    pub async fn faucet(&self, address: &str, amount_sat: u64) -> Result<Txid, KitError> {
        let txid = self
            .rpc
            .faucet(address, Amount::from_sat(amount_sat))
            .await?;
        txid.parse()
            .map_err(|_| KitError::Unexpected("the faucet gave no transaction id".into()))
    }
}

fn start(launcher: &Launcher, rpc_bind: SocketAddr, esplora_bind: Option<SocketAddr>) -> Start<'_> {
    let data_dir = launcher.dir.join("devnet").display().to_string();
    let rpc_bind = rpc_bind.to_string();
    let args = [
        "devnet",
        "--json",
        "--rpc-bind",
        &rpc_bind,
        "--data-dir",
        &data_dir,
    ];
    let mut args: Vec<String> = args.map(str::to_owned).into();
    if let Some(bind) = esplora_bind {
        args.extend(["--esplora".to_owned(), bind.to_string()]);
    }
    Start {
        launcher,
        name: "devnet",
        args,
        env: vec![],
    }
}
