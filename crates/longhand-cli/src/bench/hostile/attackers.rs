//! The thread of the attackers, on a core of its own.

use std::future::Future;
use std::thread::JoinHandle;

use longhand_testkit::KitError;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::cores::pin;

/// Runs attacks. They end with it.
pub struct Attackers {
    runtime: Handle,
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

/// A task of the attackers. It is aborted when this is dropped.
pub struct Running<T> {
    result: oneshot::Receiver<T>,
    task: AbortHandle,
}

impl Attackers {
    /// One thread for all of them, on this core.
    ///
    /// # Errors
    /// When the system has no thread for them.
    pub fn start(core: Option<usize>) -> Result<Attackers, KitError> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let named = std::thread::Builder::new().name("attackers".into());
        let thread = named.spawn(move || {
            if let Err(error) = pin(core) {
                eprintln!("the attackers are not kept on their core: {error}");
            }
            // The sender may be dropped instead.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Attackers {
            runtime: handle,
            stop,
            thread,
        })
    }

    /// Begins to run this on their thread.
    pub fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Running<T> {
        let (done, result) = oneshot::channel();
        let task = self.runtime.spawn(async move {
            // Nobody waits for a task that was aborted.
            let _ = done.send(work.await);
        });
        Running {
            result,
            task: task.abort_handle(),
        }
    }

    /// Ends all of them, and waits until their thread has ended.
    pub fn stop(self) {
        // The thread may have ended with a panic, which it has reported.
        let _ = self.stop.send(());
        let _ = self.thread.join();
    }
}

impl<T> Running<T> {
    /// Waits for the result.
    ///
    /// # Errors
    /// When the task has panicked.
    pub async fn result(&mut self) -> Result<T, KitError> {
        let panicked = |_| KitError::Unexpected("an attack ended with a panic".into());
        (&mut self.result).await.map_err(panicked)
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}
