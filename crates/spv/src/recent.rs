//! The last blocks that something was learned from: after a reorganisation, also one that was missed while the program did not run, they
//! show how far it is to be taken back.

use std::collections::BTreeMap;

use bitcoin::BlockHash;
use bitcoin::hashes::Hash;

use crate::bytes::Reader;
use crate::headers::Headers;

/// A day of blocks: what is taken back further than this begins from its start.
const MAX_RECENT: usize = 144;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Recent(BTreeMap<u32, BlockHash>);

impl Recent {
    pub fn push(&mut self, height: u32, hash: BlockHash) {
        self.0.insert(height, hash);
        if self.0.len() > MAX_RECENT {
            self.0.pop_first();
        }
    }

    /// Forgets what is not in the chain any more. `Err` when something is not, with the last height that still is, if one is.
    pub fn sync(&mut self, headers: &Headers) -> Result<(), Option<u32>> {
        let mut lost = false;
        while let Some((&height, hash)) = self.0.last_key_value() {
            if headers.hash(height) == Some(*hash) {
                return if lost { Err(Some(height)) } else { Ok(()) };
            }
            lost = true;
            self.0.pop_last();
        }
        if lost { Err(None) } else { Ok(()) }
    }

    /// Those up to a height.
    pub fn keep_up_to(&mut self, height: u32) {
        self.0.retain(|at, _| *at <= height);
    }

    /// How many (1 byte), then height (4) and hash (32) of each.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.push(u8::try_from(self.0.len()).unwrap_or(u8::MAX));
        for (height, hash) in &self.0 {
            bytes.extend(height.to_le_bytes());
            bytes.extend(hash.as_byte_array());
        }
    }

    pub fn read(reader: &mut Reader<'_>) -> Option<Recent> {
        let count = usize::from(reader.u8()?);
        let mut blocks = BTreeMap::new();
        for _ in 0..count {
            let height = reader.u32()?;
            let hash = BlockHash::from_byte_array(reader.array()?);
            // Each is higher than the one before.
            if blocks
                .last_key_value()
                .is_some_and(|(last, _)| *last >= height)
            {
                return None;
            }
            blocks.insert(height, hash);
        }
        (count <= MAX_RECENT).then_some(Recent(blocks))
    }
}
