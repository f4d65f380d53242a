//! The promises of every store, as one function to call from a test of the store.
// A test-suite: a broken promise of the store is a panic here, as in any test.
#![allow(clippy::unwrap_used)]

use crate::{Batch, KeyRange, Store, StoreError, Write};

/// Checks a store against every promise of [`Store`]. Panics at the first that is broken.
///
/// `open` opens one and the same store each time, which is empty at first. It is called again only after the store was closed.
pub async fn conformance<S: Store>(open: impl AsyncFn() -> S) {
    let store = &open().await;
    nothing_is_there_at_first(store).await;
    entries_come_in_the_order_of_their_keys(store).await;
    a_range_has_its_last_entries_last_first(store).await;
    get_finds_the_key_of_its_namespace_alone(store).await;
    last_write_of_a_batch_wins(store).await;
    values_may_be_empty_or_large(store).await;
    namespaces_are_apart_and_found_by_prefix(store).await;
    an_older_lease_writes_nothing(store).await;
    a_lease_of_one_namespace_is_no_other_ones(store).await;
    concurrent_batches_all_arrive(store).await;
    calls_begun_before_the_end_are_finished(store).await;
    a_closed_store_refuses_every_call(store).await;
    entries_and_leases_outlive_the_end(&open).await;
}

fn put(key: &str, value: &[u8]) -> Write {
    Write::Put(key.into(), value.to_vec())
}

fn batch(namespace: &str, epoch: u64, writes: Vec<Write>) -> Batch {
    Batch {
        namespace: namespace.into(),
        epoch,
        writes,
    }
}

fn entries(list: &[(&str, &[u8])]) -> Vec<(String, Vec<u8>)> {
    list.iter()
        .map(|(key, value)| ((*key).to_owned(), value.to_vec()))
        .collect()
}

async fn nothing_is_there_at_first(store: &dyn Store) {
    assert_eq!(store.load("none").await.unwrap(), []);
    assert_eq!(store.get("none", "key").await.unwrap(), None);
    assert_eq!(store.namespaces("").await.unwrap(), Vec::<String>::new());
    let delete = vec![Write::Delete("key".into())];
    store.commit(batch("none", 0, delete)).await.unwrap();
    store.commit(batch("none", 0, Vec::new())).await.unwrap();
    assert_eq!(store.namespaces("").await.unwrap(), Vec::<String>::new());
}

async fn entries_come_in_the_order_of_their_keys(store: &dyn Store) {
    let writes = vec![
        put("b", b"2"),
        put("a/é", b"1"),
        put("", b"0"),
        put("B", b"3"),
    ];
    store.commit(batch("order", 0, writes)).await.unwrap();
    let expected = entries(&[("", b"0"), ("B", b"3"), ("a/é", b"1"), ("b", b"2")]);
    assert_eq!(store.load("order").await.unwrap(), expected);
}

async fn a_range_has_its_last_entries_last_first(store: &dyn Store) {
    let writes = ["", "a", "a/1", "a/2", "a/é", "b", "~"].map(|key| put(key, key.as_bytes()));
    store
        .commit(batch("range", 0, writes.into()))
        .await
        .unwrap();
    store
        .commit(batch("range/other", 0, vec![put("a/3", b"x")]))
        .await
        .unwrap();
    let range = async |from: &str, to: &str, limit: Option<u32>| {
        let range = KeyRange {
            from: from.into(),
            to: to.into(),
            limit,
        };
        let found = store.range("range", range).await.unwrap();
        assert!(found.iter().all(|(key, value)| key.as_bytes() == value));
        found.into_iter().map(|(key, _)| key).collect::<Vec<_>>()
    };
    assert_eq!(range("a/", "a0", None).await, ["a/é", "a/2", "a/1"]);
    assert_eq!(range("a/", "a0", Some(2)).await, ["a/é", "a/2"]);
    assert_eq!(range("a/1", "a/2", Some(9)).await, ["a/1"]);
    assert_eq!(range("", "~", None).await.len(), 6);
    let empty = Vec::<String>::new();
    assert_eq!(range("a/", "a0", Some(0)).await, empty);
    assert_eq!(range("b", "a", None).await, empty);
    assert_eq!(range("a", "a", None).await, empty);
    let nowhere = KeyRange {
        from: String::new(),
        to: "z".into(),
        limit: None,
    };
    assert_eq!(store.range("no range", nowhere).await.unwrap(), []);
}

