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
        // First what is new: a package goes out at once, also when blocks come fast. That the queue has ended says that the
        // follower has.
        tokio::select! {
            biased;
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
        Err(error) if blocks >= MAX_BLOCKS && !error.is_of_the_source() => {
            tracing::warn!(%txid, %error, "a transaction could not be sent for a day and is given up");
            Outcome::Hopeless
        }
        Err(ChainError::Rejected(reason)) if is_hopeless(&reason) => {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use crate::FeeRates;
    use async_trait::async_trait;
    use bitcoin::absolute::LockTime;
    use bitcoin::block::Header;
    use bitcoin::hashes::Hash as _;
    use bitcoin::{Block, BlockHash, OutPoint, TxOut, transaction::Version};

    /// A source that gives these answers to broadcasts, and says what it was sent.
    struct Scripted {
        answers: std::sync::Mutex<Vec<Result<(), ChainError>>>,
        sent: mpsc::UnboundedSender<Txid>,
    }

    #[async_trait]
    impl ChainSource for Scripted {
        async fn broadcast(&self, package: &[Transaction]) -> Result<(), ChainError> {
            self.sent
                .send(package.last().unwrap().compute_txid())
                .unwrap();
            self.answers.lock().unwrap().remove(0)
        }
        async fn tip(&self) -> Result<BlockRef, ChainError> {
            unreachable!()
        }
        async fn header(&self, _: &BlockHash) -> Result<(Header, u32), ChainError> {
            unreachable!()
        }
        async fn hash_at(&self, _: u32) -> Result<BlockHash, ChainError> {
            unreachable!()
        }
        async fn block(&self, _: &BlockHash) -> Result<Block, ChainError> {
            unreachable!()
        }
        async fn fee_rates(&self) -> Result<FeeRates, ChainError> {
            unreachable!()
        }
        async fn unspent(&self, _: &OutPoint) -> Result<Option<TxOut>, ChainError> {
            unreachable!()
        }
        async fn transaction_at(&self, _: u32, _: u32) -> Result<Option<Transaction>, ChainError> {
            unreachable!()
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

    fn refused(reason: &str) -> Result<(), ChainError> {
        Err(ChainError::Rejected(reason.into()))
    }

    fn block(height: u32) -> Option<BlockRef> {
        Some(BlockRef {
            height,
            hash: BlockHash::all_zeros(),
        })
    }

    #[tokio::test]
    async fn what_is_refused_is_sent_again_with_the_next_block_until_it_is_taken() {
        let mut setup = setup(vec![
            refused("non-final"),
            refused("non-final"),
            Ok(()),
            Ok(()),
        ]);
        setup.queue.send(vec![tx(1)]).unwrap();
        for height in 1..=2 {
            assert_eq!(setup.sent.recv().await, Some(tx(1).compute_txid()));
            setup.tips.send_replace(block(height));
        }
        assert_eq!(setup.sent.recv().await, Some(tx(1).compute_txid()));
        // It was taken: with the next block only what is new is sent.
        setup.tips.send_replace(block(3));
        setup.queue.send(vec![tx(2)]).unwrap();
        assert_eq!(setup.sent.recv().await, Some(tx(2).compute_txid()));
    }

    #[tokio::test]
    async fn what_can_never_be_valid_is_given_up() {
        let bad = "mandatory-script-verify-flag-failed (the script failed)";
        let mut setup = setup(vec![refused(bad), Ok(())]);
        setup.queue.send(vec![tx(1)]).unwrap();
        assert_eq!(setup.sent.recv().await, Some(tx(1).compute_txid()));
        setup.tips.send_replace(block(1));
        setup.queue.send(vec![tx(2)]).unwrap();
        assert_eq!(setup.sent.recv().await, Some(tx(2).compute_txid()));
    }

    #[tokio::test]
    async fn what_cannot_be_sent_for_a_day_is_given_up_whatever_the_reason() {
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
    async fn a_source_that_is_down_gets_all_of_it_later_in_order() {
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
