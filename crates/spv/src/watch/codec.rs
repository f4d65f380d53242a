//! What is followed as bytes.
//!
//! ```text
//!          1   version 1
//!      1 + n   the last blocks: how many, then height (4) and hash (32) of each
//!          4   how many outputs, then of each in their order
//!         36     the output
//!          2     length of its script
//!          n     its script
//!      4 + 4     the height of its block, and the next one to be looked at
//!          1     1 when it is spent, and then
//! 32 + 4 + 4     by which transaction, at which place in its block, at which height
//! ```
//! Numbers are little-endian.

use bitcoin::hashes::Hash;
use bitcoin::{OutPoint, ScriptBuf, Txid};

use super::{Followed, MAX_FOLLOWED, MAX_SCRIPT_BYTES, Spend, SpendWatch};
use crate::bytes::Reader;
use crate::filter::is_filtered;
use crate::recent::Recent;

const VERSION: u8 = 1;

/// Bytes that are no stored watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the stored list of followed outputs is damaged: follow them anew")]
pub struct StoredWatchError;

impl SpendWatch {
    /// As bytes, with which the program goes on after a restart: some 90 bytes an output, and 5 kB.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        self.recent.encode(&mut bytes);
        let count = u32::try_from(self.outputs.len()).unwrap_or(u32::MAX);
        bytes.extend(count.to_le_bytes());
        for (outpoint, followed) in &self.outputs {
            write_outpoint(&mut bytes, outpoint);
            let length = u16::try_from(followed.script.len()).unwrap_or(u16::MAX);
            bytes.extend(length.to_le_bytes());
            bytes.extend(followed.script.as_bytes());
            bytes.extend(followed.from.to_le_bytes());
            bytes.extend(followed.next.to_le_bytes());
            bytes.push(followed.spend.is_some().into());
            if let Some(spend) = &followed.spend {
                bytes.extend(spend.by.as_byte_array());
                bytes.extend(spend.position.to_le_bytes());
                bytes.extend(spend.height.to_le_bytes());
            }
        }
        bytes
    }

    /// Reads [`SpendWatch::encode`]'s bytes.
    ///
    /// # Errors
    /// They are none.
    pub fn decode(bytes: &[u8]) -> Result<SpendWatch, StoredWatchError> {
        read(bytes).ok_or(StoredWatchError)
    }
}

fn write_outpoint(bytes: &mut Vec<u8>, outpoint: &OutPoint) {
    bytes.extend(outpoint.txid.as_byte_array());
    bytes.extend(outpoint.vout.to_le_bytes());
}

fn read(bytes: &[u8]) -> Option<SpendWatch> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != VERSION {
        return None;
    }
    let mut watch = SpendWatch {
        recent: Recent::read(&mut reader)?,
        ..SpendWatch::default()
    };
    let count = usize::try_from(reader.u32()?).ok()?;
    if count > MAX_FOLLOWED {
        return None;
    }
    for _ in 0..count {
        let (outpoint, followed) = read_one(&mut reader)?;
        let last = watch.outputs.last_key_value();
        if last.is_some_and(|(last, _)| *last >= outpoint) {
            return None;
        }
        watch.outputs.insert(outpoint, followed);
    }
    reader.is_empty().then_some(watch)
}

fn read_one(reader: &mut Reader<'_>) -> Option<(OutPoint, Followed)> {
    let txid = Txid::from_byte_array(reader.array()?);
    let outpoint = OutPoint::new(txid, reader.u32()?);
    let length = usize::from(reader.u16()?);
    let script = ScriptBuf::from_bytes(reader.take(length)?.to_vec());
    let (from, next) = (reader.u32()?, reader.u32()?);
    let spend = match reader.u8()? {
        0 => None,
        1 => Some(Spend {
            outpoint,
            by: Txid::from_byte_array(reader.array()?),
            position: reader.u32()?,
            height: reader.u32()?,
        }),
        _ => return None,
    };
    let is_possible = length <= MAX_SCRIPT_BYTES && is_filtered(&script) && from >= 1;
    let followed = Followed {
        script,
        from,
        next,
        spend,
    };
    is_possible.then_some((outpoint, followed))
}
