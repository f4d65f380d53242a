//! The relay: connecting, attaching, ending. `queues.rs`: sending. `timers.rs`: whatever happens because time has passed.

mod queues;
mod timers;

use std::collections::{BTreeSet, HashMap};

use longhand_link::carrier::admission::SourceNetwork;
use longhand_link::carrier::mailbox::stream::{End, StreamId};

use super::connection::{Attachment, Connection};
use super::limits::{Limits, MAX_BAD_SIGNATURES, REQUESTS, UNATTACHED};
use super::networks::Networks;
use super::stream::{Reader, Stream};
use super::{Code, ConnectionId, Counts, Event, Output, Pace, Reply, Request, Time};
use queues::Rates;

/// All connections and streams of one process.
///
/// Each call may add to the output, which [`Relay::output`] takes; nothing else is done by a call.
pub struct Relay {
    pub(super) limits: Limits,
    pub(super) connections: HashMap<ConnectionId, Connection>,
    pub(super) streams: HashMap<StreamId, Stream>,
    pub(super) networks: Networks,
    rates: Rates,
    /// The latest time that a call has named.
    now: Time,
    last_id: u64,
    ends: usize,
    queued_bytes: usize,
    moved_messages: u64,
    moved_bytes: u64,
    /// Connections without an attached end, by [`Connection::attach_until`].
    pub(super) unattached: BTreeSet<(Time, ConnectionId)>,
    /// All connections, by [`Connection::look_at`].
    pub(super) looks: BTreeSet<(Time, ConnectionId)>,
    /// Ends whose messages are held, by [`super::stream::Side::held_until`].
    pub(super) held: BTreeSet<(Time, StreamId, End)>,
    /// Queues with messages, by [`super::stream::Queue::due`].
    pub(super) due: BTreeSet<(Time, StreamId, End)>,
    output: Output,
}

impl Relay {
    /// Without connections.
    pub fn new(limits: Limits) -> Relay {
        Relay {
            limits,
            connections: HashMap::new(),
            streams: HashMap::new(),
            networks: Networks::default(),
            rates: Rates::default(),
            now: Time::ZERO,
            last_id: 0,
            ends: 0,
            queued_bytes: 0,
            moved_messages: 0,
            moved_bytes: 0,
            unattached: BTreeSet::new(),
            looks: BTreeSet::new(),
            held: BTreeSet::new(),
            due: BTreeSet::new(),
            output: Output::default(),
        }
    }

    /// A client has connected, from this network. `None` when there is no room for it.
    pub fn open(&mut self, source: Option<SourceNetwork>, now: Time) -> Option<ConnectionId> {
        self.now = self.now.max(now);
        if self.connections.len() >= self.limits.connections {
            let code = Code::Full;
            self.output.events.push(Event::Refused { code });
            return None;
        }
        self.last_id = self.last_id.saturating_add(1);
        let id = ConnectionId(self.last_id);
        let attach_until = now.saturating_add(self.limits.attach_within());
        self.unattached.insert((attach_until, id));
        let mut connection = Connection::new(source, attach_until, now);
        connection.wait_until(self.owes_until(source));
        self.looks.insert((connection.look_at, id));
        self.connections.insert(id, connection);
        Some(id)
    }

    /// A request of a client has come. Returns when its next one may be read.
    pub fn receive(&mut self, from: ConnectionId, request: Request, now: Time) -> Pace {
        self.now = self.now.max(now);
        if let Some(connection) = self.connections.get_mut(&from) {
            connection.asked_at = now;
            connection.is_pinged = false;
        }
        if is_signed(&request) {
            self.charge_signature(from, now);
        }
        let was_sent = match request {
            Request::Send { handle, payload } => self.send(from, handle, payload, now),
            Request::Attach {
                handle,
                stream,
                end,
            } => self.attach(from, handle, stream, end),
            Request::Detach { handle } => self.detach(from, handle),
            Request::Delete { stream } => self.delete(stream),
            Request::Ping => self.reply(from, Reply::Pong),
            Request::Pong => None,
            Request::Refused { handle, code } => self.refuse(from, handle, code),
        };
        if was_sent.is_none() {
            self.charge_request(from, now);
        }
        self.pace(from, now)
    }

