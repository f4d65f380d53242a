//! A TCP connection that a listener has taken: it is closed when its handshake is not done in time.
//!
//! The user of the connection calls [`Visit::attach`] when the handshake is done, and keeps [`Attached`] while it uses it.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, Sleep, sleep_until};

use super::admission::{Admission, Place, SourceNetwork};

/// From the connection to the end of its handshake, TLS included.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);
/// From the end of the use of a connection to its own end: the last bytes are sent.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause after a connection could not be accepted, such as without a free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections and sends them to `guests` until that is closed. Connections without a place are closed at once.
pub async fn accept(
    listener: TcpListener,
    admission: Admission<SourceNetwork>,
    guests: mpsc::Sender<io::Result<Guest>>,
) {
    loop {
        let accepted = tokio::select! {
            biased;
            () = guests.closed() => return,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // `set_nodelay` fails on a connection that is closed already.
        if let Some(guest) = admit(stream, from.ip(), &admission)
            && guests.send(Ok(guest)).await.is_err()
        {
            return;
        }
    }
}

fn admit(stream: TcpStream, from: IpAddr, admission: &Admission<SourceNetwork>) -> Option<Guest> {
    let Some(place) = admission.enter(from) else {
        tracing::debug!(%from, "a connection was closed: too many have not finished their handshakes yet");
        return None;
    };
    stream.set_nodelay(true).ok()?;
    Some(Guest::new(stream, place))
}

/// See the module.
pub struct Guest {
    stream: TcpStream,
    visit: Visit,
    deadline: Pin<Box<Sleep>>,
}

impl Guest {
    fn new(stream: TcpStream, place: Place<SourceNetwork>) -> Guest {
        let until = Instant::now() + ATTACH_TIMEOUT;
        let state = State {
            place: Some(place),
            until: Some(until),
            has_attached: false,
            reader: None,
        };
        Guest {
            stream,
            visit: Visit(Arc::new(Mutex::new(state))),
            deadline: Box::pin(sleep_until(until)),
        }
    }

    /// Shared with it.
    pub fn visit(&self) -> Visit {
        self.visit.clone()
    }
}

/// The state of a connection, shared between its socket and the stream that is read from it.
#[derive(Clone)]
pub struct Visit(Arc<Mutex<State>>);

struct State {
    place: Option<Place<SourceNetwork>>,
    /// The connection fails then.
    until: Option<Instant>,
    has_attached: bool,
    reader: Option<Waker>,
}

impl Visit {
    /// The handshake is done: the connection no longer times out. `None` when this was called before.
    pub fn attach(&self) -> Option<Attached> {
        let mut state = self.lock();
        if std::mem::replace(&mut state.has_attached, true) {
            return None;
        }
        state.until = None;
        let place = state.place.take();
        drop(state);
        Some(Attached {
            place,
            _end: End(self.clone()),
        })
    }

    fn close_within(&self, time: Duration) {
        let mut state = self.lock();
        state.until = Some(Instant::now() + time);
        let reader = state.reader.take();
        drop(state);
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection is in use, and is closed soon after this is dropped.
pub struct Attached {
    /// Until the phone is known.
    pub place: Option<Place<SourceNetwork>>,
    _end: End,
}

struct End(Visit);

impl Drop for End {
    fn drop(&mut self) {
        self.0.close_within(CLOSE_TIMEOUT);
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let guest = self.get_mut();
        let until = {
            let mut state = guest.visit.lock();
            state.reader = Some(cx.waker().clone());
            state.until
        };
        if let Some(until) = until {
            if guest.deadline.deadline() != until {
                guest.deadline.as_mut().reset(until);
            }
            if guest.deadline.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        Pin::new(&mut guest.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::{Ipv4Addr, SocketAddr};

    use tokio::io::AsyncReadExt;

    use super::super::admission::Places;
    use super::*;

    /// A listener with this many places, and the connections that it has taken.
    async fn listening(places: usize) -> (SocketAddr, mpsc::Receiver<io::Result<Guest>>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (guests, arriving) = mpsc::channel(8);
        let admission = Admission::new(Places {
            all: places,
            each: places,
        });
        tokio::spawn(accept(listener, admission, guests));
        (address, arriving)
    }

    /// The first connection, and its guest.
    async fn connected() -> (TcpStream, Guest) {
        let (address, mut arriving) = listening(1).await;
        let stream = TcpStream::connect(address).await.unwrap();
        let guest = arriving.recv().await.unwrap().unwrap();
        (stream, guest)
    }

    /// How long a read lasts that nothing is sent to.
    async fn lasts(guest: &mut Guest) -> Duration {
        tokio::time::pause();
        let begun = Instant::now();
        let read = guest.read(&mut [0]).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        begun.elapsed()
    }

    #[tokio::test]
    async fn a_connection_without_a_stream_of_records_times_out() {
        let (_stream, mut guest) = connected().await;
        let lasts = lasts(&mut guest).await;
        assert!(
            lasts <= ATTACH_TIMEOUT + Duration::from_millis(1),
            "{lasts:?}"
        );
    }

    #[tokio::test]
    async fn a_connection_is_closed_soon_after_its_stream_of_records() {
        let (_stream, mut guest) = connected().await;
        let attached = guest.visit().attach().unwrap();
        assert!(guest.visit().attach().is_none(), "it has had one");
        tokio::time::pause();
        let long = Duration::from_secs(3_600);
        let mut buffer = [0];
        let read = tokio::time::timeout(long, guest.read(&mut buffer));
        assert!(
            read.await.is_err(),
            "an attached connection does not time out"
        );
        let begun = Instant::now();
        tokio::spawn(async move {
            tokio::time::sleep(long).await;
            drop(attached);
        });
        let read = guest.read(&mut [0]).await;
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        let lasts = begun.elapsed() - long;
        assert!(
            lasts <= CLOSE_TIMEOUT + Duration::from_millis(2),
            "{lasts:?}"
        );
    }

    #[tokio::test]
    async fn a_connection_without_a_place_is_closed_at_once() {
        let (address, mut arriving) = listening(1).await;
        let _first = TcpStream::connect(address).await.unwrap();
        let guest = arriving.recv().await.unwrap().unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        assert_eq!(second.read(&mut [0]).await.unwrap(), 0);
        drop(guest);
        let _third = TcpStream::connect(address).await.unwrap();
        assert!(arriving.recv().await.is_some());
    }
}
