//! Relay through a Bitcoin Core: how a transaction is submitted, and which of its errors and reject reasons mean that
//! it is known already, that it may be sent again later, or that it never will be valid.
//!
//! The same for a Bitcoin Core behind RPC and for a devnet in this process. No other file reads the texts of Bitcoin
//! Core.

use async_trait::async_trait;
use bitcoin::{Transaction, Txid};
use lightning_block_sync::rpc::RpcError;
use longhand_base::text::excerpt;
use serde_json::Value;

use crate::ChainError;

/// RPC error codes of Bitcoin Core (`rpc/protocol.h`).
pub(crate) mod code {
    pub(crate) const MISC_ERROR: i64 = -1;
    pub(crate) const INVALID_ADDRESS_OR_KEY: i64 = -5;
    pub(crate) const INVALID_PARAMETER: i64 = -8;
    pub(crate) const DESERIALIZATION_ERROR: i64 = -22;
    pub(crate) const VERIFY_ERROR: i64 = -25;
    pub(crate) const VERIFY_REJECTED: i64 = -26;
    pub(crate) const ALREADY_IN_UTXO_SET: i64 = -27;
    pub(crate) const IN_WARMUP: i64 = -28;
}

/// Reject reasons of a transaction that breaks the consensus rules by itself (`consensus/tx_check.cpp`,
/// `consensus/tx_verify.cpp`, `validation.cpp`). Not `bad-txns-inputs-missingorspent` and
/// `bad-txns-premature-spend-of-coinbase`, which a later block can change.
const FINAL_REASONS: [&str; 12] = [
    "bad-txns-vin-empty",
    "bad-txns-vout-empty",
    "bad-txns-oversize",
    "bad-txns-vout-negative",
    "bad-txns-vout-toolarge",
    "bad-txns-txouttotal-toolarge",
    "bad-txns-inputs-duplicate",
    "bad-txns-prevout-null",
    "bad-txns-inputvalues-outofrange",
    "bad-txns-in-belowout",
    "bad-txns-fee-outofrange",
    "coinbase",
];

/// End of the reject reason when a script fails, after `mandatory-` or, since version 30, `mempool-`.
const SCRIPT_FAILED: &str = "script-verify-flag-failed";

/// In the message for a block that was deleted (`rpc/blockchain.cpp`).
const PRUNED: &str = "pruned data";

/// Start of the message when `blockfilterindex` is off (`rpc/blockchain.cpp`).
const NO_FILTERS: &str = "Index is not enabled for filtertype";

/// Start of the message when that index has not come to the block yet.
const NO_FILTER_YET: &str = "Filter not found";

/// The result of a call to a Bitcoin Core, or its RPC error; outside of it, why there is no answer.
pub(crate) type CoreAnswer<T> = Result<Result<T, RpcError>, ChainError>;

/// The calls to a Bitcoin Core that relay needs.
#[async_trait]
pub(crate) trait CoreMempool: Sync {
    /// `sendrawtransaction`.
    async fn send_raw(&self, tx: &Transaction) -> CoreAnswer<()>;
    /// `submitpackage`: the whole answer.
    async fn submit_package(&self, package: &[Transaction]) -> CoreAnswer<Value>;
    /// True when the transaction is in the mempool or, with a `txindex`, in the chain.
    async fn knows(&self, txid: &Txid) -> Result<bool, ChainError>;
}

/// See [`crate::TransactionRelay::broadcast`].
pub(crate) async fn broadcast(
    core: &impl CoreMempool,
    package: &[Transaction],
) -> Result<(), ChainError> {
    match package {
        [] => Ok(()),
        [tx] => send(core, tx).await,
        _ => {
            let rejection = match core.submit_package(package).await? {
                Ok(answer) => package_rejection(&answer)?,
                Err(error) => Some(Rejection::from(error)),
            };
            match rejection {
                None => Ok(()),
                Some(rejection) => send_each(core, package, rejection).await,
            }
        }
    }
}

async fn send(core: &impl CoreMempool, tx: &Transaction) -> Result<(), ChainError> {
    match core.send_raw(tx).await? {
        Ok(()) => Ok(()),
        Err(e) if e.code == code::ALREADY_IN_UTXO_SET || is_known(&e.message) => Ok(()),
        // When all its outputs are spent again, the node cannot see from them that it has the transaction.
        Err(e)
            if e.message.contains("missingorspent") && core.knows(&tx.compute_txid()).await? =>
        {
            Ok(())
        }
        Err(e) if e.code == code::DESERIALIZATION_ERROR => Err(Rejection::from(e).into()),
        Err(e) => Err(explain(e)),
    }
}

/// Sends the transactions one by one, in order, when the package as such is rejected: its parents may be in the chain
/// already, and only the child counts.
async fn send_each(
    core: &impl CoreMempool,
    package: &[Transaction],
    rejection: Rejection,
) -> Result<(), ChainError> {
    let mut last = Ok(());
    for tx in package {
        last = send(core, tx).await;
    }
    match last {
        Err(ChainError::Rejected { is_final, .. }) => Err(ChainError::Rejected {
            reason: rejection.reason,
            is_final: rejection.is_final || is_final,
        }),
        other => other,
    }
}

