//! The calls to the relay's hashmail over connections of the simulation, in place of gRPC: the client's end of a connection, and the
//! relay's, which asks a real mailbox. What is above them is real: the carrier, go-back-N and Lightning Node Connect.
//!
//! A connection carries the calls as frames, as one of HTTP/2 does. Each end sends pings as the real one would, and gives the
//! connection up without an answer. A frame is a step of the connection, but for pings; a packet that leaves the relay is a step of
//! the relay.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::future::{AbortHandle, Aborted, BoxFuture, FutureExt, abortable};
use futures::stream::{FuturesUnordered, StreamExt, iter, unfold};
use longhand_link::carrier::hashmail::{
    Calls, ConnectMailbox, KEEP_ALIVE_AFTER, KEEP_ALIVE_WITHIN, Messages,
};
use longhand_link::{Address, CarrierError, LinkError, RecordSink, RecordStream};
use longhand_mailbox::hashmail::{Connection, DEAD, PING_EVERY};
use longhand_proto::hashmail::CipherBox;
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::{Code, Status};

use super::line::{LineEnd, LineSink, broken};
use super::lock;
use super::relay::SimRelay;
use crate::world::plan::How;

/// What one connection carries.
#[derive(Clone, PartialEq, Message)]
struct Frame {
    /// Of each call another; none of pings.
    #[prost(uint32, tag = "1")]
    call: u32,
    #[prost(oneof = "Body", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10")]
    body: Option<Body>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Body {
    /// Begins a call, with the id of a box.
    #[prost(bytes, tag = "2")]
    Create(Vec<u8>),
    #[prost(bytes, tag = "3")]
    Delete(Vec<u8>),
    #[prost(bytes, tag = "4")]
    Receive(Vec<u8>),
    /// A packet to or from a box. The client's first one begins the call.
    #[prost(message, tag = "5")]
    Packet(CipherBox),
    /// The client has sent all packets, and waits for the end.
    #[prost(bool, tag = "6")]
    Sent(bool),
    /// The client has left the call.
    #[prost(bool, tag = "7")]
    Left(bool),
    /// The relay has taken a call that goes on.
    #[prost(bool, tag = "8")]
    Taken(bool),
    /// The relay has ended the call.
    #[prost(message, tag = "9")]
    Ended(End),
    /// A question (`true`), or the answer.
    #[prost(bool, tag = "10")]
    Ping(bool),
}

/// A status of gRPC.
#[derive(Clone, PartialEq, Message)]
struct End {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    text: String,
}

impl End {
    fn of(result: Result<(), Status>) -> Body {
        let status = result.err().unwrap_or_else(|| Status::ok(""));
        Body::Ended(End {
            code: status.code().into(),
            text: status.message().to_owned(),
        })
    }

    fn result(&self) -> Result<(), Status> {
        match Code::from_i32(self.code) {
            Code::Ok => Ok(()),
            code => Err(Status::new(code, self.text.clone())),
        }
    }
}

/// Whether a frame is a step of its connection.
pub fn is_step(_: usize, frame: &[u8]) -> bool {
    let body = Frame::decode(frame).ok().and_then(|frame| frame.body);
    !matches!(body, Some(Body::Ping(_)))
}

fn ping(is_question: bool) -> Frame {
    Frame {
        call: 0,
        body: Some(Body::Ping(is_question)),
    }
}

/// A frame that has come; `None` when the connection has broken.
fn read(received: Result<Option<Vec<u8>>, CarrierError>) -> Option<Frame> {
    Frame::decode(received.ok()??.as_slice()).ok()
}

fn gone() -> Status {
    Status::unavailable("the connection is gone")
}

/// Pings of one end: when the next is due, and when the connection is given up.
struct Pings {
    after: Duration,
    within: Duration,
    heard: Instant,
    asked: Option<Instant>,
}

impl Pings {
    fn new(after: Duration, within: Duration) -> Pings {
        Pings {
            after,
            within,
            heard: Instant::now(),
            asked: None,
        }
    }

    fn hears(&mut self) {
        (self.heard, self.asked) = (Instant::now(), None);
    }

    /// Returns when a ping is to be sent, or with an error when the connection is to be given up. May be cancelled.
    async fn due(&mut self) -> Result<(), Status> {
        match self.asked {
            None => sleep_until(self.heard + self.after).await,
            Some(asked) => {
                sleep_until(asked + self.within).await;
                return Err(gone());
            }
        }
        self.asked = Some(Instant::now());
        Ok(())
    }
}

/// Opens connections of one process to the relay.
pub trait DialHashmail: Clone + Send + Sync + 'static {
    /// A new one.
    fn dial(&self) -> Result<LineEnd, LinkError>;
}

