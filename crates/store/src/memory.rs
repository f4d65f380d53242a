//! A store that forgets everything when it is dropped.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use crate::{Batch, Store, StoreError, Write};

/// Keeps its entries in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    namespaces: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
    leases: BTreeMap<String, u64>,
}

impl std::fmt::Debug for Inner {
    /// Values may be secret, and there may be many: only the namespaces are counted.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} namespaces", self.namespaces.len())
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> MemoryStore {
        MemoryStore::default()
    }

    /// Nothing in here panics half-way through a change, so a poisoned lock still guards a whole state.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn load(&self, namespace: &str) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let inner = self.lock();
        let entries = inner.namespaces.get(namespace).into_iter().flatten();
        Ok(entries
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect())
    }

    async fn get(&self, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self
            .lock()
            .namespaces
            .get(namespace)
            .and_then(|entries| entries.get(key))
            .cloned())
    }

    async fn namespaces(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let inner = self.lock();
        let from_prefix = inner
            .namespaces
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        Ok(from_prefix
            .map(|(name, _)| name.clone())
            .take_while(|name| name.starts_with(prefix))
            .collect())
    }

    async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let mut inner = self.lock();
        let current = inner.leases.get(&batch.namespace).copied().unwrap_or(0);
        if batch.epoch != current {
            return Err(StoreError::Fenced {
                namespace: batch.namespace,
                held: batch.epoch,
                current,
            });
        }
        let entries = inner.namespaces.entry(batch.namespace.clone()).or_default();
        for write in batch.writes {
            match write {
                Write::Put(key, value) => drop(entries.insert(key, value)),
                Write::Delete(key) => drop(entries.remove(&key)),
            }
        }
        if entries.is_empty() {
            inner.namespaces.remove(&batch.namespace);
        }
        Ok(())
    }

    async fn take_lease(&self, namespace: &str) -> Result<u64, StoreError> {
        let mut inner = self.lock();
        let epoch = inner.leases.entry(namespace.to_owned()).or_default();
        *epoch += 1;
        Ok(*epoch)
    }
}
