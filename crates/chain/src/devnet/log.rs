//! The block log: every accepted block, in order, in one append-only file.
//!
//! The log is durable, and not the consensus library's own database: that one is only flushed from time to time, and to
//! replay a regtest takes milliseconds. A record is a tag, a length and that many bytes; a record that a crash cut
//! short is dropped on opening.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

use bitcoin::consensus::encode::{deserialize, serialize};
use bitcoin::{Block, BlockHash};

use super::DevnetError;

/// The first bytes of every log.
const MAGIC: &[u8; 8] = b"devnet\x00\x01";
/// Tag and length before each record.
const HEADER_LEN: usize = 5;

/// A change of the chain.
#[derive(Debug, PartialEq)]
pub(super) enum Record {
    /// A block was accepted, in the best chain or not.
    Block(Block),
    /// `invalidateblock`.
    Invalidate(BlockHash),
    /// `reconsiderblock`.
    Reconsider(BlockHash),
}

/// An open log, locked against other processes.
pub(super) struct BlockLog {
    file: File,
    /// Length up to the end of the last whole record.
    len: u64,
}

impl BlockLog {
    /// Opens or creates the log at `path`, and reads its records.
    pub(super) fn open(path: &Path) -> Result<(BlockLog, Vec<Record>), DevnetError> {
        let failed = |e: std::io::Error| DevnetError::Data(format!("{}: {e}", path.display()));
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(failed)?;
        if file.try_lock().is_err() {
            let path = path.display();
            return Err(DevnetError::Data(format!(
                "{path} is in use by another process: stop that one first"
            )));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let (records, good_len) = if bytes.len() < MAGIC.len() && MAGIC.starts_with(&bytes) {
            file.set_len(0).map_err(failed)?;
            file.rewind().map_err(failed)?;
            file.write_all(MAGIC).map_err(failed)?;
            (Vec::new(), MAGIC.len())
        } else if bytes.starts_with(MAGIC) {
            parse(&bytes)
        } else {
            return Err(DevnetError::Data(format!(
                "{} is no devnet block log: choose another directory",
                path.display()
            )));
        };
        file.set_len(good_len as u64).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok((
            BlockLog {
                file,
                len: good_len as u64,
            },
            records,
        ))
    }

    /// Appends a record. It outlives this process; only after [`BlockLog::sync`] also a power failure.
    pub(super) fn append(&mut self, record: &Record) -> Result<(), DevnetError> {
        let (tag, payload) = match record {
            Record::Block(block) => (b'B', serialize(block)),
            Record::Invalidate(hash) => (b'I', serialize(hash)),
            Record::Reconsider(hash) => (b'R', serialize(hash)),
        };
        let len = u32::try_from(payload.len())
            .map_err(|_| DevnetError::Data("a record too large".into()))?;
        let mut bytes = Vec::with_capacity(HEADER_LEN + payload.len());
        bytes.push(tag);
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(&payload);
        if let Err(error) = self.file.write_all(&bytes) {
            // Records after half a record could not be read.
            let undone = self
                .file
                .set_len(self.len)
                .and_then(|()| self.file.seek(SeekFrom::End(0)));
            let undone = undone.map_or_else(
                |e| format!(", and undoing it failed: {e}"),
                |_| String::new(),
            );
            return Err(DevnetError::Data(format!("block log: {error}{undone}")));
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Syncs the file to the disk.
    pub(super) fn sync(&self) -> Result<(), DevnetError> {
        self.file
            .sync_data()
            .map_err(|e| DevnetError::Data(format!("block log: {e}")))
    }
}

/// The whole records of a log, and the length up to their end.
fn parse(bytes: &[u8]) -> (Vec<Record>, usize) {
    let mut records = Vec::new();
    let mut at = MAGIC.len();
    while let Some((record, len)) = parse_one(bytes.get(at..).unwrap_or_default()) {
        records.push(record);
        at += len;
    }
    (records, at)
}

fn parse_one(bytes: &[u8]) -> Option<(Record, usize)> {
    let (header, rest) = bytes.split_at_checked(HEADER_LEN)?;
    let len = u32::from_le_bytes(header[1..].try_into().ok()?) as usize;
    let payload = rest.get(..len)?;
    let record = match header[0] {
        b'B' => Record::Block(deserialize(payload).ok()?),
        b'I' => Record::Invalidate(deserialize(payload).ok()?),
        b'R' => Record::Reconsider(deserialize(payload).ok()?),
        _ => return None,
    };
    Some((record, HEADER_LEN + len))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;
    use bitcoin::Network;
    use bitcoin::blockdata::constants::genesis_block;

    fn records() -> Vec<Record> {
        let block = genesis_block(Network::Regtest);
        let hash = block.block_hash();
        vec![
            Record::Block(block),
            Record::Invalidate(hash),
            Record::Reconsider(hash),
        ]
    }

    #[test]
    fn reads_back_what_was_appended() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (mut log, found) = BlockLog::open(&path).unwrap();
        assert_eq!(found, []);
        records()
            .iter()
            .for_each(|record| log.append(record).unwrap());
        drop(log);
        assert_eq!(BlockLog::open(&path).unwrap().1, records());
    }

    #[test]
    fn drops_the_record_that_a_crash_cut_short() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (mut log, _) = BlockLog::open(&path).unwrap();
        records()
            .iter()
            .for_each(|record| log.append(record).unwrap());
        let len = log.file.metadata().unwrap().len();
        log.file.set_len(len - 1).unwrap();
        drop(log);

        let (mut log, found) = BlockLog::open(&path).unwrap();
        assert_eq!(found, records()[..2]);
        log.append(&records()[2]).unwrap();
        drop(log);
        assert_eq!(BlockLog::open(&path).unwrap().1, records());
    }

    #[test]
    fn refuses_a_foreign_file_and_leaves_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, b"a letter to somebody").unwrap();
        assert!(matches!(BlockLog::open(&path), Err(DevnetError::Data(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"a letter to somebody");
    }

    #[test]
    fn refuses_a_log_that_is_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let _open = BlockLog::open(&path).unwrap();
        assert!(
            matches!(BlockLog::open(&path), Err(DevnetError::Data(reason)) if reason.contains("in use"))
        );
    }
}
