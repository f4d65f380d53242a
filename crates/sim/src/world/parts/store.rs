//! The host's store.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use longhand_store::{Batch, KeyRange, MemoryStore, Store, StoreError, Write};
use tokio::time::{Instant, sleep_until};

use super::{Life, lock};
use crate::world::plan::{How, Interruption, Kind, Plan};

/// Commits after a forgotten one; at the last the process dies.
const LIE: u32 = 4;

/// One process's store. Its content outlives the process.
pub struct SimStore {
    /// The disk as this process has opened it.
    disk: MemoryStore,
    life: Arc<Life>,
    plan: Plan,
    /// A write lasts until then: operations that come meanwhile wait, as behind a real disk.
    busy_until: Mutex<Instant>,
    /// Commits until the process dies after a forgotten one, see [`How::Forgotten`]; 0 without one.
    dies_in: AtomicU32,
}

impl SimStore {
    pub fn new(disk: &MemoryStore, life: Arc<Life>, plan: Plan) -> SimStore {
        SimStore {
            disk: disk.reopen(),
            life,
            plan,
            busy_until: Mutex::new(Instant::now()),
            dies_in: AtomicU32::new(0),
        }
    }

    /// Waits for its turn; for ever when the process has ended.
    async fn ready(&self) {
        loop {
            let until = *lock(&self.busy_until);
            if until <= Instant::now() {
                break;
            }
            sleep_until(until).await;
        }
        if self.life.has_ended() {
            std::future::pending::<()>().await;
        }
    }

    async fn die<T>(&self) -> Result<T, StoreError> {
        self.life.end();
        std::future::pending().await
    }

    /// One write, done as far as the interruption allows.
    async fn write<T>(
        &self,
        interruption: Option<Interruption>,
        write: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let Some(interruption) = interruption else {
            // A disk takes its time: operations that come meanwhile wait, as behind a real one.
            tokio::task::yield_now().await;
            self.ready().await;
            return write.await;
        };
        match interruption.how {
            How::After => {
                write.await?;
                self.die().await
            }
            How::Late => {
                let until = Instant::now() + interruption.length.time();
                *lock(&self.busy_until) = until;
                sleep_until(until).await;
                self.ready().await;
                write.await
            }
            How::Fails => Err(failed()),
            How::Full => Err(StoreError::Full),
            How::Unheard => {
                write.await?;
                Err(failed())
            }
            _ => self.die().await,
        }
    }
}

/// For the trace.
fn content(writes: &[Write]) -> Vec<(&str, Option<&[u8]>)> {
    let content = writes.iter().map(|write| match write {
        Write::Put(key, value) => (key.as_str(), Some(value.as_slice())),
        Write::Delete(key) => (key.as_str(), None),
    });
    content.collect()
}

fn failed() -> StoreError {
    StoreError::Unavailable("a simulated disk failed".into())
}

#[async_trait]
impl Store for SimStore {
    async fn load(&self, namespace: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.ready().await;
        self.disk.load(namespace).await
    }

    async fn range(
        &self,
        namespace: &str,
        range: KeyRange,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        self.ready().await;
        self.disk.range(namespace, range).await
    }

    async fn get(&self, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.ready().await;
        self.disk.get(namespace, key).await
    }

    async fn namespaces(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.ready().await;
        self.disk.namespaces(prefix).await
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        self.ready().await;
        if self.dies_in.load(Ordering::SeqCst) > 0
            && self.dies_in.fetch_sub(1, Ordering::SeqCst) == 1
        {
            return self.die().await;
        }
        self.plan
            .trace(Kind::StoreWrite, (&batch.namespace, content(&batch.writes)));
        let interruption = self.plan.step(Kind::StoreWrite);
        if interruption.is_some_and(|it| it.how == How::Forgotten) {
            self.dies_in.store(LIE, Ordering::SeqCst);
            return Ok(());
        }
        self.write(interruption, self.disk.commit(batch)).await
    }

    async fn take_lease(&self, namespace: &str) -> Result<u64, StoreError> {
        self.ready().await;
        self.plan.trace(Kind::StoreWrite, namespace);
        let interruption = self.plan.step(Kind::StoreWrite);
        self.write(interruption, self.disk.take_lease(namespace))
            .await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.ready().await;
        self.disk.close().await
    }
}
