//! Broadcasts transactions until the source knows them, or they can no longer be valid.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::{Transaction, Txid};
use tokio::sync::{mpsc, watch};

use crate::{BlockRef, ChainError, TransactionRelay};

/// Blocks after which a package that is still rejected is given up: a day.
const MAX_BLOCKS: u32 = 144;
/// Pause before the next attempt at a source that is down.
const RETRY: Duration = Duration::from_secs(2);

/// A package that is not known to the source yet.
struct Pending {
    package: Vec<Transaction>,
    /// Id of the last transaction, the child for which the package is sent.
    txid: Txid,
    /// Blocks since it was queued.
    blocks: u32,
}

/// Result of one attempt.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// The source has the package.
    Known,
    /// It is sent again with the next block.
    Retry,
    /// It is not sent again.
    GivenUp,
    /// The source is down.
    Down,
}

/// The broadcast task: new packages at once, rejected ones again with every block.
pub(super) async fn run(
    relay: Arc<dyn TransactionRelay>,
    mut tips: watch::Receiver<Option<BlockRef>>,
    mut queue: mpsc::UnboundedReceiver<Vec<Transaction>>,
) {
    let mut pending: Vec<Pending> = vec![];
    let mut is_down = false;
    loop {
        // New packages first, so that they are sent at once also when blocks come fast. The queue closes when the
        // follower is dropped.
        tokio::select! {
            biased;
            package = queue.recv() => {
                let Some(package) = package else { return };
                let Some(txid) = package.last().map(Transaction::compute_txid) else { continue };
                // The same package only once.
                pending.retain(|other| other.package != package);
                let mut new = Pending { package, txid, blocks: 0 };
                match attempt(&*relay, &mut new).await {
                    Outcome::Known | Outcome::GivenUp => {}
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
                is_down = retry(&*relay, &mut pending).await;
            }
            () = tokio::time::sleep(RETRY), if is_down => is_down = retry(&*relay, &mut pending).await,
        }
    }
}

/// Sends all pending packages again, in the order in which they were queued; true when the source is down.
async fn retry(relay: &dyn TransactionRelay, pending: &mut Vec<Pending>) -> bool {
    let mut left = vec![];
    let mut is_down = false;
    for mut package in pending.drain(..) {
        let outcome = if is_down {
            Outcome::Down
        } else {
            attempt(relay, &mut package).await
        };
        is_down = outcome == Outcome::Down;
        if matches!(outcome, Outcome::Retry | Outcome::Down) {
            left.push(package);
        }
    }
    *pending = left;
    is_down
}

async fn attempt(relay: &dyn TransactionRelay, pending: &mut Pending) -> Outcome {
    let (txid, blocks) = (pending.txid, pending.blocks);
    match relay.broadcast(&pending.package).await {
        Ok(()) => {
            tracing::debug!(%txid, "broadcast");
            Outcome::Known
        }
        Err(error) if error.is_source_unavailable() => {
            tracing::debug!(%txid, %error, "a transaction waits for the chain source");
            Outcome::Down
        }
        Err(error) if blocks >= MAX_BLOCKS => {
            tracing::warn!(%txid, %error, "a transaction could not be sent for a day and is given up");
            Outcome::GivenUp
        }
        Err(ChainError::Rejected {
            reason,
            is_final: true,
        }) => {
            tracing::warn!(%txid, reason, "a transaction was refused and given up");
            Outcome::GivenUp
        }
        Err(ChainError::Rejected { reason, .. }) => {
            if blocks == 0 {
                tracing::info!(%txid, reason, "a transaction was refused; trying again with the next block");
            }
            Outcome::Retry
        }
        Err(error) => {
            tracing::warn!(%txid, %error, "a transaction could not be sent; trying again with the next block");
            Outcome::Retry
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use async_trait::async_trait;
    use bitcoin::absolute::LockTime;
    use bitcoin::hashes::Hash as _;
    use bitcoin::{BlockHash, transaction::Version};

    /// A relay with scripted answers, which reports each broadcast.
    struct Scripted {
        answers: std::sync::Mutex<Vec<Result<(), ChainError>>>,
        sent: mpsc::UnboundedSender<Txid>,
    }

    #[async_trait]
    impl TransactionRelay for Scripted {
        async fn broadcast(&self, package: &[Transaction]) -> Result<(), ChainError> {
            self.sent
                .send(package.last().unwrap().compute_txid())
                .unwrap();
            self.answers.lock().unwrap().remove(0)
        }
    }

    struct Setup {
        queue: mpsc::UnboundedSender<Vec<Transaction>>,
        tips: watch::Sender<Option<BlockRef>>,
        sent: mpsc::UnboundedReceiver<Txid>,
    }

    fn setup(answers: Vec<Result<(), ChainError>>) -> Setup {
        let (sent, seen) = mpsc::unbounded_channel();
        let (queue, packages) = mpsc::unbounded_channel();
        let tips = watch::Sender::new(None);
        let source = Arc::new(Scripted {
            answers: answers.into(),
            sent,
        });
        tokio::spawn(run(source, tips.subscribe(), packages));
        Setup {
            queue,
            tips,
            sent: seen,
        }
    }

    fn tx(n: u32) -> Transaction {
        let lock_time = LockTime::from_consensus(n);
        Transaction {
            version: Version::TWO,
            lock_time,
            input: vec![],
            output: vec![],
        }
    }

    fn rejected(is_final: bool) -> Result<(), ChainError> {
        Err(ChainError::Rejected {
            reason: "a reason".into(),
            is_final,
        })
    }

    fn block(height: u32) -> Option<BlockRef> {
        Some(BlockRef {
            height,
            hash: BlockHash::all_zeros(),
        })
    }

    #[tokio::test]
    async fn a_rejected_package_is_sent_again_with_the_next_block_until_it_is_accepted() {
        let mut setup = setup(vec![rejected(false), rejected(false), Ok(()), Ok(())]);
        setup.queue.send(vec![tx(1)]).unwrap();
        for height in 1..=2 {
            assert_eq!(setup.sent.recv().await, Some(tx(1).compute_txid()));
            setup.tips.send_replace(block(height));
        }
        assert_eq!(setup.sent.recv().await, Some(tx(1).compute_txid()));
        // It was accepted: with the next block only the new package is sent.
        setup.tips.send_replace(block(3));
        setup.queue.send(vec![tx(2)]).unwrap();
        assert_eq!(setup.sent.recv().await, Some(tx(2).compute_txid()));
    }

    #[tokio::test]
    async fn a_package_whose_rejection_is_final_is_given_up() {
        let mut setup = setup(vec![rejected(true), Ok(())]);
        setup.queue.send(vec![tx(1)]).unwrap();
        assert_eq!(setup.sent.recv().await, Some(tx(1).compute_txid()));
        setup.tips.send_replace(block(1));
        setup.queue.send(vec![tx(2)]).unwrap();
        assert_eq!(setup.sent.recv().await, Some(tx(2).compute_txid()));
    }

    #[tokio::test]
    async fn a_package_that_cannot_be_sent_for_a_day_is_given_up_whatever_the_reason() {
        let strange = || Err(ChainError::Malformed("nothing".into()));
        let attempts = usize::try_from(MAX_BLOCKS).unwrap() + 1;
        let mut answers: Vec<_> = (0..attempts).map(|_| strange()).collect();
        answers.push(Ok(()));
        let mut setup = setup(answers);
        setup.queue.send(vec![tx(1)]).unwrap();
        for height in 1..=MAX_BLOCKS {
            assert_eq!(setup.sent.recv().await, Some(tx(1).compute_txid()));
            setup.tips.send_replace(block(height));
        }
        assert_eq!(setup.sent.recv().await, Some(tx(1).compute_txid()));
        setup.tips.send_replace(block(MAX_BLOCKS + 1));
        setup.queue.send(vec![tx(2)]).unwrap();
        assert_eq!(setup.sent.recv().await, Some(tx(2).compute_txid()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_was_down_gets_all_packages_in_order() {
        let down = || {
            Err(ChainError::Unreachable {
                url: String::new(),
                reason: String::new(),
            })
        };
        let mut setup = setup(vec![down(), down(), down(), Ok(()), Ok(())]);
        setup.queue.send(vec![tx(1)]).unwrap();
        setup.queue.send(vec![tx(2)]).unwrap();
        let mut sent = vec![];
        while sent.len() < 5 {
            sent.push(setup.sent.recv().await.unwrap());
        }
        let (first, second) = (tx(1).compute_txid(), tx(2).compute_txid());
        assert_eq!(sent, [first, second, first, first, second]);
    }
}
