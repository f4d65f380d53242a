//! Looks up the funding output of an announced channel: the graph takes only channels whose funding output exists and is
//! unspent (BOLT 7).

use std::sync::Arc;
use std::time::Duration;

use bitcoin::constants::ChainHash;
use bitcoin::{Network, OutPoint, TxOut};
use lightning::routing::utxo::{UtxoFuture, UtxoLookup, UtxoLookupError, UtxoResult};
use lightning::util::wakers::Notifier;
use longhand_chain::{Chain, ChainError, OutputLookup};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

/// Lookups that run at once; more wait. A new graph needs tens of thousands of them.
const LOOKUPS_AT_ONCE: usize = 16;

/// How long one lookup may take. LDK holds back other gossip while too many are open.
pub(super) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks the chain source for the funding outputs of announced channels, each in a task of its own.
pub(crate) struct FundingLookup {
    chain_hash: ChainHash,
    chain: Arc<dyn Chain>,
    runtime: Handle,
    permits: Arc<Semaphore>,
}

impl FundingLookup {
    /// Must be called within the tokio runtime on which the lookups are to run.
    pub fn new(network: Network, chain: Arc<dyn Chain>) -> FundingLookup {
        FundingLookup {
            chain_hash: ChainHash::using_genesis_block(network),
            chain,
            runtime: Handle::current(),
            permits: Arc::new(Semaphore::new(LOOKUPS_AT_ONCE)),
        }
    }
}

impl UtxoLookup for FundingLookup {
    fn get_utxo(
        &self,
        chain_hash: &ChainHash,
        short_channel_id: u64,
        done: Arc<Notifier>,
    ) -> UtxoResult {
        if *chain_hash != self.chain_hash {
            return UtxoResult::Sync(Err(UtxoLookupError::UnknownChain));
        }
        let future = UtxoFuture::new(done);
        let (answer, outputs, permits) =
            (future.clone(), self.chain.outputs(), self.permits.clone());
        self.runtime.spawn(async move {
            // The semaphore is never closed; if it were, the lookup would run without waiting.
            let _permit = permits.acquire_owned().await;
            let lookup = funding_output(outputs.as_ref(), short_channel_id);
            let found = tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await;
            answer.resolve(match found {
                Ok(Ok(Some(output))) => Ok(output),
                Ok(Ok(None)) => Err(UtxoLookupError::UnknownTx),
                Ok(Err(e)) => {
                    tracing::debug!("an announced channel could not be looked up: {e}");
                    Err(UtxoLookupError::UnknownTx)
                }
                Err(_) => {
                    tracing::debug!("looking up an announced channel took too long");
                    Err(UtxoLookupError::UnknownTx)
                }
            });
        });
        UtxoResult::Async(future)
    }
}

/// The output at a short channel id (BOLT 7: block height, transaction index, output index); `None` when there is none or
/// it is spent.
async fn funding_output(
    outputs: &dyn OutputLookup,
    short_channel_id: u64,
) -> Result<Option<TxOut>, ChainError> {
    let height = (short_channel_id >> 40) as u32;
    let index = ((short_channel_id >> 16) & 0xff_ffff) as u32;
    let vout = (short_channel_id & 0xffff) as u32;
    match outputs.transaction_at(height, index).await? {
        Some(tx) => {
            outputs
                .unspent(&OutPoint {
                    txid: tx.compute_txid(),
                    vout,
                })
                .await
        }
        None => Ok(None),
    }
}
