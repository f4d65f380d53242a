//! Waking phones: a call to the owner's wake URL, again and again, until the phone is there or it is too late.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longhand_link::OwnerId;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::config::WakeConfig;
use crate::metrics::Metrics;
use crate::outside::{Outside, WakeCall, WakeError, WakeReason};

/// All calls in progress, at most one for each owner.
pub(crate) struct Wakes {
    outside: Arc<dyn Outside>,
    config: WakeConfig,
    metrics: Metrics,
    calling: Mutex<HashMap<OwnerId, Calling>>,
}

struct Calling {
    call: WakeCall,
    task: AbortHandle,
}

impl Wakes {
    pub fn new(config: WakeConfig, outside: Arc<dyn Outside>, metrics: Metrics) -> Wakes {
        Wakes {
            outside,
            config,
            metrics,
            calling: Mutex::default(),
        }
    }

    /// Begins to call, or goes on when a call for a deadline as early is in progress.
    pub fn wake(self: &Arc<Self>, owner: OwnerId, url: &str, call: WakeCall) {
        let mut calling = self.lock();
        if let Some(current) = calling.get(&owner)
            && current.call.deadline_height <= call.deadline_height
            && !current.task.is_finished()
        {
            return;
        }
        tracing::info!(owner = call.owner, reason = ?call.reason, call.deadline_height, "waking a phone");
        let (wakes, url, body) = (self.clone(), url.to_owned(), call.clone());
        let task = tokio::spawn(async move { wakes.repeat(&url, &body).await }).abort_handle();
        if let Some(earlier) = calling.insert(owner, Calling { call, task }) {
            earlier.task.abort();
        }
    }

    /// The phone is there.
    pub fn arrived(&self, owner: &OwnerId) {
        if let Some(calling) = self.lock().remove(owner) {
            calling.task.abort();
        }
    }

    /// The payments that waited for the phone were given back: there is nothing to call it for, unless an HTLC needs it.
    pub fn given_back(&self, owner: &OwnerId) {
        let mut calling = self.lock();
        if let Some(current) = calling.get(owner)
            && current.call.reason == WakeReason::Payment
        {
            current.task.abort();
            calling.remove(owner);
        }
    }

    /// The chain has reached `height`: calls whose deadline has passed end.
    pub fn block(&self, height: u32) {
        self.lock().retain(|_, calling| {
            let goes_on = calling.call.deadline_height > height;
            if !goes_on {
                tracing::warn!(
                    owner = calling.call.owner,
                    reason = ?calling.call.reason,
                    deadline_height = calling.call.deadline_height,
                    "the phone did not come before its deadline"
                );
                self.metrics.deadlines_missed.inc();
                calling.task.abort();
            }
            goes_on
        });
    }

    /// Ends all calls.
    pub fn stop(&self) {
        for (_, calling) in self.lock().drain() {
            calling.task.abort();
        }
    }

    /// Also after the push service took a call: only the phone itself ends this.
    async fn repeat(&self, url: &str, call: &WakeCall) {
        for attempt in 0.. {
            let result = self.call_once(url, call).await;
            self.metrics.count_wake(result.is_ok());
            match result {
                Ok(()) => tracing::debug!(owner = call.owner, attempt, "wake URL called"),
                Err(error) => {
                    tracing::warn!(owner = call.owner, attempt, %error, "wake URL failed")
                }
            }
            tokio::time::sleep(pause(&self.config, attempt)).await;
        }
    }

