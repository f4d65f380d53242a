//! The two halves of a WebSocket connection.
//!
//! Both share the socket: the half that receives sends pings and pongs too. A message is sent in frames of a few kilobytes
//! (fragments, RFC 6455, 5.4), since the library keeps a buffer as large as the largest frame for as long as the connection lives.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use async_trait::async_trait;
use futures::{Sink, SinkExt, Stream, StreamExt};
use longhand_base::text::excerpt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{Error, ProtocolError};
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::protocol::frame::{CloseFrame, Frame};
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Utf8Bytes};

use super::super::guest::Attached;
use super::super::reason::cause;
use super::super::{Carrier, CarrierError, MAX_MESSAGE, RecordSink, RecordStream};

/// The pause in sending after which a ping is sent: proxies and address translators forget a connection that is silent for
/// longer than 30 to 60 seconds.
const PING_EVERY: Duration = Duration::from_secs(25);
/// For anything to arrive after a ping.
const PONG_TIMEOUT: Duration = Duration::from_secs(20);
/// From the end of both halves to that of the connection: the last bytes are sent, and the other side closes.
const LINGER: Duration = Duration::from_secs(2);
/// The buffer for reading, in bytes. It grows to the largest frame that was received.
const BUFFER: usize = 2 << 10;
/// Payload of a frame that is sent, in bytes: with its head it fits into the buffer of the other side.
const FRAME: usize = BUFFER - 16;

/// For frames that the socket does not take, in bytes. Pongs to pings of another side that reads nothing are not kept beyond it.
const MAX_UNSENT: usize = 16 << 10;
/// For a frame to leave this process while a message waits: the other side, or the network, is gone.
const STUCK_TIMEOUT: Duration = Duration::from_secs(45);

/// For both ends of a connection.
pub(super) fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(MAX_UNSENT)
        .max_frame_size(Some(MAX_MESSAGE))
        .max_message_size(Some(MAX_MESSAGE))
}

/// The carrier over a connection whose handshake is done. `guest` of one that a listener took.
pub(super) fn carrier<S>(socket: WebSocketStream<S>, guest: Option<Attached>) -> Carrier
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let now = Instant::now();
    let connection = Connection {
        socket: Some(socket),
        outgoing: None,
        moved: now,
        sender: None,
        quiet: Quiet::since(now),
        state: State::Open,
    };
    let shared = Arc::new(Mutex::new(connection));
    let sink = WebSocketSink(Arc::clone(&shared));
    let stream = WebSocketReader {
        shared,
        timer: Box::pin(sleep_until(now + PING_EVERY)),
        _guest: guest,
    };
    Carrier::new(sink, stream)
}

type Shared<S> = Arc<Mutex<Connection<S>>>;
type Received = Result<Option<Vec<u8>>, CarrierError>;

/// What both halves share.
struct Connection<S>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    /// `None` only while this is dropped.
    socket: Option<WebSocketStream<S>>,
    /// The message that is being sent. It stays here when its sender is cancelled: half a message would spoil the next.
    outgoing: Option<Outgoing>,
    /// When a frame of it was last handed over.
    moved: Instant,
    /// Of a sender that waits for room.
    sender: Option<Waker>,
    quiet: Quiet,
    state: State,
}

enum State {
    Open,
    /// Our close frame is on its way, or sent: nothing more can be sent.
    Closing,
    /// Nothing more can be received or sent.
    Ended(Result<(), CarrierError>),
}

