//! Broadcasts transactions until the source knows them, or they can no longer be valid.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Transaction, Txid};
use tokio::sync::{Notify, oneshot, watch};

use super::packages::{Packages, Pending};
use crate::{BlockRef, BroadcastAnswer, ChainError, TransactionRelay};

/// Blocks after which a package that is still rejected is given up: a day.
const MAX_BLOCKS: u32 = 144;
/// Pause before the next attempt at a source that is down.
const RETRY: Duration = Duration::from_secs(2);

/// Those who wait for the source's answer, by node and transaction.
type Answers = HashMap<(PublicKey, Txid), Vec<oneshot::Sender<BroadcastAnswer>>>;

/// Packages on their way to the broadcast task.
#[derive(Default)]
pub(super) struct Queue {
    packages: Mutex<Packages>,
    answers: Mutex<Answers>,
    /// Notified when there is a new package.
    added: Notify,
}

impl Queue {
    /// Queues a package of `node`; never waits.
    pub fn add(&self, node: PublicKey, package: Vec<Transaction>) {
        let dropped = self.lock().add(node, package);
        for txid in dropped {
            tracing::warn!(%node, %txid, "a transaction is not kept for broadcast: this node has too many that wait");
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.remove(&(node, txid));
        }
        self.added.notify_one();
    }

    /// The answer to the next attempt at this transaction.
    pub fn answer(&self, node: PublicKey, txid: Txid) -> oneshot::Receiver<BroadcastAnswer> {
        let (sender, answer) = oneshot::channel();
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = answers.entry((node, txid)).or_default();
        waiting.retain(|sender| !sender.is_closed());
        waiting.push(sender);
        answer
    }

