//! How a transaction is handed to a Bitcoin Core, and what its answers mean: the same for one behind RPC and for a
//! devnet in this process.

use async_trait::async_trait;
use bitcoin::{Transaction, Txid};
use lightning_block_sync::rpc::RpcError;
use serde_json::Value;

use crate::ChainError;

/// RPC error codes of Bitcoin Core (`rpc/protocol.h`).
pub(crate) mod code {
    pub(crate) const INVALID_ADDRESS_OR_KEY: i64 = -5;
    pub(crate) const INVALID_PARAMETER: i64 = -8;
    pub(crate) const VERIFY_ERROR: i64 = -25;
    pub(crate) const VERIFY_REJECTED: i64 = -26;
    pub(crate) const ALREADY_IN_UTXO_SET: i64 = -27;
    pub(crate) const IN_WARMUP: i64 = -28;
}

/// A Bitcoin Core's own answer, be it a result or an error of its own; outside of it, why there is none.
pub(crate) type CoreAnswer<T> = Result<Result<T, RpcError>, ChainError>;

/// What handing over transactions needs of a Bitcoin Core.
#[async_trait]
pub(crate) trait Mempool: Sync {
    /// `sendrawtransaction`.
    async fn send_raw(&self, tx: &Transaction) -> CoreAnswer<()>;
    /// `submitpackage`: the whole answer.
    async fn submit_package(&self, package: &[Transaction]) -> CoreAnswer<Value>;
    /// True when the transaction is in the mempool or, with a `txindex`, in the chain.
    async fn knows(&self, txid: &Txid) -> Result<bool, ChainError>;
}

/// See [`crate::ChainSource::broadcast`].
pub(crate) async fn broadcast(
    core: &impl Mempool,
    package: &[Transaction],
) -> Result<(), ChainError> {
    match package {
        [] => Ok(()),
        [tx] => send(core, tx).await,
        _ => {
            let failure = match core.submit_package(package).await? {
                Ok(answer) => package_failure(&answer)?,
                Err(e) => Some(e.message),
            };
            match failure {
                None => Ok(()),
                Some(reason) => send_each(core, package, reason).await,
            }
        }
    }
}

async fn send(core: &impl Mempool, tx: &Transaction) -> Result<(), ChainError> {
    match core.send_raw(tx).await? {
        Ok(()) => Ok(()),
        Err(e) if e.code == code::ALREADY_IN_UTXO_SET || is_known(&e.message) => Ok(()),
        // When all its outputs are spent again, the node cannot tell from them that it has the transaction.
        Err(e)
            if e.message.contains("missingorspent") && core.knows(&tx.compute_txid()).await? =>
        {
            Ok(())
        }
        Err(e) => Err(explain(e)),
    }
}

/// Where a package fails as such, its parents may be in the chain already. So all go one by one, in order:
/// what counts is whether the child gets in.
async fn send_each(
    core: &impl Mempool,
    package: &[Transaction],
    reason: String,
) -> Result<(), ChainError> {
    let mut last = Ok(());
    for tx in package {
        last = send(core, tx).await;
    }
    match last {
        Err(ChainError::Rejected(_)) => Err(ChainError::Rejected(reason)),
        other => other,
    }
}

/// What an error of the node's own means.
pub(crate) fn explain(error: RpcError) -> ChainError {
    match error.code {
        code::INVALID_ADDRESS_OR_KEY | code::INVALID_PARAMETER => {
            ChainError::NotFound(error.message)
        }
        code::VERIFY_ERROR | code::VERIFY_REJECTED => ChainError::Rejected(error.message),
        _ => ChainError::Malformed(error.to_string()),
    }
}

/// What Bitcoin Core says of a transaction that it has already.
fn is_known(message: &str) -> bool {
    [
        "txn-already-in-mempool",
        "txn-already-known",
        "already in block chain",
        "already in utxo set",
    ]
    .iter()
    .any(|known| message.contains(known))
}

/// Why a `submitpackage` failed, from its answer; `None` when all of it is in the mempool.
fn package_failure(answer: &Value) -> Result<Option<String>, ChainError> {
    let message = answer.get("package_msg").and_then(Value::as_str);
    let message =
        message.ok_or_else(|| ChainError::Malformed("no text package_msg".to_string()))?;
    if message == "success" {
        return Ok(None);
    }
    let results = answer.get("tx-results").and_then(Value::as_object);
    let errors = results.into_iter().flat_map(|results| results.values());
    let detail: Vec<&str> = errors
        .filter_map(|result| result.get("error").and_then(Value::as_str))
        .collect();
    if detail.is_empty() {
        Ok(Some(message.to_string()))
    } else {
        Ok(Some(format!("{message}: {}", detail.join("; "))))
    }
}
