#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use longhand_proto::Code;
use rusqlite::Connection;

use super::*;
use crate::Write;

fn put(namespace: &str, key: &str, value: Vec<u8>) -> Batch {
    let writes = vec![Write::Put(key.into(), value)];
    Batch {
        namespace: namespace.into(),
        epoch: 0,
        writes,
    }
}

#[tokio::test]
async fn full_disk_refuses_the_batch_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let connection = open_connection(&dir.path().join("host.db")).unwrap();
    connection
        .pragma_update(None, "max_page_count", 16)
        .unwrap();
    let store = SqliteStore::start(connection).unwrap();
    store
        .commit(put("n", "key", b"before".to_vec()))
        .await
        .unwrap();

    let mut too_much = put("n", "key", b"after".to_vec());
    too_much
        .writes
        .push(Write::Put("large".into(), vec![7; 200_000]));
    let (refused, neighbour) = tokio::join!(
        store.commit(too_much),
        store.commit(put("m", "key", b"fits".to_vec()))
    );

    assert!(matches!(refused, Err(StoreError::Full)), "{refused:?}");
    neighbour.unwrap();
    assert_eq!(
        store.load("n").await.unwrap(),
        [("key".to_owned(), b"before".to_vec())]
    );
    store
        .commit(put("n", "key", b"room again".to_vec()))
        .await
        .unwrap();
}

#[tokio::test]
async fn batches_that_wait_share_one_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.db");
    let mut worker = Worker::new(open_connection(&path).unwrap());
    let (jobs, queue) = mpsc::channel();
    let mut answers = Vec::new();
    for i in 0..50 {
        let (reply, answer) = oneshot::channel();
        jobs.send(Job::Commit {
            batch: put("n", &i.to_string(), vec![i]),
            reply,
        })
        .unwrap();
        answers.push(answer);
    }
    drop(jobs);
    worker.run(&queue);

    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    // Each transaction appends the pages it touched: 50 of them would be at least 50 pages.
    let log = std::fs::metadata(dir.path().join("host.db-wal"))
        .unwrap()
        .len();
    assert!(log < 10 * 4096, "{log} bytes of log");
}

/// Each transaction syncs the disk: a node that reads must not slow down the others.
#[tokio::test]
async fn a_read_sees_what_was_asked_before_it_and_splits_no_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let mut worker = Worker::new(open_connection(&dir.path().join("host.db")).unwrap());
    let (jobs, queue) = mpsc::channel();
    let mut reads = Vec::new();
    for i in 0..50 {
        let (reply, _) = oneshot::channel();
        let batch = put("n", &i.to_string(), vec![i]);
        jobs.send(Job::Commit { batch, reply }).unwrap();
        let (reply, read) = oneshot::channel();
        reads.push(read);
        jobs.send(Job::Get {
            namespace: "n".into(),
            key: i.to_string(),
            reply,
        })
        .unwrap();
    }
    drop(jobs);
    worker.run(&queue);

    for (read, i) in reads.into_iter().zip(0..) {
        assert_eq!(read.await.unwrap().unwrap(), Some(vec![i]));
    }
    let log = std::fs::metadata(dir.path().join("host.db-wal"))
        .unwrap()
        .len();
    assert!(log < 10 * 4096, "{log} bytes of log");
}

#[tokio::test]
async fn after_a_failed_disk_nothing_is_written_until_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut worker = Worker::new(open_connection(&dir.path().join("host.db")).unwrap());
    let io_error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
    let failed = worker.transaction(|_| Err(rusqlite::Error::SqliteFailure(io_error, None)));
    assert!(matches!(failed, Err(StoreError::Halted(_))), "{failed:?}");
    let refused = worker.transaction(|_| Ok(())).unwrap_err();
    assert_eq!(refused.code(), Code::DatabaseFailed);
    let message = refused.to_string();
    assert!(message.contains("restart the host"), "{message}");
}

#[tokio::test]
async fn a_damaged_page_is_reported_as_damage_by_reads_and_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.db");
    with_damage(&path).await;
    let connection = Connection::open(&path).unwrap();
    let store = SqliteStore::start(connection).unwrap();
    let read = store.load("n").await.unwrap_err();
    assert!(matches!(read, StoreError::Corrupt(_)), "{read:?}");
    let written = store.commit(put("n", "key", vec![8])).await.unwrap_err();
    assert!(matches!(written, StoreError::Corrupt(_)), "{written:?}");
    let leased = store.take_lease("n").await.unwrap_err();
    assert_eq!(leased, written, "it stays so until a restart");
}

#[tokio::test]
async fn a_damaged_database_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("host.db");
    with_damage(&path).await;
    let refused = SqliteStore::open(&path).map(drop).unwrap_err();
    assert_eq!(refused.code(), Code::DatabaseCorrupt, "{refused}");
}

/// A database in which all pages but the first are damaged: that has the application id in its header.
async fn with_damage(path: &Path) {
    let store = SqliteStore::open(path).unwrap();
    let large = put("n", "key", vec![7; 200_000]);
    store.commit(large).await.unwrap();
    store.close().await.unwrap();
    let mut file = std::fs::read(path).unwrap();
    file[4096..].fill(0xff);
    std::fs::write(path, file).unwrap();
}

#[tokio::test]
async fn a_lease_that_no_store_has_written_is_damage_of_its_namespace_alone() {
    let dir = tempfile::tempdir().unwrap();
    let connection = open_connection(&dir.path().join("host.db")).unwrap();
    connection
        .execute("INSERT INTO lease VALUES ('damaged', -1)", [])
        .unwrap();
    let store = SqliteStore::start(connection).unwrap();
    let refused = store
        .commit(put("damaged", "key", vec![1]))
        .await
        .unwrap_err();
    assert!(matches!(refused, StoreError::Corrupt(_)), "{refused:?}");
    store.commit(put("whole", "key", vec![1])).await.unwrap();
}