async fn get_finds_the_key_of_its_namespace_alone(store: &dyn Store) {
    let one = vec![put("a/b", b"1"), put("b", b"2")];
    store.commit(batch("get", 0, one)).await.unwrap();
    store
        .commit(batch("get/other", 0, vec![put("other", b"3")]))
        .await
        .unwrap();
    assert_eq!(store.get("get", "a/b").await.unwrap(), Some(b"1".to_vec()));
    for missing in ["", "a", "a/", "a/b/c", "c", "other"] {
        assert_eq!(store.get("get", missing).await.unwrap(), None, "{missing}");
    }
    assert_eq!(store.get("get/other", "b").await.unwrap(), None);
    assert_eq!(store.get("", "b").await.unwrap(), None);
}

async fn last_write_of_a_batch_wins(store: &dyn Store) {
    let delete = |key: &str| Write::Delete(key.into());
    let writes = vec![
        put("twice", b"old"),
        put("gone", b"x"),
        delete("gone"),
        put("twice", b"new"),
        delete("back"),
        put("back", b"y"),
    ];
    store.commit(batch("last", 0, writes)).await.unwrap();
    let expected = entries(&[("back", b"y"), ("twice", b"new")]);
    assert_eq!(store.load("last").await.unwrap(), expected);
    store
        .commit(batch(
            "last",
            0,
            vec![put("twice", b"newest"), delete("back")],
        ))
        .await
        .unwrap();
    assert_eq!(
        store.get("last", "twice").await.unwrap(),
        Some(b"newest".to_vec())
    );
    assert_eq!(store.get("last", "back").await.unwrap(), None);
}

async fn values_may_be_empty_or_large(store: &dyn Store) {
    let large: Vec<u8> = (0..3_000_000_u32).map(|i| i.to_le_bytes()[1]).collect();
    let writes = vec![put("empty", b""), put("large", &large)];
    store.commit(batch("sizes", 0, writes)).await.unwrap();
    assert_eq!(store.get("sizes", "empty").await.unwrap(), Some(Vec::new()));
    assert_eq!(store.get("sizes", "large").await.unwrap(), Some(large));
}

async fn namespaces_are_apart_and_found_by_prefix(store: &dyn Store) {
    for (namespace, value) in [
        ("p/b", b"1"),
        ("p/a", b"2"),
        ("p", b"3"),
        ("p_", b"4"),
        ("p%/", b"5"),
    ] {
        store
            .commit(batch(namespace, 0, vec![put("key", value)]))
            .await
            .unwrap();
    }
    assert_eq!(store.get("p/a", "key").await.unwrap(), Some(b"2".to_vec()));
    assert_eq!(store.namespaces("p/").await.unwrap(), ["p/a", "p/b"]);
    assert_eq!(store.namespaces("p%").await.unwrap(), ["p%/"]);
    assert_eq!(store.namespaces("p_").await.unwrap(), ["p_"]);
    assert_eq!(
        store.namespaces("p").await.unwrap(),
        ["p", "p%/", "p/a", "p/b", "p_"]
    );
    store
        .commit(batch("p/b", 0, vec![Write::Delete("key".into())]))
        .await
        .unwrap();
    assert_eq!(store.namespaces("p/").await.unwrap(), ["p/a"]);
}

async fn an_older_lease_writes_nothing(store: &dyn Store) {
    let first = store.take_lease("lease").await.unwrap();
    store
        .commit(batch("lease", first, vec![put("key", b"first")]))
        .await
        .unwrap();
    let second = store.take_lease("lease").await.unwrap();
    assert!(second > first, "epochs grow: {first}, then {second}");
    for held in [0, first, second + 1] {
        let refused = store
            .commit(batch("lease", held, vec![put("key", b"late")]))
            .await;
        match refused {
            Err(StoreError::Fenced {
                namespace,
                held: h,
                current,
            }) => {
                assert_eq!((namespace.as_str(), h, current), ("lease", held, second));
            }
            other => panic!("epoch {held} must be fenced, not {other:?}"),
        }
    }
    assert_eq!(
        store.load("lease").await.unwrap(),
        entries(&[("key", b"first")])
    );
    store
        .commit(batch("lease", second, vec![put("key", b"second")]))
        .await
        .unwrap();
    assert_eq!(
        store.load("lease").await.unwrap(),
        entries(&[("key", b"second")])
    );
}

