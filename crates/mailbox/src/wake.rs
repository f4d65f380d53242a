//! Wake calls: which are made, as a value without I/O, and the task that makes them.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use longhand_base::wake::WakeHook;
use longhand_link::carrier::admission::SourceNetwork;
use longhand_link::carrier::mailbox::stream::{End, StreamId};
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::WakeConfig;
use crate::core::Time;
use crate::core::rates::{Buckets, Rate};
use crate::metrics::{Metrics, WakeResult};

/// From one call for an end to the next. A call is for an end, not for the stream alone: both readers may be away.
const PAUSE: Duration = Duration::from_secs(10);
/// Ends that were called within [`PAUSE`]; beyond it no call is made.
const MAX_CALLED: usize = 65_536;
/// Calls that the clients of one source network can cause: else strangers would displace the calls for others.
const OF_NETWORK: Rate = Rate {
    per_s: 1,
    burst: 60,
};
/// Calls that wait for one that is under way.
const WAITING: usize = 1_024;

/// An end for whose reader a message waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Away {
    pub stream: StreamId,
    pub end: End,
}

/// The body of a call. The id is of no use without the key.
#[derive(Serialize)]
struct Body {
    stream: String,
    end: &'static str,
}

impl Away {
    fn body(&self) -> Vec<u8> {
        let stream = self.stream.as_bytes();
        let body = Body {
            stream: stream.iter().map(|byte| format!("{byte:02x}")).collect(),
            end: match self.end {
                End::Host => "host",
                End::Phone => "phone",
            },
        };
        // Two strings can always be written.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

/// Which ends may be called.
#[derive(Default)]
struct Budget {
    called: HashSet<Away>,
    order: VecDeque<(Time, Away)>,
    networks: Buckets<SourceNetwork, 1>,
}

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Made,
    /// There was one within [`PAUSE`].
    Repeated,
    LeftOut,
}

impl Budget {
    /// Makes a call for the reader of this end, if it may be called now because of a client of this network. The end counts as
    /// called when `call` has found room for the call, and only then.
    fn call(
        &mut self,
        away: Away,
        by: Option<SourceNetwork>,
        now: Time,
        call: impl FnOnce() -> bool,
    ) -> Verdict {
        while let Some((at, first)) = self.order.front()
            && at.saturating_add(PAUSE) <= now
        {
            self.called.remove(first);
            self.order.pop_front();
        }
        if self.called.contains(&away) {
            return Verdict::Repeated;
        }
        let is_allowed = self.called.len() < MAX_CALLED && self.allows(by, now);
        if !is_allowed || !call() {
            return Verdict::LeftOut;
        }
        self.called.insert(away);
        self.order.push_back((now, away));
        Verdict::Made
    }

    /// Connections inside this process have no network, and no limit.
    fn allows(&mut self, by: Option<SourceNetwork>, now: Time) -> bool {
        by.is_none_or(|source| {
            let [bucket] = self.networks.of(source, now);
            bucket.take(OF_NETWORK, now)
        })
    }
}

/// Makes the calls of a mailbox.
pub(crate) struct Wakes {
    budget: Mutex<Budget>,
    calls: mpsc::Sender<Away>,
    metrics: Metrics,
}

impl Wakes {
    /// And the task that makes the calls.
    pub fn new(
        config: WakeConfig,
        hook: Arc<dyn WakeHook>,
        metrics: Metrics,
    ) -> (Wakes, impl Future<Output = ()> + Send + 'static) {
        let (calls, waiting) = mpsc::channel(WAITING);
        let wakes = Wakes {
            budget: Mutex::default(),
            calls,
            metrics: metrics.clone(),
        };
        (wakes, make_calls(config, hook, metrics, waiting))
    }