impl<S> Connection<S>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    fn socket(&mut self) -> Result<Pin<&mut WebSocketStream<S>>, CarrierError> {
        let socket = self.socket.as_mut().map(Pin::new);
        socket.ok_or_else(|| CarrierError("the connection is closed".into()))
    }

    fn begin(&mut self, record: Vec<u8>) {
        self.outgoing = Some(Outgoing::new(record));
        self.moved = Instant::now();
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CarrierError>> {
        let result = match &self.state {
            State::Open => match self.poll_frames(cx) {
                Poll::Ready(result) => result,
                Poll::Pending => {
                    self.sender = Some(cx.waker().clone());
                    return Poll::Pending;
                }
            },
            State::Ended(Err(error)) => Err(error.clone()),
            State::Closing | State::Ended(Ok(())) => {
                Err(CarrierError("the other side closed the connection".into()))
            }
        };
        self.outgoing = None;
        self.quiet.was_sent(Instant::now());
        if let Err(error) = &result
            && matches!(self.state, State::Open)
        {
            self.ended(Err(error.clone()));
        }
        Poll::Ready(result)
    }

    /// Ready when all frames have left this process.
    fn poll_frames(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CarrierError>> {
        loop {
            ready!(self.socket()?.poll_ready(cx)).map_err(broken)?;
            let next = self.outgoing.as_mut().and_then(Outgoing::next_frame);
            let Some(frame) = next else { break };
            self.moved = Instant::now();
            let sent = self.socket()?.start_send(Message::Frame(frame));
            sent.map_err(broken)?;
        }
        self.socket()?.poll_flush(cx).map_err(broken)
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        if let State::Ended(end) = &self.state {
            return Poll::Ready(end.clone().map(|()| None));
        }
        if matches!(self.state, State::Closing) {
            // The close frame, when there was no room for it at first. An error shows when reading, too.
            let _ = self.socket()?.poll_close(cx);
        }
        loop {
            let received = ready!(self.socket()?.poll_next(cx));
            self.quiet.was_heard();
            match received {
                Some(Ok(Message::Binary(record))) => {
                    return Poll::Ready(Ok(Some(record.into())));
                }
                Some(Ok(Message::Text(_))) => return Poll::Ready(self.fail(&Fault::Text)),
                Some(Ok(Message::Close(frame))) => {
                    let reason = frame.as_ref().map(|it| excerpt(&it.reason));
                    tracing::debug!(?reason, "the other side closed a WebSocket");
                    return Poll::Ready(self.end());
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Poll::Ready(self.fail(&Fault::of(error))),
                None => return Poll::Ready(self.end()),
            }
        }
    }

    /// The other side has closed the connection.
    fn end(&mut self) -> Received {
        self.flush_now();
        self.ended(Ok(()));
        Ok(None)
    }

    fn fail(&mut self, fault: &Fault) -> Received {
        let error = fault.error();
        if let Some(frame) = fault.close_frame()
            && matches!(self.state, State::Open)
            && let Ok(socket) = self.socket()
        {
            // The other side may be gone already; the fault is the error that counts.
            let _ = socket.start_send(Message::Close(Some(frame)));
            self.flush_now();
        }
        self.ended(Err(error.clone()));
        Err(error)
    }

    fn ended(&mut self, end: Result<(), CarrierError>) {
        self.state = State::Ended(end);
        if let Some(sender) = self.sender.take() {
            sender.wake();
        }
    }

    /// Writes as much as there is room for. A sender that waits is not woken by the socket after this.
    fn flush_now(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        if let Ok(socket) = self.socket() {
            let _ = socket.poll_flush(&mut cx);
        }
    }

    /// No more is sent.
    fn close(&mut self) {
        if matches!(self.state, State::Open) {
            self.state = State::Closing;
            let mut cx = Context::from_waker(Waker::noop());
            if let Ok(socket) = self.socket() {
                let _ = socket.poll_close(&mut cx);
            }
        }
    }

    /// Called when nothing was received: sends a ping when one is due. The time at which the next may be.
    fn keep_alive(&mut self) -> Result<Instant, CarrierError> {
        let now = Instant::now();
        let stuck = self.outgoing.as_ref().map(|_| self.moved + STUCK_TIMEOUT);
        let next = match stuck {
            Some(stuck) if stuck <= now => Next::Dead,
            Some(stuck) => Next::Wait(stuck),
            None => self.quiet.next(now),
        };
        match next {
            Next::Wait(until) => Ok(until),
            Next::Ping(until) => {
                if matches!(self.state, State::Open) {
                    let sent = self.socket()?.start_send(Message::Ping(Bytes::new()));
                    sent.map_err(broken)?;
                    self.flush_now();
                }
                Ok(until)
            }
            Next::Dead => {
                let error = CarrierError("the other side no longer answers".into());
                self.ended(Err(error.clone()));
                Err(error)
            }
        }
    }
}

/// The last half is gone: what was sent is written, and the socket closed after the other side has closed it, since unread bytes
/// at a close make TCP drop those that were sent (RFC 1122, 4.2.2.13).
impl<S> Drop for Connection<S>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    fn drop(&mut self) {
        let (Some(mut socket), Ok(runtime)) = (self.socket.take(), Handle::try_current()) else {
            return;
        };
        let finish = async move {
            let _ = SinkExt::close(&mut socket).await;
            while let Some(Ok(_)) = socket.next().await {}
        };
        runtime.spawn(tokio::time::timeout(LINGER, finish));
    }
}

/// A message on its way, in frames.
struct Outgoing {
    frames: VecDeque<Bytes>,
    has_begun: bool,
}

impl Outgoing {
    fn new(record: Vec<u8>) -> Outgoing {
        let mut rest = Bytes::from(record);
        let mut frames = VecDeque::new();
        while rest.len() > FRAME {
            frames.push_back(rest.split_to(FRAME));
        }
        frames.push_back(rest);
        Outgoing {
            frames,
            has_begun: false,
        }
    }

    fn next_frame(&mut self) -> Option<Frame> {
        let payload = self.frames.pop_front()?;
        let kind = match std::mem::replace(&mut self.has_begun, true) {
            false => Data::Binary,
            true => Data::Continue,
        };
        let is_last = self.frames.is_empty();
        Some(Frame::message(payload, OpCode::Data(kind), is_last))
    }
}

/// How long nothing was sent, and what follows from it.
struct Quiet {
    sent: Instant,
    /// When a ping was sent after which nothing has arrived yet.
    pinged: Option<Instant>,
}

enum Next {
    Wait(Instant),
    /// Send a ping, and wait.
    Ping(Instant),
    /// Nothing came back.
    Dead,
}

impl Quiet {
    fn since(now: Instant) -> Quiet {
        Quiet {
            sent: now,
            pinged: None,
        }
    }

    fn was_sent(&mut self, now: Instant) {
        self.sent = now;
    }

    fn was_heard(&mut self) {
        self.pinged = None;
    }

    fn next(&mut self, now: Instant) -> Next {
        if let Some(pinged) = self.pinged {
            return match pinged + PONG_TIMEOUT {
                until if now < until => Next::Wait(until),
                _ => Next::Dead,
            };
        }
        let due = self.sent + PING_EVERY;
        if now < due {
            return Next::Wait(due);
        }
        self.sent = now;
        self.pinged = Some(now);
        Next::Ping(now + PONG_TIMEOUT)
    }
}

/// Why a connection cannot go on.
enum Fault {
    Text,
    TooLarge,
    Broken(String),
}

impl Fault {
    fn of(error: Error) -> Fault {
        match error {
            Error::Capacity(_) => Fault::TooLarge,
            Error::Utf8(_) => Fault::Text,
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                Fault::Broken("the connection broke".into())
            }
            error => Fault::Broken(cause(&error)),
        }
    }

    fn error(&self) -> CarrierError {
        CarrierError(match self {
            Fault::Text => "a text message arrived, and records are binary messages".into(),
            Fault::TooLarge => {
                format!("a message arrived that is larger than {MAX_MESSAGE} bytes")
            }
            Fault::Broken(reason) => excerpt(reason),
        })
    }

    /// For the other side; `None` when the connection is broken.
    fn close_frame(&self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Fault::Text => (CloseCode::Unsupported, "records are binary messages"),
            Fault::TooLarge => (CloseCode::Size, "the message is too large"),
            Fault::Broken(_) => return None,
        };
        let reason = Utf8Bytes::from_static(reason);
        Some(CloseFrame { code, reason })
    }
}