async fn a_lease_of_one_namespace_is_no_other_ones(store: &dyn Store) {
    store.take_lease("leased").await.unwrap();
    assert_eq!(
        store.namespaces("leased").await.unwrap(),
        Vec::<String>::new()
    );
    store
        .commit(batch("leased/not", 0, vec![put("key", b"x")]))
        .await
        .unwrap();
}

/// Many writers at once, every third of them fenced: those, and only those, write nothing.
async fn concurrent_batches_all_arrive(store: &dyn Store) {
    let mut writers = Vec::new();
    for i in 0..60_u64 {
        let namespace = format!("many/{i:02}");
        let epoch = store.take_lease(&namespace).await.unwrap();
        let held = if i % 3 == 0 { epoch - 1 } else { epoch };
        let writes = vec![put("a", &i.to_be_bytes()), put("b", &i.to_be_bytes())];
        writers.push(store.commit(batch(&namespace, held, writes)));
    }
    let outcomes = join_all(writers).await;
    for (i, outcome) in outcomes.into_iter().enumerate() {
        let found = store.load(&format!("many/{i:02}")).await.unwrap();
        if i % 3 == 0 {
            assert!(
                matches!(outcome, Err(StoreError::Fenced { .. })),
                "{outcome:?}"
            );
            assert_eq!(found, []);
        } else {
            outcome.unwrap();
            let value = (i as u64).to_be_bytes();
            assert_eq!(found, entries(&[("a", &value), ("b", &value)]));
        }
    }
}

/// The namespace that the last three checks share.
const CLOSED: &str = "closed";

/// Each is durable, or was refused: checked after the store is opened again.
async fn calls_begun_before_the_end_are_finished(store: &dyn Store) {
    let epoch = store.take_lease(CLOSED).await.unwrap();
    let mut calls: Vec<Pending> = Vec::new();
    for key in ["1", "2", "3"] {
        calls.push(store.commit(batch(CLOSED, epoch, vec![put(key, b"before")])));
    }
    calls.push(store.close());
    for outcome in join_all(calls).await {
        outcome.unwrap();
    }
}

async fn a_closed_store_refuses_every_call(store: &dyn Store) {
    let late = batch(CLOSED, 1, vec![put("late", b"x")]);
    let refusals = [
        store.load(CLOSED).await.map(drop),
        store.range(CLOSED, all()).await.map(drop),
        store.get(CLOSED, "1").await.map(drop),
        store.namespaces("").await.map(drop),
        store.commit(late).await,
        store.take_lease(CLOSED).await.map(drop),
    ];
    for refused in refusals {
        assert_eq!(refused, Err(StoreError::Closed));
    }
    store.close().await.unwrap();
}

fn all() -> KeyRange {
    KeyRange {
        from: String::new(),
        to: "~".into(),
        limit: None,
    }
}

async fn entries_and_leases_outlive_the_end<S: Store>(open: &impl AsyncFn() -> S) {
    let store = open().await;
    let written = entries(&[("1", b"before"), ("2", b"before"), ("3", b"before")]);
    assert_eq!(store.load(CLOSED).await.unwrap(), written);
    store
        .commit(batch(CLOSED, 1, vec![put("4", b"after")]))
        .await
        .unwrap();
    assert_eq!(store.take_lease(CLOSED).await.unwrap(), 2);
    store.close().await.unwrap();
}

type Pending<'a> = std::pin::Pin<Box<dyn Future<Output = Result<(), StoreError>> + Send + 'a>>;

/// Polls all of them before it waits for any, so that they meet in the store.
async fn join_all(mut pending: Vec<Pending<'_>>) -> Vec<Result<(), StoreError>> {
    let mut outcomes: Vec<_> = pending.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, outcome) in pending.iter_mut().zip(&mut outcomes) {
            if outcome.is_none()
                && let std::task::Poll::Ready(result) = future.as_mut().poll(context)
            {
                *outcome = Some(result);
            }
        }
        match outcomes.iter().all(Option::is_some) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    outcomes.into_iter().flatten().collect()
}
