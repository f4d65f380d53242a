//! Sending: rates, room, and the queues of ends.

use longhand_link::carrier::admission::SourceNetwork;
use longhand_link::carrier::mailbox::stream::{End, StreamId};

use super::super::limits::SIGNATURES;
use super::super::networks::Burden;
use super::super::rates::{Bucket, Buckets};
use super::super::stream::{Queued, Reader};
use super::super::{Code, ConnectionId, Event, MAX_PAYLOAD, Reply, Time};
use super::Relay;

/// What is slowed down when it is too fast.
#[derive(Default)]
pub(super) struct Rates {
    /// Bytes and messages of keys.
    keys: Buckets<StreamId, 2>,
    /// Bytes and signatures of source networks.
    networks: Buckets<SourceNetwork, 2>,
}

impl Relay {
    /// The connection has room for one more reply, since the last one is sent: the next one. Of its ends with messages each has
    /// its turn. A message counts until the next call.
    pub fn take(&mut self, to: ConnectionId) -> Option<Reply> {
        self.end_sending(to);
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
        let payload = self.pop_for(to, stream, end)?.payload;
        self.moved_messages = self.moved_messages.saturating_add(1);
        let bytes = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        self.moved_bytes = self.moved_bytes.saturating_add(bytes);
        self.give_turn(stream, end);
        Some(Reply::Data { handle, payload })
    }

    /// Takes the first message of a queue for a connection to which it is sent.
    fn pop_for(&mut self, to: ConnectionId, stream: StreamId, end: End) -> Option<Queued> {
        let payer = self.streams.get(&stream)?.side(end).queue.payer;
        let message = self.pop(stream, end)?;
        let bill = (payer, message.cost());
        self.queued_bytes = self.queued_bytes.saturating_add(message.cost());
        self.networks.begin_sending(to, bill);
        if let Some(connection) = self.connections.get_mut(&to) {
            connection.sending = Some(bill);
        }
        Some(message)
    }

    /// Counts the message no longer that was being sent to a connection.
    pub(super) fn end_sending(&mut self, to: ConnectionId) {
        let connection = self.connections.get_mut(&to);
        if let Some(bill) = connection.and_then(|connection| connection.sending.take()) {
            self.queued_bytes = self.queued_bytes.saturating_sub(bill.1);
            self.networks.end_sending(to, bill);
        }
    }

    /// `None` when the message was not sent on.
    pub(super) fn send(
        &mut self,
        from: ConnectionId,
        handle: u32,
        payload: Vec<u8>,
        now: Time,
    ) -> Option<()> {
        let connection = self.connections.get(&from)?;
        let source = connection.source;
        let Some(attachment) = connection.attached.get(&handle) else {
            return self.refuse(from, handle, Code::BadRequest);
        };
        let (stream, end) = (attachment.stream, attachment.end.other());
        if payload.len() > MAX_PAYLOAD {
            return self.end_stream(stream, Code::BadRequest);
        }
        let held_until = self.charge_message(from, stream, payload.len(), now);
        let message = Queued { payload, at: now };
        match self.admit(stream, end, source, message.cost()) {
            Ok(payer) => self.push(stream, end, message, payer),
            // A message that is lost ends the stream: its clients then know it.
            Err(code) => return self.end_stream(stream, code),
        }
        if self.reader(stream, end).is_none() {
            let by = source;
            self.output.events.push(Event::Waits { stream, end, by });
        }
        if let Some(until) = held_until {
            self.hold(stream, end, until);
        }
        Some(())
    }

    /// Counts a message for its key and its sender's network. Returns until when it is held back.
    fn charge_message(
        &mut self,
        from: ConnectionId,
        stream: StreamId,
        bytes: usize,
        now: Time,
    ) -> Option<Time> {
        let tokens = u64::try_from(bytes).unwrap_or(u64::MAX);
        let connection = self.connections.get_mut(&from)?;
        if let Some(source) = connection.source {
            let [bytes, _] = self.rates.networks.of(source, now);
            connection.wait_until(bytes.charge(tokens, self.limits.network_bytes(), now));
        }
        let [bytes, messages] = self.rates.keys.of(stream, now);
        let by_bytes = bytes.charge(tokens, self.limits.bytes(), now);
        let by_messages = messages.charge(1, self.limits.messages(), now);
        let owes_until = Some(by_bytes.max(by_messages)).filter(|until| *until > now)?;
        // A phone has a connection to itself: reading it later slows nobody else down. A host's connection has streams of other
        // owners, which must not wait for this one: what it sends is held here, where its own queue bounds it.
        if connection.attached.len() > 1 {
            return Some(owes_until);
        }
        connection.wait_until(owes_until);
        None
    }

    /// Counts a signature that was checked for a client.
    pub(super) fn charge_signature(&mut self, from: ConnectionId, now: Time) {
        if let Some(connection) = self.connections.get_mut(&from)
            && let Some(source) = connection.source
        {
            let [_, signatures] = self.rates.networks.of(source, now);
            connection.wait_until(signatures.charge(1, SIGNATURES, now));
        }
    }

    /// When a new connection of this network may be read: a client that is slowed down gains nothing by another one.
    pub(super) fn owes_until(&self, source: Option<SourceNetwork>) -> Time {
        let kept = source.and_then(|source| self.rates.networks.get(&source));
        let [bytes, signatures] = kept.copied().unwrap_or([Bucket::default(); 2]);
        let bytes = bytes.owes_until(self.limits.network_bytes());
        bytes.max(signatures.owes_until(SIGNATURES))
    }

