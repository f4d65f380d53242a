//! The frames of HTTP/2 (RFC 9113) that an attacker of the gRPC carrier sends and counts. No client library has them: it
//! would keep to the limits that the host announces.

/// The connection preface (3.4) and an empty SETTINGS frame (6.5).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// The highest identifier of a stream (5.1.1).
pub const MAX_STREAM: u32 = (1 << 31) - 1;

const HEADERS: u8 = 0x01;
const RST_STREAM: u8 = 0x03;
const GOAWAY: u8 = 0x07;
const END_HEADERS: u8 = 0x04;
/// Length (3 bytes), type, flags, stream identifier (4).
const FRAME_HEADER: usize = 9;

/// The field block (HPACK, RFC 7541) of a call of `Carrier.Attach`.
pub struct AttachCall(Vec<u8>);

impl AttachCall {
    /// For the host at this authority; a longer one than 126 bytes is cut off.
    pub fn to(authority: &str) -> AttachCall {
        // Fields of the static table: `:method: POST`, `:scheme: http`.
        let mut block = vec![0x83, 0x86];
        // Literals without indexing, with names of the static table: `:path`, `:authority`, `content-type` (31, which
        // takes two bytes).
        literal(&mut block, &[0x04], "/longhand.link.v1.Carrier/Attach");
        literal(&mut block, &[0x01], authority);
        literal(&mut block, &[0x0f, 31 - 15], "application/grpc");
        literal(&mut block, b"\0\x02te", "trailers");
        AttachCall(block)
    }

    /// A HEADERS frame (6.2) that opens this stream and leaves it open.
    pub fn write(&self, stream: u32, into: &mut Vec<u8>) {
        // A block is some hundred bytes.
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        into.extend_from_slice(&length.to_be_bytes()[1..]);
        into.extend_from_slice(&[HEADERS, END_HEADERS]);
        into.extend_from_slice(&stream.to_be_bytes());
        into.extend_from_slice(&self.0);
    }
}

/// A field with its value as it is: no Huffman code, and a length in 7 bits.
fn literal(block: &mut Vec<u8>, name: &[u8], value: &str) {
    let value = value.as_bytes();
    let value = value.get(..126).unwrap_or(value);
    block.extend_from_slice(name);
    block.extend(u8::try_from(value.len()));
    block.extend_from_slice(value);
}

/// The frames of a host, read as they arrive and counted.
#[derive(Default)]
pub struct Frames {
    header: Vec<u8>,
    /// Bytes of the payload that are still to come.
    payload: usize,
}

/// Frames that were counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// RST_STREAM (6.4): a stream was refused.
    pub reset: u64,
    /// GOAWAY (6.8): the connection will be closed.
    pub goaway: u64,
}

impl Frames {
    /// Counts the frames whose headers end in these bytes.
    pub fn count(&mut self, mut bytes: &[u8]) -> Counted {
        let mut counted = Counted::default();
        while !bytes.is_empty() {
            let skipped = self.payload.min(bytes.len());
            self.payload -= skipped;
            let missing = FRAME_HEADER - self.header.len();
            let (header, rest) = bytes[skipped..].split_at(missing.min(bytes.len() - skipped));
            self.header.extend_from_slice(header);
            bytes = rest;
            if let [a, b, c, kind, ..] = self.header[..]
                && self.header.len() == FRAME_HEADER
            {
                self.payload = u32::from_be_bytes([0, a, b, c]) as usize;
                self.header.clear();
                counted.reset += u64::from(kind == RST_STREAM);
                counted.goaway += u64::from(kind == GOAWAY);
            }
        }
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_opens_a_stream_and_leaves_it_open() {
        let mut frame = Vec::new();
        AttachCall::to("localhost:1").write(7, &mut frame);
        let block = b"\x83\x86\x04\x20/longhand.link.v1.Carrier/Attach\x01\x0blocalhost:1\
            \x0f\x10\x10application/grpc\0\x02te\x08trailers";
        let header = [0, 0, block.len() as u8, 1, 4, 0, 0, 0, 7];
        assert_eq!(frame, [&header[..], block].concat());
    }

    #[test]
    fn frames_are_counted_however_their_bytes_arrive() {
        let settings = [0, 0, 6, 4, 0, 0, 0, 0, 0, 3, 3, 3, 3, 3, 3];
        let reset = [0, 0, 4, 3, 0, 0, 0, 0, 5, 0, 0, 0, 7];
        let goaway = [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 11];
        let all = [&settings[..], &reset, &reset, &goaway].concat();
        for size in 1..=all.len() {
            let mut frames = Frames::default();
            let mut sum = Counted::default();
            for bytes in all.chunks(size) {
                let counted = frames.count(bytes);
                sum.reset += counted.reset;
                sum.goaway += counted.goaway;
            }
            let expected = Counted {
                reset: 2,
                goaway: 1,
            };
            assert_eq!(sum, expected, "in pieces of {size}");
        }
    }
}
