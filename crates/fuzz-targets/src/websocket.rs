//! WebSocket frames (RFC 6455, 5.2) after the handshake, read at either side of a connection.
//!
//! The first byte selects the side, the second how many bytes arrive at once; the rest arrives.

use longhand_link::carrier::MAX_MESSAGE;
use longhand_link::fuzzing::websocket;
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

/// Holds what the reader may answer: pongs and a close frame.
const PIPE: usize = 1 << 20;

/// Tries one input.
pub fn run(data: &[u8]) {
    let [side, step, frames @ ..] = data else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(read(side % 2 == 0, usize::from(*step) + 1, frames));
}

async fn read(took_it: bool, step: usize, frames: &[u8]) {
    let (near, far) = duplex(PIPE);
    let mut carrier = websocket(near, took_it).await;
    let (mut answers, mut sending) = tokio::io::split(far);
    let write = async {
        for chunk in frames.chunks(step) {
            if sending.write_all(chunk).await.is_err() {
                return;
            }
            tokio::task::yield_now().await;
        }
        // The reader may have closed the connection.
        let _ = sending.shutdown().await;
    };
    let receive = async {
        let mut received = 0;
        while let Ok(Some(record)) = carrier.stream.recv().await {
            assert!(record.len() <= MAX_MESSAGE, "{} bytes", record.len());
            received += record.len();
        }
        assert!(
            received <= frames.len(),
            "records have more bytes than came"
        );
        let again = carrier.stream.recv().await;
        assert!(!matches!(again, Ok(Some(_))), "a record came after the end");
        drop(carrier);
    };
    let take = async {
        // Fails when the reader is gone.
        let _ = answers.read_to_end(&mut Vec::new()).await;
    };
    tokio::join!(write, receive, take);
}

/// A frame: its first byte, whether it is masked, and its payload.
fn frame(first: u8, is_masked: bool, payload: &[u8]) -> Vec<u8> {
    let mask_bit = if is_masked { 0x80 } else { 0 };
    let mut frame = vec![first];
    match u16::try_from(payload.len()) {
        Ok(short @ 0..=125) => frame.push(mask_bit | short as u8),
        Ok(long) => {
            frame.push(mask_bit | 126);
            frame.extend(long.to_be_bytes());
        }
        Err(_) => {
            frame.push(mask_bit | 127);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    if is_masked {
        // A mask of zeros leaves the payload as it is.
        frame.extend([0; 4]);
    }
    frame.extend(payload);
    frame
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let (server, client) = ([0, 255], [1, 255]);
    let record = frame(0x82, true, b"a record");
    let parts = [
        frame(0x02, true, b"a rec"),
        frame(0x89, true, b"ping"),
        frame(0x80, true, b"ord"),
        frame(0x88, true, &1_000_u16.to_be_bytes()),
    ]
    .concat();
    let text = frame(0x81, true, b"text");
    let large = frame(0x82, true, &[7; MAX_MESSAGE + 1]);
    let bare = frame(0x82, false, b"a record");
    let slowly = [0, 0];
    vec![
        [&server[..], &record].concat(),
        [&server[..], &parts].concat(),
        [&slowly[..], &parts].concat(),
        [&server[..], &text].concat(),
        [&server[..], &large].concat(),
        [&server[..], &bare].concat(),
        [&client[..], &bare].concat(),
    ]
}
