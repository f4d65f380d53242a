//! The tasks of a host, which end with it, and whether it is stopping.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// All tasks of one host.
pub(crate) struct Tasks {
    /// `None` once the host has ended.
    running: Mutex<Option<JoinSet<()>>>,
    stopping: watch::Sender<bool>,
}

impl Tasks {
    pub fn new() -> Tasks {
        Tasks {
            running: Mutex::new(Some(JoinSet::new())),
            stopping: watch::Sender::new(false),
        }
    }

    /// Runs a task for as long as the host runs. `None`, and the task is dropped, once the host has ended.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Option<AbortHandle> {
        let mut running = self.lock();
        let running = running.as_mut()?;
        while let Some(ended) = running.try_join_next() {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "a task of the host ended by a panic");
            }
        }
        Some(running.spawn(task))
    }

    /// From now on nothing new is begun. What runs goes on until [`Tasks::abort`] or [`Tasks::shutdown`].
    pub fn begin_stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Whether the host stops or has stopped.
    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Returns when the host stops.
    pub async fn stopping(&self) {
        let mut stopping = self.stopping.subscribe();
        // The sender lives as long as this.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }

    /// Aborts all tasks, and does not wait for them.
    pub fn abort(&self) {
        // Dropped without the lock: a future that is dropped may spawn.
        let running = self.lock().take();
        drop(running);
    }

    /// Aborts all tasks and returns when they have ended.
    pub async fn shutdown(&self) {
        let running = self.lock().take();
        if let Some(mut running) = running {
            running.shutdown().await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<JoinSet<()>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::Arc;

    use tokio::sync::oneshot;

    use super::*;

    /// A task that never ends by itself, and the notice of its end.
    fn endless() -> (impl Future<Output = ()>, oneshot::Receiver<()>) {
        let (dropped, ended) = oneshot::channel::<()>();
        let task = async move {
            let _dropped = dropped;
            std::future::pending().await
        };
        (task, ended)
    }

    #[tokio::test]
    async fn tasks_end_with_the_host() {
        let tasks = Tasks::new();
        let (task, ended) = endless();
        tasks.spawn(task).unwrap();
        tasks.abort();
        assert!(ended.await.is_err());

        let (task, ended) = endless();
        assert!(tasks.spawn(task).is_none());
        assert!(ended.await.is_err(), "it must not run");
    }

    #[tokio::test]
    async fn a_shutdown_returns_when_all_have_ended() {
        let tasks = Tasks::new();
        let (task, mut ended) = endless();
        tasks.spawn(task).unwrap();
        tasks.shutdown().await;
        assert!(ended.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_stop_is_announced_before_tasks_end() {
        let tasks = Arc::new(Tasks::new());
        let waiting = tasks.clone();
        let (seen, saw) = oneshot::channel();
        tasks.spawn(async move {
            waiting.stopping().await;
            let _ = seen.send(());
        });
        assert!(!tasks.is_stopping());
        tasks.begin_stop();
        assert!(tasks.is_stopping());
        saw.await.unwrap();
    }
}
