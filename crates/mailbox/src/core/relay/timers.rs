//! Connections and messages whose time is over.

use longhand_link::carrier::mailbox::stream::{End, StreamId};

use super::super::limits::{PONG_WITHIN, QUIET};
use super::super::stream::Reader;
use super::super::{Code, ConnectionId, Event, Reply, Time};
use super::Relay;

impl Relay {
    /// Closes connections, and drops messages, whose time is over.
    pub fn tick(&mut self, now: Time) {
        self.now = self.now.max(now);
        while let Some(&(at, id)) = self.unattached.first().filter(|(at, _)| *at <= now) {
            self.unattached.remove(&(at, id));
            self.give_up(id);
        }
        while let Some(&(at, id)) = self.looks.first().filter(|(at, _)| *at <= now) {
            self.looks.remove(&(at, id));
            self.look(id, now);
        }
        while let Some(&(at, stream, end)) = self.held.first().filter(|(at, ..)| *at <= now) {
            self.held.remove(&(at, stream, end));
            self.release(stream, end);
            self.give_turn(stream, end);
        }
        while let Some(&(at, stream, end)) = self.due.first().filter(|(at, ..)| *at <= now) {
            self.due.remove(&(at, stream, end));
            self.expire(stream, end, now);
        }
    }

    /// When [`Relay::tick`] has something to do again.
    pub fn next_tick(&self) -> Option<Time> {
        let unattached = self.unattached.first().map(|(at, _)| *at);
        let look = self.looks.first().map(|(at, _)| *at);
        let queue = self.due.first().map(|(at, ..)| *at);
        let held = self.held.first().map(|(at, ..)| *at);
        let all = [unattached, look, queue, held];
        all.into_iter().flatten().min()
    }

    /// Gives no message of this end to a reader before this time.
    pub(super) fn hold(&mut self, stream: StreamId, end: End, until: Time) {
        self.release(stream, end);
        let Some(side) = self.streams.get_mut(&stream).map(|it| it.side_mut(end)) else {
            return;
        };
        side.held_until = Some(until);
        self.held.insert((until, stream, end));
        self.output.is_sooner = true;
        if let Some(Reader { connection, handle }) = side.reader
            && let Some(reading) = self.connections.get_mut(&connection)
        {
            reading.forget_turn(handle);
        }
    }

    /// Holds the messages of this end no longer.
    pub(super) fn release(&mut self, stream: StreamId, end: End) {
        let side = self.streams.get_mut(&stream).map(|it| it.side_mut(end));
        if let Some(until) = side.and_then(|side| side.held_until.take()) {
            self.held.remove(&(until, stream, end));
        }
    }

    /// Sends a ping to a connection of which nothing came for long, and closes one of which nothing came after that: its network may
    /// be gone without a word.
    fn look(&mut self, id: ConnectionId, now: Time) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let quiet_at = connection.asked_at.saturating_add(QUIET);
        if quiet_at > now {
            connection.look_at = quiet_at;
        } else if connection.is_pinged {
            return self.give_up(id);
        } else {
            connection.is_pinged = true;
            connection.look_at = now.saturating_add(PONG_WITHIN);
        }
        let (look_at, is_pinged) = (connection.look_at, connection.is_pinged);
        self.looks.insert((look_at, id));
        if is_pinged {
            self.reply(id, Reply::Ping);
        }
    }

    /// Closes a connection of which nothing came.
    fn give_up(&mut self, id: ConnectionId) {
        self.close(id);
        self.output.closed.push(id);
        self.output.events.push(Event::Silent);
    }

    /// Drops what has waited too long. A reader that has not taken a message for all this time is as good as away, but it would
    /// miss the message: then the stream ends.
    fn expire(&mut self, id: StreamId, end: End, now: Time) {
        let wait = self.limits.wait();
        let mut dropped = 0_u64;
        while let Some(stream) = self.streams.get_mut(&id) {
            let side = stream.side_mut(end);
            side.queue.due = None;
            let Some(first) = side.queue.first() else {
                break;
            };
            let due = first.at.saturating_add(wait);
            if due > now {
                side.queue.due = Some(due);
                self.due.insert((due, id, end));
                break;
            }
            if side.reader.is_some() {
                self.end_stream(id, Code::Overflow);
                break;
            }
            self.pop(id, end);
            dropped = dropped.saturating_add(1);
        }
        if dropped > 0 {
            self.output
                .events
                .push(Event::Expired { messages: dropped });
        }
        self.forget_unused(id);
    }
}
