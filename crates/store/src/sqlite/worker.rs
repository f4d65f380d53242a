//! The thread that owns the connection: takes what is queued, writes it in one transaction, answers.

use std::sync::mpsc::Receiver;

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use tokio::sync::oneshot;

use super::error::store_error;
use crate::{Batch, KeyRange, StoreError, Write};

/// The channel for an answer. It is no error when the caller has stopped waiting.
type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// Most batches that one transaction takes, so that the first of them does not wait for ever.
const GROUP: usize = 256;

pub(super) enum Job {
    Load {
        namespace: String,
        reply: Reply<Vec<(String, Vec<u8>)>>,
    },
    Range {
        namespace: String,
        range: KeyRange,
        reply: Reply<Vec<(String, Vec<u8>)>>,
    },
    Get {
        namespace: String,
        key: String,
        reply: Reply<Option<Vec<u8>>>,
    },
    Namespaces {
        prefix: String,
        reply: Reply<Vec<String>>,
    },
    TakeLease {
        namespace: String,
        reply: Reply<u64>,
    },
    Commit {
        batch: Batch,
        reply: Reply<()>,
    },
}

pub(super) struct Worker {
    connection: Connection,
    /// Why nothing is written any more: [`StoreError::Halted`] or [`StoreError::Corrupt`]. After a failed write or
    /// sync the content of the disk is unknown (a second sync may succeed without it), so only a restart, which reads
    /// it back, can go on.
    broken: Option<StoreError>,
}

impl Worker {
    pub(super) fn new(connection: Connection) -> Worker {
        Worker {
            connection,
            broken: None,
        }
    }

    /// Closes the file. Committed batches are durable whether or not that succeeds.
    pub(super) fn close(self) -> Result<(), StoreError> {
        self.connection
            .close()
            .map_err(|(_, error)| store_error(&error))
    }

    /// Works until the last sender is gone and the queue is empty.
    pub(super) fn run(&mut self, queue: &Receiver<Job>) {
        let (mut commits, mut reads) = (Vec::new(), Vec::new());
        while let Ok(first) = queue.recv() {
            let waiting = std::iter::once(first).chain(queue.try_iter()).take(GROUP);
            for job in waiting {
                match job {
                    Job::Commit { batch, reply } => commits.push((batch, reply)),
                    // It fences the batches after it, and none before it: it ends a group.
                    lease @ Job::TakeLease { .. } => {
                        self.commit_group(&mut commits);
                        self.answer(lease);
                    }
                    read => reads.push(read),
                }
            }
            self.commit_group(&mut commits);
            // Batches that arrived before a read must be visible to it; later ones may be.
            for read in reads.drain(..) {
                self.answer(read);
            }
        }
    }

    fn answer(&mut self, job: Job) {
        match job {
            Job::Load { namespace, reply } => {
                drop(reply.send(self.load(&namespace).map_err(|e| store_error(&e))));
            }
            Job::Range {
                namespace,
                range,
                reply,
            } => {
                let read = self.range(&namespace, &range);
                drop(reply.send(read.map_err(|e| store_error(&e))));
            }
            Job::Get {
                namespace,
                key,
                reply,
            } => {
                drop(reply.send(self.get(&namespace, &key).map_err(|e| store_error(&e))));
            }
            Job::Namespaces { prefix, reply } => {
                drop(reply.send(self.namespaces(&prefix).map_err(|e| store_error(&e))));
            }
            Job::TakeLease { namespace, reply } => {
                let mut epoch = 0;
                let taken = self.transaction(|connection| {
                    epoch = take_lease(connection, &namespace)?;
                    Ok(())
                });
                drop(reply.send(taken.map(|()| epoch)));
            }
            Job::Commit { batch, reply } => self.commit_group(&mut vec![(batch, reply)]),
        }
    }

    /// All batches in one transaction; when that fails, each in its own, so that one that cannot be
    /// written takes no other with it. Answers only after the commit.
    fn commit_group(&mut self, commits: &mut Vec<(Batch, Reply<()>)>) {
        let group = std::mem::take(commits);
        if group.is_empty() {
            return;
        }
        let mut outcomes = Vec::with_capacity(group.len());
        let together = self.transaction(|connection| {
            for (batch, _) in &group {
                outcomes.push(apply(connection, batch)?);
            }
            Ok(())
        });
        match together {
            Ok(()) => {
                for ((_, reply), outcome) in group.into_iter().zip(outcomes) {
                    drop(reply.send(outcome));
                }
            }
            Err(_) if group.len() > 1 && self.broken.is_none() => {
                for single in group {
                    self.commit_group(&mut vec![single]);
                }
            }
            Err(error) => {
                for (_, reply) in group {
                    drop(reply.send(Err(error.clone())));
                }
            }
        }
    }

