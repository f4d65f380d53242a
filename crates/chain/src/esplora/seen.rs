//! The headers of the blocks that were read last, in memory and in a file.
//!
//! An Esplora server forgets a block when it leaves the best chain. A node that knows such a block as its last one finds the
//! way back to the best chain by the headers before it, also when the reorganisation came while its host was stopped.

use std::collections::{HashMap, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bitcoin::BlockHash;
use bitcoin::block::Header;
use bitcoin::consensus::encode::{deserialize, serialize};

/// Headers that are kept: those of two weeks.
pub(super) const KEPT: usize = 2_016;
/// A record: the height, little-endian, and the header.
const RECORD_LEN: usize = 4 + 80;

/// See the module.
#[derive(Default)]
pub(super) struct Seen(Mutex<Headers>);

#[derive(Default)]
struct Headers {
    by_hash: HashMap<BlockHash, (Header, u32)>,
    /// In the order in which they were read.
    order: VecDeque<BlockHash>,
    /// The last one that was read, also of a search of the past: the next one is checked against it.
    last: Option<(BlockHash, Header, u32)>,
    file: Option<Records>,
}

/// The file, to which each record is appended.
struct Records {
    path: PathBuf,
    file: File,
    count: usize,
}

impl Seen {
    /// With the headers of the file at `path`, which is made when it is missing. A record that a crash cut short, or
    /// that is no header, is left out.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn open(path: &Path) -> std::io::Result<Seen> {
        let mut headers = Headers::default();
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(mut file) => drop(file.read_to_end(&mut bytes)?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        for (header, height) in bytes.chunks_exact(RECORD_LEN).filter_map(parse) {
            headers.add(header, height);
        }
        headers.file = Some(headers.write_anew(path)?);
        Ok(Seen(Mutex::new(headers)))
    }

    /// Header and height of a block that was read.
    pub fn get(&self, hash: &BlockHash) -> Option<(Header, u32)> {
        let headers = self.lock();
        let last = headers.last.filter(|(it, _, _)| it == hash);
        let last = last.map(|(_, header, height)| (header, height));
        last.or_else(|| headers.by_hash.get(hash).copied())
    }

    /// A block was read.
    pub fn read(&self, header: &Header, height: u32, tip_height: u32) {
        let mut headers = self.lock();
        headers.last = Some((header.block_hash(), *header, height));
        let oldest = tip_height.saturating_sub(KEPT as u32);
        // A search of the past does not push out the newest ones.
        if height < oldest || !headers.add(*header, height) {
            return;
        }
        if let Err(error) = headers.append(header, height) {
            tracing::warn!(%error, "the header of a block is not kept on the disk");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Headers> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Headers {
    /// False when it was there.
    fn add(&mut self, header: Header, height: u32) -> bool {
        let hash = header.block_hash();
        if self.by_hash.insert(hash, (header, height)).is_some() {
            return false;
        }
        self.order.push_back(hash);
        while self.order.len() > KEPT {
            if let Some(oldest) = self.order.pop_front() {
                self.by_hash.remove(&oldest);
            }
        }
        true
    }

    fn append(&mut self, header: &Header, height: u32) -> std::io::Result<()> {
        let Some(records) = &mut self.file else {
            return Ok(());
        };
        records.file.write_all(&record(header, height))?;
        records.count += 1;
        if records.count > 2 * KEPT {
            let path = records.path.clone();
            self.file = Some(self.write_anew(&path)?);
        }
        Ok(())
    }

    /// Writes the file with what is kept: under another name first, so that it is whole at any time.
    fn write_anew(&self, path: &Path) -> std::io::Result<Records> {
        let new = path.with_extension("new");
        let kept = self.order.iter().filter_map(|hash| self.by_hash.get(hash));
        let bytes: Vec<u8> = kept
            .flat_map(|(header, height)| record(header, *height))
            .collect();
        std::fs::write(&new, bytes)?;
        std::fs::rename(&new, path)?;
        let file = OpenOptions::new().append(true).open(path)?;
        Ok(Records {
            path: path.to_owned(),
            file,
            count: self.order.len(),
        })
    }
}

fn record(header: &Header, height: u32) -> Vec<u8> {
    let mut bytes = height.to_le_bytes().to_vec();
    bytes.extend(serialize(header));
    bytes
}

fn parse(record: &[u8]) -> Option<(Header, u32)> {
    let (height, header) = record.split_first_chunk()?;
    let header: Header = deserialize(header).ok()?;
    header.validate_pow(header.target()).ok()?;
    Some((header, u32::from_le_bytes(*height)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::Network;
    use bitcoin::blockdata::constants::genesis_block;

    use super::*;

    /// A chain of headers with their heights, from 1 on.
    fn chain(length: u32) -> Vec<(Header, u32)> {
        let mut header = genesis_block(Network::Regtest).header;
        let next = |height| {
            header.prev_blockhash = header.block_hash();
            while header.validate_pow(header.target()).is_err() {
                header.nonce = header.nonce.wrapping_add(1);
            }
            (header, height)
        };
        (1..=length).map(next).collect()
    }

    fn keep(seen: &Seen, (header, height): (Header, u32)) {
        let mut headers = seen.lock();
        assert!(headers.add(header, height));
        headers.append(&header, height).unwrap();
    }

    #[test]
    fn headers_are_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("headers");
        let seen = Seen::open(&path).unwrap();
        let chain = chain(3);
        chain.iter().for_each(|it| keep(&seen, *it));
        drop(seen);
        // A crash in the middle of the last one.
        let len = std::fs::metadata(&path).unwrap().len();
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(len - 1)
            .unwrap();
        let seen = Seen::open(&path).unwrap();
        assert_eq!(seen.get(&chain[1].0.block_hash()), Some(chain[1]));
        assert_eq!(seen.get(&chain[2].0.block_hash()), None);
        keep(&seen, chain[2]);
        drop(seen);
        let seen = Seen::open(&path).unwrap();
        assert_eq!(seen.get(&chain[2].0.block_hash()), Some(chain[2]));
    }

    #[test]
    fn the_last_two_weeks_are_kept_and_the_file_does_not_grow() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("headers");
        let seen = Seen::open(&path).unwrap();
        let chain = chain(2 * KEPT as u32 + 10);
        chain.iter().for_each(|it| keep(&seen, *it));
        assert_eq!(seen.get(&chain[0].0.block_hash()), None);
        let len = std::fs::metadata(&path).unwrap().len() as usize;
        assert!(len <= (KEPT + 10) * RECORD_LEN, "{len}");
        let seen = Seen::open(&path).unwrap();
        let last = chain[chain.len() - 1];
        assert_eq!(seen.get(&last.0.block_hash()), Some(last));
    }
}
