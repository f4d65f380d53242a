//! A store that fails or pauses at a chosen call.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::oneshot;

use crate::{Batch, KeyRange, Store, StoreError, Write};

/// Passes every call on to another store, but for the commits and loads that were picked. Commits are counted from 1.
pub struct FailingStore {
    inner: Arc<dyn Store>,
    plan: Mutex<Plan>,
}

#[derive(Default)]
struct Plan {
    commits: u64,
    loads: u64,
    at: BTreeMap<u64, Step>,
    /// The first commit that puts a key with this prefix loses its answer.
    lost_put: Option<String>,
    /// Namespaces whose next loads fail, how many, and with which error.
    unreadable: BTreeMap<String, (u64, StoreError)>,
    loads_refused: u64,
    stopped_at: Option<u64>,
}

impl Plan {
    fn next_load(&mut self, namespace: &str) -> Result<(), StoreError> {
        self.loads += 1;
        match self.unreadable.get_mut(namespace) {
            Some((times, error)) if *times > 0 => {
                *times -= 1;
                self.loads_refused += 1;
                Err(error.clone())
            }
            _ => Ok(()),
        }
    }

    /// True once, for the commit that was picked by its key.
    fn loses_put_of(&mut self, batch: &Batch) -> bool {
        let is_picked = self.lost_put.as_ref().is_some_and(|prefix| {
            let is_put =
                |write: &Write| matches!(write, Write::Put(key, _) if key.starts_with(prefix));
            batch.writes.iter().any(is_put)
        });
        if is_picked {
            self.lost_put = None;
        }
        is_picked
    }
}

enum Step {
    Refuse(StoreError),
    LoseAnswer,
    Pause {
        reached: oneshot::Sender<()>,
        resume: oneshot::Receiver<()>,
    },
}

/// A commit that is held back; it goes on when this is resumed or dropped.
#[derive(Debug)]
pub struct Paused {
    reached: oneshot::Receiver<()>,
    resume: oneshot::Sender<()>,
}

impl Paused {
    /// Waits until the commit has been called. Nothing of it is written yet.
    pub async fn reached(&mut self) {
        // An error means that the store was dropped: no commit follows.
        let _ = (&mut self.reached).await;
    }

    /// Lets it go on.
    pub fn resume(self) {
        let _ = self.resume.send(());
    }
}

impl FailingStore {
    /// Wraps `inner`, with nothing planned.
    pub fn new(inner: Arc<dyn Store>) -> FailingStore {
        FailingStore {
            inner,
            plan: Mutex::default(),
        }
    }

    /// Commits called so far.
    pub fn commits(&self) -> u64 {
        self.plan().commits
    }

    /// Namespaces loaded so far: whole ones, and ranges without a limit.
    pub fn loads(&self) -> u64 {
        self.plan().loads
    }

    /// Loads that failed as planned so far.
    pub fn loads_refused(&self) -> u64 {
        self.plan().loads_refused
    }

    /// The `nth` commit fails with `error`, and writes nothing.
    pub fn refuse(&self, nth: u64, error: StoreError) {
        self.plan().at.insert(nth, Step::Refuse(error));
    }

    /// The next `times` loads of `namespace` fail with `error`.
    pub fn refuse_loads(&self, namespace: &str, times: u64, error: StoreError) {
        let unreadable = &mut self.plan().unreadable;
        unreadable.insert(namespace.to_owned(), (times, error));
    }

    /// The `nth` commit becomes durable and fails all the same, as when the host's process ends before the answer.
    pub fn lose_answer(&self, nth: u64) {
        self.plan().at.insert(nth, Step::LoseAnswer);
    }

    /// As [`Self::lose_answer`], for the first commit from now on that puts a key with this prefix: how many commits come
    /// before it may depend on how messages were read together.
    pub fn lose_answer_of_put(&self, prefix: &str) {
        self.plan().lost_put = Some(prefix.to_owned());
    }

    /// Whether that commit has been called.
    pub fn has_lost_put(&self) -> bool {
        self.plan().lost_put.is_none()
    }

    /// The `nth` commit waits until it is resumed.
    pub fn pause(&self, nth: u64) -> Paused {
        let (reached_tx, reached) = oneshot::channel();
        let (resume, resume_rx) = oneshot::channel();
        self.plan().at.insert(
            nth,
            Step::Pause {
                reached: reached_tx,
                resume: resume_rx,
            },
        );
        Paused { reached, resume }
    }

    /// From the `nth` commit on everything fails and nothing is written, as when the process ends there.
    pub fn stop_at(&self, nth: u64) {
        self.plan().stopped_at = Some(nth);
    }

    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_step(&self, batch: &Batch) -> Option<Step> {
        let mut plan = self.plan();
        plan.commits += 1;
        let nth = plan.commits;
        if plan.stopped_at.is_some_and(|stop| nth >= stop) {
            return Some(Step::Refuse(StoreError::Unavailable(
                "stopped by a test".into(),
            )));
        }
        if plan.loses_put_of(batch) {
            return Some(Step::LoseAnswer);
        }
        plan.at.remove(&nth)
    }
}

#[async_trait]
impl Store for FailingStore {
    async fn load(&self, namespace: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.plan().next_load(namespace)?;
        self.inner.load(namespace).await
    }

    async fn range(
        &self,
        namespace: &str,
        range: KeyRange,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        if range.limit.is_none() {
            self.plan().next_load(namespace)?;
        }
        self.inner.range(namespace, range).await
    }

    async fn get(&self, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(namespace, key).await
    }

    async fn namespaces(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.inner.namespaces(prefix).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        match self.next_step(&batch) {
            None => self.inner.commit(batch).await,
            Some(Step::Refuse(error)) => Err(error),
            Some(Step::LoseAnswer) => {
                self.inner.commit(batch).await?;
                Err(StoreError::Unavailable("a test lost the answer".into()))
            }
            Some(Step::Pause { reached, resume }) => {
                let _ = reached.send(());
                let _ = resume.await;
                self.inner.commit(batch).await
            }
        }
    }

    async fn take_lease(&self, namespace: &str) -> Result<u64, StoreError> {
        self.inner.take_lease(namespace).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}
