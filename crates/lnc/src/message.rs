//! `MsgData`: the frame of what one end sends at once, an act of the handshake or a part of a message.

/// The version that there is.
const VERSION: u8 = 0;
const HEADER_BYTES: usize = 5;
/// What a frame has beside a message: its own header, the transport's encrypted length, and a tag.
pub(crate) const OVERHEAD_BYTES: usize = HEADER_BYTES + 18 + 16;

/// A frame that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// It ends early.
    #[error("a frame of the other side ends early")]
    Short,
    /// Of a version that does not exist yet.
    #[error("the other side speaks version {0} of the frames, of which there is only 0: update")]
    Version(u8),
}

/// Frames a payload; `None` when it is longer than 4 GiB.
pub fn frame(payload: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(payload.len()).ok()?;
    let mut framed = Vec::with_capacity(HEADER_BYTES + payload.len());
    framed.push(VERSION);
    framed.extend(length.to_be_bytes());
    framed.extend(payload);
    Some(framed)
}

/// The payload of a frame. What follows it is ignored, as stock clients do.
///
/// # Errors
/// See [`FrameError`].
pub fn payload(framed: &[u8]) -> Result<&[u8], FrameError> {
    let (header, rest) = framed
        .split_first_chunk::<HEADER_BYTES>()
        .ok_or(FrameError::Short)?;
    let [version, length @ ..] = *header;
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(|_| FrameError::Short)?;
    rest.get(..length).ok_or(FrameError::Short)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_payload_is_read_back_from_its_frame() {
        for bytes in [&b""[..], b"act", &[7; 70_000]] {
            let mut framed = frame(bytes).unwrap();
            assert_eq!(payload(&framed), Ok(bytes));
            framed.push(1);
            assert_eq!(payload(&framed), Ok(bytes));
        }
    }

    #[test]
    fn a_frame_that_is_cut_or_of_another_version_is_refused() {
        let framed = frame(b"act").unwrap();
        for length in 0..framed.len() {
            assert_eq!(payload(&framed[..length]), Err(FrameError::Short));
        }
        assert_eq!(payload(&[9, 0, 0, 0, 0]), Err(FrameError::Version(9)));
        assert_eq!(payload(&[0, 255, 255, 255, 255]), Err(FrameError::Short));
    }
}
