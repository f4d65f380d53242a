//! Carriers: what a link travels over. A carrier moves opaque records of at most 64 KiB both ways, in order
//! and whole; it is trusted with nothing else. To add one, implement [`RecordSink`] and [`RecordStream`].

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::Instant;

#[cfg(feature = "grpc")]
pub mod grpc;

/// The largest record: a Noise message, or a handshake record with its head.
pub const MAX_RECORD: usize = 65_535;

/// A carrier failed; the reason is for a person. The link treats it as a lost connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CarrierError(pub String);

/// The half of a carrier that sends.
#[async_trait]
pub trait RecordSink: Send + 'static {
    /// Hands over one record; returns when the carrier can take the next. Once it failed it fails for good.
    async fn send(&mut self, record: Vec<u8>) -> Result<(), CarrierError>;
}

/// The half of a carrier that receives.
#[async_trait]
pub trait RecordStream: Send + 'static {
    /// The next record; `None` when the other side ended the connection. May be cancelled without losing one.
    async fn recv(&mut self) -> Result<Option<Vec<u8>>, CarrierError>;
}

/// One connection of any kind.
pub struct Carrier {
    /// Towards the other side. Dropping it ends the connection after what was sent.
    pub sink: Box<dyn RecordSink>,
    /// From the other side.
    pub stream: Box<dyn RecordStream>,
}

impl Carrier {
    /// A carrier of two halves.
    pub fn new(sink: impl RecordSink, stream: impl RecordStream) -> Carrier {
        Carrier {
            sink: Box::new(sink),
            stream: Box::new(stream),
        }
    }

    /// The two ends of a connection inside this process.
    pub fn pair() -> (Carrier, Carrier) {
        let (to_b, from_a) = mpsc::channel(64);
        let (to_a, from_b) = mpsc::channel(64);
        (Carrier::new(to_b, from_b), Carrier::new(to_a, from_a))
    }

    /// The same connection, `delay` later in each direction; order is kept. Must be called inside a tokio
    /// runtime. The longest distance on Earth is about 100 ms one way.
    pub fn delayed(self, delay: Duration) -> Carrier {
        let Carrier {
            mut sink,
            mut stream,
        } = self;
        let (outer_sink, mut leaving) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
        let (arriving, outer_stream) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some((due, record)) = leaving.recv().await {
                tokio::time::sleep_until(due).await;
                if sink.send(record).await.is_err() {
                    break;
                }
            }
        });
        tokio::spawn(async move {
            loop {
                let received = tokio::select! {
                    biased;
                    () = arriving.closed() => break,
                    received = stream.recv() => received,
                };
                let end = !matches!(received, Ok(Some(_)));
                if arriving.send((Instant::now() + delay, received)).is_err() || end {
                    break;
                }
            }
        });
        Carrier::new(
            DelayedSink {
                delay,
                inner: outer_sink,
            },
            DelayedStream {
                inner: outer_stream,
                due: None,
            },
        )
    }
}

#[async_trait]
impl RecordSink for mpsc::Sender<Vec<u8>> {
    async fn send(&mut self, record: Vec<u8>) -> Result<(), CarrierError> {
        let sent = mpsc::Sender::send(self, record).await;
        sent.map_err(|_| CarrierError("the other end is gone".into()))
    }
}

#[async_trait]
impl RecordStream for mpsc::Receiver<Vec<u8>> {
    async fn recv(&mut self) -> Result<Option<Vec<u8>>, CarrierError> {
        Ok(mpsc::Receiver::recv(self).await)
    }
}

struct DelayedSink {
    delay: Duration,
    inner: mpsc::UnboundedSender<(Instant, Vec<u8>)>,
}

#[async_trait]
impl RecordSink for DelayedSink {
    async fn send(&mut self, record: Vec<u8>) -> Result<(), CarrierError> {
        let sent = self.inner.send((Instant::now() + self.delay, record));
        sent.map_err(|_| CarrierError("the delayed connection broke".into()))
    }
}

type Received = Result<Option<Vec<u8>>, CarrierError>;

struct DelayedStream {
    inner: mpsc::UnboundedReceiver<(Instant, Received)>,
    /// Taken from the channel, but not due yet: kept here so that `recv` may be cancelled.
    due: Option<(Instant, Received)>,
}

#[async_trait]
impl RecordStream for DelayedStream {
    async fn recv(&mut self) -> Received {
        if self.due.is_none() {
            self.due = self.inner.recv().await;
        }
        match &self.due {
            Some((due, _)) => tokio::time::sleep_until(*due).await,
            None => return Ok(None),
        }
        self.due.take().map_or(Ok(None), |(_, received)| received)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_delayed_carrier_is_late_by_its_delay_and_keeps_the_order() {
        let (a, mut b) = Carrier::pair();
        let mut a = a.delayed(Duration::from_millis(50));
        let start = Instant::now();
        for n in 0..3 {
            a.sink.send(vec![n]).await.unwrap();
            b.sink.send(vec![n]).await.unwrap();
        }
        for n in 0..3 {
            assert_eq!(b.stream.recv().await, Ok(Some(vec![n])));
            assert_eq!(a.stream.recv().await, Ok(Some(vec![n])));
        }
        // Sent together, so all are due together: a distance, not a narrow pipe.
        assert_eq!(start.elapsed().as_millis(), 50);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_comes_through_after_what_was_sent() {
        let (a, mut b) = Carrier::pair();
        let mut a = a.delayed(Duration::from_millis(50));
        a.sink.send(vec![1]).await.unwrap();
        drop(a);
        assert_eq!(b.stream.recv().await, Ok(Some(vec![1])));
        assert_eq!(b.stream.recv().await, Ok(None));
    }
}
