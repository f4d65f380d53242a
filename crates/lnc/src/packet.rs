//! Packets of go-back-N: a kind of one byte, and what it has.

const SYN: u8 = 1;
const DATA: u8 = 2;
const ACK: u8 = 3;
const NACK: u8 = 4;
const FIN: u8 = 5;
const SYN_ACK: u8 = 6;

/// One packet. Sequence numbers count modulo the window and one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Packet {
    /// A window of so many packets is asked for, or confirmed.
    Syn {
        window: u8,
    },
    /// The handshake is complete.
    SynAck,
    Data(Data),
    /// This and all before it have come.
    Ack {
        sequence: u8,
    },
    /// All before this have come, and this has not.
    Nack {
        sequence: u8,
    },
    /// The connection is closed.
    Fin,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Data {
    pub sequence: u8,
    /// The last part of its message.
    pub is_final: bool,
    /// It has nothing, and is sent to see whether the other end is there.
    pub is_ping: bool,
    pub payload: Vec<u8>,
}

impl Packet {
    pub fn write(&self) -> Vec<u8> {
        match self {
            Packet::Syn { window } => vec![SYN, *window],
            Packet::SynAck => vec![SYN_ACK],
            Packet::Data(data) => {
                let flags = [data.is_final.into(), data.is_ping.into()];
                [&[DATA, data.sequence], &flags[..], &data.payload].concat()
            }
            Packet::Ack { sequence } => vec![ACK, *sequence],
            Packet::Nack { sequence } => vec![NACK, *sequence],
            Packet::Fin => vec![FIN],
        }
    }

    /// `None` for what is no packet.
    pub fn read(bytes: &[u8]) -> Option<Packet> {
        Some(match *bytes {
            [SYN, window, ..] => Packet::Syn { window },
            [SYN_ACK, ..] => Packet::SynAck,
            [DATA, sequence, is_final, is_ping, ref payload @ ..] => Packet::Data(Data {
                sequence,
                is_final: is_final == 1,
                is_ping: is_ping == 1,
                payload: payload.to_vec(),
            }),
            [ACK, sequence, ..] => Packet::Ack { sequence },
            [NACK, sequence, ..] => Packet::Nack { sequence },
            [FIN, ..] => Packet::Fin,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_those_of_the_stock_library() {
        let data = |is_final, is_ping, payload: &[u8]| {
            Packet::Data(Data {
                sequence: 9,
                is_final,
                is_ping,
                payload: payload.to_vec(),
            })
        };
        for (packet, bytes) in [
            (Packet::Syn { window: 20 }, &[1, 20][..]),
            (data(true, false, b"ab"), &[2, 9, 1, 0, b'a', b'b']),
            (data(false, false, b"a"), &[2, 9, 0, 0, b'a']),
            (data(false, true, b""), &[2, 9, 0, 1]),
            (Packet::Ack { sequence: 9 }, &[3, 9]),
            (Packet::Nack { sequence: 9 }, &[4, 9]),
            (Packet::Fin, &[5]),
            (Packet::SynAck, &[6]),
        ] {
            assert_eq!(packet.write(), bytes);
            assert_eq!(Packet::read(bytes), Some(packet));
        }
        for bytes in [&[][..], &[0], &[7, 1], &[1], &[2, 9, 1], &[3], &[4]] {
            assert_eq!(Packet::read(bytes), None, "{bytes:?}");
        }
    }
}
