//! Frames as encrypted records.
//!
//! A record is one Noise message. Its plaintext is one byte, 1 when the frame ends here and 0 when it continues in the next record,
//! and then the frame or a part of it. Every part but the last has the largest size.

use snow::TransportState;

use super::session::ProtocolError;
use crate::carrier::MAX_RECORD;

/// Length of the authentication tag that Noise adds.
const TAG: usize = 16;
/// The largest part of a frame in one record.
const MAX_PART: usize = MAX_RECORD - TAG - 1;
/// Each direction gets a new key after this many records, 2^49 times before its nonces would run out.
pub(crate) const REKEY_EVERY: u64 = 1 << 14;

const MORE: u8 = 0;
const LAST: u8 = 1;

/// Seals frames into records and opens them again, in order.
pub struct Transport {
    noise: TransportState,
    sealed: u64,
    opened: u64,
    partial: Vec<u8>,
}

impl Transport {
    pub(crate) fn new(noise: TransportState) -> Transport {
        Transport {
            noise,
            sealed: 0,
            opened: 0,
            partial: Vec::new(),
        }
    }

    /// The records of one frame.
    pub fn seal(&mut self, frame: &[u8]) -> Result<Vec<Vec<u8>>, ProtocolError> {
        let mut records = Vec::with_capacity(frame.len() / MAX_PART + 1);
        let mut rest = frame;
        loop {
            let (part, after) = rest.split_at(rest.len().min(MAX_PART));
            let mark = if after.is_empty() { LAST } else { MORE };
            records.push(self.seal_part(mark, part)?);
            if mark == LAST {
                return Ok(records);
            }
            rest = after;
        }
    }

    fn seal_part(&mut self, mark: u8, part: &[u8]) -> Result<Vec<u8>, ProtocolError> {
        let plain = [&[mark], part].concat();
        let mut record = vec![0; plain.len() + TAG];
        let length = self
            .noise
            .write_message(&plain, &mut record)
            .map_err(|_| ProtocolError::Seal)?;
        record.truncate(length);
        self.sealed += 1;
        if self.sealed.is_multiple_of(REKEY_EVERY) {
            self.noise.rekey_outgoing();
        }
        Ok(record)
    }

    /// Takes the next record; returns the frame that it completes. A frame of more than `max_frame` bytes is refused.
    pub fn open(
        &mut self,
        record: &[u8],
        max_frame: usize,
    ) -> Result<Option<Vec<u8>>, ProtocolError> {
        let mut plain = vec![0; record.len()];
        let length = self
            .noise
            .read_message(record, &mut plain)
            .map_err(|_| ProtocolError::Unreadable)?;
        plain.truncate(length);
        self.opened += 1;
        if self.opened.is_multiple_of(REKEY_EVERY) {
            self.noise.rekey_incoming();
        }
        let (&mark, part) = plain.split_first().ok_or(ProtocolError::Malformed)?;
        if self.partial.len() + part.len() > max_frame {
            return Err(ProtocolError::TooLarge { max: max_frame });
        }
        self.partial.extend_from_slice(part);
        match mark {
            LAST => Ok(Some(std::mem::take(&mut self.partial))),
            MORE if part.len() == MAX_PART => Ok(None),
            _ => Err(ProtocolError::Malformed),
        }
    }
}