    /// When the next request of a connection may be read.
    pub fn pace(&mut self, of: ConnectionId, now: Time) -> Pace {
        let connection = self.connections.get_mut(&of);
        connection.map_or(Pace::Closed, |connection| connection.pace(now))
    }

    /// Whether the client has attached a stream: it is no stranger any more.
    pub fn has_attached(&self, id: ConnectionId) -> bool {
        self.connections
            .get(&id)
            .is_some_and(|connection| connection.has_attached)
    }

    /// A client has disconnected, or is disconnected: its ends have no reader.
    pub fn close(&mut self, id: ConnectionId) {
        self.end_sending(id);
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        connection.forget_turns();
        let handles: Vec<u32> = connection.attached.keys().copied().collect();
        for handle in handles {
            self.leave(id, handle);
        }
        let Some(connection) = self.connections.remove(&id) else {
            return;
        };
        self.looks.remove(&(connection.look_at, id));
        if let Some(until) = connection.attach_until {
            self.unattached.remove(&(until, id));
        }
        if connection.has_attached {
            self.networks.change(connection.source, |account| {
                account.connections = account.connections.saturating_sub(1);
            });
        }
    }

    /// Drops what waits in a stream, and ends both attachments with [`Code::Overflow`].
    pub fn overflow(&mut self, stream: StreamId) {
        if self.streams.contains_key(&stream) {
            self.end_stream(stream, Code::Overflow);
        }
    }

    /// Takes what there is to do since the last call.
    pub fn output(&mut self) -> Output {
        std::mem::take(&mut self.output)
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        Counts {
            connections: self.connections.len(),
            ends: self.ends,
            streams: self.streams.len(),
            queued_bytes: self.queued_bytes,
            moved_messages: self.moved_messages,
            moved_bytes: self.moved_bytes,
        }
    }

    fn attach(
        &mut self,
        from: ConnectionId,
        handle: u32,
        stream: StreamId,
        end: End,
    ) -> Option<()> {
        let connection = self.connections.get(&from)?;
        if connection.attached.contains_key(&handle) {
            return self.refuse(from, handle, Code::BadRequest);
        }
        let older = self.reader(stream, end);
        if !self.has_place(connection, older) {
            return self.refuse(from, handle, Code::Full);
        }
        if let Some(older) = older {
            self.unlink(older);
            self.end(older, Code::TakenOver);
            let code = Code::TakenOver;
            self.output.events.push(Event::Ended { stream, code });
        }
        self.link(from, handle, stream, end);
        let is_met = self.reader(stream, end.other()).is_some();
        self.reply(from, Reply::Attached { handle, is_met });
        self.hand_over(stream, end, self.source(from));
        self.give_turn(stream, end);
        None
    }

    /// Whether the limits allow another attachment of this connection, in the place of `older`.
    fn has_place(&self, connection: &Connection, older: Option<Reader>) -> bool {
        let account = self.networks.of(connection.source);
        let is_new = !connection.has_attached && connection.source.is_some();
        if is_new && account.connections >= self.limits.connections_per_network {
            return false;
        }
        let older = older.and_then(|it| self.connections.get(&it.connection));
        let from_here = older.is_some_and(|it| it.source == connection.source);
        account.ends.saturating_sub(from_here.into()) < self.limits.ends_per_network
            && self.ends.saturating_sub(older.is_some().into()) < self.limits.ends
    }

    /// Makes a connection the reader of an end that has none.
    fn link(&mut self, from: ConnectionId, handle: u32, stream: StreamId, end: End) {
        let Some(connection) = self.connections.get_mut(&from) else {
            return;
        };
        if let Some(until) = connection.attach_until.take() {
            self.unattached.remove(&(until, from));
        }
        let is_first = !std::mem::replace(&mut connection.has_attached, true);
        self.networks.change(connection.source, |account| {
            account.ends = account.ends.saturating_add(1);
            account.connections = account.connections.saturating_add(is_first.into());
        });
        self.ends = self.ends.saturating_add(1);
        let attachment = Attachment {
            stream,
            end,
            is_ready: false,
        };
        connection.attached.insert(handle, attachment);
        let side = self.streams.entry(stream).or_default().side_mut(end);
        side.reader = Some(Reader {
            connection: from,
            handle,
        });
    }

