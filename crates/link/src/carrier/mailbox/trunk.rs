//! A trunk: one connection to a mailbox, with all streams that this side has attached over it. A value without I/O: messages of the
//! mailbox go in, messages for it and [`Event`]s come out.
//!
//! A phone has one stream and one connection in it; a host has the streams of all its owners, in which phones open connections.

use std::collections::{HashMap, VecDeque};

use longhand_proto::mailbox::{
    Attach, Attached, ClientMessage, Data, Delete, Detach, Ended, Ping, Pong, ServerMessage,
    Welcome, client_message, server_message,
};
use prost::Message;

use longhand_base::text::excerpt;

use super::packet::{Body, ConnectionId, Packet, WINDOW, cost};
use super::stream::{End, Nonce, Permit, StreamKey};

/// The version of the mailbox's protocol.
const VERSION: u32 = 1;
/// Connections that a host keeps in one stream: the one in use, and one that takes its place.
const CONNECTIONS: usize = 2;
/// The time without a message after which a side pings, and that after which the mailbox counts as gone.
const PING_AFTER_MS: u64 = 10_000;
const DEAD_AFTER_MS: u64 = 25_000;
/// A tick that is so late shows that this process was stopped, such as by SIGSTOP; the mailbox then has the second time to answer.
const STOPPED_MS: u64 = 5_000;
const GRACE_MS: u64 = 2_000;

/// Connections that a phone may open in a stream at once, and the time after which it may open one more.
const OPENINGS: u64 = 8;
const OPENING_EVERY_MS: u64 = 1_000;

/// One connection in one stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Line {
    /// The stream, by its handle on this trunk.
    pub handle: u32,
    /// The connection.
    pub connection: ConnectionId,
}

/// An event of a trunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The mailbox has answered: streams are attached from now on.
    Ready {
        /// Whether it is one of several processes, so that each route needs a trunk of its own.
        has_routes: bool,
    },
    /// A stream is attached.
    Attached {
        /// Whether somebody reads at its other end.
        is_met: bool,
    },
    /// A phone has opened a connection.
    Opened(Line),
    /// A record has arrived.
    Record(Line, Vec<u8>),
    /// The other end has taken so many bytes more.
    Credit(Line, u32),
    /// A connection has ended.
    Closed(Line),
    /// A stream that was to be left is no longer attached.
    Left(u32),
    /// The mailbox has ended a stream on this trunk, with its code and one line. Its connections are closed next.
    Ended {
        /// The stream.
        handle: u32,
        /// The mailbox's stable code.
        code: String,
        /// One line for a person.
        message: String,
    },
}

/// Why a trunk cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrunkError {
    /// The message cannot be read.
    #[error("the mailbox sent what is no message: check that its address is a mailbox's")]
    Malformed,
    /// It came at the wrong time, or twice.
    #[error("the mailbox broke the protocol: {0}")]
    Protocol(&'static str),
    /// The mailbox speaks another version.
    #[error(
        "the mailbox speaks version {0} of its protocol, this program {VERSION}: update the older one"
    )]
    Version(u32),
    /// Nothing was received for too long.
    #[error("the mailbox does not answer")]
    Dead,
}

struct Stream {
    key: StreamKey,
    /// It is deleted when its last connection ends.
    is_leaving: bool,
    /// When the connections that may be opened at once could all be opened again: a bucket of tokens as a time (GCRA).
    openings_full_ms: u64,
    /// Those that are open, oldest first.
    connections: Vec<Connection>,
}

struct Connection {
    id: ConnectionId,
    /// Bytes that the other end may still send.
    may_send: u32,
    /// A connection of the phone's whose first record is not sent yet.
    is_new: bool,
    /// A record has arrived over it.
    is_answered: bool,
}

impl Connection {
    fn new(id: ConnectionId, is_new: bool) -> Connection {
        Connection {
            id,
            may_send: WINDOW,
            is_new,
            is_answered: false,
        }
    }
}

/// See the module.
pub struct Trunk {
    end: End,
    nonce: Option<Nonce>,
    next_handle: u32,
    streams: HashMap<u32, Stream>,
    messages: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
    last_sent_ms: u64,
    last_received_ms: u64,
}

impl Trunk {
    /// A trunk of the side that reads at this end of its streams.
    pub fn new(end: End, now_ms: u64) -> Trunk {
        Trunk {
            end,
            nonce: None,
            next_handle: 1,
            streams: HashMap::new(),
            messages: VecDeque::new(),
            events: VecDeque::new(),
            last_sent_ms: now_ms,
            last_received_ms: now_ms,
        }
    }

