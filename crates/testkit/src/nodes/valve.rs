//! Cuts off a connection at a byte: the side that has dialled reads no more after it.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

const OPEN: u64 = u64::MAX;

/// The number of bytes that still pass.
pub struct Valve(AtomicU64);

impl Default for Valve {
    fn default() -> Valve {
        Valve(AtomicU64::new(OPEN))
    }
}

impl Valve {
    /// Lets so many bytes pass on all connections together, and nothing after them.
    pub fn close_after(&self, bytes: u64) {
        self.0.store(bytes, Ordering::SeqCst);
    }

    /// Lets everything pass on new connections; one that was cut off stays so.
    pub fn open(&self) {
        self.0.store(OPEN, Ordering::SeqCst);
    }

    /// Whether nothing passes.
    pub fn is_shut(&self) -> bool {
        self.0.load(Ordering::SeqCst) == 0
    }

    fn passed(&self, bytes: usize) {
        // It may have been closed to fewer bytes than were being read.
        let subtract = |left: u64| (left != OPEN).then(|| left.saturating_sub(bytes as u64));
        let _ = self
            .0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, subtract);
    }
}

/// A connection whose reader is behind the valve.
pub struct Valved {
    /// To the peer.
    pub stream: DuplexStream,
    /// Shared by all connections of a world.
    pub valve: Arc<Valve>,
}

impl AsyncRead for Valved {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let left = self.valve.0.load(Ordering::SeqCst);
        if left == 0 {
            return Poll::Pending;
        }
        let mut bytes = vec![0; into.remaining().min(usize::try_from(left).unwrap())];
        let mut read = ReadBuf::new(&mut bytes);
        let polled = Pin::new(&mut self.stream).poll_read(cx, &mut read);
        self.valve.passed(read.filled().len());
        into.put_slice(read.filled());
        polled
    }
}

impl AsyncWrite for Valved {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