/// The [`ChainError`] for an RPC error.
pub(crate) fn explain(error: RpcError) -> ChainError {
    match error.code {
        code::INVALID_ADDRESS_OR_KEY | code::INVALID_PARAMETER => {
            ChainError::NotFound(excerpt(&error.message))
        }
        code::MISC_ERROR if error.message.contains(PRUNED) => ChainError::Pruned,
        code::MISC_ERROR if error.message.starts_with(NO_FILTERS) => ChainError::NoFilters,
        code::MISC_ERROR if error.message.starts_with(NO_FILTER_YET) => {
            ChainError::NotFound("the block's compact filter yet: wait until all are made".into())
        }
        code::VERIFY_ERROR | code::VERIFY_REJECTED => Rejection::from(error).into(),
        _ => ChainError::Malformed(excerpt(&error.to_string())),
    }
}

/// Why a transaction or a package is rejected.
#[derive(Debug, PartialEq)]
struct Rejection {
    reason: String,
    is_final: bool,
}

impl From<RpcError> for Rejection {
    fn from(error: RpcError) -> Rejection {
        let RpcError { code, message } = error;
        Rejection {
            is_final: code == code::DESERIALIZATION_ERROR || is_final(&message),
            reason: excerpt(&message),
        }
    }
}

impl From<Rejection> for ChainError {
    fn from(Rejection { reason, is_final }: Rejection) -> ChainError {
        ChainError::Rejected { reason, is_final }
    }
}

/// True when no block can make a transaction valid that is rejected with this message. A message begins with the
/// reject reason; details for people follow.
fn is_final(message: &str) -> bool {
    let reason = message.split([',', ' ']).next().unwrap_or_default();
    FINAL_REASONS.contains(&reason) || reason.ends_with(SCRIPT_FAILED)
}

/// True when Bitcoin Core rejects a transaction because it has it already.
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