    /// Takes the reader of an end away. Returns the end.
    fn unlink(&mut self, reader: Reader) -> Option<(StreamId, End)> {
        let connection = self.connections.get_mut(&reader.connection)?;
        connection.forget_turn(reader.handle);
        let attachment = connection.attached.remove(&reader.handle)?;
        if connection.attached.is_empty() {
            let until = self.now.saturating_add(UNATTACHED);
            connection.attach_until = Some(until);
            self.unattached.insert((until, reader.connection));
        }
        self.networks.change(connection.source, |account| {
            account.ends = account.ends.saturating_sub(1);
        });
        self.ends = self.ends.saturating_sub(1);
        let (id, end) = (attachment.stream, attachment.end);
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.side_mut(end).reader = None;
        }
        Some((id, end))
    }

    fn detach(&mut self, from: ConnectionId, handle: u32) -> Option<()> {
        match self.leave(from, handle) {
            Some(()) => None,
            None => self.refuse(from, handle, Code::BadRequest),
        }
    }

    /// The client reads no longer at this end; what waits there goes on waiting. `None` for an unknown handle.
    fn leave(&mut self, connection: ConnectionId, handle: u32) -> Option<()> {
        let by = self.source(connection);
        let (stream, end) = self.unlink(Reader { connection, handle })?;
        if self.has_messages(stream, end) {
            self.output.events.push(Event::Waits { stream, end, by });
        }
        self.forget_unused(stream);
        Some(())
    }

    fn delete(&mut self, stream: StreamId) -> Option<()> {
        if self.streams.contains_key(&stream) {
            self.end_stream(stream, Code::Deleted);
        }
        None
    }

    /// Drops a stream's messages and ends both attachments.
    fn end_stream(&mut self, stream: StreamId, code: Code) -> Option<()> {
        for end in [End::Host, End::Phone] {
            while self.pop(stream, end).is_some() {}
            if let Some(reader) = self.reader(stream, end) {
                self.unlink(reader);
                self.end(reader, code);
            }
        }
        self.forget_unused(stream);
        self.output.events.push(Event::Ended { stream, code });
        None
    }

    fn forget_unused(&mut self, stream: StreamId) {
        if self.streams.get(&stream).is_some_and(Stream::is_unused) {
            self.streams.remove(&stream);
        }
    }

    /// Refuses a request, with nothing changed. Too many bad signatures close the connection: each costs a check.
    fn refuse(&mut self, from: ConnectionId, handle: u32, code: Code) -> Option<()> {
        self.reply(from, Reply::Ended { handle, code });
        self.output.events.push(Event::Refused { code });
        let connection = self.connections.get_mut(&from)?;
        if code == Code::BadSignature {
            connection.bad_signatures = connection.bad_signatures.saturating_add(1);
            if connection.bad_signatures >= MAX_BAD_SIGNATURES {
                self.close(from);
                self.output.closed.push(from);
            }
        }
        None
    }

    fn end(&mut self, reader: Reader, code: Code) {
        let handle = reader.handle;
        self.reply(reader.connection, Reply::Ended { handle, code });
    }

    fn reply(&mut self, to: ConnectionId, reply: Reply) -> Option<()> {
        let connection = self.connections.get_mut(&to)?;
        connection.push_reply(reply);
        self.output.writable.push(to);
        None
    }

    fn charge_request(&mut self, from: ConnectionId, now: Time) {
        if let Some(connection) = self.connections.get_mut(&from) {
            let until = connection.requests.charge(1, REQUESTS, now);
            connection.wait_until(until);
        }
    }

    /// The attachment that reads at an end.
    fn reader(&self, stream: StreamId, end: End) -> Option<Reader> {
        self.streams.get(&stream)?.side(end).reader
    }

    /// The network of a connection.
    fn source(&self, of: ConnectionId) -> Option<SourceNetwork> {
        self.connections.get(&of)?.source
    }
}

/// Whether a signature was checked for this request.
fn is_signed(request: &Request) -> bool {
    match request {
        Request::Attach { .. } | Request::Delete { .. } => true,
        Request::Refused { code, .. } => *code == Code::BadSignature,
        _ => false,
    }
}