/// Connects a process to the relay.
pub struct ToHashmail<D>(pub D);

#[async_trait]
impl<D: DialHashmail> ConnectMailbox for ToHashmail<D> {
    async fn connect(&self, _: &Address) -> Result<Arc<dyn Calls>, LinkError> {
        let dial = self.0.clone();
        let first = Session::open(dial.dial()?);
        Ok(Arc::new(SimCalls {
            dial,
            session: Mutex::new(first),
        }))
    }
}

/// The client's calls. A connection that has broken is opened again with the next one.
struct SimCalls<D> {
    dial: D,
    session: Mutex<Arc<Session>>,
}

impl<D: DialHashmail> SimCalls<D> {
    fn begin(&self, first: Option<Body>) -> Result<Call, Status> {
        let mut session = lock(&self.session);
        if session.frames.is_closed() {
            let line = self.dial.dial();
            let line = line.map_err(|error| Status::unavailable(error.to_string()))?;
            *session = Session::open(line);
        }
        let call = Session::begin(&session);
        if let Some(first) = first {
            call.send(first)?;
        }
        Ok(call)
    }
}

#[async_trait]
impl<D: DialHashmail> Calls for SimCalls<D> {
    async fn create(&self, id: [u8; 64]) -> Result<(), Status> {
        self.begin(Some(Body::Create(id.into())))?.ended().await
    }

    async fn delete(&self, id: [u8; 64]) -> Result<(), Status> {
        self.begin(Some(Body::Delete(id.into())))?.ended().await
    }