/// Why a `submitpackage` failed, from its answer; `None` when all of the package is in the mempool.
fn package_rejection(answer: &Value) -> Result<Option<Rejection>, ChainError> {
    let message = answer.get("package_msg").and_then(Value::as_str);
    let message =
        message.ok_or_else(|| ChainError::Malformed("no text package_msg".to_string()))?;
    if message == "success" {
        return Ok(None);
    }
    let results = answer.get("tx-results").and_then(Value::as_object);
    let errors = results.into_iter().flat_map(|results| results.values());
    let errors: Vec<&str> = errors
        .filter_map(|result| result.get("error").and_then(Value::as_str))
        .collect();
    let reason = if errors.is_empty() {
        message.to_string()
    } else {
        format!("{message}: {}", errors.join("; "))
    };
    let is_final = errors.iter().any(|error| is_final(error));
    let reason = excerpt(&reason);
    Ok(Some(Rejection { reason, is_final }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::Mutex;

    use bitcoin::absolute::LockTime;
    use bitcoin::transaction::Version;
    use serde_json::json;

    use super::*;

    /// A Bitcoin Core with scripted answers: one to `submitpackage`, and one to each `sendrawtransaction`.
    struct Scripted {
        package: Result<Value, (i64, &'static str)>,
        singles: Mutex<Vec<Result<(), (i64, &'static str)>>>,
    }

    impl Scripted {
        fn single(answer: Result<(), (i64, &'static str)>) -> Scripted {
            Scripted {
                package: Ok(Value::Null),
                singles: vec![answer].into(),
            }
        }
    }

    fn rpc_error((code, message): (i64, &str)) -> RpcError {
        let message = message.to_string();
        RpcError { code, message }
    }

    #[test]
    fn a_pruned_block_is_another_error_than_an_answer_that_cannot_be_read() {
        let message = "Block not available (pruned data)";
        let pruned = explain(rpc_error((code::MISC_ERROR, message)));
        assert!(matches!(pruned, ChainError::Pruned), "{pruned}");
        let other = explain(rpc_error((code::MISC_ERROR, "Can't read block from disk")));
        assert!(matches!(other, ChainError::Malformed(_)), "{other}");
    }

    #[async_trait]
    impl CoreMempool for Scripted {
        async fn send_raw(&self, _: &Transaction) -> CoreAnswer<()> {
            Ok(self.singles.lock().unwrap().remove(0).map_err(rpc_error))
        }
        async fn submit_package(&self, _: &[Transaction]) -> CoreAnswer<Value> {
            Ok(self.package.clone().map_err(rpc_error))
        }
        async fn knows(&self, _: &Txid) -> Result<bool, ChainError> {
            Ok(false)
        }
    }

    fn tx(n: u32) -> Transaction {
        Transaction {
            version: Version::TWO,
            lock_time: LockTime::from_consensus(n),
            input: vec![],
            output: vec![],
        }
    }

    /// Whether the rejection of a broadcast is final.
    async fn finality(core: &Scripted, package: &[Transaction]) -> bool {
        match broadcast(core, package).await {
            Err(ChainError::Rejected { is_final, .. }) => is_final,
            other => panic!("{other:?} is no rejection"),
        }
    }

    #[tokio::test]
    async fn a_transaction_that_breaks_a_consensus_rule_is_rejected_for_ever() {
        for (code, message) in [
            (-26, "bad-txns-vin-empty"),
            (
                -26,
                "bad-txns-in-belowout, value in (1.00) < value out (2.00)",
            ),
            (-26, "coinbase"),
            (
                -26,
                "mandatory-script-verify-flag-failed (Script failed an OP_EQUALVERIFY operation), input 0 of 00",
            ),
            (
                -26,
                "mempool-script-verify-flag-failed (Signature must be zero)",
            ),
            (
                -22,
                "TX decode failed. Make sure the tx has at least one input.",
            ),
        ] {
            let core = Scripted::single(Err((code, message)));
            assert!(finality(&core, &[tx(1)]).await, "{message}");
        }
    }

    #[tokio::test]
    async fn a_transaction_that_a_later_block_may_make_valid_is_not_rejected_for_ever() {
        for (code, message) in [
            (-25, "bad-txns-inputs-missingorspent"),
            (
                -26,
                "bad-txns-premature-spend-of-coinbase, tried to spend coinbase at depth 3",
            ),
            (-26, "non-final"),
            (-26, "non-BIP68-final"),
            (-26, "min relay fee not met, 109 < 110"),
            (-26, "insufficient fee, rejecting replacement 00"),
            (-26, "txn-mempool-conflict"),
            (
                -25,
                "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)",
            ),
            // A reason counts at the start of a message only, not in the details.
            (-26, "bad-txns-nonstandard-inputs, like bad-txns-vin-empty"),
        ] {
            let core = Scripted::single(Err((code, message)));
            assert!(!finality(&core, &[tx(1)]).await, "{message}");
        }
    }

    #[test]
    fn a_block_that_was_deleted_is_not_an_answer_that_cannot_be_read() {
        let pruned = rpc_error((-1, "Block not available (pruned data)"));
        assert!(matches!(explain(pruned), ChainError::Pruned));
        let other = rpc_error((-1, "Block not found on disk"));
        assert!(matches!(explain(other), ChainError::Malformed(_)));
    }

    #[test]
    fn filters_that_are_off_are_told_from_those_that_are_not_made_yet() {
        let off = explain(rpc_error((-1, "Index is not enabled for filtertype basic")));
        assert!(matches!(off, ChainError::NoFilters), "{off}");
        assert!(!off.is_source_unavailable());
        let message = "Filter not found. Block filters are still in the process of being indexed.";
        let not_yet = explain(rpc_error((-1, message)));
        assert!(matches!(not_yet, ChainError::NotFound(_)), "{not_yet}");
        let message = "Filter not found. Block was not connected to active chain.";
        let stale = explain(rpc_error((-5, message)));
        assert!(matches!(stale, ChainError::NotFound(_)), "{stale}");
        let message = "Filter not found. This error is unexpected and indicates index corruption.";
        let damaged = explain(rpc_error((-32_603, message)));
        assert!(matches!(damaged, ChainError::Malformed(_)), "{damaged}");
    }

    #[test]
    fn a_message_that_would_steer_a_terminal_is_harmless() {
        for code in [-1, -5, -25, -26] {
            let error = explain(rpc_error((code, "all\u{1b}[2J is\nwell")));
            assert!(error.to_string().contains("all [2J is well"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_package_is_rejected_for_ever_with_any_of_its_transactions() {
        let failed = |parent: &str, child: &str| {
            Ok(json!({
                "package_msg": "transaction failed",
                "tx-results": { "a": { "error": parent }, "b": { "error": child } },
            }))
        };
        let missing = "bad-txns-inputs-missingorspent";
        let core = Scripted {
            package: failed("bad-txns-vout-empty", missing),
            singles: vec![Err((-26, "bad-txns-vout-empty")), Err((-25, missing))].into(),
        };
        assert!(finality(&core, &[tx(1), tx(2)]).await);

        let core = Scripted {
            package: failed(missing, missing),
            singles: vec![Err((-25, missing)), Err((-25, missing))].into(),
        };
        assert!(!finality(&core, &[tx(1), tx(2)]).await);

        let core = Scripted {
            package: Err((
                -22,
                "TX decode failed: 00 Make sure the tx has at least one input.",
            )),
            singles: vec![Ok(()), Err((-25, missing))].into(),
        };
        assert!(finality(&core, &[tx(1), tx(2)]).await);
    }

    #[tokio::test]
    async fn a_package_whose_child_gets_in_by_itself_is_broadcast() {
        let core = Scripted {
            package: Err((-26, "package-not-sorted")),
            singles: vec![
                Err((-27, "Transaction outputs already in utxo set")),
                Ok(()),
            ]
            .into(),
        };
        broadcast(&core, &[tx(1), tx(2)]).await.unwrap();
    }
}