    /// Whether a message finds room, which is made if need be; then the network that pays for the queue from then on.
    ///
    /// A message for a reader finds room as long as its own queue has some: others who do not read must not end the streams of
    /// those who do. The reader's network pays, since it is the reader who decides how long it waits. For an end without a reader
    /// nobody is there who could be slow: it gets what is left in the first half of the room.
    fn admit(
        &mut self,
        stream: StreamId,
        end: End,
        sender: Option<SourceNetwork>,
        cost: usize,
    ) -> Result<Option<SourceNetwork>, Code> {
        let side = self.streams.get(&stream).ok_or(Code::Full)?.side(end);
        let queued = side.queue.bytes();
        let is_away = side.reader.is_none();
        if exceeds(queued, cost, self.limits.queue_bytes)
            || (is_away && side.queue.len() >= self.limits.queue_messages)
        {
            return Err(match side.held_until {
                Some(_) => Code::TooFast,
                None => Code::Overflow,
            });
        }
        let of_reader = side.reader.map(|it| self.source(it.connection));
        let payer = of_reader.unwrap_or(sender);
        // A queue changes its payer as a whole.
        let added = match side.queue.payer == payer {
            true => cost,
            false => cost.saturating_add(queued),
        };
        let (total, network) = (self.limits.total_bytes, self.limits.bytes_per_network);
        if is_away {
            let of_network = self.networks.of(payer).bytes;
            let is_full = exceeds(self.queued_bytes, cost, total / 2)
                || (payer.is_some() && exceeds(of_network, added, network / 2));
            return if is_full { Err(Code::Full) } else { Ok(payer) };
        }
        while payer.is_some() && exceeds(self.networks.of(payer).bytes, added, network) {
            let burden = payer.and_then(|payer| self.networks.largest(payer));
            self.give_up_for(stream, burden)?;
        }
        while exceeds(self.queued_bytes, cost, total) {
            self.give_up_for(stream, self.networks.heaviest())?;
        }
        Ok(payer)
    }

    /// Makes room for a message of this stream.
    fn give_up_for(&mut self, stream: StreamId, burden: Option<Burden>) -> Result<(), Code> {
        match burden {
            Some(Burden::Queue(other, _)) if other != stream => {
                self.end_stream(other, Code::Full);
                Ok(())
            }
            Some(Burden::Sending(connection)) if !self.has_stream(connection, stream) => {
                self.close(connection);
                self.output.closed.push(connection);
                self.output.events.push(Event::Silent);
                Ok(())
            }
            _ => Err(Code::Full),
        }
    }

    /// Whether a connection is attached to this stream.
    fn has_stream(&self, connection: ConnectionId, stream: StreamId) -> bool {
        [End::Host, End::Phone].into_iter().any(|end| {
            let reader = self.reader(stream, end);
            reader.is_some_and(|reader| reader.connection == connection)
        })
    }

    fn push(&mut self, stream: StreamId, end: End, message: Queued, payer: Option<SourceNetwork>) {
        let Some(known) = self.streams.get_mut(&stream) else {
            return;
        };
        let queue = &mut known.side_mut(end).queue;
        let (cost, at) = (message.cost(), message.at);
        let before = queue.bill();
        queue.push(message);
        queue.payer = payer;
        self.queued_bytes = self.queued_bytes.saturating_add(cost);
        let after = queue.bill();
        self.networks.charge_queue(stream, end, before, after);
        if queue.due.is_none() {
            let due = at.saturating_add(self.limits.wait());
            queue.due = Some(due);
            self.due.insert((due, stream, end));
        }
        self.give_turn(stream, end);
    }

    /// Takes the first message of a queue.
    pub(super) fn pop(&mut self, stream: StreamId, end: End) -> Option<Queued> {
        let queue = &mut self.streams.get_mut(&stream)?.side_mut(end).queue;
        let before = queue.bill();
        let message = queue.pop()?;
        let (is_last, after) = (queue.is_empty(), queue.bill());
        if is_last && let Some(due) = queue.due.take() {
            self.due.remove(&(due, stream, end));
        }
        self.queued_bytes = self.queued_bytes.saturating_sub(message.cost());
        self.networks.charge_queue(stream, end, before, after);
        if is_last {
            self.release(stream, end);
        }
        Some(message)
    }

    /// A reader has come to what waits: its network pays from now on, if it has room.
    pub(super) fn hand_over(&mut self, stream: StreamId, end: End, to: Option<SourceNetwork>) {
        let Some(known) = self.streams.get_mut(&stream) else {
            return;
        };
        let queue = &mut known.side_mut(end).queue;
        let before = queue.bill();
        let of_network = self.networks.of(to).bytes;
        if before.0 == to || exceeds(of_network, before.1, self.limits.bytes_per_network) {
            return;
        }
        queue.payer = to;
        let after = queue.bill();
        self.networks.charge_queue(stream, end, before, after);
    }

    pub(super) fn has_messages(&self, stream: StreamId, end: End) -> bool {
        let stream = self.streams.get(&stream);
        stream.is_some_and(|stream| !stream.side(end).queue.is_empty())
    }

    /// Gives an end, if its messages may be read, its turn in its reader's connection, after all that have one.
    pub(super) fn give_turn(&mut self, stream: StreamId, end: End) {
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
}

fn exceeds(used: usize, more: usize, limit: usize) -> bool {
    used.saturating_add(more) > limit
}
