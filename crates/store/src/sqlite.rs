//! The store of a host: one SQLite file.
//!
//! One thread owns the only connection (`worker.rs`). Batches that wait while it syncs the disk
//! become one transaction, so that a hundred nodes share one `fsync`. The file is opened in `open.rs`, and SQLite's
//! error codes become [`StoreError`]s in `error.rs`.

mod error;
mod open;
mod worker;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::{oneshot, watch};

use crate::{Batch, KeyRange, Store, StoreError};
use open::open_connection;
use worker::{Job, Worker};

/// Keeps its entries in one SQLite file, in WAL mode with `synchronous=FULL`.
///
/// The file is locked for this process until the store is closed or dropped.
#[derive(Debug)]
pub struct SqliteStore {
    /// `None` once the store is closed.
    jobs: Mutex<Option<mpsc::Sender<Job>>>,
    /// How the file was closed; `None` until then.
    closed: watch::Receiver<Option<Result<(), StoreError>>>,
    thread: Option<JoinHandle<()>>,
}

impl SqliteStore {
    /// Opens the database at `path`, or creates it there, readable by its owner alone. Blocks for as long as the disk takes.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Foreign`], [`StoreError::Newer`] and those of the disk; nothing was changed
    /// then, but that a new file may be there.
    pub fn open(path: impl AsRef<Path>) -> Result<SqliteStore, StoreError> {
        Self::start(open_connection(path.as_ref())?)
    }

    fn start(connection: Connection) -> Result<SqliteStore, StoreError> {
        let (jobs, queue) = mpsc::channel();
        let (closing, closed) = watch::channel(None);
        let work = move || {
            let mut worker = Worker::new(connection);
            worker.run(&queue);
            closing.send_replace(Some(worker.close()));
        };
        let thread = std::thread::Builder::new()
            .name("longhand-store".into())
            .spawn(work)
            .map_err(|e| {
                StoreError::Unavailable(format!("its thread could not be started: {e}"))
            })?;
        Ok(SqliteStore {
            jobs: Mutex::new(Some(jobs)),
            closed,
            thread: Some(thread),
        })
    }

    fn jobs(&self) -> MutexGuard<'_, Option<mpsc::Sender<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a job to the thread and waits for the answer.
    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let jobs = self.jobs().clone().ok_or(StoreError::Closed)?;
        jobs.send(job(reply)).map_err(|_| thread_ended())?;
        drop(jobs);
        answer.await.map_err(|_| thread_ended())?
    }
}

/// Only a panic ends the thread before the store is closed.
fn thread_ended() -> StoreError {
    StoreError::Halted("the store's thread ended by a panic".into())
}

impl Drop for SqliteStore {
    /// Closes the file too, and blocks until that is done.
    fn drop(&mut self) {
        self.jobs().take();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the store's thread ended by a panic");
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn load(&self, namespace: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let namespace = namespace.to_owned();
        self.ask(|reply| Job::Load { namespace, reply }).await
    }

    async fn range(
        &self,
        namespace: &str,
        range: KeyRange,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let namespace = namespace.to_owned();
        self.ask(|reply| Job::Range {
            namespace,
            range,
            reply,
        })
        .await
    }

    async fn get(&self, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let (namespace, key) = (namespace.to_owned(), key.to_owned());
        self.ask(|reply| Job::Get {
            namespace,
            key,
            reply,
        })
        .await
    }

    async fn namespaces(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let prefix = prefix.to_owned();
        self.ask(|reply| Job::Namespaces { prefix, reply }).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.ask(|reply| Job::Commit { batch, reply }).await
    }

    async fn take_lease(&self, namespace: &str) -> Result<u64, StoreError> {
        let namespace = namespace.to_owned();
        self.ask(|reply| Job::TakeLease { namespace, reply }).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.jobs().take();
        let mut closed = self.closed.clone();
        let outcome = closed.wait_for(Option::is_some).await;
        outcome.map_or_else(
            |_| Err(thread_ended()),
            |outcome| outcome.clone().unwrap_or(Ok(())),
        )
    }
}

#[cfg(test)]
mod tests;
