//! The stream below a WebSocket. What the socket keeps of a message that is not complete is counted, as with gRPC: see `body.rs`.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::super::FREE_BYTES;
use super::super::refusal::Refusal;
use super::super::shared::{Account, Reservation};

/// Bytes that are reserved at once: fewer calls for large messages.
const STEP: usize = 64 << 10;

/// A stream, and what was read of it since the last message.
pub(super) fn new<S>(stream: S, account: Account) -> (Metered<S>, Meter) {
    let state = State {
        account,
        read: 0,
        reservation: None,
        refusal: None,
    };
    let meter = Meter(Arc::new(Mutex::new(state)));
    let metered = Metered {
        stream,
        meter: Meter(meter.0.clone()),
    };
    (metered, meter)
}

pub(super) struct Meter(Arc<Mutex<State>>);

pub(super) struct State {
    account: Account,
    /// Bytes since the last message.
    read: usize,
    /// For these, when they are more than a few.
    reservation: Option<Reservation>,
    /// Why the stream has failed, when it was not the client or the network.
    refusal: Option<Refusal>,
}

impl Meter {
    /// A message has been handed over: what was reserved is the caller's.
    pub fn message_is_complete(&self) -> Option<Reservation> {
        let mut state = self.lock();
        state.read = 0;
        state.reservation.take()
    }

    /// Why the stream has failed, when it was not the client or the network.
    pub fn refusal(&self) -> Option<Refusal> {
        self.lock().refusal
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn was_read(&mut self, bytes: usize) -> Result<(), Refusal> {
        self.read = self.read.saturating_add(bytes);
        let counted = self.read.saturating_sub(FREE_BYTES).div_ceil(STEP);
        let counted = counted.saturating_mul(STEP);
        match &mut self.reservation {
            Some(reservation) => reservation.grow_to(counted)?,
            None if counted > 0 => self.reservation = Some(self.account.reserve(counted)?),
            None => {}
        }
        Ok(())
    }

    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.reservation {
            Some(reservation) => reservation.poll_late(cx),
            None => Poll::Pending,
        }
    }

    fn fail(&mut self, refusal: Refusal) -> io::Error {
        self.refusal = Some(refusal);
        io::Error::other(refusal.text())
    }
}

pub(super) struct Metered<S> {
    stream: S,
    meter: Meter,
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(cx, buffer);
        let mut state = this.meter.lock();
        if read.is_pending() {
            ready!(state.poll_late(cx));
            return Poll::Ready(Err(state.fail(Refusal::Late)));
        }
        let bytes = buffer.filled().len().saturating_sub(before);
        state
            .was_read(bytes)
            .map_err(|refusal| state.fail(refusal))?;
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