fn broken(error: Error) -> CarrierError {
    Fault::of(error).error()
}

struct WebSocketSink<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(Shared<S>);

#[async_trait]
impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> RecordSink for WebSocketSink<S> {
    /// Returns when the socket has taken all of the record.
    async fn send(&mut self, record: Vec<u8>) -> Result<(), CarrierError> {
        if record.len() > MAX_MESSAGE {
            let size = record.len();
            let reason = format!("a record of {size} bytes is larger than {MAX_MESSAGE}");
            return Err(CarrierError(reason));
        }
        if lock(&self.0).outgoing.is_some() {
            std::future::poll_fn(|cx| lock(&self.0).poll_send(cx)).await?;
        }
        lock(&self.0).begin(record);
        std::future::poll_fn(|cx| lock(&self.0).poll_send(cx)).await
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Drop for WebSocketSink<S> {
    fn drop(&mut self) {
        lock(&self.0).close();
    }
}

struct WebSocketReader<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> {
    shared: Shared<S>,
    timer: Pin<Box<Sleep>>,
    _guest: Option<Attached>,
}

#[async_trait]
impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> RecordStream for WebSocketReader<S> {
    async fn recv(&mut self) -> Received {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> WebSocketReader<S> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Received> {
        let mut connection = lock(&self.shared);
        if let Poll::Ready(received) = connection.poll_receive(cx) {
            return Poll::Ready(received);
        }
        loop {
            let until = connection.keep_alive()?;
            if self.timer.deadline() != until {
                self.timer.as_mut().reset(until);
            }
            ready!(self.timer.as_mut().poll(cx));
        }
    }
}

fn lock<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    shared: &Shared<S>,
) -> MutexGuard<'_, Connection<S>> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
