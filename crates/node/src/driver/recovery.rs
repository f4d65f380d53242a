//! Loading the node again after a turn that panicked or could not be committed: it never happened.

use longhand_proto::Code;
use longhand_proto::command::Error;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use longhand_store::{Batch, StoreError, Write};
use tokio::time::Instant;

use super::{Driver, gossip_sync, load};
use crate::api::{NodeError, NodeEvent, State};
use crate::errors::error_reply;
use crate::store::schema::key;

/// Panics within this time of each other have one cause: each makes the node wait longer before it is loaded again.
const PANICS_APART: Duration = Duration::from_secs(60);
/// Pause before the node is loaded again, from the second time on; doubled with each up to the second.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MOST: Duration = Duration::from_secs(30);

/// Counts of failures.
#[derive(Default)]
pub(super) struct Recovery {
    /// Turns in a row that could not be committed.
    failures: u32,
    /// Panics in a row, each soon after the last.
    panics: u32,
    last_panic: Option<Instant>,
    /// Panics since the node was started.
    restarts: u32,
}

impl Recovery {
    /// A turn was committed. A full disk takes the turns that write nothing.
    pub fn committed(&mut self, has_written: bool) {
        if has_written {
            self.failures = 0;
        }
    }

    /// The cause of a panic may be there again once the node is loaded, and its peer with it.
    fn panicked(&mut self) {
        let now = Instant::now();
        let is_repeated = self
            .last_panic
            .is_some_and(|last| now.duration_since(last) < PANICS_APART);
        self.panics = match is_repeated {
            true => self.panics.saturating_add(1),
            false => 0,
        };
        self.last_panic = Some(now);
        self.failures = self.failures.max(self.panics);
        self.restarts = self.restarts.saturating_add(1);
    }
}

impl Driver {
    /// Loads the node again after a panic. False when it is to end.
    pub(super) async fn recover_from_panic(&mut self) -> bool {
        tracing::error!(node = %self.config.namespace, "a panic was caught: loading the node again");
        self.recovery.panicked();
        let reason = "the node met an internal error and was loaded again";
        let goes_on = Box::pin(self.reload(Code::NodeRestarted, reason)).await;
        if goes_on {
            let _ = self.events.send(NodeEvent::Restarted);
        }
        goes_on
    }

    /// Loads the node again after a turn that the store did not take. False when it is to end.
    pub(super) async fn recover_from_store(&mut self, failure: StoreError) -> bool {
        if !failure.is_transient() {
            self.report_failure(&failure.into());
            return false;
        }
        tracing::error!(node = %self.config.namespace, "{failure}");
        let code = match failure {
            StoreError::Full => Code::DiskFull,
            _ => Code::StoreFailed,
        };
        Box::pin(self.reload(code, &failure.to_string())).await
    }

    /// Peers are gone, requests fail, and the node is what the store has. False when the node is to end. Its future is large
    /// and rare: callers put it in a box, so that it takes no room in the task of every node.
    async fn reload(&mut self, code: Code, reason: &str) -> bool {
        let failure = error_reply(Error::new(code, reason));
        self.pending.fail_all(&failure);
        if self.stopping.is_some() {
            return false;
        }
        self.peers.clear();
        if std::mem::take(&mut self.signer_leaves) {
            self.signer = None;
        }
        self.signer_returns = self.signer.is_some();
        loop {
            tokio::time::sleep(pause(self.recovery.failures)).await;
            self.recovery.failures = self.recovery.failures.saturating_add(1);
            match self.try_to_write().await {
                Ok(()) => {}
                Err(error) if !error.is_transient() => {
                    self.report_failure(&error.into());
                    return false;
                }
                Err(error) => {
                    tracing::error!(node = %self.config.namespace, "{error}");
                    continue;
                }
            }
            match self.load_again().await {
                Some(Ok(())) => return true,
                Some(Err(error)) if !error.is_transient() => {
                    self.report_failure(&error);
                    return false;
                }
                Some(Err(error)) => tracing::error!(node = %self.config.namespace, "{error}"),
                None => {
                    tracing::error!(node = %self.config.namespace, "a panic was caught while the node was loaded");
                }
            }
        }
    }

    /// The node ends by itself, since another attempt would fail too: the host reports it to the operator.
    fn report_failure(&self, failure: &NodeError) {
        tracing::error!(node = %self.config.namespace, "the node ends: {failure}");
        let _ = self.events.send(NodeEvent::Failed(failure.to_string()));
    }

    /// `None` when loading panicked.
    async fn load_again(&mut self) -> Option<Result<(), NodeError>> {
        let generation = self.machine.next_generation();
        // LDK's gossip sync counts the full syncs that it has asked for: those of the old peers are broken off.
        let gossip = gossip_sync(&self.config, &self.services);
        let loading = load(&self.config, &self.services, gossip.clone(), generation);
        let loaded = AssertUnwindSafe(loading).catch_unwind().await.ok()?;
        Some(loaded.map(|(mut machine, chain)| {
            machine.continue_from(&self.machine, self.recovery.restarts);
            self.machine = machine;
            self.questions.cancel();
            self.chain = chain;
            self.gossip = gossip;
            let _ = self.events.send(NodeEvent::State(State::Dormant));
        }))
    }

    /// A node that is loaded while the disk is full would fail at its first turn. A small write, deleted in the same
    /// batch, finds that out at less cost.
    async fn try_to_write(&self) -> Result<(), StoreError> {
        let batch = Batch {
            namespace: self.config.namespace.clone(),
            epoch: self.epoch,
            writes: vec![
                Write::Put(key::PROBE.into(), vec![0]),
                Write::Delete(key::PROBE.into()),
            ],
        };
        self.services.store.commit(batch).await
    }
}

/// The first time at once; then ever longer, so that a full disk is not asked all the time.
fn pause(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        more => PAUSE_FIRST.saturating_mul(1 << more.min(8)).min(PAUSE_MOST),
    }
}
