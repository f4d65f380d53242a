//! The writes of a turn, until the turn is committed.
//!
//! LDK's persisters and our own records write here, synchronously and in memory; the driver commits it all as one
//! batch. While a node loads, the journal also holds the entries of the store, so that LDK can read; they are dropped
//! as soon as the node is loaded.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bitcoin::io;
use lightning::util::persist::KVStoreSync;
use longhand_store::Write;

use super::schema::key::LDK;

/// See the module.
#[derive(Default)]
pub(crate) struct Journal {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    loaded: BTreeMap<String, Vec<u8>>,
    writes: Vec<Write>,
}

impl Journal {
    /// A journal over the entries that the store holds.
    pub fn loading(entries: Vec<(String, Vec<u8>)>) -> Journal {
        let inner = Inner {
            loaded: entries.into_iter().collect(),
            writes: Vec::new(),
        };
        Journal {
            inner: Mutex::new(inner),
        }
    }

    /// Everything loaded under `prefix`, with the prefix cut off.
    pub fn loaded(&self, prefix: &str) -> Vec<(String, Vec<u8>)> {
        let inner = lock(&self.inner);
        inner
            .loaded
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key[prefix.len()..].to_owned(), value.clone()))
            .collect()
    }

    /// One loaded value.
    pub fn loaded_one(&self, key: &str) -> Option<Vec<u8>> {
        lock(&self.inner).loaded.get(key).cloned()
    }

    /// Ends loading: drops the entries of the store.
    pub fn finish_loading(&self) {
        lock(&self.inner).loaded = BTreeMap::new();
    }

    /// Sets a value with this turn's commit.
    pub fn put(&self, key: impl Into<String>, value: Vec<u8>) {
        lock(&self.inner).writes.push(Write::Put(key.into(), value));
    }

    /// Removes a value with this turn's commit.
    pub fn delete(&self, key: impl Into<String>) {
        lock(&self.inner).writes.push(Write::Delete(key.into()));
    }

    /// True when this turn has nothing to commit.
    pub fn is_empty(&self) -> bool {
        lock(&self.inner).writes.is_empty()
    }

    /// Takes this turn's writes; of several to one key only the last is kept.
    pub fn take(&self) -> Vec<Write> {
        let writes = std::mem::take(&mut lock(&self.inner).writes);
        let mut last: BTreeMap<String, Write> = BTreeMap::new();
        for write in writes {
            let key = match &write {
                Write::Put(key, _) | Write::Delete(key) => key.clone(),
            };
            last.insert(key, write);
        }
        last.into_values().collect()
    }
}

/// Locks a mutex whose holder may have panicked: the node is then thrown away as a whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn ldk_key(primary: &str, secondary: &str, key: &str) -> String {
    format!("{LDK}{primary}/{secondary}/{key}")
}

impl KVStoreSync for Journal {
    fn read(&self, primary: &str, secondary: &str, key: &str) -> Result<Vec<u8>, io::Error> {
        self.loaded_one(&ldk_key(primary, secondary, key))
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such key"))
    }

    fn write(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        value: Vec<u8>,
    ) -> Result<(), io::Error> {
        self.put(ldk_key(primary, secondary, key), value);
        Ok(())
    }

    fn remove(
        &self,
        primary: &str,
        secondary: &str,
        key: &str,
        _lazy: bool,
    ) -> Result<(), io::Error> {
        self.delete(ldk_key(primary, secondary, key));
        Ok(())
    }

    fn list(&self, primary: &str, secondary: &str) -> Result<Vec<String>, io::Error> {
        let prefix = ldk_key(primary, secondary, "");
        Ok(self
            .loaded(&prefix)
            .into_iter()
            .map(|(key, _)| key)
            .collect())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_turn_is_one_batch_in_which_the_last_write_of_a_key_wins() {
        let journal = Journal::default();
        journal.put("a", vec![1]);
        journal.delete("b");
        journal.put("a", vec![2]);
        assert_eq!(
            journal.take(),
            vec![Write::Put("a".into(), vec![2]), Write::Delete("b".into())]
        );
        assert!(journal.is_empty());
    }

    #[test]
    fn ldk_reads_what_was_loaded_and_a_missing_key_is_not_found() {
        let entries = vec![("ldk/monitors//one".to_owned(), vec![7])];
        let journal = Journal::loading(entries);
        assert_eq!(
            journal.list("monitors", "").unwrap(),
            vec!["one".to_owned()]
        );
        assert_eq!(journal.read("monitors", "", "one").unwrap(), vec![7]);
        let missing = journal.read("monitors", "", "two").unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        journal.finish_loading();
        assert!(journal.read("monitors", "", "one").is_err());
    }
}
