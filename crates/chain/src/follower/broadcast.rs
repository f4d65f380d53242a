//! Sends transactions until the source knows them, or they can no longer be valid.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Transaction, Txid};
use tokio::sync::{mpsc, watch};

use crate::{BlockRef, ChainError, ChainSource};

/// Blocks after which a package that is still refused is given up: a day.
const MAX_BLOCKS: u32 = 144;
/// Pause before a source that is down is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// A package that is not known to the source yet.
struct Pending {
    package: Vec<Transaction>,
    /// Its last transaction's, which is what it is for.
    txid: Txid,
    /// Blocks since it was queued.
    blocks: u32,
}

/// What one attempt came to.
#[derive(Debug, PartialEq)]
enum Outcome {
    Known,
    /// Another block may change it.
    Refused,
    Hopeless,
    /// The source is down.
    Down,
}

/// The broadcast task: new packages at once, refused ones again with every block.
pub(super) async fn run(
    source: Arc<dyn ChainSource>,
    mut tips: watch::Receiver<Option<BlockRef>>,
    mut queue: mpsc::UnboundedReceiver<Vec<Transaction>>,
) {
    let mut pending: Vec<Pending> = vec![];
    let mut is_down = false;
    loop {
        tokio::select! {
            package = queue.recv() => {
                let Some(package) = package else { return };
                let Some(txid) = package.last().map(Transaction::compute_txid) else { continue };
                // The same package only once.
                pending.retain(|other| other.package != package);
                let mut new = Pending { package, txid, blocks: 0 };
                match attempt(&*source, &mut new).await {
                    Outcome::Known | Outcome::Hopeless => {}
                    outcome => {
                        is_down |= outcome == Outcome::Down;
                        pending.push(new);
                    }
                }
            }
            changed = tips.changed(), if !is_down => {
                if changed.is_err() {
                    return;
                }
                for package in &mut pending {
                    package.blocks += 1;
                }
                is_down = retry(&*source, &mut pending).await;
            }
            () = tokio::time::sleep(RETRY), if is_down => is_down = retry(&*source, &mut pending).await,
        }
    }
}

/// Tries all again, in the order in which they came; true when the source is down.
async fn retry(source: &dyn ChainSource, pending: &mut Vec<Pending>) -> bool {
    let mut left = vec![];
    let mut is_down = false;
    for mut package in pending.drain(..) {
        let outcome = if is_down {
            Outcome::Down
        } else {
            attempt(source, &mut package).await
        };
        is_down = outcome == Outcome::Down;
        if matches!(outcome, Outcome::Refused | Outcome::Down) {
            left.push(package);
        }
    }
    *pending = left;
    is_down
}

async fn attempt(source: &dyn ChainSource, pending: &mut Pending) -> Outcome {
    let (txid, blocks) = (pending.txid, pending.blocks);
    match source.broadcast(&pending.package).await {
        Ok(()) => {
            tracing::debug!(%txid, "broadcast");
            Outcome::Known
        }
        Err(ChainError::Rejected(reason)) if is_hopeless(&reason) || blocks >= MAX_BLOCKS => {
            tracing::warn!(%txid, reason, "a transaction was refused and given up");
            Outcome::Hopeless
        }
        Err(ChainError::Rejected(reason)) => {
            if blocks == 0 {
                tracing::info!(%txid, reason, "a transaction was refused; trying again with the next block");
            }
            Outcome::Refused
        }
        Err(error) if error.is_of_the_source() => {
            tracing::debug!(%txid, %error, "a transaction waits for the chain source");
            Outcome::Down
        }
        Err(error) => {
            tracing::warn!(%txid, %error, "a transaction could not be sent; trying again with the next block");
            Outcome::Refused
        }
    }
}

/// No block makes these valid.
fn is_hopeless(reason: &str) -> bool {
    const FOREVER: [&str; 8] = [
        "script-verify-flag-failed",
        "bad-txns-in-belowout",
        "bad-txns-vin-empty",
        "bad-txns-vout-empty",
        "bad-txns-inputs-duplicate",
        "bad-txns-vout-toolarge",
        "bad-txns-txouttotal-toolarge",
        "TX decode failed",
    ];
    FOREVER.iter().any(|known| reason.contains(known))
}
