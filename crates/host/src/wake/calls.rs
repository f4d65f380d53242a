//! Calls of wake URLs, each repeated until the phone is there or its deadline has passed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longhand_link::OwnerId;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::budget::Budget;
use crate::config::WakeConfig;
use crate::metrics::Metrics;
use crate::network::{Network, WakeCall, WakeError, WakeReason, WakeUrl};
use crate::tasks::Tasks;

/// All calls in progress, at most one for each owner.
pub(crate) struct Calls {
    config: WakeConfig,
    network: Arc<dyn Network>,
    metrics: Metrics,
    tasks: Arc<Tasks>,
    budget: Mutex<Budget>,
    calling: Mutex<HashMap<OwnerId, Calling>>,
}

struct Calling {
    call: WakeCall,
    task: AbortHandle,
}

impl Calling {
    /// Whether this call, which is in progress, serves for `other` too. A call for a payment does not serve for a deadline: it has
    /// a budget, and ends with the payment.
    fn serves_for(&self, other: &WakeCall) -> bool {
        let serves = match (self.call.reason, other.reason) {
            (WakeReason::Deadline, WakeReason::Payment) => true,
            (WakeReason::Payment, WakeReason::Deadline) => false,
            _ => self.call.deadline_height <= other.deadline_height,
        };
        serves && !self.task.is_finished()
    }
}

impl Calls {
    pub fn new(
        config: WakeConfig,
        network: Arc<dyn Network>,
        metrics: Metrics,
        tasks: Arc<Tasks>,
    ) -> Calls {
        Calls {
            budget: Mutex::new(Budget::new(config.per_hour)),
            config,
            network,
            metrics,
            tasks,
            calling: Mutex::default(),
        }
    }

    /// Begins a call; nothing changes when one that serves for it is in progress: for the same deadline, or an earlier one. `urls` are asked for
    /// each time, since the owner or the operator may change them meanwhile.
    pub fn begin(
        self: &Arc<Self>,
        owner: OwnerId,
        urls: impl Fn() -> Vec<WakeUrl> + Send + Sync + 'static,
        call: WakeCall,
    ) {
        let mut calling = self.lock();
        if calling.get(&owner).is_some_and(|it| it.serves_for(&call)) {
            return;
        }
        tracing::info!(owner = call.owner, reason = ?call.reason, call.deadline_height, "waking a phone");
        let (calls, body) = (self.clone(), call.clone());
        let task = async move { calls.repeat(owner, &urls, &body).await };
        let Some(task) = self.tasks.spawn(task) else {
            return;
        };
        if let Some(earlier) = calling.insert(owner, Calling { call, task }) {
            earlier.task.abort();
        }
    }

    /// Ends the owner's call: the phone is there.
    pub fn arrived(&self, owner: &OwnerId) {
        if let Some(calling) = self.lock().remove(owner) {
            calling.task.abort();
        }
    }

    /// Ends the owner's call when it was for payments, which are failed back now. A call for an HTLC goes on.
    pub fn payments_failed(&self, owner: &OwnerId) {
        let mut calling = self.lock();
        if let Some(current) = calling.get(owner)
            && current.call.reason == WakeReason::Payment
        {
            current.task.abort();
            calling.remove(owner);
        }
    }