    /// Attaches a stream, at once or when the mailbox has answered. Returns its handle.
    pub fn attach(&mut self, key: StreamKey) -> u32 {
        let handle = self.next_handle;
        // A handle of 2^32 attaches ago is no longer in use.
        self.next_handle = self.next_handle.wrapping_add(1);
        if let Some(nonce) = self.nonce {
            self.send_attach(handle, &key, &nonce);
        }
        let stream = Stream {
            key,
            is_leaving: false,
            openings_full_ms: 0,
            connections: Vec::new(),
        };
        self.streams.insert(handle, stream);
        handle
    }

    /// Leaves a stream for good: at once, or when its last connection ends, and takes in no new one until then. What waits in it is
    /// dropped, and its other end is told so.
    pub fn leave(&mut self, handle: u32) {
        if let Some(stream) = self.streams.get_mut(&handle) {
            stream.is_leaving = true;
            self.delete_if_left(handle);
        }
    }

    /// Deletes a stream that was left and has no connection any more.
    fn delete_if_left(&mut self, handle: u32) {
        let is_left = |stream: &Stream| stream.is_leaving && stream.connections.is_empty();
        if !self.streams.get(&handle).is_some_and(is_left) {
            return;
        }
        let Some(stream) = self.streams.remove(&handle) else {
            return;
        };
        self.events.push_back(Event::Left(handle));
        if let Some(nonce) = self.nonce {
            self.send(client_message::Body::Delete(Delete {
                public_key: stream.key.public().to_vec(),
                signature: stream.key.sign(Permit::Delete, &nonce).to_vec(),
            }));
        }
    }

    /// Detaches a stream. Its connections end without an event.
    pub fn detach(&mut self, handle: u32) {
        if self.streams.remove(&handle).is_some() && self.nonce.is_some() {
            self.send(client_message::Body::Detach(Detach { handle }));
        }
    }

    /// A new connection in a stream, which is opened with its first record: the phone's part.
    pub fn open(&mut self, line: Line) {
        if let Some(stream) = self.streams.get_mut(&line.handle) {
            stream
                .connections
                .push(Connection::new(line.connection, true));
        }
    }

    /// Sends a record. The caller keeps to the credit of the other end, which begins with [`WINDOW`].
    pub fn record(&mut self, line: Line, record: Vec<u8>) {
        let Some(connection) = self.connection(line) else {
            return;
        };
        let body = match std::mem::take(&mut connection.is_new) {
            true => Body::Open(record),
            false => Body::Record(record),
        };
        self.send_packet(line, body);
    }

    /// Gives the other end credit for bytes that were taken.
    pub fn credit(&mut self, line: Line, bytes: u32) {
        if let Some(connection) = self.connection(line) {
            connection.may_send = connection.may_send.saturating_add(bytes);
            self.send_packet(line, Body::Credit(bytes));
        }
    }

    /// Ends a connection.
    pub fn close(&mut self, line: Line) {
        if self.is_open(line) {
            self.send_packet(line, Body::Close);
            self.forget(line);
        }
    }

    /// Takes a message of the mailbox.
    ///
    /// # Errors
    /// [`TrunkError`]: the trunk is of no use any more.
    pub fn receive(&mut self, message: &[u8], now_ms: u64) -> Result<(), TrunkError> {
        self.last_received_ms = self.last_received_ms.max(now_ms);
        let message = ServerMessage::decode(message).map_err(|_| TrunkError::Malformed)?;
        // A message of a kind that a later version added is ignored.
        let Some(body) = message.body else {
            return Ok(());
        };
        match (self.nonce, body) {
            (None, server_message::Body::Welcome(welcome)) => return self.welcome(welcome),
            (None, _) => return Err(TrunkError::Protocol("the first message is no Welcome")),
            (Some(_), server_message::Body::Welcome(_)) => {
                return Err(TrunkError::Protocol("a second Welcome"));
            }
            (_, server_message::Body::Attached(Attached { handle, is_met })) => {
                if self.streams.contains_key(&handle) {
                    self.events.push_back(Event::Attached { is_met });
                }
            }
            (_, server_message::Body::Ended(ended)) => self.ended(ended),
            (_, server_message::Body::Data(data)) => self.data(data),
            (_, server_message::Body::Ping(Ping {})) => {
                self.send(client_message::Body::Pong(Pong {}));
            }
            (_, server_message::Body::Pong(_)) => {}
        }
        Ok(())
    }

