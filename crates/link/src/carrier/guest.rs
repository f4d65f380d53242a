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

use super::admission::{Admission, Place, PlaceWatch, SourceNetwork};
use super::proxies::Proxies;

/// From the connection to the end of its handshake, TLS included.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);
/// From the end of the use of a connection to its own end: the last bytes are sent.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes that are read of a connection while it has its place. The flow control of HTTP/2 lets a phone send about half of it
/// before its handshake is done; frames that open streams are not under flow control, and a stranger could send them without
/// end.
pub(super) const STRANGER_BYTES: usize = 128 << 10;
/// Pause after a connection could not be accepted, such as without a free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections and sends them to `guests` until that is closed. Connections without a place are closed at once.
pub async fn accept(
    listener: TcpListener,
    admission: Admission<SourceNetwork>,
    guests: mpsc::Sender<io::Result<Guest>>,
) {
    accept_behind(Proxies::default(), listener, admission, guests).await;
}

/// As [`accept`], for a listener that reverse proxies connect to. A connection of theirs has a place of one who is not known
/// yet: see [`Visit::came_from`].
pub async fn accept_behind(
    proxies: Proxies,
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
        if let Some(guest) = admit_behind(&proxies, stream, from.ip(), &admission)
            && guests.send(Ok(guest)).await.is_err()
        {
            return;
        }
    }
}

/// A guest of a connection that was accepted elsewhere; `None` without a place for it.
pub fn admit(
    stream: TcpStream,
    from: IpAddr,
    admission: &Admission<SourceNetwork>,
) -> Option<Guest> {
    admit_behind(&Proxies::default(), stream, from, admission)
}

fn admit_behind(
    proxies: &Proxies,
    stream: TcpStream,
    from: IpAddr,
    admission: &Admission<SourceNetwork>,
) -> Option<Guest> {
    let proxy = proxies.contains(from).then_some(from);
    let entered = match proxy {
        Some(_) => admission.enter_unknown(),
        None => admission.enter(from),
    };
    let Some(place) = entered else {
        tracing::debug!(%from, "a connection was closed: too many have not finished their handshakes yet");
        return None;
    };
    stream.set_nodelay(true).ok()?;
    Some(Guest::new(stream, place, proxy))
}

/// See the module. No more than 128 KiB are read from it while it has its place, nor later when its handshake has
/// failed: it is closed when its time is over.
pub struct Guest {
    stream: TcpStream,
    visit: Visit,
    deadline: Pin<Box<Sleep>>,
    allowance: Allowance,
}

/// Bytes that may still be read.
enum Allowance {
    /// Of a stranger, who has this place.
    Left(usize, PlaceWatch),
    /// Of one whose handshake is done.
    Any,
}

impl Allowance {
    /// How many may be read now. `is_in_use` of a connection that is neither in its handshake nor closing: its place is free
    /// because its handshake is done.
    fn now(&mut self, is_in_use: bool) -> usize {
        match self {
            Allowance::Left(_, place) if is_in_use && !place.is_taken() => *self = Allowance::Any,
            _ => {}
        }
        match self {
            Allowance::Left(left, _) => *left,
            Allowance::Any => usize::MAX,
        }
    }

    fn was_read(&mut self, bytes: usize) {
        if let Allowance::Left(left, _) = self {
            *left = left.saturating_sub(bytes);
        }
    }
}

impl Guest {
    fn new(stream: TcpStream, place: Place<SourceNetwork>, proxy: Option<IpAddr>) -> Guest {
        let until = Instant::now() + ATTACH_TIMEOUT;
        let allowance = Allowance::Left(STRANGER_BYTES, place.watch());
        let state = State {
            source: place.key(),
            place: Some(place),
            proxy,
            until: Some(until),
            has_attached: false,
            shares: 0,
            heard: Instant::now(),
            reader: None,
        };
        Guest {
            stream,
            visit: Visit(Arc::new(Mutex::new(state))),
            deadline: Box::pin(sleep_until(until)),
            allowance,
        }
    }

