//! Waking phones: a POST to the owner's wake URL, again and again, until the phone is there or it is too late.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use longhand_link::OwnerId;
use serde::Serialize;
use tokio::task::AbortHandle;

use crate::config::WakeConfig;
use crate::metrics::Metrics;

/// Why a phone is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Reason {
    /// A payment waits at the hub.
    Payment,
    /// An HTLC in flight comes to its deadline.
    Deadline,
}

/// The body of the POST, as JSON. Holds no secret: whoever runs the push service may read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Call {
    /// The owner's name.
    pub owner: String,
    /// Hexadecimal.
    pub node_id: PublicKey,
    pub reason: Reason,
    /// The phone has to be there before this height.
    pub deadline_height: u32,
}

/// All calls in progress, at most one for each owner.
pub(crate) struct Wakes {
    client: reqwest::Client,
    config: WakeConfig,
    metrics: Metrics,
    calling: Mutex<HashMap<OwnerId, Calling>>,
}

struct Calling {
    call: Call,
    task: AbortHandle,
}

impl Wakes {
    /// # Errors
    /// When the TLS library cannot be set up.
    pub fn new(config: WakeConfig, metrics: Metrics) -> Result<Wakes, String> {
        let client = reqwest::Client::builder()
            .timeout(Duration::from_millis(config.timeout_ms))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|e| e.to_string())?;
        Ok(Wakes {
            client,
            config,
            metrics,
            calling: Mutex::default(),
        })
    }

    /// Begins to call, or goes on when a call for a deadline as early is in progress.
    pub fn wake(self: &Arc<Self>, owner: OwnerId, url: &str, call: Call) {
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

    /// The chain has reached `height`: calls whose deadline has passed end.
    pub fn block(&self, height: u32) {
        self.lock().retain(|_, calling| {
            let goes_on = calling.call.deadline_height > height;
            if !goes_on {
                tracing::warn!(
                    owner = calling.call.owner,
                    "the phone did not come before its deadline"
                );
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
    async fn repeat(&self, url: &str, call: &Call) {
        for attempt in 0.. {
            let result = self.post(url, call).await;
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

    /// The error is without the URL, which may hold a token.
    async fn post(&self, url: &str, call: &Call) -> Result<(), String> {
        let sent = self.client.post(url).json(call).send().await;
        let answer = sent.map_err(|e| e.without_url().to_string())?;
        match answer.status().is_success() {
            true => Ok(()),
            false => Err(format!("HTTP status {}", answer.status())),
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

    use axum::extract::State;
    use axum::http::StatusCode;
    use axum::routing::post;
    use axum::{Json, Router};
    use bitcoin::secp256k1::{Secp256k1, SecretKey};
    use serde_json::{Value, json};
    use tokio::sync::mpsc;

    use super::*;

    const OWNER: OwnerId = OwnerId([1; 16]);

    fn call(deadline_height: u32) -> Call {
        let secret = SecretKey::from_slice(&[1; 32]).unwrap();
        let node_id = secret.public_key(&Secp256k1::new());
        Call {
            owner: "ann".into(),
            node_id,
            reason: Reason::Payment,
            deadline_height,
        }
    }

    fn wakes(first_pause_ms: u64) -> Arc<Wakes> {
        let config = WakeConfig {
            first_pause_ms,
            ..WakeConfig::default()
        };
        Arc::new(Wakes::new(config, Metrics::new()).unwrap())
    }

    /// A push service that fails the first two calls, and what it was called with.
    async fn push_service() -> (String, mpsc::UnboundedReceiver<Value>) {
        type Service = (mpsc::UnboundedSender<Value>, Arc<AtomicUsize>);
        async fn push(
            State((calls, count)): State<Service>,
            Json(body): Json<Value>,
        ) -> StatusCode {
            calls.send(body).unwrap();
            match count.fetch_add(1, Ordering::Relaxed) {
                0 | 1 => StatusCode::SERVICE_UNAVAILABLE,
                _ => StatusCode::NO_CONTENT,
            }
        }
        let (calls, called) = mpsc::unbounded_channel();
        let service = (calls, Arc::new(AtomicUsize::new(0)));
        let router = Router::new().route("/wake", post(push)).with_state(service);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/wake", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (url, called)
    }

    #[tokio::test]
    async fn a_phone_is_called_until_it_is_there() {
        let (url, mut called) = push_service().await;
        let wakes = wakes(1);
        wakes.wake(OWNER, &url, call(100));
        let expected = json!({
            "owner": "ann",
            "node_id": call(100).node_id.to_string(),
            "reason": "payment",
            "deadline_height": 100,
        });
        for _ in 0..4 {
            assert_eq!(called.recv().await.unwrap(), expected);
        }
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

    #[tokio::test]
    async fn calls_end_at_their_deadline() {
        let wakes = wakes(1_000_000);
        wakes.wake(OWNER, "http://127.0.0.1:1/", call(100));
        wakes.block(99);
        assert_eq!(wakes.lock().len(), 1);
        wakes.block(100);
        assert!(wakes.lock().is_empty());
    }

    #[tokio::test]
    async fn only_an_earlier_deadline_changes_a_call_in_progress() {
        let wakes = wakes(1_000_000);
        for (deadline, in_force) in [(100, 100), (120, 100), (90, 90)] {
            wakes.wake(OWNER, "http://127.0.0.1:1/", call(deadline));
            assert_eq!(
                wakes.lock().get(&OWNER).unwrap().call.deadline_height,
                in_force
            );
        }
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
