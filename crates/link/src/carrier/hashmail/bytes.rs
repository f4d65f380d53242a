//! A carrier's messages as a stream of bytes, for what is no protocol of messages: the HTTP/2 of apps.

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex, split};

use crate::Carrier;

/// The bytes between the stream's user and its task.
const BUFFER_BYTES: usize = 64 << 10;
/// The most bytes in a message: with its encryption and its frame it fits into one packet of go-back-N.
const CHUNK_BYTES: usize = 32_000;

/// The stream. It ends with the carrier, and the carrier with it. Must be called inside a tokio runtime.
pub fn into_bytes(carrier: Carrier) -> DuplexStream {
    let (near, far) = duplex(BUFFER_BYTES);
    tokio::spawn(async move {
        let Carrier {
            mut sink,
            mut stream,
            ..
        } = carrier;
        let (mut leaving, mut arriving) = split(far);
        let send = async {
            let mut chunk = vec![0; CHUNK_BYTES];
            while let Ok(length @ 1..) = leaving.read(&mut chunk).await {
                let message = chunk.get(..length).unwrap_or_default().to_vec();
                if sink.send(message).await.is_err() {
                    return;
                }
            }
        };
        let receive = async {
            while let Ok(Some(message)) = stream.recv().await {
                if arriving.write_all(&message).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = send => {}
            () = receive => {}
        }
    });
    near
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn bytes_come_as_they_were_written_however_long() {
        let (near, far) = Carrier::pair();
        let (mut near, mut far) = (into_bytes(near), into_bytes(far));
        let written: Vec<u8> = (0..200_000_u32).map(|it| it as u8).collect();
        let sent = written.clone();
        let sending = tokio::spawn(async move {
            near.write_all(&sent).await.unwrap();
            near
        });
        let mut read = vec![0; written.len()];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(read, written);
        drop(sending.await.unwrap());
        assert_eq!(far.read(&mut [0; 1]).await.unwrap(), 0);
    }
}
