//! A store that forgets everything when it is dropped.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::{Batch, KeyRange, Store, StoreError, Write};

/// Keeps its entries in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    memory: Arc<Mutex<Memory>>,
    is_closed: AtomicBool,
}

#[derive(Default)]
struct Memory {
    namespaces: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    leases: BTreeMap<String, u64>,
}

impl fmt::Debug for Memory {
    /// Values may be secret, and there may be many: only the namespaces are counted.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} namespaces", self.namespaces.len())
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// Opens the same entries and leases again, as a file is opened again after a restart. Closing one leaves the other open.
    pub fn reopen(&self) -> MemoryStore {
        MemoryStore {
            memory: self.memory.clone(),
            is_closed: AtomicBool::new(false),
        }
    }

    fn open(&self) -> Result<MutexGuard<'_, Memory>, StoreError> {
        let memory = self.lock();
        match self.is_closed.load(Ordering::SeqCst) {
            true => Err(StoreError::Closed),
            false => Ok(memory),
        }
    }

    /// Nothing in here panics half-way through a change, so a poisoned lock still guards a whole state.
    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn load(&self, namespace: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let memory = self.open()?;
        let entries = memory.namespaces.get(namespace).into_iter().flatten();
        Ok(entries
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    async fn range(
        &self,
        namespace: &str,
        range: KeyRange,
    ) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let memory = self.open()?;
        let KeyRange { from, to, limit } = range;
        let Some(entries) = memory.namespaces.get(namespace).filter(|_| from < to) else {
            return Ok(Vec::new());
        };
        let entries = entries.range(from..to).rev();
        let limit = limit.map_or(usize::MAX, |limit| limit as usize);
        Ok(entries
            .take(limit)
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    async fn get(&self, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let memory = self.open()?;
        let entries = memory.namespaces.get(namespace);
        Ok(entries.and_then(|entries| entries.get(key)).cloned())
    }

    async fn namespaces(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let memory = self.open()?;
        let from_prefix = memory
            .namespaces
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        Ok(from_prefix
            .map(|(name, _)| name.clone())
            .take_while(|name| name.starts_with(prefix))
            .collect())
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut memory = self.open()?;
        let current = memory.leases.get(&batch.namespace).copied().unwrap_or(0);
        if batch.epoch != current {
            return Err(StoreError::Fenced {
                namespace: batch.namespace,
                held: batch.epoch,
                current,
            });
        }
        let entries = memory
            .namespaces
            .entry(batch.namespace.clone())
            .or_default();
        for write in batch.writes {
            match write {
                Write::Put(key, value) => drop(entries.insert(key, value)),
                Write::Delete(key) => drop(entries.remove(&key)),
            }
        }
        if entries.is_empty() {
            memory.namespaces.remove(&batch.namespace);
        }
        Ok(())
    }

    async fn take_lease(&self, namespace: &str) -> Result<u64, StoreError> {
        let mut memory = self.open()?;
        let epoch = memory.leases.entry(namespace.to_owned()).or_default();
        *epoch += 1;
        Ok(*epoch)
    }

    async fn close(&self) -> Result<(), StoreError> {
        // With the lock, so that a commit is before or after it.
        let _memory = self.lock();
        self.is_closed.store(true, Ordering::SeqCst);
        Ok(())
    }
}