    async fn receive(&self, id: [u8; 64]) -> Result<Messages, Status> {
        let mut call = self.begin(Some(Body::Receive(id.into())))?;
        let first = call.taken().await?;
        let rest = unfold(Some(call), |call| async move {
            let mut call = call?;
            match call.next_packet().await {
                Ok(Some(packet)) => Some((Ok(packet), Some(call))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(iter(first.map(Ok)).chain(rest).boxed())
    }

    async fn send(&self, mut messages: ReceiverStream<CipherBox>) -> Result<(), Status> {
        let mut call = self.begin(None)?;
        loop {
            tokio::select! {
                biased;
                ended = call.ended() => return ended,
                message = messages.next() => match message {
                    Some(message) => call.send(Body::Packet(message))?,
                    None => break,
                },
            }
        }
        call.send(Body::Sent(true))?;
        call.ended().await
    }
}

/// Where the frames of each call go.
type Open = Arc<Mutex<HashMap<u32, mpsc::UnboundedSender<Body>>>>;

/// One connection of a client, as long as it or a call over it is held.
struct Session {
    frames: mpsc::UnboundedSender<Frame>,
    open: Open,
    last: AtomicU32,
    moving: tokio::task::AbortHandle,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.moving.abort();
    }
}

impl Session {
    fn open(line: LineEnd) -> Arc<Session> {
        let (frames, leaving) = mpsc::unbounded_channel();
        let open = Open::default();
        let moving = tokio::spawn(move_frames(line, leaving, open.clone()));
        Arc::new(Session {
            frames,
            open,
            last: AtomicU32::new(0),
            moving: moving.abort_handle(),
        })
    }

    fn begin(self: &Arc<Session>) -> Call {
        let number = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let (to_call, frames) = mpsc::unbounded_channel();
        lock(&self.open).insert(number, to_call);
        Call {
            session: self.clone(),
            number,
            frames,
            is_over: false,
        }
    }
}

/// Moves the frames of a client until the connection breaks: its calls end then.
async fn move_frames(line: LineEnd, mut leaving: mpsc::UnboundedReceiver<Frame>, open: Open) {
    let LineEnd {
        mut sink,
        mut stream,
    } = line;
    let mut pings = Pings::new(KEEP_ALIVE_AFTER, KEEP_ALIVE_WITHIN);
    loop {
        let frame = tokio::select! {
            biased;
            frame = leaving.recv() => frame,
            received = stream.recv() => {
                let Some(frame) = read(received) else { break };
                pings.hears();
                match arrived(frame, &open) {
                    Some(answer) => Some(answer),
                    None => continue,
                }
            }
            due = pings.due() => due.ok().map(|()| ping(true)),
        };
        let Some(frame) = frame else { break };
        if sink.send(frame.encode_to_vec()).await.is_err() {
            break;
        }
    }
    leaving.close();
    lock(&open).clear();
}

/// Returns the answer to a ping.
fn arrived(frame: Frame, open: &Open) -> Option<Frame> {
    match frame.body? {
        Body::Ping(is_question) => is_question.then(|| ping(false)),
        body => {
            if let Some(call) = lock(open).get(&frame.call) {
                // Fails when the call has just been left.
                let _ = call.send(body);
            }
            None
        }
    }
}

/// A call of the client's. It is left when this is dropped.
struct Call {
    session: Arc<Session>,
    number: u32,
    frames: mpsc::UnboundedReceiver<Body>,
    is_over: bool,
}

impl Drop for Call {
    fn drop(&mut self) {
        lock(&self.session.open).remove(&self.number);
        if !self.is_over {
            // Fails when the connection has broken.
            let _ = self.send(Body::Left(true));
        }
    }
}

impl Call {
    fn send(&self, body: Body) -> Result<(), Status> {
        let frame = Frame {
            call: self.number,
            body: Some(body),
        };
        self.session.frames.send(frame).map_err(|_| gone())
    }

    /// May be cancelled.
    async fn next(&mut self) -> Result<Body, Status> {
        let next = self.frames.recv().await.ok_or_else(gone);
        self.is_over = !matches!(next, Ok(Body::Taken(_) | Body::Packet(_)));
        next
    }

    /// Returns when the relay has taken it; with a packet, when that has overtaken the answer.
    async fn taken(&mut self) -> Result<Option<CipherBox>, Status> {
        match self.next().await? {
            Body::Packet(packet) => Ok(Some(packet)),
            Body::Ended(end) => Err(end.result().err().unwrap_or_else(gone)),
            _ => Ok(None),
        }
    }

    /// `None` at the end.
    async fn next_packet(&mut self) -> Result<Option<CipherBox>, Status> {
        loop {
            match self.next().await? {
                Body::Packet(packet) => return Ok(Some(packet)),
                Body::Ended(end) => return end.result().map(|()| None),
                _ => {}
            }
        }
    }

    /// May be cancelled.
    async fn ended(&mut self) -> Result<(), Status> {
        while self.next_packet().await?.is_some() {}
        Ok(())
    }
}

/// The relay's end of a connection, until that breaks.
pub async fn serve(
    relay: Weak<SimRelay>,
    connection: Connection,
    line: LineEnd,
    distance: Duration,
) {
    let LineEnd { sink, mut stream } = line;
    let (out, mut answers) = mpsc::unbounded_channel();
    let mut leaving = Leaving {
        relay,
        connection: connection.clone(),
        distance,
        to: sink,
        held: Vec::new(),
    };
    let mut guest = Guest {
        connection,
        out,
        calls: HashMap::new(),
        seen: HashSet::new(),
        running: FuturesUnordered::new(),
    };
    let mut pings = Pings::new(PING_EVERY, DEAD - PING_EVERY);
    loop {
        let frame = tokio::select! {
            biased;
            frame = answers.recv() => frame,
            received = stream.recv() => {
                let Some(frame) = read(received) else { break };
                pings.hears();
                guest.take(frame);
                continue;
            }
            Some(_) = guest.running.next() => continue,
            due = pings.due() => due.ok().map(|()| ping(true)),
        };
        let Some(frame) = frame else { break };
        if leaving.send(frame).await.is_err() {
            break;
        }
    }
}

/// The calls of a client at the relay.
struct Guest {
    connection: Connection,
    out: mpsc::UnboundedSender<Frame>,
    calls: HashMap<u32, Serving>,
    /// Calls that have begun: a frame that comes twice begins none.
    seen: HashSet<u32>,
    running: FuturesUnordered<BoxFuture<'static, Result<(), Aborted>>>,
}

/// A call that goes on.
struct Serving {
    stop: AbortHandle,
    /// To the box that it writes.
    packets: Option<mpsc::UnboundedSender<CipherBox>>,
}

impl Guest {
    fn take(&mut self, frame: Frame) {
        self.connection.heard();
        let (call, Some(body)) = (frame.call, frame.body) else {
            return;
        };
        match body {
            Body::Ping(true) => drop(self.out.send(ping(false))),
            Body::Create(id) => self.answer(call, End::of(self.connection.create(&id))),
            Body::Delete(id) => self.answer(call, End::of(self.connection.delete(&id))),
            Body::Receive(id) if self.seen.insert(call) => self.receive(call, id),
            Body::Packet(packet) => self.put(call, packet),
            Body::Sent(_) => {
                if let Some(serving) = self.calls.get_mut(&call) {
                    serving.packets = None;
                }
            }
            Body::Left(_) => {
                self.seen.insert(call);
                if let Some(serving) = self.calls.remove(&call) {
                    serving.stop.abort();
                }
            }
            Body::Ping(false) | Body::Receive(_) | Body::Taken(_) | Body::Ended(_) => {}
        }
    }

    fn answer(&self, call: u32, body: Body) {
        answer(&self.out, call, body);
    }

    fn receive(&mut self, call: u32, id: Vec<u8>) {
        let (connection, out) = (self.connection.clone(), self.out.clone());
        let receiving = async move {
            let mut packets = match connection.receive(&id).await {
                Ok(packets) => Box::pin(packets),
                Err(status) => return answer(&out, call, End::of(Err(status))),
            };
            answer(&out, call, Body::Taken(true));
            while let Some(packet) = packets.next().await {
                match packet {
                    Ok(packet) => answer(&out, call, Body::Packet(packet)),
                    Err(status) => return answer(&out, call, End::of(Err(status))),
                }
            }
            answer(&out, call, End::of(Ok(())));
        };
        self.serve(call, receiving, None);
    }

    fn put(&mut self, call: u32, packet: CipherBox) {
        if self.seen.insert(call) {
            let (packets, arriving) = mpsc::unbounded_channel();
            let (connection, out) = (self.connection.clone(), self.out.clone());
            let sending = async move {
                let arriving = UnboundedReceiverStream::new(arriving);
                let sent = connection.send(arriving).await;
                answer(&out, call, End::of(sent));
            };
            self.serve(call, sending, Some(packets));
        }
        let serving = self.calls.get(&call);
        if let Some(packets) = serving.and_then(|serving| serving.packets.as_ref()) {
            // Fails when the mailbox has ended the call.
            let _ = packets.send(packet);
        }
    }

    fn serve(
        &mut self,
        call: u32,
        serving: impl Future<Output = ()> + Send + 'static,
        packets: Option<mpsc::UnboundedSender<CipherBox>>,
    ) {
        let (serving, stop) = abortable(serving);
        self.running.push(serving.boxed());
        self.calls.insert(call, Serving { stop, packets });
    }
}

fn answer(out: &mpsc::UnboundedSender<Frame>, call: u32, body: Body) {
    let body = Some(body);
    // Fails when the connection has broken.
    let _ = out.send(Frame { call, body });
}

/// Frames that leave the relay.
struct Leaving {
    relay: Weak<SimRelay>,
    connection: Connection,
    distance: Duration,
    to: LineSink,
    /// Packets that the next one overtakes.
    held: Vec<Vec<u8>>,
}

impl Leaving {
    async fn send(&mut self, frame: Frame) -> Result<(), CarrierError> {
        let relay = self.relay.upgrade().filter(|it| !it.life.has_ended());
        let relay = relay.ok_or_else(broken)?;
        let bytes = frame.encode_to_vec();
        let packet = match frame.body {
            Some(Body::Packet(packet)) => Some(packet),
            _ => None,
        };
        let interruption = relay.step(packet.is_some(), &self.to);
        let (Some(interruption), Some(packet)) = (interruption, &packet) else {
            return self.pass(bytes, packet.is_some()).await;
        };
        match interruption.how {
            How::Late => self.pass(bytes, true).await,
            How::Twice => {
                self.pass(bytes.clone(), true).await?;
                self.pass(bytes, true).await
            }
            How::Swapped => {
                self.held.push(bytes);
                Ok(())
            }
            How::Lost => Ok(()),
            How::Dropped => {
                let id = packet.desc.as_ref().map(|desc| desc.stream_id.as_slice());
                // Fails when it was deleted meanwhile.
                let _ = self.connection.delete(id.unwrap_or_default());
                Ok(())
            }
            How::After => {
                let passed = self.pass(bytes, true).await;
                relay.die_after(self.distance, interruption).await;
                passed
            }
            _ => {
                relay.die(interruption);
                Err(broken())
            }
        }
    }

    async fn pass(&mut self, bytes: Vec<u8>, is_packet: bool) -> Result<(), CarrierError> {
        self.to.send(bytes).await?;
        if is_packet {
            for overtaken in std::mem::take(&mut self.held) {
                self.to.send(overtaken).await?;
            }
        }
        Ok(())
    }
}
