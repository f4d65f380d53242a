//! Records over any stream of bytes, each behind its length: four bytes, big-endian. For streams that come from elsewhere, such as
//! those of Tor; it takes no round trip before the first record.

use std::io;

use async_trait::async_trait;
use tokio::io::{
    AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader, ReadHalf, WriteHalf,
};

#[cfg(feature = "http")]
use super::guest::Guest;
use super::{Carrier, CarrierError, MAX_MESSAGE, RecordSink, RecordStream};

/// Bytes of the length.
const HEAD: usize = 4;

/// A carrier over a stream, of either end.
pub fn over<S>(stream: S) -> Carrier
where
    S: AsyncRead + AsyncWrite + Send + 'static,
{
    with(stream, ())
}

/// A host's carrier over a connection that it has accepted; `None` when the guest has one already.
#[cfg(feature = "http")]
pub fn over_guest(guest: Guest) -> Option<Carrier> {
    let mut attached = guest.visit().attach()?;
    let place = attached.place.take();
    Some(with(guest, attached).with_place(place))
}

/// `held` lives as long as the side that is read.
fn with<S, H>(stream: S, held: H) -> Carrier
where
    S: AsyncRead + AsyncWrite + Send + 'static,
    H: Send + 'static,
{
    let (read, write) = tokio::io::split(stream);
    let records = Records {
        read: BufReader::new(read),
        partial: Vec::new(),
        _held: held,
    };
    Carrier::new(Sink(write), records)
}

/// The side that is written.
struct Sink<S>(WriteHalf<S>);

#[async_trait]
impl<S: AsyncWrite + Send + 'static> RecordSink for Sink<S> {
    async fn send(&mut self, record: Vec<u8>) -> Result<(), CarrierError> {
        let length = u32::try_from(record.len()).ok();
        let length = length.filter(|_| record.len() <= MAX_MESSAGE);
        let length = length.ok_or_else(|| CarrierError("the record is too long".into()))?;
        // One write: a stream may send what it gets as packets.
        let mut bytes = Vec::with_capacity(HEAD + record.len());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&record);
        self.0.write_all(&bytes).await.map_err(lost)?;
        self.0.flush().await.map_err(lost)
    }

    async fn flush(&mut self) -> Result<(), CarrierError> {
        self.0.flush().await.map_err(lost)
    }
}

/// The side that is read.
struct Records<S, H> {
    read: BufReader<ReadHalf<S>>,
    /// What was read of the next record, with its length: a caller may give up waiting, and ask again.
    partial: Vec<u8>,
    _held: H,
}

impl<S: AsyncRead, H> Records<S, H> {
    /// Reads until `partial` has so many bytes; `false` when the stream ends before its first. May be cancelled.
    async fn fill(&mut self, wanted: usize) -> Result<bool, CarrierError> {
        while self.partial.len() < wanted {
            let read = self.read.fill_buf().await.map_err(lost)?;
            if read.is_empty() {
                return match self.partial.is_empty() {
                    true => Ok(false),
                    false => Err(lost(io::ErrorKind::UnexpectedEof.into())),
                };
            }
            let taken = read.len().min(wanted - self.partial.len());
            self.partial.extend_from_slice(&read[..taken]);
            self.read.consume(taken);
        }
        Ok(true)
    }
}

#[async_trait]
impl<S, H> RecordStream for Records<S, H>
where
    S: AsyncRead + Send + 'static,
    H: Send + 'static,
{
    async fn recv(&mut self) -> Result<Option<Vec<u8>>, CarrierError> {
        if !self.fill(HEAD).await? {
            return Ok(None);
        }
        let Some(head) = self.partial.first_chunk::<HEAD>() else {
            return Ok(None);
        };
        let length = usize::try_from(u32::from_be_bytes(*head)).unwrap_or(usize::MAX);
        if length > MAX_MESSAGE {
            return Err(CarrierError(
                "the other end sent a record that is too long".into(),
            ));
        }
        self.fill(HEAD + length).await?;
        let mut record = std::mem::take(&mut self.partial);
        record.drain(..HEAD);
        Ok(Some(record))
    }
}

fn lost(error: io::Error) -> CarrierError {
    CarrierError(error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn records_come_as_they_were_sent_whatever_pieces_the_stream_makes_of_them() {
        let (near, far) = tokio::io::duplex(7);
        let (near, mut far) = (over(near), over(far));
        let records = [vec![], vec![1], vec![2; 1_000], vec![3; MAX_MESSAGE]];
        let sent = records.clone();
        let sending = tokio::spawn(async move {
            // All of it: its other half would keep the stream open.
            let mut near = near;
            for record in sent {
                near.sink.send(record).await.unwrap();
            }
        });
        for record in records {
            assert_eq!(far.stream.recv().await, Ok(Some(record)));
        }
        sending.await.unwrap();
        assert_eq!(far.stream.recv().await, Ok(None), "the other end is closed");
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_at_any_byte_and_asks_again_loses_none() {
        let (mut near, far) = tokio::io::duplex(1);
        let mut far = over(far);
        let record = vec![7; 50];
        let bytes = [&50_u32.to_be_bytes()[..], &record].concat();
        for byte in &bytes[..bytes.len() - 1] {
            near.write_all(&[*byte]).await.unwrap();
            let asked = far.stream.recv();
            assert!(futures::FutureExt::now_or_never(asked).is_none());
        }
        near.write_all(&bytes[bytes.len() - 1..]).await.unwrap();
        assert_eq!(far.stream.recv().await, Ok(Some(record)));
    }

    #[tokio::test]
    async fn a_length_that_is_too_long_is_refused_before_it_costs_memory() {
        let (mut near, far) = tokio::io::duplex(64);
        near.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        let refused = over(far).stream.recv().await.unwrap_err();
        assert!(refused.to_string().contains("too long"), "{refused}");
    }

    #[tokio::test]
    async fn a_stream_that_ends_within_a_record_is_an_error() {
        for bytes in [&[0][..], &[0, 0, 0, 2, 1]] {
            let (mut near, far) = tokio::io::duplex(64);
            near.write_all(bytes).await.unwrap();
            drop(near);
            assert!(over(far).stream.recv().await.is_err());
        }
    }

    #[tokio::test]
    async fn a_record_that_is_too_long_is_not_sent() {
        let (near, _far) = tokio::io::duplex(64);
        let refused = over(near).sink.send(vec![0; MAX_MESSAGE + 1]).await;
        assert!(refused.is_err());
    }
}