    /// Reads so many bytes of a stranger, in place of 128 KiB. For a connection of which nothing was read.
    pub fn read_at_most(&mut self, bytes: usize) {
        if let Allowance::Left(left, _) = &mut self.allowance {
            *left = bytes;
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
    source: Option<SourceNetwork>,
    /// The reverse proxy that the connection comes from.
    proxy: Option<IpAddr>,
    /// The connection fails then.
    until: Option<Instant>,
    has_attached: bool,
    /// Uses at once, see [`Visit::share`].
    shares: usize,
    /// When bytes last came.
    heard: Instant,
    reader: Option<Waker>,
}

impl Visit {
    /// Of a connection in this process, of no network: its owner says when something has come ([`Visit::hears`]).
    pub fn embedded() -> Visit {
        Visit(Arc::new(Mutex::new(State {
            place: None,
            source: None,
            proxy: None,
            until: None,
            has_attached: false,
            shares: 0,
            heard: Instant::now(),
            reader: None,
        })))
    }

    /// Bytes have come from the other side.
    pub fn hears(&self) {
        self.lock().heard = Instant::now();
    }

    /// The reverse proxy that the connection comes from; `None` when it comes from no proxy.
    pub fn proxy(&self) -> Option<IpAddr> {
        self.lock().proxy
    }

    /// Counts the place of a connection through a proxy for the address that the proxy names. Whether that address had a place
    /// left. Later calls change nothing: a connection is of one.
    #[must_use]
    pub fn came_from(&self, source: IpAddr) -> bool {
        let mut state = self.lock();
        let has_place = state.place.as_mut().is_none_or(|place| place.is_of(source));
        if has_place && state.source.is_none() {
            state.source = Some(source.into());
        }
        has_place
    }

    /// The network that the connection comes from; `None` of one through a proxy whose requests have not said it yet.
    pub fn source(&self) -> Option<SourceNetwork> {
        self.lock().source
    }

    /// When bytes last came from the other side.
    pub fn heard(&self) -> Instant {
        self.lock().heard
    }

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
            _end: End(self.clone()),
            place,
        })
    }

    /// One of several uses of a connection at once, in place of [`Visit::attach`]. Its place is free from now on, and it does not
    /// time out before all of them have ended; then it has as long for the next as one that has just connected.
    pub fn share(&self) -> Share {
        let mut state = self.lock();
        state.shares = state.shares.saturating_add(1);
        state.until = None;
        let place = state.place.take();
        drop(state);
        drop(place);
        Share(self.clone())
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
    /// Before the place: a connection that is closing is not one whose handshake is done.
    _end: End,
    /// Until the phone is known.
    pub place: Option<Place<SourceNetwork>>,
}

/// A use of a connection, see [`Visit::share`].
pub struct Share(Visit);

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.shares = state.shares.saturating_sub(1);
        let is_last = state.shares == 0;
        drop(state);
        if is_last {
            self.0.close_within(ATTACH_TIMEOUT);
        }
    }
}

struct End(Visit);

impl Drop for End {
    fn drop(&mut self) {
        self.0.close_within(CLOSE_TIMEOUT);
    }
}

impl Guest {
    /// The deadline, if there is one.
    ///
    /// # Errors
    /// It has passed. The task is woken when it does, and when there is another one.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> io::Result<Option<Instant>> {
        let until = {
            let mut state = self.visit.lock();
            state.reader = Some(cx.waker().clone());
            state.until
        };
        if let Some(until) = until {
            if self.deadline.deadline() != until {
                self.deadline.as_mut().reset(until);
            }
            if self.deadline.as_mut().poll(cx).is_ready() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(until)
    }

    /// A client that takes nothing is not read either: the deadline has to end its writes.
    fn unless_late<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if written.is_pending() {
            self.poll_deadline(cx)?;
        }
        written
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let guest = self.get_mut();
        let until = guest.poll_deadline(cx)?;
        if guest.allowance.now(until.is_none()) == 0 {
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut guest.stream).poll_read(cx, buffer);
        let bytes = buffer.filled().len().saturating_sub(before);
        if bytes > 0 {
            guest.visit.hears();
        }
        guest.allowance.was_read(bytes);
        read
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let guest = self.get_mut();
        let written = Pin::new(&mut guest.stream).poll_write(cx, bytes);
        guest.unless_late(written, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let guest = self.get_mut();
        let written = Pin::new(&mut guest.stream).poll_write_vectored(cx, slices);
        guest.unless_late(written, cx)
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

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
        lasts_now(guest).await
    }

    /// The same, when the clock is paused.
    async fn lasts_now(guest: &mut Guest) -> Duration {
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

    /// A stranger has sent a byte more than is read of one; that byte has arrived.
    async fn flooded() -> (TcpStream, Guest) {
        let (mut stream, mut guest) = connected().await;
        let mut read = vec![0; STRANGER_BYTES];
        let sent = vec![0; STRANGER_BYTES + 1];
        let (sent, read) = tokio::join!(stream.write_all(&sent), guest.read_exact(&mut read));
        sent.unwrap();
        read.unwrap();
        (stream, guest)
    }

    #[tokio::test]
    async fn a_stranger_is_read_no_further_than_a_handshake_goes() {
        let (_stream, mut guest) = flooded().await;
        lasts(&mut guest).await;
    }

    #[tokio::test]
    async fn a_stranger_whose_handshake_has_failed_is_read_no_further_either() {
        let (_stream, mut guest) = flooded().await;
        drop(guest.visit().attach());
        lasts(&mut guest).await;
    }

    #[tokio::test]
    async fn a_phone_that_is_known_is_read_further() {
        let (_stream, mut guest) = flooded().await;
        let mut attached = guest.visit().attach().unwrap();
        attached.place = None;
        assert_eq!(guest.read(&mut [0]).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_connection_that_is_shared_times_out_after_the_last_use_and_can_be_used_again() {
        let (_stream, mut guest) = connected().await;
        let visit = guest.visit();
        tokio::time::pause();
        let long = Duration::from_secs(3_600);
        let mut buffer = [0];
        for _ in 0..2 {
            let (first, second) = (visit.share(), visit.share());
            drop(first);
            let read = tokio::time::timeout(long, guest.read(&mut buffer));
            assert!(read.await.is_err(), "a connection in use does not time out");
            drop(second);
        }
        let lasts = lasts_now(&mut guest).await;
        assert!(
            lasts <= ATTACH_TIMEOUT + Duration::from_millis(2),
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
