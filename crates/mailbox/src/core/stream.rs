//! A stream: two ends, each with a queue and at most one reader.

use std::collections::VecDeque;

use longhand_link::carrier::admission::SourceNetwork;
use longhand_link::carrier::mailbox::stream::End;

use super::limits::MESSAGE_BYTES;
use super::networks::Bill;
use super::{ConnectionId, Time};

/// One stream. It is there only while an end is attached or a message waits.
#[derive(Default)]
pub(super) struct Stream {
    host: Side,
    phone: Side,
}

impl Stream {
    pub fn side(&self, end: End) -> &Side {
        match end {
            End::Host => &self.host,
            End::Phone => &self.phone,
        }
    }

    pub fn side_mut(&mut self, end: End) -> &mut Side {
        match end {
            End::Host => &mut self.host,
            End::Phone => &mut self.phone,
        }
    }

    /// Whether nothing is left of it.
    pub fn is_unused(&self) -> bool {
        [&self.host, &self.phone]
            .into_iter()
            .all(|side| side.reader.is_none() && side.queue.is_empty())
    }
}

/// One end of a stream.
#[derive(Default)]
pub(super) struct Side {
    pub reader: Option<Reader>,
    /// Messages for the reader of this end.
    pub queue: Queue,
    /// Until then the messages wait, whether there is a reader or not: their sender was too fast.
    pub held_until: Option<Time>,
}

impl Side {
    /// Whether a message may be given to a reader now.
    pub fn may_be_read(&self) -> bool {
        !self.queue.is_empty() && self.held_until.is_none()
    }
}

/// The attachment that reads at an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reader {
    pub connection: ConnectionId,
    pub handle: u32,
}

/// Messages in the order in which they came.
#[derive(Default)]
pub(super) struct Queue {
    messages: VecDeque<Queued>,
    bytes: usize,
    /// The network that pays for all of it: that of the reader, if it had room for it, else the one that sent last.
    pub payer: Option<SourceNetwork>,
    /// When the queue is looked through for messages that have waited too long; not later than the first of them has.
    pub due: Option<Time>,
}

/// A message in a queue.
pub(super) struct Queued {
    pub payload: Vec<u8>,
    /// When it came.
    pub at: Time,
}

impl Queued {
    /// Its memory, as it is counted.
    pub fn cost(&self) -> usize {
        self.payload.len().saturating_add(MESSAGE_BYTES)
    }
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// The memory of all messages, as it is counted.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Who pays for it.
    pub fn bill(&self) -> Bill {
        (self.payer, self.bytes)
    }

    pub fn first(&self) -> Option<&Queued> {
        self.messages.front()
    }

    pub fn push(&mut self, message: Queued) {
        self.bytes = self.bytes.saturating_add(message.cost());
        self.messages.push_back(message);
    }

    pub fn pop(&mut self) -> Option<Queued> {
        let message = self.messages.pop_front()?;
        self.bytes = self.bytes.saturating_sub(message.cost());
        if self.messages.is_empty() {
            // An idle end keeps no memory of its busier times.
            self.messages = VecDeque::new();
        }
        Some(message)
    }

    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = &Queued> {
        self.messages.iter()
    }
}