    /// Runs `body` in a transaction that is durable when this returns `Ok`, and gone when not.
    pub(super) fn transaction(
        &mut self,
        body: impl FnOnce(&Connection) -> rusqlite::Result<()>,
    ) -> Result<(), StoreError> {
        if let Some(broken) = &self.broken {
            return Err(broken.clone());
        }
        let result = self
            .connection
            .execute_batch("BEGIN IMMEDIATE")
            .and_then(|()| {
                body(&self.connection)?;
                self.connection.execute_batch("COMMIT")
            });
        result.map_err(|error| self.roll_back(error))
    }

    /// After some errors SQLite has rolled back by itself; what is still open is rolled back here.
    fn roll_back(&mut self, error: rusqlite::Error) -> StoreError {
        let rolled_back =
            self.connection.is_autocommit() || self.connection.execute_batch("ROLLBACK").is_ok();
        let disk_failed = matches!(
            error.sqlite_error_code(),
            Some(ErrorCode::SystemIoFailure | ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        );
        let failure = store_error(&error);
        if !disk_failed && rolled_back {
            return failure;
        }
        let broken = match failure {
            StoreError::Corrupt(_) => failure,
            _ => StoreError::Halted(error.to_string()),
        };
        tracing::error!(%broken, "nothing more is written to the database");
        self.broken = Some(broken.clone());
        broken
    }

    fn load(&self, namespace: &str) -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
        let sql = "SELECT key, value FROM entry WHERE namespace = ?1 ORDER BY key";
        let mut query = self.connection.prepare_cached(sql)?;
        query
            .query_map([namespace], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect()
    }

    fn range(&self, namespace: &str, range: &KeyRange) -> rusqlite::Result<Vec<(String, Vec<u8>)>> {
        let sql = "SELECT key, value FROM entry WHERE namespace = ?1 AND key >= ?2 AND key < ?3
             ORDER BY key DESC LIMIT ?4";
        // SQLite takes a negative limit as none.
        let limit = range.limit.map_or(-1, i64::from);
        let mut query = self.connection.prepare_cached(sql)?;
        query
            .query_map(params![namespace, range.from, range.to, limit], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })?
            .collect()
    }

    fn get(&self, namespace: &str, key: &str) -> rusqlite::Result<Option<Vec<u8>>> {
        let sql = "SELECT value FROM entry WHERE namespace = ?1 AND key = ?2";
        self.connection
            .prepare_cached(sql)?
            .query_row([namespace, key], |row| row.get(0))
            .optional()
    }

    /// Steps from name to name through the index, whatever the number of keys under each.
    fn namespaces(&self, prefix: &str) -> rusqlite::Result<Vec<String>> {
        let step = |sql: &str, from: &str| -> rusqlite::Result<Option<String>> {
            self.connection
                .prepare_cached(sql)?
                .query_row([from], |row| row.get(0))
        };
        let mut names = Vec::new();
        let mut next = step(
            "SELECT min(namespace) FROM entry WHERE namespace >= ?1",
            prefix,
        )?;
        while let Some(name) = next.filter(|name| name.starts_with(prefix)) {
            next = step(
                "SELECT min(namespace) FROM entry WHERE namespace > ?1",
                &name,
            )?;
            names.push(name);
        }
        Ok(names)
    }
}

/// Writes one batch into the open transaction. A fenced batch is refused before it has written anything,
/// so it leaves the others alone.
fn apply(connection: &Connection, batch: &Batch) -> rusqlite::Result<Result<(), StoreError>> {
    let current = epoch(connection, &batch.namespace)?;
    if batch.epoch != current {
        let namespace = batch.namespace.clone();
        return Ok(Err(StoreError::Fenced {
            namespace,
            held: batch.epoch,
            current,
        }));
    }
    let mut put = connection.prepare_cached(
        "INSERT INTO entry (namespace, key, value) VALUES (?1, ?2, ?3)
         ON CONFLICT (namespace, key) DO UPDATE SET value = excluded.value",
    )?;
    let mut delete =
        connection.prepare_cached("DELETE FROM entry WHERE namespace = ?1 AND key = ?2")?;
    for write in &batch.writes {
        match write {
            Write::Put(key, value) => put.execute(params![batch.namespace, key, value])?,
            Write::Delete(key) => delete.execute([&batch.namespace, key])?,
        };
    }
    Ok(Ok(()))
}

fn epoch(connection: &Connection, namespace: &str) -> rusqlite::Result<u64> {
    let sql = "SELECT epoch FROM lease WHERE namespace = ?1";
    let found = connection
        .prepare_cached(sql)?
        .query_row([namespace], |row| row.get(0))
        .optional()?;
    Ok(found.unwrap_or(0))
}

fn take_lease(connection: &Connection, namespace: &str) -> rusqlite::Result<u64> {
    let sql = "INSERT INTO lease (namespace, epoch) VALUES (?1, 1)
         ON CONFLICT (namespace) DO UPDATE SET epoch = epoch + 1 RETURNING epoch";
    connection
        .prepare_cached(sql)?
        .query_row([namespace], |row| row.get(0))
}
