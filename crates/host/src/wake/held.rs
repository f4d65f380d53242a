//! Payments that the hub holds for owners' nodes whose phones are away, and how long it holds them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use tokio::task::AbortHandle;

use crate::tasks::Tasks;

/// The owners' nodes for which the hub holds payments.
pub(crate) struct Held {
    limit: Duration,
    tasks: Arc<Tasks>,
    waiting: Mutex<HashMap<PublicKey, Waiting>>,
}

struct Waiting {
    deadline_height: u32,
    timer: AbortHandle,
}

impl Held {
    pub fn new(limit: Duration, tasks: Arc<Tasks>) -> Held {
        Held {
            limit,
            tasks,
            waiting: Mutex::default(),
        }
    }

    /// A payment is held. The limit counts from the first one for this node; `give_up` is called at its end.
    pub fn hold(
        &self,
        node_id: PublicKey,
        deadline_height: u32,
        give_up: impl FnOnce() + Send + 'static,
    ) {
        let mut waiting = self.lock();
        match waiting
            .get_mut(&node_id)
            .filter(|waiting| !waiting.timer.is_finished())
        {
            Some(known) => known.deadline_height = known.deadline_height.min(deadline_height),
            None => {
                let limit = self.limit;
                let timer = self.tasks.spawn(async move {
                    tokio::time::sleep(limit).await;
                    give_up();
                });
                let Some(timer) = timer else { return };
                waiting.insert(
                    node_id,
                    Waiting {
                        deadline_height,
                        timer,
                    },
                );
            }
        }
    }

    /// Ends the limit: the hub has forwarded the payments.
    pub fn release(&self, node_id: &PublicKey) {
        if let Some(waiting) = self.lock().remove(node_id) {
            waiting.timer.abort();
        }
    }

    /// Removes and returns the nodes whose deadline this height has reached.
    pub fn due(&self, height: u32) -> Vec<PublicKey> {
        let mut waiting = self.lock();
        let due = waiting.extract_if(|_, waiting| waiting.deadline_height <= height);
        due.filter(|(_, waiting)| !waiting.timer.is_finished())
            .map(|(node_id, waiting)| {
                waiting.timer.abort();
                node_id
            })
            .collect()
    }

    /// Ends all limits, and gives no payment up.
    pub fn stop(&self) {
        for (_, waiting) in self.lock().drain() {
            waiting.timer.abort();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PublicKey, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use bitcoin::secp256k1::{Secp256k1, SecretKey};
    use tokio::sync::mpsc;

    use super::*;

    fn node(n: u8) -> PublicKey {
        SecretKey::from_slice(&[n; 32])
            .unwrap()
            .public_key(&Secp256k1::new())
    }

    /// A hub's held payments, and those that were given up.
    fn held() -> (Held, impl Fn(&Held, u8, u32), mpsc::UnboundedReceiver<u8>) {
        let (given_up, failed) = mpsc::unbounded_channel();
        let hold = move |held: &Held, n: u8, deadline: u32| {
            let given_up = given_up.clone();
            held.hold(node(n), deadline, move || {
                let _ = given_up.send(n);
            });
        };
        let held = Held::new(Duration::from_secs(60), Arc::new(Tasks::new()));
        (held, hold, failed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_payment_is_given_up_when_the_first_has_waited_for_the_limit() {
        let (held, hold, mut failed) = held();
        let start = tokio::time::Instant::now();
        hold(&held, 1, 100);
        tokio::time::sleep(Duration::from_secs(50)).await;
        hold(&held, 1, 100);
        assert_eq!(failed.recv().await, Some(1));
        assert_eq!(start.elapsed().as_secs(), 60);

        hold(&held, 1, 100);
        assert_eq!(failed.recv().await, Some(1));
        assert_eq!(start.elapsed().as_secs(), 120);
    }

    #[tokio::test(start_paused = true)]
    async fn a_phone_that_comes_ends_the_limit() {
        let (held, hold, mut failed) = held();
        hold(&held, 1, 100);
        hold(&held, 2, 100);
        held.release(&node(1));
        assert_eq!(failed.recv().await, Some(2));
        tokio::time::sleep(Duration::from_secs(120)).await;
        assert!(failed.try_recv().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_deadline_comes_before_the_limit() {
        let (held, hold, mut failed) = held();
        hold(&held, 1, 100);
        hold(&held, 1, 90);
        hold(&held, 2, 200);
        assert_eq!(held.due(89), []);
        assert_eq!(held.due(90), [node(1)]);
        assert_eq!(held.due(90), []);
        assert_eq!(
            failed.recv().await,
            Some(2),
            "the timer of the first ended with it"
        );
    }
}