    async fn call_once(&self, url: &str, call: &WakeCall) -> Result<(), WakeError> {
        let limit = Duration::from_millis(self.config.timeout_ms);
        let called = timeout(limit, self.outside.wake(url, call)).await;
        called.unwrap_or_else(|_| Err(WakeError("no answer in time".into())))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<OwnerId, Calling>> {
        self.calling.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long to wait after a call: twice as long after each, up to the longest.
fn pause(config: &WakeConfig, attempt: u32) -> Duration {
    let doubled = 1_u64.checked_shl(attempt).unwrap_or(u64::MAX);
    let pause_ms = config.first_pause_ms.saturating_mul(doubled);
    Duration::from_millis(pause_ms.min(config.max_pause_ms))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
    use longhand_node::PeerStream;
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;

    const OWNER: OwnerId = OwnerId([1; 16]);
    const URL: &str = "https://push.example/ann";

    fn call(deadline_height: u32) -> WakeCall {
        let secret = SecretKey::from_slice(&[1; 32]).unwrap();
        WakeCall {
            owner: "ann".into(),
            node_id: secret.public_key(&Secp256k1::new()),
            reason: WakeReason::Payment,
            deadline_height,
        }
    }

    /// A push service: the first call fails, the second is never answered, all others are taken.
    struct Push {
        called: mpsc::UnboundedSender<(String, WakeCall)>,
        count: AtomicUsize,
    }

    #[async_trait]
    impl Outside for Push {
        async fn dial(&self, _: PublicKey, _: &str) -> std::io::Result<Box<dyn PeerStream>> {
            Err(std::io::ErrorKind::Unsupported.into())
        }

        async fn wake(&self, url: &str, call: &WakeCall) -> Result<(), WakeError> {
            self.called.send((url.into(), call.clone())).unwrap();
            match self.count.fetch_add(1, Ordering::Relaxed) {
                0 => Err(WakeError("no".into())),
                1 => std::future::pending().await,
                _ => Ok(()),
            }
        }
    }

    type Called = mpsc::UnboundedReceiver<(String, WakeCall)>;

    fn wakes() -> (Arc<Wakes>, Called) {
        let (called, calls) = mpsc::unbounded_channel();
        let push = Push {
            called,
            count: AtomicUsize::new(0),
        };
        let wakes = Wakes::new(WakeConfig::default(), Arc::new(push), Metrics::new());
        (Arc::new(wakes), calls)
    }

    #[tokio::test(start_paused = true)]
    async fn a_phone_is_called_until_it_is_there() {
        let (wakes, mut called) = wakes();
        let start = Instant::now();
        wakes.wake(OWNER, URL, call(100));
        let mut at = Vec::new();
        for _ in 0..4 {
            assert_eq!(called.recv().await.unwrap(), (URL.into(), call(100)));
            at.push(start.elapsed().as_secs());
        }
        // Pauses of 2, 4 and 8 seconds, and the 10 that an answer may take.
        assert_eq!(at, [0, 2, 16, 24]);
        let text = wakes.metrics.text();
        assert!(
            text.contains("longhand_wakes_total{result=\"failed\"} 2"),
            "{text}"
        );

        let task = wakes.lock().get(&OWNER).unwrap().task.clone();
        wakes.arrived(&OWNER);
        while !task.is_finished() {
            tokio::task::yield_now().await;
        }
        assert!(wakes.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn calls_end_at_their_deadline() {
        let (wakes, _called) = wakes();
        wakes.wake(OWNER, URL, call(100));
        wakes.block(99);
        assert_eq!(wakes.lock().len(), 1);
        wakes.block(100);
        assert!(wakes.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_earlier_deadline_changes_a_call_in_progress() {
        let (wakes, _called) = wakes();
        for (deadline, in_force) in [(100, 100), (120, 100), (90, 90)] {
            wakes.wake(OWNER, URL, call(deadline));
            assert_eq!(
                wakes.lock().get(&OWNER).unwrap().call.deadline_height,
                in_force
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_for_a_deadline_goes_on_when_a_payment_is_given_back() {
        let (wakes, _called) = wakes();
        let deadline = WakeCall {
            reason: WakeReason::Deadline,
            ..call(100)
        };
        wakes.wake(OWNER, URL, deadline);
        wakes.given_back(&OWNER);
        assert_eq!(wakes.lock().len(), 1);
    }

    #[test]
    fn pauses_double_up_to_the_longest() {
        let config = WakeConfig {
            first_pause_ms: 2_000,
            max_pause_ms: 60_000,
            ..WakeConfig::default()
        };
        let pauses: Vec<_> = (0..7)
            .map(|attempt| pause(&config, attempt).as_secs())
            .collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(pause(&config, u32::MAX).as_secs(), 60);
    }
}