    /// Ends the calls whose deadline this height has reached.
    pub fn at_height(&self, height: u32) {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        budget.forget(Instant::now());
        drop(budget);
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

    /// Goes on after the push services took a call: only the phone itself ends it.
    async fn repeat(
        &self,
        owner: OwnerId,
        urls: &(impl Fn() -> Vec<WakeUrl> + Sync),
        call: &WakeCall,
    ) {
        for attempt in 0.. {
            if self.may_call(owner, call) {
                let urls = urls();
                let each = urls.iter().map(|url| self.call_once(url, call, attempt));
                futures::future::join_all(each).await;
            }
            tokio::time::sleep(pause(&self.config, attempt)).await;
        }
    }

    /// Takes one call from the owner's budget, unless it is for a deadline: then money is at risk.
    fn may_call(&self, owner: OwnerId, call: &WakeCall) -> bool {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let may = call.reason == WakeReason::Deadline || budget.take(owner, Instant::now());
        if !may {
            tracing::info!(
                owner = call.owner,
                "no call for a payment: wake.per_hour is used up"
            );
            self.metrics.wakes_left_out.inc();
        }
        may
    }

    async fn call_once(&self, url: &WakeUrl, call: &WakeCall, attempt: u32) {
        let limit = Duration::from_millis(self.config.timeout_ms);
        let called = timeout(limit, self.network.wake(url, call)).await;
        let result = called.unwrap_or_else(|_| Err(WakeError("no answer in time".into())));
        self.metrics.count_wake(result.is_ok());
        let (owner, from) = (&call.owner, url.from);
        match result {
            Ok(()) => tracing::debug!(owner, ?from, attempt, "wake URL called"),
            Err(error) => tracing::warn!(owner, ?from, attempt, %error, "wake URL failed"),
        }
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
    use bitcoin::secp256k1::{Secp256k1, SecretKey};
    use longhand_node::PeerStream;
    use tokio::sync::mpsc;

    use super::*;
    use crate::network::{PeerDial, WakeFrom};

    const OWNER: OwnerId = OwnerId([1; 16]);

    fn urls() -> Vec<WakeUrl> {
        let url = WakeUrl {
            from: WakeFrom::Operator,
            url: "https://push.example/ann".into(),
        };
        vec![url]
    }

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
        called: mpsc::UnboundedSender<(WakeUrl, WakeCall)>,
        count: AtomicUsize,
    }

    #[async_trait]
    impl Network for Push {
        async fn dial(&self, _: PeerDial<'_>) -> std::io::Result<Box<dyn PeerStream>> {
            Err(std::io::ErrorKind::Unsupported.into())
        }

        async fn wake(&self, url: &WakeUrl, call: &WakeCall) -> Result<(), WakeError> {
            self.called.send((url.clone(), call.clone())).unwrap();
            match self.count.fetch_add(1, Ordering::Relaxed) {
                0 => Err(WakeError("no".into())),
                1 => std::future::pending().await,
                _ => Ok(()),
            }
        }
    }

    type Called = mpsc::UnboundedReceiver<(WakeUrl, WakeCall)>;

    fn calls() -> (Arc<Calls>, Called) {
        let (called, calls) = mpsc::unbounded_channel();
        let push = Push {
            called,
            count: AtomicUsize::new(0),
        };
        let (network, tasks) = (Arc::new(push), Arc::new(Tasks::new()));
        let begun = Calls::new(WakeConfig::default(), network, Metrics::new(), tasks);
        (Arc::new(begun), calls)
    }

    #[tokio::test(start_paused = true)]
    async fn a_phone_is_called_until_it_is_there() {
        let (calls, mut called) = calls();
        let start = Instant::now();
        calls.begin(OWNER, urls, call(100));
        let mut at = Vec::new();
        for _ in 0..4 {
            let expected = (urls().remove(0), call(100));
            assert_eq!(called.recv().await.unwrap(), expected);
            at.push(start.elapsed().as_secs());
        }
        // Pauses of 2, 4 and 8 seconds, and the 10 that an answer may take.
        assert_eq!(at, [0, 2, 16, 24]);
        let text = calls.metrics.text();
        assert!(
            text.contains("longhand_wakes_total{result=\"failed\"} 2"),
            "{text}"
        );

        let task = calls.lock().get(&OWNER).unwrap().task.clone();
        calls.arrived(&OWNER);
        while !task.is_finished() {
            tokio::task::yield_now().await;
        }
        assert!(calls.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_goes_to_all_urls_that_there_are_at_its_time() {
        let (calls, mut called) = calls();
        let given = Arc::new(Mutex::new(urls()));
        let now = given.clone();
        calls.begin(OWNER, move || now.lock().unwrap().clone(), call(100));
        assert_eq!(called.recv().await.unwrap().0, urls().remove(0));

        let phones = |n| WakeUrl {
            from: WakeFrom::Phone,
            url: format!("https://push.example/{n}"),
        };
        *given.lock().unwrap() = vec![phones(1), phones(2)];
        for n in [1, 2] {
            assert_eq!(called.recv().await.unwrap().0, phones(n));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn calls_end_at_their_deadline() {
        let (calls, _called) = calls();
        calls.begin(OWNER, urls, call(100));
        calls.at_height(99);
        assert_eq!(calls.lock().len(), 1);
        calls.at_height(100);
        assert!(calls.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_earlier_deadline_changes_a_call_in_progress() {
        let (calls, _called) = calls();
        for (deadline, in_force) in [(100, 100), (120, 100), (90, 90)] {
            calls.begin(OWNER, urls, call(deadline));
            assert_eq!(
                calls.lock().get(&OWNER).unwrap().call.deadline_height,
                in_force
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_for_a_deadline_goes_on_when_a_payment_is_payments_failed() {
        let (calls, _called) = calls();
        let deadline = WakeCall {
            reason: WakeReason::Deadline,
            ..call(100)
        };
        calls.begin(OWNER, urls, deadline);
        calls.payments_failed(&OWNER);
        assert_eq!(calls.lock().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn payments_are_called_for_within_the_budget_and_deadlines_always() {
        let (calls, mut called) = calls();
        calls.begin(OWNER, urls, call(100));
        let hour = Instant::now() + Duration::from_secs(3_599);
        while Instant::now() < hour {
            // A payment that was failed back, and the next one.
            tokio::time::sleep(Duration::from_secs(30)).await;
            calls.payments_failed(&OWNER);
            calls.begin(OWNER, urls, call(100));
        }
        let mut count = 0;
        while called.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, calls.config.per_hour);
        assert!(calls.metrics.wakes_left_out.get() > 0);

        let deadline = WakeCall {
            reason: WakeReason::Deadline,
            ..call(120)
        };
        calls.begin(OWNER, urls, deadline.clone());
        assert_eq!(called.recv().await.unwrap().1, deadline);
        calls.begin(OWNER, urls, call(100));
        assert_eq!(called.recv().await.unwrap().1, deadline);
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
