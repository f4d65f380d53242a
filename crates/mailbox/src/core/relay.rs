//! The relay: attaching, sending, ending. `timers.rs`: whatever happens because time has passed.

mod timers;

use std::collections::{BTreeSet, HashMap};

use longhand_link::carrier::admission::SourceNetwork;
use longhand_link::carrier::mailbox::stream::{End, StreamId};

use super::connection::{Attachment, Connection};
use super::limits::{Limits, MAX_BAD_SIGNATURES, Networks, REQUESTS};
use super::stream::{Queued, Reader, Stream};
use super::{Code, ConnectionId, Counts, Event, MAX_PAYLOAD, Output, Pace, Reply, Request, Time};

/// All connections and streams of one process.
///
/// Each call may add to the output, which [`Relay::output`] takes; nothing else is done by a call.
pub struct Relay {
    pub(super) limits: Limits,
    pub(super) connections: HashMap<ConnectionId, Connection>,
    pub(super) streams: HashMap<StreamId, Stream>,
    pub(super) networks: Networks,
    last_id: u64,
    ends: usize,
    queued_bytes: usize,
    moved_messages: u64,
    moved_bytes: u64,
    /// Connections that have attached nothing yet, by the time at which they are closed.
    strangers: BTreeSet<(Time, ConnectionId)>,
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
            last_id: 0,
            ends: 0,
            queued_bytes: 0,
            moved_messages: 0,
            moved_bytes: 0,
            strangers: BTreeSet::new(),
            looks: BTreeSet::new(),
            held: BTreeSet::new(),
            due: BTreeSet::new(),
            output: Output::default(),
        }
    }

    /// A client has connected, from this network.
    pub fn open(&mut self, source: Option<SourceNetwork>, now: Time) -> ConnectionId {
        self.last_id = self.last_id.saturating_add(1);
        let id = ConnectionId(self.last_id);
        let attach_until = now.saturating_add(self.limits.attach_within());
        self.strangers.insert((attach_until, id));
        let connection = Connection::new(source, attach_until, now);
        self.looks.insert((connection.look_at, id));
        self.connections.insert(id, connection);
        id
    }

    /// A request of a client has come. Returns when its next one may be read.
    pub fn receive(&mut self, from: ConnectionId, request: Request, now: Time) -> Pace {
        if let Some(connection) = self.connections.get_mut(&from) {
            connection.asked_at = now;
            connection.is_pinged = false;
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
            .is_some_and(Connection::has_attached)
    }

    /// The connection has room for one more reply: the next one. Of its ends with messages each has its turn.
    pub fn take(&mut self, to: ConnectionId) -> Option<Reply> {
        let connection = self.connections.get_mut(&to)?;
        if let Some((reply, resumes)) = connection.pop_reply() {
            if resumes {
                self.output.readable.push(to);
            }
            return Some(reply);
        }
        let handle = connection.ready.pop_front()?;
        let attachment = connection.attached.get_mut(&handle)?;
        attachment.is_ready = false;
        let (stream, end) = (attachment.stream, attachment.end);
        let message = self.pop(stream, end)?;
        self.moved_messages = self.moved_messages.saturating_add(1);
        let bytes = u64::try_from(message.payload.len()).unwrap_or(u64::MAX);
        self.moved_bytes = self.moved_bytes.saturating_add(bytes);
        self.give_turn(stream, end);
        let payload = message.payload;
        Some(Reply::Data { handle, payload })
    }

    /// A client has disconnected, or is disconnected: its ends have no reader.
    pub fn close(&mut self, id: ConnectionId) {
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
        match connection.attach_until {
            Some(until) => {
                self.strangers.remove(&(until, id));
            }
            None => self.networks.change(connection.source, |account| {
                account.connections = account.connections.saturating_sub(1);
            }),
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
        let older = self.streams.get(&stream).and_then(|s| s.side(end).reader);
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
        let met = self.streams.get(&stream);
        let is_met = met.is_some_and(|it| it.side(end.other()).reader.is_some());
        self.reply(from, Reply::Attached { handle, is_met });
        self.give_turn(stream, end);
        None
    }

    /// Whether the limits allow another attachment of this connection, in the place of `older`.
    fn has_place(&self, connection: &Connection, older: Option<Reader>) -> bool {
        let account = self.networks.of(connection.source);
        let is_new = !connection.has_attached() && connection.source.is_some();
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
        let is_first = match connection.attach_until.take() {
            Some(until) => self.strangers.remove(&(until, from)),
            None => false,
        };
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
        let (stream, end) = self.unlink(Reader { connection, handle })?;
        if self.has_messages(stream, end) {
            self.output.events.push(Event::Waits { stream, end });
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

    /// `None` when the message was not sent on.
    fn send(&mut self, from: ConnectionId, handle: u32, payload: Vec<u8>, now: Time) -> Option<()> {
        let connection = self.connections.get_mut(&from)?;
        let Some(attachment) = connection.attached.get(&handle) else {
            return self.refuse(from, handle, Code::BadRequest);
        };
        let (stream, end) = (attachment.stream, attachment.end.other());
        if payload.len() > MAX_PAYLOAD {
            return self.end_stream(stream, Code::BadRequest);
        }
        let known = self.streams.get_mut(&stream)?;
        let owes_until = known.charge(payload.len(), &self.limits, now);
        // A phone has a connection to itself: reading it later slows nobody else down. A host's connection has streams of other
        // owners, which must not wait for this one: what it sends is held here, where its own queue bounds it.
        let is_held = owes_until > now && connection.attached.len() > 1;
        if owes_until > now && !is_held {
            connection.not_before = connection.not_before.max(owes_until);
        }
        let message = Queued {
            payload,
            at: now,
            source: connection.source,
        };
        match self.no_room(stream, end, &message) {
            // A message that is lost ends the stream: its clients then know it.
            Some(code) => self.end_stream(stream, code),
            None => self.push(stream, end, message),
        }?;
        if is_held {
            self.hold(stream, end, owes_until);
        }
        Some(())
    }

    /// Why a message cannot be queued.
    fn no_room(&self, stream: StreamId, end: End, message: &Queued) -> Option<Code> {
        let side = self.streams.get(&stream)?.side(end);
        let limits = &self.limits;
        let is_full = |used: usize, limit: usize| used.saturating_add(message.cost()) > limit;
        let is_away = side.reader.is_none();
        if is_full(side.queue.bytes(), limits.queue_bytes)
            || (is_away && side.queue.len() >= limits.queue_messages)
        {
            return Some(match side.held_until {
                Some(_) => Code::TooFast,
                None => Code::Overflow,
            });
        }
        let of_network = self.networks.of(message.source).bytes;
        let all_is_full = is_full(self.queued_bytes, limits.total_bytes);
        (all_is_full || is_full(of_network, limits.bytes_per_network)).then_some(Code::Full)
    }

    fn push(&mut self, stream: StreamId, end: End, message: Queued) -> Option<()> {
        let (cost, at) = (message.cost(), message.at);
        let side = self.streams.get_mut(&stream)?.side_mut(end);
        self.queued_bytes = self.queued_bytes.saturating_add(cost);
        self.networks.change(message.source, |account| {
            account.bytes = account.bytes.saturating_add(cost);
        });
        side.queue.push(message);
        if side.queue.due.is_none() {
            let due = at.saturating_add(self.limits.wait());
            side.queue.due = Some(due);
            self.due.insert((due, stream, end));
        }
        match side.reader {
            Some(_) => self.give_turn(stream, end),
            None => self.output.events.push(Event::Waits { stream, end }),
        }
        Some(())
    }

    /// Takes the first message of a queue.
    fn pop(&mut self, stream: StreamId, end: End) -> Option<Queued> {
        let queue = &mut self.streams.get_mut(&stream)?.side_mut(end).queue;
        let message = queue.pop()?;
        let (is_last, cost) = (queue.is_empty(), message.cost());
        if is_last && let Some(due) = queue.due.take() {
            self.due.remove(&(due, stream, end));
        }
        self.queued_bytes = self.queued_bytes.saturating_sub(cost);
        self.networks.change(message.source, |account| {
            account.bytes = account.bytes.saturating_sub(cost);
        });
        if is_last {
            self.release(stream, end);
        }
        Some(message)
    }

    /// Drops a stream's messages and ends both attachments.
    fn end_stream(&mut self, stream: StreamId, code: Code) -> Option<()> {
        for end in [End::Host, End::Phone] {
            while self.pop(stream, end).is_some() {}
            let reader = self.streams.get(&stream).and_then(|s| s.side(end).reader);
            if let Some(reader) = reader {
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

    fn has_messages(&self, stream: StreamId, end: End) -> bool {
        let stream = self.streams.get(&stream);
        stream.is_some_and(|stream| !stream.side(end).queue.is_empty())
    }

    /// Gives an end, if its messages may be read, its turn in its reader's connection, after all that have one.
    fn give_turn(&mut self, stream: StreamId, end: End) {
        let side = self.streams.get(&stream).map(|it| it.side(end));
        let readable = side.filter(|side| side.may_be_read());
        let Some(Reader { connection, handle }) = readable.and_then(|side| side.reader) else {
            return;
        };
        if let Some(reading) = self.connections.get_mut(&connection)
            && reading.give_turn(handle)
        {
            self.output.writable.push(connection);
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
            connection.not_before = connection.not_before.max(until);
        }
    }
}
