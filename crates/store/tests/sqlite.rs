//! The SQLite store against the promises of a store, a model, and a crash.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use longhand_proto::Code;
use longhand_store::testing::conformance;
use longhand_store::{Batch, MemoryStore, SqliteStore, Store, StoreError, Write};
use proptest::prelude::*;

fn put(key: &str, value: &[u8]) -> Write {
    Write::Put(key.into(), value.to_vec())
}

fn batch(namespace: &str, writes: Vec<Write>) -> Batch {
    Batch {
        namespace: namespace.into(),
        epoch: 0,
        writes,
    }
}

#[tokio::test]
async fn sqlite_keeps_every_promise() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.db");
    conformance(async || SqliteStore::open(&path).unwrap()).await;
}

#[tokio::test]
async fn entries_and_leases_outlive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("odd ?#% name.db");
    let store = SqliteStore::open(&path).unwrap();
    let epoch = store.take_lease("n").await.unwrap();
    let mut written = batch("n", vec![put("key", b"value")]);
    written.epoch = epoch;
    store.commit(written.clone()).await.unwrap();
    drop(store);

    let store = SqliteStore::open(&path).unwrap();
    assert_eq!(
        store.get("n", "key").await.unwrap(),
        Some(b"value".to_vec())
    );
    store.commit(written.clone()).await.unwrap();
    assert_eq!(store.take_lease("n").await.unwrap(), epoch + 1);
    let fenced = store.commit(written).await.unwrap_err();
    assert_eq!(fenced.code(), Code::DatabaseFenced, "{fenced}");
}

#[tokio::test]
async fn every_close_waits_until_the_file_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.db");
    let store = SqliteStore::open(&path).unwrap();
    let large = batch("n", vec![put("key", &vec![7; 1_000_000])]);
    let close_and_open = async || {
        store.close().await?;
        SqliteStore::open(&path).map(drop)
    };
    let (written, first, second) =
        tokio::join!(store.commit(large), close_and_open(), close_and_open());
    assert_eq!((written, first, second), (Ok(()), Ok(()), Ok(())));
}

#[cfg(unix)]
#[tokio::test]
async fn only_the_owner_can_read_the_file() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.db");
    let store = SqliteStore::open(&path).unwrap();
    store
        .commit(batch("n", vec![put("key", b"value")]))
        .await
        .unwrap();
    for file in [path.clone(), with_suffix(&path, "-wal")] {
        let mode = std::fs::metadata(file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn a_second_opener_is_refused_while_the_database_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.db");
    let first = SqliteStore::open(&path).unwrap();
    let second = SqliteStore::open(&path);
    assert!(
        matches!(&second, Err(StoreError::InUse(at)) if at.ends_with("host.db")),
        "{second:?}"
    );
    drop(first);
    SqliteStore::open(&path).unwrap();
}

#[test]
fn a_file_of_another_program_is_refused_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("notes.txt");
    std::fs::write(&text, "dear diary, ".repeat(100)).unwrap();
    let database = dir.path().join("other.db");
    let other = rusqlite::Connection::open(&database).unwrap();
    other
        .execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE t (x)")
        .unwrap();
    drop(other);
    for path in [text, database] {
        let before = std::fs::read(&path).unwrap();
        let refused = SqliteStore::open(&path);
        assert!(
            matches!(refused, Err(StoreError::Foreign(_))),
            "{refused:?}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        2,
        "no file was added"
    );
}

#[test]
fn a_newer_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.db");
    drop(SqliteStore::open(&path).unwrap());
    let file = rusqlite::Connection::open(&path).unwrap();
    file.pragma_update(None, "user_version", 2).unwrap();
    drop(file);
    let refused = SqliteStore::open(&path).unwrap_err();
    assert_eq!(refused, StoreError::Newer { found: 2, known: 1 });
    assert_eq!(refused.code(), Code::DatabaseNewer);
}

#[test]
fn a_place_that_does_not_exist_is_named() {
    let refused = SqliteStore::open("/does/not/exist/host.db");
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("/does/not/exist/host.db"), "{message}");
}