    /// A message waits for this reader, because of a client of this network.
    pub fn reader_is_away(&self, away: Away, by: Option<SourceNetwork>, now: Time) {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let call = || self.calls.try_send(away).is_ok();
        if budget.call(away, by, now, call) == Verdict::LeftOut {
            self.metrics.count_wake(WakeResult::LeftOut);
        }
    }
}

async fn make_calls(
    config: WakeConfig,
    hook: Arc<dyn WakeHook>,
    metrics: Metrics,
    mut waiting: mpsc::Receiver<Away>,
) {
    let config = Arc::new(config);
    let at_once = Arc::new(Semaphore::new(config.at_once));
    let mut calls = JoinSet::new();
    while let Some(away) = waiting.recv().await {
        let Ok(permit) = at_once.clone().acquire_owned().await else {
            return;
        };
        while calls.try_join_next().is_some() {}
        let (config, hook, metrics) = (config.clone(), hook.clone(), metrics.clone());
        calls.spawn(async move {
            let called = timeout(config.timeout(), hook.call(&config.url, away.body())).await;
            let stream = away.stream.for_logs();
            // Strangers can cause calls that are refused: they are counted, and not in the log of an operator.
            let result = match called {
                Ok(Ok(())) => WakeResult::Answered,
                Ok(Err(error)) => {
                    tracing::debug!(%stream, %error, "the wake URL refused a call");
                    WakeResult::Failed
                }
                Err(_) => {
                    tracing::debug!(%stream, "the wake URL did not answer in time");
                    WakeResult::Failed
                }
            };
            metrics.count_wake(result);
            drop(permit);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn away(key: u8, end: End) -> Away {
        let stream = StreamId::of(&[key; 32]);
        Away { stream, end }
    }

    fn network(last: u8) -> Option<SourceNetwork> {
        Some(IpAddr::from(Ipv4Addr::new(192, 0, 2, last)).into())
    }

    #[test]
    fn a_reader_is_called_once_in_ten_seconds() {
        let mut budget = Budget::default();
        let mut call = |away, ms| budget.call(away, None, Duration::from_millis(ms), || true);
        let phone = away(1, End::Phone);
        assert_eq!(call(phone, 0), Verdict::Made);
        assert_eq!(call(phone, 9_999), Verdict::Repeated);
        assert_eq!(call(away(1, End::Host), 9_999), Verdict::Made);
        assert_eq!(call(away(2, End::Phone), 9_999), Verdict::Made);
        assert_eq!(call(phone, 10_000), Verdict::Made);
        assert_eq!(call(phone, 10_001), Verdict::Repeated);
    }

    #[test]
    fn the_clients_of_one_network_cause_a_bounded_number_of_calls() {
        let mut budget = Budget::default();
        let mut call =
            |key, by, s| budget.call(away(key, End::Phone), by, Duration::from_secs(s), || true);
        let made = (0..200).filter(|key| call(*key, network(1), 0) == Verdict::Made);
        assert_eq!(made.count(), 60);
        assert_eq!(call(200, network(1), 0), Verdict::LeftOut);
        assert_eq!(call(200, network(2), 0), Verdict::Made);
        assert_eq!(call(201, None, 0), Verdict::Made);
        assert_eq!(call(202, network(1), 1), Verdict::Made);
        assert_eq!(call(203, network(1), 1), Verdict::LeftOut);
    }

    #[test]
    fn an_end_for_whose_call_there_was_no_room_may_be_called_at_once() {
        let mut budget = Budget::default();
        let (phone, now) = (away(1, End::Phone), Duration::ZERO);
        assert_eq!(budget.call(phone, None, now, || false), Verdict::LeftOut);
        assert_eq!(budget.call(phone, None, now, || true), Verdict::Made);
    }

    #[test]
    fn a_call_names_the_stream_and_the_end() {
        let body = away(1, End::Phone).body();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        let id = body.get("stream").and_then(|id| id.as_str());
        assert_eq!(id.map(str::len), Some(64));
        assert_eq!(body.get("end").and_then(|end| end.as_str()), Some("phone"));
        assert_eq!(body.as_object().map(serde_json::Map::len), Some(2));
    }
}
