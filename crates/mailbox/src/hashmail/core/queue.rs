//! Messages of a box: putting them in, taking them out, and where there is room.

use std::collections::VecDeque;

use longhand_link::carrier::admission::SourceNetwork;

use super::super::refusal::Refusal;
use super::{BoxId, Core, EndId, Pace, Role, Standing, Taken};
use crate::core::{MESSAGE_BYTES, Time};

/// Messages in the order in which they came.
#[derive(Default)]
pub(super) struct Queue {
    messages: VecDeque<Queued>,
    bytes: usize,
}

pub(super) struct Queued {
    payload: Vec<u8>,
    /// Whose client sent it.
    pub by: Option<SourceNetwork>,
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

    pub fn first(&self) -> Option<&Queued> {
        self.messages.front()
    }

    pub fn into_messages(self) -> impl Iterator<Item = Queued> {
        self.messages.into_iter()
    }

    fn push(&mut self, message: Queued) {
        self.bytes = self.bytes.saturating_add(message.cost());
        self.messages.push_back(message);
    }

    fn pop(&mut self) -> Option<Queued> {
        let message = self.messages.pop_front()?;
        self.bytes = self.bytes.saturating_sub(message.cost());
        Some(message)
    }

    /// An idle box keeps no memory of its busier times.
    pub fn shrink(&mut self) {
        if self.messages.is_empty() {
            self.messages = VecDeque::new();
        }
    }

    #[cfg(test)]
    pub fn costs(&self) -> impl Iterator<Item = (Option<SourceNetwork>, usize)> {
        self.messages.iter().map(|it| (it.by, it.cost()))
    }
}

impl Core {
    /// Whether a client of this network may have this many bytes of a message more in memory, before the message is complete.
    /// They count until [`Core::release`].
    #[must_use]
    pub fn reserve(&mut self, by: Option<SourceNetwork>, bytes: usize) -> bool {
        let has_room = self.has_room(by, bytes);
        if has_room {
            self.charge(by, bytes);
        }
        has_room
    }

    /// Gives back what was reserved.
    pub fn release(&mut self, by: Option<SourceNetwork>, bytes: usize) {
        self.uncharge(by, bytes);
    }

    /// A writer's message. Before the next is read, [`Core::pace`] has to be asked.
    ///
    /// # Errors
    /// The use has ended, or [`Refusal::Full`] and [`Refusal::TooLarge`], after which it has to end: what comes later cannot be
    /// understood without this message.
    pub fn put(&mut self, end: EndId, payload: Vec<u8>, now: Time) -> Result<(), Refusal> {
        let (id, by) = self.in_use(end, Role::Writer)?;
        if payload.len() > self.limits.message_bytes {
            return Err(Refusal::TooLarge);
        }
        let message = Queued {
            payload,
            by,
            at: now,
        };
        let cost = message.cost();
        if !self.has_room(by, cost) {
            return Err(Refusal::Full);
        }
        let found = self.boxes.get_mut(&id).ok_or(Refusal::NotFound)?;
        let (messages, bytes) = (self.limits.messages(), self.limits.bytes());
        found.messages.charge(1, messages, now);
        let size = u64::try_from(message.payload.len()).unwrap_or(u64::MAX);
        found.bytes.charge(size, bytes, now);
        let was_empty = found.queue.is_empty();
        found.queue.push(message);
        let reader = found.reader.holder;
        self.charge(by, cost);
        if let Some(reader) = reader {
            self.wake(reader);
            if was_empty && let Some(reader) = self.ends.get_mut(&reader) {
                reader.busy_since = reader.busy_since.max(now);
            }
        }
        self.schedule(id);
        Ok(())
    }

    /// When the next message of a writer may be read.
    pub fn pace(&mut self, end: EndId, now: Time) -> Pace {
        let (id, _) = match self.in_use(end, Role::Writer) {
            Ok(found) => found,
            Err(refusal) => return Pace::Ended(refusal),
        };
        let Some(found) = self.boxes.get(&id) else {
            return Pace::Ended(Refusal::NotFound);
        };
        let owes_until = found.messages.owes_until(self.limits.messages());
        let owes_until = owes_until.max(found.bytes.owes_until(self.limits.bytes()));
        if owes_until > now {
            return Pace::At(owes_until);
        }
        if self.is_below_its_limit(&found.queue) {
            return Pace::Now;
        }
        if let Some(end) = self.ends.get_mut(&end) {
            end.is_asleep = true;
        }
        Pace::Room
    }

