//! The chain of filter headers (BIP 157): each is the hash of a block's filter and of the filter header before it.

use bitcoin::bip158::{FilterHash, FilterHeader};
use bitcoin::hashes::Hash;

use super::{FilterError, MAX_FILTER_BYTES, filter_hash};
use crate::bytes::Reader;
use crate::headers::Headers;
use crate::recent::Recent;

/// The most filter hashes at once.
pub const MAX_FILTER_BATCH: usize = 2016;
const VERSION: u8 = 1;

/// What two sources say of one block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compared {
    /// The same.
    Same,
    /// Not the same: one of them lies, or the other's chain is another. The block itself shows more.
    Differs,
    /// The height is not known here.
    Unknown,
}

/// The filter headers of one source, beside the block headers: 32 bytes a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterChain {
    /// The height of the first one.
    first: u32,
    /// The one before it.
    before: FilterHeader,
    headers: Vec<FilterHeader>,
    recent: Recent,
}

impl FilterChain {
    /// From the block at this height on. `before` is the filter header of the block before it, which the source and another one should agree
    /// on.
    pub fn new(first_height: u32, before: FilterHeader) -> FilterChain {
        FilterChain {
            first: first_height,
            before,
            headers: Vec::new(),
            recent: Recent::default(),
        }
    }

    /// From the genesis block on.
    pub fn from_genesis() -> FilterChain {
        FilterChain::new(0, FilterHeader::all_zeros())
    }

    /// The height of the next one that is missing.
    pub fn next_height(&self) -> u32 {
        let count = u32::try_from(self.headers.len()).unwrap_or(u32::MAX);
        self.first.saturating_add(count)
    }

    /// The filter header of a block; that before the first one too.
    pub fn header(&self, height: u32) -> Option<FilterHeader> {
        match height.checked_sub(self.first) {
            Some(above) => self.headers.get(usize::try_from(above).ok()?).copied(),
            None => (height.checked_add(1)? == self.first).then_some(self.before),
        }
    }

    /// Appends the filters' hashes of the blocks from [`FilterChain::next_height`] on. What a reorganisation has taken away is left out
    /// first.
    ///
    /// # Errors
    /// There are too many, or they go beyond the tip. Nothing is appended then.
    pub fn extend(&mut self, headers: &Headers, hashes: &[FilterHash]) -> Result<(), FilterError> {
        self.sync(headers);
        if hashes.len() > MAX_FILTER_BATCH {
            return Err(FilterError::TooMany(hashes.len()));
        }
        let beyond = FilterError::BeyondTip(headers.height());
        let count = u32::try_from(hashes.len()).map_err(|_| beyond)?;
        let end = self.next_height().checked_add(count).ok_or(beyond)?;
        if end > headers.height().saturating_add(1) {
            return Err(beyond);
        }
        for hash in hashes {
            let height = self.next_height();
            let last = self.headers.last().copied().unwrap_or(self.before);
            self.headers.push(hash.filter_header(&last));
            if let Some(block) = headers.hash(height) {
                self.recent.push(height, block);
            }
        }
        Ok(())
    }

    /// Whether this is the filter of the block at this height that the chain was made of.
    ///
    /// # Errors
    /// It is not, or the height is not known.
    pub fn check(&self, height: u32, filter: &[u8]) -> Result<(), FilterError> {
        if filter.len() > MAX_FILTER_BYTES {
            return Err(FilterError::TooLong(filter.len()));
        }
        let unknown = FilterError::Unknown(height);
        let above = height.checked_sub(self.first).ok_or(unknown)?;
        let own = self.header(height).ok_or(unknown)?;
        let before = match above {
            0 => self.before,
            _ => self.header(height - 1).ok_or(unknown)?,
        };
        match filter_hash(filter).filter_header(&before) == own {
            true => Ok(()),
            false => Err(FilterError::Hash(height)),
        }
    }

    /// Compares with what another source says of one block. Filter headers that are the same are so for all blocks before, too.
    pub fn compare(&self, height: u32, other: FilterHeader) -> Compared {
        match self.header(height) {
            Some(own) if own == other => Compared::Same,
            Some(_) => Compared::Differs,
            None => Compared::Unknown,
        }
    }

    /// The first height at which two sources differ, of those that both have.
    pub fn first_difference(&self, other: &FilterChain) -> Option<u32> {
        let from = self.first.max(other.first).saturating_sub(1);
        let to = self.next_height().min(other.next_height());
        (from..to).find(|height| {
            let both = self.header(*height).zip(other.header(*height));
            both.is_some_and(|(own, other)| own != other)
        })
    }

    /// Leaves out what a reorganisation has taken away. `Some` with the height of the first that is missing then. Of one deeper than the
    /// last 144 blocks all are left out.
    pub fn sync(&mut self, headers: &Headers) -> Option<u32> {
        let common = self.recent.sync(headers).err()?;
        let next = common.map_or(self.first, |height| height.saturating_add(1));
        let kept = usize::try_from(next.saturating_sub(self.first)).unwrap_or(usize::MAX);
        self.headers.truncate(kept);
        self.recent.keep_up_to(next.saturating_sub(1));
        Some(self.next_height())
    }

    /// Keeps no more than the last `most` filter headers.
    pub fn keep_last(&mut self, most: usize) {
        let surplus = self.headers.len().saturating_sub(most);
        if let Some(last) = self.headers.drain(..surplus).next_back() {
            self.before = last;
            let surplus = u32::try_from(surplus).unwrap_or(u32::MAX);
            self.first = self.first.saturating_add(surplus);
        }
    }

    /// As bytes: version 1 (1 byte), height of the first (4), the filter header before it (32), the last blocks (1 and 36 each), how many filter
    /// headers (4), each (32). Numbers are little-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend(self.first.to_le_bytes());
        bytes.extend(self.before.as_byte_array());
        self.recent.encode(&mut bytes);
        let count = u32::try_from(self.headers.len()).unwrap_or(u32::MAX);
        bytes.extend(count.to_le_bytes());
        for header in &self.headers {
            bytes.extend(header.as_byte_array());
        }
        bytes
    }

    /// Reads [`FilterChain::encode`]'s bytes.
    ///
    /// # Errors
    /// They are no stored filter headers.
    pub fn decode(bytes: &[u8]) -> Result<FilterChain, FilterError> {
        FilterChain::read(bytes).ok_or(FilterError::Stored)
    }

    fn read(bytes: &[u8]) -> Option<FilterChain> {
        let mut reader = Reader::new(bytes);
        let version = reader.u8()?;
        let first = reader.u32()?;
        let before = FilterHeader::from_byte_array(reader.array()?);
        let recent = Recent::read(&mut reader)?;
        let count = usize::try_from(reader.u32()?).ok()?;
        let bytes = reader.take(count.checked_mul(32)?)?;
        let headers = bytes
            .chunks_exact(32)
            .filter_map(|chunk| chunk.first_chunk());
        let headers = headers.map(|hash| FilterHeader::from_byte_array(*hash));
        let is_whole = version == VERSION && reader.is_empty();
        is_whole.then(|| FilterChain {
            first,
            before,
            headers: headers.collect(),
            recent,
        })
    }
}