    /// Sends a ping when nothing was received for a while.
    ///
    /// # Errors
    /// [`TrunkError::Dead`] when a ping was of no use.
    pub fn tick(&mut self, now_ms: u64) -> Result<(), TrunkError> {
        let late_ms = now_ms.saturating_sub(self.next_tick_ms());
        if late_ms >= STOPPED_MS && self.nonce.is_some() {
            // This process was stopped, and has not read for as long: the mailbox may be there, with messages that wait.
            let dead_soon_ms = now_ms.saturating_sub(DEAD_AFTER_MS - GRACE_MS);
            self.last_received_ms = self.last_received_ms.max(dead_soon_ms);
            self.last_sent_ms = now_ms;
            self.send(client_message::Body::Ping(Ping {}));
            return Ok(());
        }
        let silence_ms = now_ms.saturating_sub(self.last_received_ms);
        if silence_ms >= DEAD_AFTER_MS {
            return Err(TrunkError::Dead);
        }
        let is_due = now_ms.saturating_sub(self.last_sent_ms) >= PING_AFTER_MS;
        if silence_ms >= PING_AFTER_MS && is_due && self.nonce.is_some() {
            self.last_sent_ms = now_ms;
            self.send(client_message::Body::Ping(Ping {}));
        }
        Ok(())
    }

    /// The time of the next [`Trunk::tick`].
    pub fn next_tick_ms(&self) -> u64 {
        let silent_from_ms = match self.nonce {
            Some(_) => self.last_received_ms.max(self.last_sent_ms),
            None => return self.last_received_ms.saturating_add(DEAD_AFTER_MS),
        };
        let ping_ms = silent_from_ms.saturating_add(PING_AFTER_MS);
        ping_ms.min(self.last_received_ms.saturating_add(DEAD_AFTER_MS))
    }

    /// Whether the other end has sent a record over this connection, or the connection is not open any more.
    pub fn is_answered(&self, line: Line) -> bool {
        let stream = self.streams.get(&line.handle);
        let mut connections = stream.into_iter().flat_map(|it| &it.connections);
        connections
            .find(|it| it.id == line.connection)
            .is_none_or(|it| it.is_answered)
    }

    /// The number of messages that wait for [`Trunk::poll_message`]: none before the mailbox has answered.
    pub fn waiting(&self) -> usize {
        self.nonce.map_or(0, |_| self.messages.len())
    }