#[tokio::test]
async fn a_crash_at_any_byte_of_the_log_leaves_whole_batches() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.db");
    let store = SqliteStore::open(&path).unwrap();
    let mut answered = Vec::new();
    for i in 0..12_u8 {
        let value = vec![i; 100 + 700 * usize::from(i % 4)];
        let writes = vec![put("manager", &value), put("monitor", &value)];
        store.commit(batch("node", writes)).await.unwrap();
        answered.push(std::fs::metadata(with_suffix(&path, "-wal")).unwrap().len());
    }
    let log = std::fs::read(with_suffix(&path, "-wal")).unwrap();

    for cut in (0..=log.len()).step_by(997).chain([log.len()]) {
        let copy = dir.path().join("copy.db");
        std::fs::copy(&path, &copy).unwrap();
        std::fs::write(with_suffix(&copy, "-wal"), &log[..cut]).unwrap();
        let reopened = SqliteStore::open(&copy).unwrap();
        let manager = reopened.get("node", "manager").await.unwrap();
        assert_eq!(
            manager,
            reopened.get("node", "monitor").await.unwrap(),
            "cut at {cut}"
        );
        let durable = answered.iter().filter(|end| **end <= cut as u64).count();
        let found = manager.map_or(0, |value| usize::from(value[0]) + 1);
        assert!(
            found >= durable,
            "cut at {cut}: {found} batches left of {durable} answered"
        );
        drop(reopened);
        std::fs::remove_file(copy).unwrap();
    }
}

/// One step against a store and its model.
#[derive(Clone, Debug)]
enum Step {
    Commit(Batch),
    TakeLease(String),
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = prop::sample::select(vec!["a", "a/b", "b"]).prop_map(str::to_owned);
    let key = "[xyz]{0,2}";
    let write = prop_oneof![
        3 => (key, prop::collection::vec(any::<u8>(), 0..64)).prop_map(|(k, v)| Write::Put(k, v)),
        1 => key.prop_map(Write::Delete),
    ];
    let commit = (name.clone(), 0..3_u64, prop::collection::vec(write, 0..6)).prop_map(
        |(namespace, epoch, writes)| {
            Step::Commit(Batch {
                namespace,
                epoch,
                writes,
            })
        },
    );
    let step = prop_oneof![
        8 => commit,
        1 => name.prop_map(Step::TakeLease),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 0..40)
}

#[derive(Default)]
struct Model {
    entries: BTreeMap<(String, String), Vec<u8>>,
    leases: BTreeMap<String, u64>,
}

impl Model {
    fn commit(&mut self, batch: &Batch) -> bool {
        if self.leases.get(&batch.namespace).copied().unwrap_or(0) != batch.epoch {
            return false;
        }
        for write in &batch.writes {
            match write.clone() {
                Write::Put(key, value) => {
                    self.entries.insert((batch.namespace.clone(), key), value);
                }
                Write::Delete(key) => {
                    self.entries.remove(&(batch.namespace.clone(), key));
                }
            }
        }
        true
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn sqlite_and_memory_do_what_a_map_does(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(follow(steps));
    }
}

async fn follow(steps: Vec<Step>) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.db");
    let mut sqlite = SqliteStore::open(&path).unwrap();
    let memory = MemoryStore::new();
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Commit(batch) => {
                let expected = model.commit(&batch);
                assert_eq!(sqlite.commit(batch.clone()).await.is_ok(), expected);
                assert_eq!(memory.commit(batch).await.is_ok(), expected);
            }
            Step::TakeLease(name) => {
                let epoch = model.leases.entry(name.clone()).or_default();
                *epoch += 1;
                assert_eq!(sqlite.take_lease(&name).await.unwrap(), *epoch);
                assert_eq!(memory.take_lease(&name).await.unwrap(), *epoch);
            }
            Step::Reopen => {
                drop(sqlite);
                sqlite = SqliteStore::open(&path).unwrap();
            }
        }
    }
    for store in [&sqlite as &dyn Store, &memory] {
        let mut found = BTreeMap::new();
        for namespace in store.namespaces("").await.unwrap() {
            for (key, value) in store.load(&namespace).await.unwrap() {
                found.insert((namespace.clone(), key), value);
            }
        }
        assert_eq!(found, model.entries);
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
