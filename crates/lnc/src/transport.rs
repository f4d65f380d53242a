//! Messages after a handshake: an encrypted length, then the encrypted message (BOLT 8's form).

use zeroize::Zeroizing;

use crate::cipher::{Cipher, TAG_BYTES};

/// The longest message.
pub const MAX_MESSAGE_BYTES: usize = u16::MAX as usize;
const HEADER_BYTES: usize = 2 + TAG_BYTES;

/// The reason for which a connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// A message to send is too long.
    #[error("a message of {0} bytes is too long: {MAX_MESSAGE_BYTES} at most")]
    TooLong(usize),
    /// What was received was changed on the way, lost, or repeated.
    #[error("what the other side sent was changed on the way: connect again")]
    Forged,
}

/// Encrypts what is sent, and decrypts what is received. A value without I/O.
pub struct Transport {
    send: Cipher,
    receive: Cipher,
    received: Vec<u8>,
    /// The bytes of `received` that were read.
    read: usize,
    /// The length of the message that is being received.
    length: Option<usize>,
    has_failed: bool,
}

impl Transport {
    pub(crate) fn new(send: Cipher, receive: Cipher) -> Transport {
        Transport {
            send,
            receive,
            received: Vec::new(),
            read: 0,
            length: None,
            has_failed: false,
        }
    }

    /// A message as it is sent: an encrypted length of 18 bytes, and the rest. Stock ends send the two one after the other.
    ///
    /// # Errors
    /// [`TransportError::TooLong`]; nothing is changed.
    pub fn seal(&mut self, message: &[u8]) -> Result<Vec<u8>, TransportError> {
        let too_long = |_| TransportError::TooLong(message.len());
        let length = u16::try_from(message.len()).map_err(too_long)?;
        let mut sealed = self.send.seal(&[], &length.to_be_bytes());
        sealed.extend(self.send.seal(&[], message));
        Ok(sealed)
    }

    /// Takes bytes that were received, however they were cut.
    pub fn received(&mut self, bytes: &[u8]) {
        if self.has_failed {
            return;
        }
        // What was read is removed at times, so that each byte moves a few times at most.
        if self.read > self.received.len() / 2 {
            self.received.drain(..self.read);
            self.read = 0;
        }
        self.received.extend_from_slice(bytes);
    }

    /// The next message, when all of it is there.
    ///
    /// # Errors
    /// [`TransportError::Forged`]; the connection is over.
    pub fn next_message(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, TransportError> {
        if self.has_failed {
            return Err(TransportError::Forged);
        }
        let next = self.open_next();
        self.has_failed = next.is_err();
        next
    }

    fn open_next(&mut self) -> Result<Option<Zeroizing<Vec<u8>>>, TransportError> {
        let length = match self.length {
            Some(length) => length,
            None => {
                let Some(header) = self.take(HEADER_BYTES) else {
                    return Ok(None);
                };
                let opened = self.receive.open(&[], &header);
                let opened = opened.map_err(|_| TransportError::Forged)?;
                let length = opened[..].try_into().map_err(|_| TransportError::Forged)?;
                *self.length.insert(u16::from_be_bytes(length).into())
            }
        };
        let Some(body) = self.take(length + TAG_BYTES) else {
            return Ok(None);
        };
        self.length = None;
        let opened = self.receive.open(&[], &body);
        opened.map(Some).map_err(|_| TransportError::Forged)
    }

    fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        let end = self.read.checked_add(length)?;
        let taken = self.received.get(self.read..end)?.to_vec();
        self.read = end;
        Some(taken)
    }
}