    /// The next message for the mailbox. Nothing is sent before it has answered, since its streams are not attached.
    pub fn poll_message(&mut self) -> Option<Vec<u8>> {
        self.nonce.and_then(|_| self.messages.pop_front())
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn welcome(&mut self, welcome: Welcome) -> Result<(), TrunkError> {
        if welcome.version != VERSION {
            return Err(TrunkError::Version(welcome.version));
        }
        let nonce = welcome.nonce.as_slice().try_into();
        let nonce: Nonce = nonce.map_err(|_| TrunkError::Protocol("a nonce is not 32 bytes"))?;
        self.nonce = Some(nonce);
        let has_routes = welcome.has_routes;
        self.events.push_back(Event::Ready { has_routes });
        let mut waiting: Vec<_> = self.streams.iter().collect();
        waiting.sort_by_key(|(handle, _)| **handle);
        let attaches: Vec<_> = waiting
            .into_iter()
            .map(|(handle, stream)| attach(*handle, &stream.key, self.end, &nonce))
            .collect();
        let held = std::mem::take(&mut self.messages);
        attaches.into_iter().for_each(|attach| self.send(attach));
        self.messages.extend(held);
        Ok(())
    }

    fn ended(&mut self, ended: Ended) {
        let handle = ended.handle;
        let Some(stream) = self.streams.remove(&handle) else {
            return;
        };
        let (code, message) = (excerpt(&ended.code), excerpt(&ended.message));
        self.events.push_back(Event::Ended {
            handle,
            code,
            message,
        });
        for connection in stream.connections {
            let connection = connection.id;
            let line = Line { handle, connection };
            self.events.push_back(Event::Closed(line));
        }
    }

    /// Takes a packet. One that is none is ignored: only the connection's own encryption can tell whose fault it is.
    fn data(&mut self, data: Data) {
        let handle = data.handle;
        if !self.streams.contains_key(&handle) {
            return;
        }
        let Some(Packet { connection, body }) = Packet::decode(&data.payload) else {
            return;
        };
        let line = Line { handle, connection };
        match body {
            Body::Open(record) if self.takes_in(line) => {
                self.opened(line);
                self.take_in(line, record);
            }
            Body::Record(record) | Body::Open(record) if self.is_open(line) => {
                self.take_in(line, record);
            }
            Body::Credit(bytes) if self.is_open(line) => {
                self.events.push_back(Event::Credit(line, bytes));
            }
            Body::Close => {
                if self.forget(line) {
                    self.events.push_back(Event::Closed(line));
                }
            }
            // Of a connection that this process does not know, such as one of the process before it.
            Body::Open(_) | Body::Record(_) | Body::Credit(_) => {
                self.send_packet(line, Body::Close);
            }
        }
    }

    fn opened(&mut self, line: Line) {
        let Some(stream) = self.streams.get_mut(&line.handle) else {
            return;
        };
        stream
            .connections
            .push(Connection::new(line.connection, false));
        let is_full = stream.connections.len() > CONNECTIONS;
        let oldest = stream.connections.first().filter(|_| is_full);
        let oldest = oldest.map(|connection| connection.id);
        self.events.push_back(Event::Opened(line));
        if let Some(connection) = oldest {
            let oldest = Line { connection, ..line };
            self.close(oldest);
            self.events.push_back(Event::Closed(oldest));
        }
    }

    /// A record has arrived: it is within the window, or the connection ends.
    fn take_in(&mut self, line: Line, record: Vec<u8>) {
        let Some(connection) = self.connection(line) else {
            return;
        };
        match connection.may_send.checked_sub(cost(&record)) {
            Some(left) => {
                connection.may_send = left;
                connection.is_answered = true;
                self.events.push_back(Event::Record(line, record));
            }
            None => {
                self.close(line);
                self.events.push_back(Event::Closed(line));
            }
        }
    }

    /// Whether a phone may open this connection; it then counts as opened. Who has a stream's key may open as many as he likes, and
    /// each costs a handshake.
    fn takes_in(&mut self, line: Line) -> bool {
        let now_ms = self.last_received_ms;
        if self.end != End::Host || self.is_open(line) {
            return false;
        }
        let Some(stream) = self.streams.get_mut(&line.handle) else {
            return false;
        };
        let full_ms = stream
            .openings_full_ms
            .max(now_ms)
            .saturating_add(OPENING_EVERY_MS);
        let is_too_many = full_ms > now_ms.saturating_add(OPENINGS * OPENING_EVERY_MS);
        if stream.is_leaving || is_too_many {
            return false;
        }
        stream.openings_full_ms = full_ms;
        true
    }

    fn is_open(&self, line: Line) -> bool {
        let stream = self.streams.get(&line.handle);
        stream.is_some_and(|it| it.connections.iter().any(|it| it.id == line.connection))
    }

    fn connection(&mut self, line: Line) -> Option<&mut Connection> {
        let stream = self.streams.get_mut(&line.handle)?;
        let mut connections = stream.connections.iter_mut();
        connections.find(|it| it.id == line.connection)
    }

    /// Returns whether it was open.
    fn forget(&mut self, line: Line) -> bool {
        let Some(stream) = self.streams.get_mut(&line.handle) else {
            return false;
        };
        let before = stream.connections.len();
        stream.connections.retain(|it| it.id != line.connection);
        let was_open = stream.connections.len() < before;
        self.delete_if_left(line.handle);
        was_open
    }

    fn send_attach(&mut self, handle: u32, key: &StreamKey, nonce: &Nonce) {
        self.send(attach(handle, key, self.end, nonce));
    }

    fn send_packet(&mut self, line: Line, body: Body) {
        let packet = Packet {
            connection: line.connection,
            body,
        };
        self.send(client_message::Body::Data(Data {
            handle: line.handle,
            payload: packet.encode(),
        }));
    }

    fn send(&mut self, body: client_message::Body) {
        let message = ClientMessage { body: Some(body) };
        self.messages.push_back(message.encode_to_vec());
    }
}

fn attach(handle: u32, key: &StreamKey, end: End, nonce: &Nonce) -> client_message::Body {
    client_message::Body::Attach(Attach {
        handle,
        public_key: key.public().to_vec(),
        end: end.to_wire().into(),
        signature: key.sign(Permit::Attach(end), nonce).to_vec(),
    })
}