    /// The next message for a reader. The one before is sent.
    pub fn take(&mut self, end: EndId, now: Time) -> Taken {
        self.was_sent(end);
        let (id, by) = match self.in_use(end, Role::Reader) {
            Ok(found) => found,
            Err(refusal) => return Taken::Ended(refusal),
        };
        let taken = self.boxes.get_mut(&id).and_then(|found| found.queue.pop());
        let Some(reader) = self.ends.get_mut(&end) else {
            return Taken::Ended(Refusal::NotFound);
        };
        let Some(message) = taken else {
            reader.is_asleep = true;
            return Taken::Nothing;
        };
        reader.busy_since = now;
        reader.sending = message.cost();
        let cost = message.cost();
        self.uncharge(message.by, cost);
        self.charge(by, cost);
        self.counts.moved_messages = self.counts.moved_messages.saturating_add(1);
        let size = u64::try_from(message.payload.len()).unwrap_or(u64::MAX);
        self.counts.moved_bytes = self.counts.moved_bytes.saturating_add(size);
        self.give_room(id);
        Taken::Message(message.payload)
    }

    /// Drops what has waited too long for a reader.
    pub(super) fn expire(&mut self, id: BoxId, now: Time) {
        let time = self.limits.queue_time();
        while let Some(found) = self.boxes.get_mut(&id) {
            let first = found.queue.first();
            if first.is_none_or(|first| first.at.saturating_add(time) > now) {
                break;
            }
            self.drop_first(id);
        }
        self.give_room(id);
    }

    /// Drops all that waits in a box.
    pub(super) fn drop_all(&mut self, id: BoxId) {
        while self.drop_first(id) {}
        if let Some(found) = self.boxes.get_mut(&id) {
            found.queue.shrink();
        }
    }

    fn drop_first(&mut self, id: BoxId) -> bool {
        let dropped = self.boxes.get_mut(&id).and_then(|found| found.queue.pop());
        let Some(message) = dropped else {
            return false;
        };
        self.uncharge(message.by, message.cost());
        self.counts.dropped_messages = self.counts.dropped_messages.saturating_add(1);
        true
    }

    /// Wakes the writer when its box has room again.
    fn give_room(&mut self, id: BoxId) {
        let Some(found) = self.boxes.get(&id) else {
            return;
        };
        if let Some(writer) = found.writer.holder
            && self.is_below_its_limit(&found.queue)
        {
            self.wake(writer);
        }
    }

    fn is_below_its_limit(&self, queue: &Queue) -> bool {
        queue.len() < self.limits.queue_messages && queue.bytes < self.limits.queue_bytes
    }

    /// What an end that is in use belongs to.
    fn in_use(&self, end: EndId, role: Role) -> Result<(BoxId, Option<SourceNetwork>), Refusal> {
        let end = self.ends.get(&end).ok_or(Refusal::NotFound)?;
        match end.standing {
            Standing::Holds if end.role == role => Ok((end.id, end.by)),
            Standing::Ended(refusal) => Err(refusal),
            Standing::Holds | Standing::Waits => Err(role.occupied()),
        }
    }

    fn was_sent(&mut self, reader: EndId) {
        let Some(end) = self.ends.get_mut(&reader) else {
            return;
        };
        let (by, sent) = (end.by, std::mem::take(&mut end.sending));
        if sent > 0 {
            self.uncharge(by, sent);
        }
    }

    fn wake(&mut self, end: EndId) {
        if let Some(found) = self.ends.get_mut(&end)
            && std::mem::take(&mut found.is_asleep)
        {
            self.woken.push(end);
        }
    }

    fn has_room(&self, by: Option<SourceNetwork>, bytes: usize) -> bool {
        self.used_by(by).bytes.saturating_add(bytes) <= self.limits.bytes_per_network
            && self.bytes.saturating_add(bytes) <= self.limits.total_bytes
    }

    fn charge(&mut self, by: Option<SourceNetwork>, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.account(by, |used| used.bytes = used.bytes.saturating_add(bytes));
    }

    pub(super) fn uncharge(&mut self, by: Option<SourceNetwork>, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes);
        self.account(by, |used| used.bytes = used.bytes.saturating_sub(bytes));
    }
}
