//! Wake calls: which are made, as a value without I/O, and the task that makes them.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use longhand_base::wake::WakeHook;
use longhand_link::carrier::mailbox::stream::{End, StreamId};
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::WakeConfig;
use crate::core::Time;
use crate::metrics::{Metrics, WakeResult};

/// From one call for an end to the next. A call is for an end, not for the stream alone: both readers may be away.
const PAUSE: Duration = Duration::from_secs(10);
/// Ends that were called within [`PAUSE`]; beyond it no call is made.
const MAX_CALLED: usize = 65_536;
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
}

impl Budget {
    /// Whether the reader of this end may be called now; it counts as called then.
    fn allows(&mut self, away: Away, now: Time) -> bool {
        while let Some((at, first)) = self.order.front()
            && at.saturating_add(PAUSE) <= now
        {
            self.called.remove(first);
            self.order.pop_front();
        }
        if self.called.len() >= MAX_CALLED || !self.called.insert(away) {
            return false;
        }
        self.order.push_back((now, away));
        true
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

    /// A message waits for this reader.
    pub fn reader_is_away(&self, away: Away, now: Time) {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        if !budget.allows(away, now) {
            return;
        }
        drop(budget);
        if self.calls.try_send(away).is_err() {
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
            let result = match called {
                Ok(Ok(())) => WakeResult::Answered,
                Ok(Err(error)) => {
                    tracing::warn!(%stream, %error, "the wake URL refused a call");
                    WakeResult::Failed
                }
                Err(_) => {
                    tracing::warn!(%stream, "the wake URL did not answer in time");
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
    use super::*;

    fn away(key: u8, end: End) -> Away {
        let stream = StreamId::of(&[key; 32]);
        Away { stream, end }
    }

    #[test]
    fn a_reader_is_called_once_in_ten_seconds() {
        let mut budget = Budget::default();
        let phone = away(1, End::Phone);
        let at = Duration::from_millis;
        assert!(budget.allows(phone, at(0)));
        assert!(!budget.allows(phone, at(9_999)));
        assert!(budget.allows(away(1, End::Host), at(9_999)));
        assert!(budget.allows(away(2, End::Phone), at(9_999)));
        assert!(budget.allows(phone, at(10_000)));
        assert!(!budget.allows(phone, at(10_001)));
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
