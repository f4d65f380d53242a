//! The ends of one connection in a stream, as a carrier: what its sink and its stream share with the trunk that moves their packets.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc};

use super::packet::{WINDOW, cost};
use super::trunk::Line;
use crate::carrier::{Carrier, CarrierError, RecordSink, RecordStream};

/// What a carrier asks of its trunk.
pub(super) enum Ask {
    /// A record is to be sent.
    Record(Line, Vec<u8>),
    /// The carrier's user has taken so many bytes.
    Taken(Line, u32),
    /// The carrier's sink was dropped, after all that it sent.
    Close(Line),
}

/// The trunk's hold on a carrier.
pub(super) struct Connected {
    records: mpsc::UnboundedSender<Result<Vec<u8>, CarrierError>>,
    window: Arc<Window>,
}

impl Connected {
    /// A record has arrived. The trunk has checked that it is within the window, which bounds what waits here.
    pub fn record(&self, record: Vec<u8>) {
        // Fails when the carrier's user no longer reads.
        let _ = self.records.send(Ok(record));
    }

    /// The connection ends for this reason, which the carrier's user reads after the records before it.
    pub fn fail(&self, reason: &CarrierError) {
        let _ = self.records.send(Err(reason.clone()));
    }

    /// The other end has taken so many bytes.
    pub fn credit(&self, bytes: u32) {
        self.window.add(bytes);
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.window.close();
    }
}

/// A carrier over `line`, and the trunk's hold on it. `asks` is the trunk's.
pub(super) fn connect(line: Line, asks: mpsc::Sender<Ask>) -> (Carrier, Connected) {
    let (records, arriving) = mpsc::unbounded_channel();
    let window = Arc::new(Window::default());
    let sink = Sink {
        line,
        asks: asks.clone(),
        window: window.clone(),
    };
    let stream = Stream {
        line,
        asks,
        arriving,
        taken: 0,
    };
    (Carrier::new(sink, stream), Connected { records, window })
}

/// Bytes that may be sent now.
struct Window {
    left: Mutex<Left>,
    changed: Notify,
}

struct Left {
    bytes: u32,
    is_closed: bool,
}

impl Default for Window {
    fn default() -> Window {
        Window {
            left: Mutex::new(Left {
                bytes: WINDOW,
                is_closed: false,
            }),
            changed: Notify::new(),
        }
    }
}

impl Window {
    /// Waits for room and takes it; `None` when the connection has ended.
    async fn take(&self, bytes: u32) -> Option<Taken<'_>> {
        loop {
            let changed = self.changed.notified();
            {
                let mut left = self.lock();
                if left.is_closed {
                    return None;
                }
                if let Some(rest) = left.bytes.checked_sub(bytes) {
                    left.bytes = rest;
                    return Some(Taken {
                        window: self,
                        bytes,
                    });
                }
            }
            changed.await;
        }
    }

    fn add(&self, bytes: u32) {
        let mut left = self.lock();
        // More than was sent is never given back by an honest end.
        left.bytes = left.bytes.saturating_add(bytes).min(WINDOW);
        drop(left);
        self.changed.notify_one();
    }

    fn close(&self) {
        self.lock().is_closed = true;
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Bytes taken of a window. They are given back when the record was not handed over, as by a sender that was cancelled.
struct Taken<'a> {
    window: &'a Window,
    bytes: u32,
}

impl Taken<'_> {
    fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.window.add(self.bytes);
        }
    }
}

struct Sink {
    line: Line,
    asks: mpsc::Sender<Ask>,
    window: Arc<Window>,
}

#[async_trait]
impl RecordSink for Sink {
    async fn send(&mut self, record: Vec<u8>) -> Result<(), CarrierError> {
        let gone = || CarrierError("the connection through the mailbox has ended".into());
        let Some(taken) = self.window.take(cost(&record)).await else {
            return Err(gone());
        };
        let permit = self.asks.reserve().await.map_err(|_| gone())?;
        taken.keep();
        permit.send(Ask::Record(self.line, record));
        Ok(())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let (asks, line) = (self.asks.clone(), self.line);
        let Err(full) = asks.try_send(Ask::Close(line)) else {
            return;
        };
        // The queue is full: the close has to wait behind the records in it.
        if let (mpsc::error::TrySendError::Full(close), Ok(runtime)) =
            (full, tokio::runtime::Handle::try_current())
        {
            runtime.spawn(async move {
                // Fails when the trunk is gone, and the connection with it.
                let _ = asks.send(close).await;
            });
        }
    }
}

struct Stream {
    line: Line,
    asks: mpsc::Sender<Ask>,
    arriving: mpsc::UnboundedReceiver<Result<Vec<u8>, CarrierError>>,
    /// Bytes that were taken and are not credited yet.
    taken: u32,
}

#[async_trait]
impl RecordStream for Stream {
    async fn recv(&mut self) -> Result<Option<Vec<u8>>, CarrierError> {
        // Before the next record is taken, so that a call that is cancelled loses none.
        if self.taken >= WINDOW / 2 {
            let permit = self.asks.reserve().await;
            if let Ok(permit) = permit {
                permit.send(Ask::Taken(self.line, std::mem::take(&mut self.taken)));
            }
        }
        let record = self.arriving.recv().await.transpose()?;
        if let Some(record) = &record {
            self.taken = self.taken.saturating_add(cost(record));
        }
        Ok(record)
    }
}
