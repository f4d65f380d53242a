//! The chain: a devnet in a process of its own, asked over JSON-RPC.

use std::net::SocketAddr;

use bitcoin::{Amount, Txid};
use serde_json::json;

use super::process::{Process, Stage, Start};
use super::rpc::Rpc;
use super::{CastError, until};

/// The devnet.
pub struct Chain {
    /// How it is asked.
    pub rpc: Rpc,
    /// Where JSON-RPC is served; the same after a restart.
    pub rpc_bind: SocketAddr,
    /// Its name and password.
    pub auth: (String, String),
    stage: Stage,
    process: Option<Process>,
}

impl Chain {
    /// Starts one, which keeps its blocks on the disk; port 0 takes a free one.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(stage: &Stage, rpc_bind: SocketAddr) -> Result<Chain, CastError> {
        let process = Process::start(start(stage, rpc_bind)).await?;
        let text = |key: &str| process.ready()[key].as_str().unwrap_or_default().to_owned();
        let rpc_bind = text("rpc")
            .trim_start_matches("http://")
            .parse()
            .map_err(|_| {
                CastError::Off(format!(
                    "devnet does not say where it is: {}",
                    process.ready()
                ))
            })?;
        let auth = (text("user"), text("password"));
        Ok(Chain {
            rpc: Rpc::new(rpc_bind, auth.0.clone(), auth.1.clone()),
            rpc_bind,
            auth,
            stage: stage.clone(),
            process: Some(process),
        })
    }

    /// Starts it where it was before, on what it has on the disk. Does not wait for it.
    ///
    /// # Errors
    /// When the system cannot start it.
    pub fn spawn_again(&mut self) -> Result<(), CastError> {
        self.process = Some(Process::spawn(start(&self.stage, self.rpc_bind))?);
        Ok(())
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn wait_until_ready(&mut self) -> Result<(), CastError> {
        match &mut self.process {
            Some(process) => process.wait_until_ready().await,
            None => Err(CastError::Away("the devnet".into())),
        }
    }

    /// Its process, while it runs.
    pub fn process(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When the system does not do it.
    pub async fn kill(&mut self) -> Result<(), CastError> {
        match self.process.take() {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// SIGTERM.
    ///
    /// # Errors
    /// When it does not end, or not well.
    pub async fn stop(&mut self) -> Result<(), CastError> {
        match self.process.take() {
            Some(process) => process.stop().await,
            None => Ok(()),
        }
    }

    /// Waits until the mempool has a transaction.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn in_mempool(&self, txid: &str) -> Result<(), CastError> {
        until(&format!("{txid} is in the mempool"), async || {
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
    pub async fn spent_in_mempool(&self, outpoint: &str) -> Result<Txid, CastError> {
        let (txid, vout) = outpoint.split_once(':').unwrap_or((outpoint, "0"));
        let output = json!([{ "txid": txid, "vout": vout.parse::<u32>().unwrap_or(0) }]);
        until(&format!("{outpoint} is being spent"), async || {
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
    pub async fn faucet(&self, address: &str, amount_sat: u64) -> Result<Txid, CastError> {
        let txid = self
            .rpc
            .faucet(address, Amount::from_sat(amount_sat))
            .await?;
        txid.parse()
            .map_err(|_| CastError::Off("the faucet gave no transaction id".into()))
    }
}

fn start(stage: &Stage, rpc_bind: SocketAddr) -> Start<'_> {
    let data_dir = stage.dir.join("devnet").display().to_string();
    let rpc_bind = rpc_bind.to_string();
    let args = [
        "devnet",
        "--json",
        "--rpc-bind",
        &rpc_bind,
        "--data-dir",
        &data_dir,
    ];
    Start {
        stage,
        name: "devnet",
        args: args.map(str::to_owned).into(),
        env: vec![],
    }
}
