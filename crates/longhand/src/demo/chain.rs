//! The demo's chain: a devnet in a process of its own, asked over JSON-RPC.

use std::net::SocketAddr;
use std::path::Path;

use bitcoin::{Amount, Txid};
use serde_json::json;

use super::DemoError;
use super::processes::{Process, Start};
use super::world::until;
use crate::devnet_cli::Rpc;

/// The devnet.
pub(super) struct Chain {
    pub rpc: Rpc,
    /// Where JSON-RPC is served.
    pub rpc_bind: SocketAddr,
    process: Process,
}

impl Chain {
    pub async fn start(dir: &Path) -> Result<Chain, DemoError> {
        let data_dir = dir.join("devnet").display().to_string();
        let args = [
            "devnet",
            "--json",
            "--rpc-bind",
            "127.0.0.1:0",
            "--data-dir",
            &data_dir,
        ];
        let start = Start {
            name: "devnet",
            dir,
            args: args.map(str::to_owned).into(),
            env: vec![],
        };
        let process = Process::start(start).await?;
        let text = |key: &str| process.ready[key].as_str().unwrap_or_default().to_owned();
        let rpc_bind = text("rpc")
            .trim_start_matches("http://")
            .parse()
            .map_err(|_| {
                DemoError::Off(format!(
                    "devnet does not say where it is: {}",
                    process.ready
                ))
            })?;
        let rpc = Rpc::new(rpc_bind, text("user"), text("password"));
        Ok(Chain {
            rpc,
            rpc_bind,
            process,
        })
    }

    /// Where it is and how to identify there, as it said when it was ready.
    pub fn ready(&self) -> &serde_json::Value {
        &self.process.ready
    }

    /// Waits until the mempool has a transaction.
    pub async fn in_mempool(&self, txid: &str) -> Result<(), DemoError> {
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
    pub async fn spent_in_mempool(&self, outpoint: &str) -> Result<Txid, DemoError> {
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
    pub async fn faucet(&self, address: &str, amount_sat: u64) -> Result<Txid, DemoError> {
        let txid = self
            .rpc
            .faucet(address, Amount::from_sat(amount_sat))
            .await?;
        txid.parse()
            .map_err(|_| DemoError::Off("the faucet gave no transaction id".into()))
    }
}
