//! Packets: what the two ends of a stream say to each other, through the mailbox. A stream has connections one after the other, or
//! beside each other for a moment; each carries the records of one link.
//!
//! | bytes | |
//! |---|---|
//! | 1 | kind: 1 open, 2 record, 3 credit, 4 close |
//! | 8 | the connection's id, random, chosen by the phone |
//! | rest | open and record: a record; credit: 4 bytes, big endian; close: nothing |

use crate::carrier::MAX_RECORD;

/// The id of a connection.
pub type ConnectionId = [u8; 8];

const OPEN: u8 = 1;
const RECORD: u8 = 2;
const CREDIT: u8 = 3;
const CLOSE: u8 = 4;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The connection.
    pub connection: ConnectionId,
    /// What is said.
    pub body: Body,
}

/// What a packet says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// The phone opens the connection with its first record.
    Open(Vec<u8>),
    /// The next record.
    Record(Vec<u8>),
    /// The receiver has taken so many bytes more, by [`cost`].
    Credit(u32),
    /// The connection has ended, or there is none with this id.
    Close,
}

/// Bytes that a sender may have sent without credit, by [`cost`].
pub const WINDOW: u32 = 256 << 10;

/// What a record costs of the window: its length, and as much as a mailbox counts for a message beside it. So two windows fit into
/// a queue of a mailbox, which has room for 512 KiB by default.
pub fn cost(record: &[u8]) -> u32 {
    u32::try_from(record.len())
        .unwrap_or(u32::MAX)
        .saturating_add(128)
}

impl Packet {
    /// As it is sent.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, content) = match &self.body {
            Body::Open(record) => (OPEN, record.as_slice()),
            Body::Record(record) => (RECORD, record.as_slice()),
            Body::Credit(bytes) => (CREDIT, &bytes.to_be_bytes()[..]),
            Body::Close => (CLOSE, &[][..]),
        };
        [&[kind], self.connection.as_slice(), content].concat()
    }

    /// As it was received; `None` when it is no packet.
    pub fn decode(bytes: &[u8]) -> Option<Packet> {
        let (kind, rest) = bytes.split_first()?;
        let (connection, content) = rest.split_first_chunk::<8>()?;
        let record = || (content.len() <= MAX_RECORD).then(|| content.to_vec());
        let body = match *kind {
            OPEN => Body::Open(record()?),
            RECORD => Body::Record(record()?),
            CREDIT => Body::Credit(u32::from_be_bytes(content.try_into().ok()?)),
            CLOSE if content.is_empty() => Body::Close,
            _ => return None,
        };
        Some(Packet {
            connection: *connection,
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_packet_that_is_written_the_same_or_none(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(packet) = Packet::decode(&bytes) {
                prop_assert_eq!(packet.encode(), bytes);
            }
        }
    }

    #[test]
    fn each_kind_comes_back() {
        for body in [
            Body::Open(vec![1, 2]),
            Body::Record(vec![0; MAX_RECORD]),
            Body::Credit(7),
            Body::Close,
        ] {
            let packet = Packet {
                connection: *b"12345678",
                body,
            };
            assert_eq!(Packet::decode(&packet.encode()), Some(packet));
        }
        let long = Packet {
            connection: [0; 8],
            body: Body::Record(vec![0; MAX_RECORD + 1]),
        };
        assert_eq!(Packet::decode(&long.encode()), None);
        assert_eq!(Packet::decode(&[CLOSE, 0, 0, 0, 0, 0, 0, 0, 0, 1]), None);
    }
}
