//! A client's connection, as the relay sees it.

use std::collections::{HashMap, VecDeque};

use longhand_link::carrier::admission::SourceNetwork;
use longhand_link::carrier::mailbox::stream::{End, StreamId};

use super::limits::{MAX_REPLIES, QUIET};
use super::networks::Bill;
use super::rates::Bucket;
use super::{Pace, Reply, Time};

/// One connection.
pub(super) struct Connection {
    pub source: Option<SourceNetwork>,
    /// Its attachments by handle.
    pub attached: HashMap<u32, Attachment>,
    /// Handles of ends with messages to send, in the order of their turns. Each at most once.
    pub ready: VecDeque<u32>,
    /// Replies that go before any message.
    replies: VecDeque<Reply>,
    /// The message that is being sent to it, by who pays for it: it is out of its queue, and in memory all the same.
    pub sending: Option<Bill>,
    /// When it is closed, unless it has attached a stream before; `None` while it has one.
    pub attach_until: Option<Time>,
    /// Whether it has ever attached a stream.
    pub has_attached: bool,
    /// When its last request came.
    pub asked_at: Time,
    /// When it is looked at whether requests still come.
    pub look_at: Time,
    /// Whether it was sent a ping that no request has followed.
    pub is_pinged: bool,
    pub bad_signatures: u8,
    pub requests: Bucket,
    /// No request is read before.
    not_before: Time,
    is_paused: bool,
}

/// An end of a stream at which a connection reads.
pub(super) struct Attachment {
    pub stream: StreamId,
    pub end: End,
    /// Whether its handle is in [`Connection::ready`].
    pub is_ready: bool,
}

impl Connection {
    pub fn new(source: Option<SourceNetwork>, attach_until: Time, now: Time) -> Connection {
        Connection {
            source,
            attached: HashMap::new(),
            ready: VecDeque::new(),
            replies: VecDeque::new(),
            sending: None,
            attach_until: Some(attach_until),
            has_attached: false,
            asked_at: now,
            look_at: now.saturating_add(QUIET),
            is_pinged: false,
            bad_signatures: 0,
            requests: Bucket::default(),
            not_before: Time::ZERO,
            is_paused: false,
        }
    }

    /// Reads no request before this time.
    pub fn wait_until(&mut self, time: Time) {
        self.not_before = self.not_before.max(time);
    }

    pub fn push_reply(&mut self, reply: Reply) {
        self.replies.push_back(reply);
    }

    /// The next reply, and whether requests may be read again because of it.
    pub fn pop_reply(&mut self) -> Option<(Reply, bool)> {
        let reply = self.replies.pop_front()?;
        if self.replies.is_empty() {
            self.replies = VecDeque::new();
        }
        let resumes = self.is_paused && self.replies.len() < self.most_replies();
        if resumes {
            self.is_paused = false;
        }
        Some((reply, resumes))
    }

    /// When its next request may be read.
    pub fn pace(&mut self, now: Time) -> Pace {
        self.is_paused = self.replies.len() >= self.most_replies();
        match (self.is_paused, self.not_before > now) {
            (true, _) => Pace::AfterReplies,
            (false, true) => Pace::At(self.not_before),
            (false, false) => Pace::Now,
        }
    }

    /// Replies beyond which no request is read. A host that attaches all its streams reads no reply before it has sent all
    /// attaches: it must not wait for the relay, and the relay for it.
    fn most_replies(&self) -> usize {
        MAX_REPLIES.saturating_add(self.attached.len())
    }

    /// Gives an end a turn, after all that have one. Returns whether it had none.
    pub fn give_turn(&mut self, handle: u32) -> bool {
        let Some(attachment) = self.attached.get_mut(&handle) else {
            return false;
        };
        let is_new = !attachment.is_ready;
        if is_new {
            attachment.is_ready = true;
            self.ready.push_back(handle);
        }
        is_new
    }

    /// Takes an end's turn away.
    pub fn forget_turn(&mut self, handle: u32) {
        if let Some(attachment) = self.attached.get_mut(&handle)
            && attachment.is_ready
        {
            attachment.is_ready = false;
            self.ready.retain(|ready| *ready != handle);
        }
    }

    /// Takes all turns away, at once: one by one it would take the square of their number.
    pub fn forget_turns(&mut self) {
        self.ready.clear();
        for attachment in self.attached.values_mut() {
            attachment.is_ready = false;
        }
    }

    #[cfg(test)]
    pub fn replies(&self) -> usize {
        self.replies.len()
    }
}