    fn answered(&self, node: PublicKey, txid: Txid, answer: &BroadcastAnswer) {
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        for sender in answers.remove(&(node, txid)).unwrap_or_default() {
            let _ = sender.send(answer.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Packages> {
        self.packages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Result of one attempt.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// The source has the package.
    Known,
    /// Refused for this reason; it is sent again with the next block.
    Retry(String),
    /// Refused for this reason; it is not sent again.
    GivenUp(String),
    /// The source is down.
    Down,
}

/// The broadcast task: new packages at once, rejected ones again with every block.
pub(super) async fn run(
    relay: Arc<dyn TransactionRelay>,
    mut tips: watch::Receiver<Option<BlockRef>>,
    queue: Arc<Queue>,
) {
    loop {
        // A package that is queued during an attempt is the next, if none of another node is.
        let next = queue.lock().next();
        let Some((node, pending)) = next else {
            tokio::select! {
                biased;
                () = queue.added.notified() => {}
                changed = tips.changed() => match changed {
                    Ok(()) => queue.lock().block_connected(),
                    Err(_) => return,
                },
            }
            continue;
        };
        match attempt(&*relay, &pending).await {
            Outcome::Known => queue.answered(node, pending.txid, &BroadcastAnswer::Accepted),
            Outcome::GivenUp(reason) => {
                queue.answered(node, pending.txid, &BroadcastAnswer::Refused(reason));
            }
            Outcome::Retry(reason) => {
                queue.answered(node, pending.txid, &BroadcastAnswer::Refused(reason));
                queue.lock().refused(node, pending);
            }
            Outcome::Down => {
                queue.lock().put_back(node, pending);
                tokio::time::sleep(RETRY).await;
            }
        }
        if tips.has_changed().unwrap_or(false) {
            tips.mark_unchanged();
            queue.lock().block_connected();
        }
    }
}

async fn attempt(relay: &dyn TransactionRelay, pending: &Pending) -> Outcome {
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
            Outcome::GivenUp(error.to_string())
        }
        Err(ChainError::Rejected {
            reason,
            is_final: true,
        }) => {
            tracing::warn!(%txid, reason, "a transaction was refused and given up");
            Outcome::GivenUp(reason)
        }
        Err(ChainError::Rejected { reason, .. }) => {
            if blocks == 0 {
                tracing::info!(%txid, reason, "a transaction was refused; trying again with the next block");
            }
            Outcome::Retry(reason)
        }
        Err(error) => {
            tracing::warn!(%txid, %error, "a transaction could not be sent; trying again with the next block");
            Outcome::Retry(error.to_string())
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
    use bitcoin::secp256k1::{Secp256k1, SecretKey};
    use bitcoin::{BlockHash, transaction::Version};
    use tokio::sync::{Semaphore, mpsc};

    /// A relay with scripted answers, which reports each broadcast.
    struct Scripted {
        answers: std::sync::Mutex<Vec<Result<(), ChainError>>>,
        sent: mpsc::UnboundedSender<Txid>,
        /// When there is one, each answer waits for a permit.
        gate: Option<Arc<Semaphore>>,
    }

    #[async_trait]
    impl TransactionRelay for Scripted {
        async fn broadcast(&self, package: &[Transaction]) -> Result<(), ChainError> {
            self.sent
                .send(package.last().unwrap().compute_txid())
                .unwrap();
            if let Some(gate) = &self.gate {
                gate.acquire().await.unwrap().forget();
            }
            self.answers.lock().unwrap().remove(0)
        }
    }

    struct Setup {
        queue: Arc<Queue>,
        tips: watch::Sender<Option<BlockRef>>,
        sent: mpsc::UnboundedReceiver<Txid>,
    }

    fn setup(answers: Vec<Result<(), ChainError>>) -> Setup {
        setup_with(answers, None)
    }

    fn setup_with(answers: Vec<Result<(), ChainError>>, gate: Option<Arc<Semaphore>>) -> Setup {
        let (sent, seen) = mpsc::unbounded_channel();
        let queue = Arc::new(Queue::default());
        let tips = watch::Sender::new(None);
        let source = Arc::new(Scripted {
            answers: answers.into(),
            sent,
            gate,
        });
        tokio::spawn(run(source, tips.subscribe(), queue.clone()));
        Setup {
            queue,
            tips,
            sent: seen,
        }
    }

    fn node(n: u8) -> PublicKey {
        let secret = SecretKey::from_slice(&[n; 32]).unwrap();
        PublicKey::from_secret_key(&Secp256k1::new(), &secret)
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
        setup.queue.add(node(1), vec![tx(1)]);
        for height in 1..=2 {
            assert_eq!(setup.sent.recv().await, Some(tx(1).compute_txid()));
            setup.tips.send_replace(block(height));
        }
        assert_eq!(setup.sent.recv().await, Some(tx(1).compute_txid()));
        // It was accepted: with the next block only the new package is sent.
        setup.tips.send_replace(block(3));
        setup.queue.add(node(1), vec![tx(2)]);
        assert_eq!(setup.sent.recv().await, Some(tx(2).compute_txid()));
    }

    #[tokio::test]
    async fn the_source_s_answer_to_each_attempt_is_reported_to_those_who_asked() {
        let setup = setup(vec![rejected(false), Ok(())]);
        let txid = tx(1).compute_txid();
        let answers = [(); 2].map(|()| setup.queue.answer(node(1), txid));
        let mut of_another = setup.queue.answer(node(2), txid);
        setup.queue.add(node(1), vec![tx(1)]);
        for answer in answers {
            let refused = BroadcastAnswer::Refused("a reason".into());
            assert_eq!(answer.await.unwrap(), refused);
        }
        let next = setup.queue.answer(node(1), txid);
        setup.tips.send_replace(block(1));
        assert_eq!(next.await.unwrap(), BroadcastAnswer::Accepted);
        assert!(of_another.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_package_whose_rejection_is_final_is_given_up() {
        let mut setup = setup(vec![rejected(true), Ok(())]);
        setup.queue.add(node(1), vec![tx(1)]);
        assert_eq!(setup.sent.recv().await, Some(tx(1).compute_txid()));
        setup.tips.send_replace(block(1));
        setup.queue.add(node(1), vec![tx(2)]);
        assert_eq!(setup.sent.recv().await, Some(tx(2).compute_txid()));
    }

    #[tokio::test]
    async fn a_package_that_cannot_be_sent_for_a_day_is_given_up_whatever_the_reason() {
        let strange = || Err(ChainError::Malformed("nothing".into()));
        let attempts = usize::try_from(MAX_BLOCKS).unwrap() + 1;
        let mut answers: Vec<_> = (0..attempts).map(|_| strange()).collect();
        answers.push(Ok(()));
        let mut setup = setup(answers);
        setup.queue.add(node(1), vec![tx(1)]);
        for height in 1..=MAX_BLOCKS {
            assert_eq!(setup.sent.recv().await, Some(tx(1).compute_txid()));
            setup.tips.send_replace(block(height));
        }
        assert_eq!(setup.sent.recv().await, Some(tx(1).compute_txid()));
        setup.tips.send_replace(block(MAX_BLOCKS + 1));
        setup.queue.add(node(1), vec![tx(2)]);
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
        setup.queue.add(node(1), vec![tx(1)]);
        setup.queue.add(node(1), vec![tx(2)]);
        let mut sent = vec![];
        while sent.len() < 5 {
            sent.push(setup.sent.recv().await.unwrap());
        }
        let (first, second) = (tx(1).compute_txid(), tx(2).compute_txid());
        assert_eq!(sent, [first, first, first, first, second]);
    }

    #[tokio::test]
    async fn a_new_package_is_sent_before_the_refused_ones_of_another_node_are_tried_again() {
        let gate = Arc::new(Semaphore::new(3));
        let answers = vec![
            rejected(false),
            rejected(false),
            rejected(false),
            rejected(false),
            Ok(()),
        ];
        let mut setup = setup_with(answers, Some(gate.clone()));
        for n in 1..=3 {
            setup.queue.add(node(1), vec![tx(n)]);
            assert_eq!(setup.sent.recv().await, Some(tx(n).compute_txid()));
        }
        // The new package comes while the first of the refused ones is tried again.
        setup.tips.send_replace(block(1));
        assert_eq!(setup.sent.recv().await, Some(tx(1).compute_txid()));
        setup.queue.add(node(2), vec![tx(4)]);
        gate.add_permits(2);
        assert_eq!(setup.sent.recv().await, Some(tx(4).compute_txid()));
    }
}
