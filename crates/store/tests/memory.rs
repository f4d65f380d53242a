//! The memory store and the failing store against the promises of a store.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use longhand_store::testing::{FailingStore, conformance};
use longhand_store::{Batch, MemoryStore, Store, StoreError, Write};

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
async fn memory_keeps_every_promise() {
    let memory = MemoryStore::new();
    conformance(async || memory.reopen()).await;
}

#[tokio::test]
async fn a_wrapper_that_does_nothing_keeps_every_promise() {
    let memory = MemoryStore::new();
    conformance(async || FailingStore::new(Arc::new(memory.reopen()))).await;
}

#[tokio::test]
async fn picked_commits_fail_pause_or_lose_their_answer() {
    let store = Arc::new(FailingStore::new(Arc::new(MemoryStore::new())));
    store.refuse(1, StoreError::Full);
    store.lose_answer(2);
    let mut paused = store.pause(3);
    store.stop_at(4);

    let write = |key: &str| batch("n", vec![put(key, b"x")]);
    assert!(matches!(
        store.commit(write("1")).await,
        Err(StoreError::Full)
    ));
    assert!(store.commit(write("2")).await.is_err());
    let third = tokio::spawn({
        let (store, third) = (store.clone(), write("3"));
        async move { store.commit(third).await }
    });
    paused.reached().await;
    assert_eq!(store.get("n", "3").await.unwrap(), None);
    paused.resume();
    third.await.unwrap().unwrap();
    assert!(store.commit(write("4")).await.is_err());
    assert!(store.commit(write("5")).await.is_err());

    let left: Vec<_> = store
        .load("n")
        .await
        .unwrap()
        .into_iter()
        .map(|(key, _)| key)
        .collect();
    assert_eq!(left, ["2", "3"]);
    assert_eq!(store.commits(), 5);
}

#[tokio::test]
async fn a_commit_picked_by_its_key_loses_its_answer_once() {
    let store = FailingStore::new(Arc::new(MemoryStore::new()));
    store.lose_answer_of_put("a/");
    let write = |key: &str| batch("n", vec![put("b", b"x"), put(key, b"x")]);
    assert_eq!(store.commit(write("b/a/")).await, Ok(()));
    assert!(!store.has_lost_put());
    assert!(store.commit(write("a/1")).await.is_err());
    assert!(store.has_lost_put());
    assert_eq!(store.get("n", "a/1").await, Ok(Some(b"x".to_vec())));
    assert_eq!(store.commit(write("a/2")).await, Ok(()));
}

#[tokio::test]
async fn picked_loads_fail_in_one_namespace_alone() {
    let store = FailingStore::new(Arc::new(MemoryStore::new()));
    store.refuse_loads("n", 1, StoreError::Full);
    assert_eq!(store.load("m").await, Ok(Vec::new()));
    assert_eq!(store.load("n").await, Err(StoreError::Full));
    assert_eq!(store.load("n").await, Ok(Vec::new()));
    assert_eq!((store.loads(), store.loads_refused()), (3, 1));
}
