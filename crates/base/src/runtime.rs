//! The runtime of a program, handed to the parts that also run where there is no operating system, such as in a browser: its clocks,
//! timers and tasks.
//!
//! [`Tokio`] is the one of servers, apps and tests.

use std::fmt;
use std::pin::Pin;
#[cfg(not(target_family = "wasm"))]
use std::sync::Arc;
use std::time::Duration;

use futures::future::{AbortHandle, Either, abortable, select};
use tokio::sync::{oneshot, watch};

/// A future without a type, of its own.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// Clocks, timers and tasks.
pub trait Runtime: Send + Sync + 'static {
    /// The time of day, since 1970-01-01 UTC. It may jump, when a user sets it.
    fn unix_time(&self) -> Duration;

    /// The time since a fixed moment, which never goes back.
    fn uptime(&self) -> Duration;

    /// Ready after `duration`.
    fn sleep(&self, duration: Duration) -> BoxFuture<()>;

    /// Begins a task that goes on by itself. A panic ends it alone.
    fn spawn(&self, task: BoxFuture<()>);

    /// Does work that takes long, or waits for a disk, where it delays no task if there is such a place. Work that
    /// has begun, at the first poll at the latest, is finished also when the future is dropped.
    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<()>;
}

/// A future was not ready in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed;

/// Work has panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panicked;

impl dyn Runtime {
    /// The time of day, in seconds since 1970.
    pub fn now_unix_s(&self) -> u64 {
        self.unix_time().as_secs()
    }

    /// Ready when [`Runtime::uptime`] is `uptime`.
    pub fn sleep_until(&self, uptime: Duration) -> BoxFuture<()> {
        self.sleep(uptime.saturating_sub(self.uptime()))
    }

    /// The output of `future`, if it is ready within `limit`; else it is dropped.
    ///
    /// # Errors
    /// [`Elapsed`].
    pub async fn timeout<F: Future>(
        &self,
        limit: Duration,
        future: F,
    ) -> Result<F::Output, Elapsed> {
        let future = std::pin::pin!(future);
        // Polled also by a task that has used its turn up, as one whose future is always ready.
        let limit = tokio::task::coop::unconstrained(self.sleep(limit));
        match select(future, limit).await {
            Either::Left((output, _)) => Ok(output),
            Either::Right(_) => Err(Elapsed),
        }
    }

    /// Begins a task that can be aborted.
    pub fn start(&self, task: impl Future<Output = ()> + Send + 'static) -> Task {
        let (ends, ended) = watch::channel(());
        let (task, abort) = abortable(task);
        self.spawn(Box::pin(async move {
            // Dropped after the task, also when that panics.
            let _ends = ends;
            let _ = task.await;
        }));
        Task { abort, ended }
    }

    /// The output of work that takes long, or waits for a disk; see [`Runtime::run_blocking`].
    ///
    /// # Errors
    /// [`Panicked`].
    pub async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        let (sender, receiver) = oneshot::channel();
        let work = move || {
            // Nobody may wait for it any more.
            let _ = sender.send(work());
        };
        self.run_blocking(Box::new(work)).await;
        receiver.await.map_err(|_| Panicked)
    }
}

impl fmt::Debug for dyn Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Runtime")
    }
}

/// A task that was started. It goes on when this is dropped.
#[derive(Clone, Debug)]
pub struct Task {
    abort: AbortHandle,
    ended: watch::Receiver<()>,
}

impl Task {
    /// Ends the task where it waits. It may have ended before.
    pub fn abort(&self) {
        self.abort.abort();
    }

    /// Waits until the task has ended: finished, aborted or panicked.
    pub async fn ended(&self) {
        // Nothing is ever sent: this fails when the sender is dropped.
        while self.ended.clone().changed().await.is_ok() {}
    }

    /// Whether the task has ended.
    pub fn is_ended(&self) -> bool {
        self.ended.has_changed().is_err()
    }
}

/// That of tokio: tasks on the runtime in which this was made, work that blocks on its other threads.
#[cfg(not(target_family = "wasm"))]
#[derive(Clone, Debug)]
pub struct Tokio {
    started: tokio::time::Instant,
    /// The runtime in which this was made, so that tasks can be begun from any thread. `None` outside of all: the caller enters one.
    handle: Option<tokio::runtime::Handle>,
}

/// [`Tokio`], to be handed to others.
#[cfg(not(target_family = "wasm"))]
pub fn tokio() -> Arc<dyn Runtime> {
    Arc::new(Tokio::default())
}

#[cfg(not(target_family = "wasm"))]
impl Default for Tokio {
    fn default() -> Tokio {
        Tokio {
            started: tokio::time::Instant::now(),
            handle: tokio::runtime::Handle::try_current().ok(),
        }
    }
}

#[cfg(not(target_family = "wasm"))]
impl Runtime for Tokio {
    fn unix_time(&self) -> Duration {
        let now = std::time::SystemTime::now();
        now.duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default()
    }

    fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<()> {
        let _entered = self.handle.as_ref().map(tokio::runtime::Handle::enter);
        Box::pin(tokio::time::sleep(duration))
    }

    fn spawn(&self, task: BoxFuture<()>) {
        let _entered = self.handle.as_ref().map(tokio::runtime::Handle::enter);
        tokio::spawn(task);
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<()> {
        let _entered = self.handle.as_ref().map(tokio::runtime::Handle::enter);
        let work = tokio::task::spawn_blocking(work);
        Box::pin(async {
            // A panic shows by what the work has not done.
            let _ = work.await;
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_future_that_takes_too_long_is_dropped() {
        let runtime = tokio();
        let begun = runtime.uptime();
        let limit = Duration::from_secs(3);
        let ready = runtime.timeout(limit, async { 7 }).await;
        assert_eq!(ready, Ok(7));
        let late = runtime.timeout(limit, pending::<()>()).await;
        assert_eq!((late, runtime.uptime() - begun), (Err(Elapsed), limit));
    }

    #[tokio::test]
    async fn an_aborted_task_ends_and_drops_what_it_holds() {
        let runtime = tokio();
        let (held, mut dropped) = oneshot::channel::<()>();
        let task = runtime.start(async move {
            pending::<()>().await;
            drop(held);
        });
        assert!(!task.is_ended());
        task.abort();
        task.ended().await;
        assert!(task.is_ended());
        assert_eq!(
            dropped.try_recv(),
            Err(oneshot::error::TryRecvError::Closed)
        );
    }

    #[tokio::test]
    async fn work_that_panics_is_an_error_and_the_next_is_done() {
        let runtime = tokio();
        let panics = runtime.blocking(|| panic!("as the test wants it"));
        assert_eq!(panics.await, Err::<(), _>(Panicked));
        assert_eq!(runtime.blocking(|| 7).await, Ok(7));
    }

    #[tokio::test]
    async fn a_task_that_panics_has_ended() {
        let task = tokio().start(async { panic!("as the test wants it") });
        task.ended().await;
        assert!(task.is_ended());
    }
}
