//! A carrier with latency, for benchmarks and simulations.

use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Carrier, CarrierError, RecordSink, RecordStream};

impl Carrier {
    /// The same connection, `delay` later in each direction; order is kept. Must be called inside a tokio
    /// runtime. The longest distance on Earth is about 100 ms one way.
    pub fn delayed(self, delay: Duration) -> Carrier {
        let Carrier {
            mut sink,
            mut stream,
            place,
            source,
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
        let mut delayed = Carrier::new(
            DelayedSink {
                delay,
                inner: outer_sink,
            },
            DelayedStream {
                inner: outer_stream,
                due: None,
            },
        )
        .with_place(place);
        delayed.source = source;
        delayed
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
        // Sent together, so all are due together: the carrier has latency, and no limit of bandwidth.
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
