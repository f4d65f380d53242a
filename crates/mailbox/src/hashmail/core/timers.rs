//! What happens because time has passed: messages that nobody came for, readers that take nothing, boxes that nobody uses.

use super::super::refusal::Refusal;
use super::{BoxId, CipherBox, Core, Role};
use crate::core::Time;

impl Core {
    /// Does what is due.
    pub fn tick(&mut self, now: Time) {
        while let Some(&(at, id)) = self.looks.first().filter(|(at, _)| *at <= now) {
            self.looks.remove(&(at, id));
            if let Some(found) = self.boxes.get_mut(&id) {
                found.look_at = None;
            }
            self.look(id, now);
            self.schedule(id);
        }
    }

    /// When [`Core::tick`] has something to do again.
    pub fn next_tick(&self) -> Option<Time> {
        self.looks.first().map(|(at, _)| *at)
    }

    /// Notes when a box has to be looked at. An entry that has become too early stays: moving it with each message would cost more
    /// than the look.
    pub(super) fn schedule(&mut self, id: BoxId) {
        let Some(due) = self.boxes.get(&id).and_then(|found| self.due(found)) else {
            return;
        };
        let Some(found) = self.boxes.get_mut(&id) else {
            return;
        };
        if found.look_at.is_some_and(|at| at <= due) {
            return;
        }
        if let Some(at) = found.look_at.replace(due) {
            self.looks.remove(&(at, id));
        }
        self.looks.insert((due, id));
        self.is_sooner |= self.looks.first() == Some(&(due, id));
    }

    /// When something has to be done about a box that goes on as it is now.
    pub(super) fn due(&self, found: &CipherBox) -> Option<Time> {
        let reader = found.reader.holder;
        if let Some(reader) = reader.and_then(|reader| self.ends.get(&reader)) {
            let is_busy = !found.queue.is_empty() || reader.sending > 0;
            let until = reader.busy_since.saturating_add(self.limits.stuck_time());
            return is_busy.then_some(until);
        }
        if let Some(first) = found.queue.first() {
            return Some(first.at.saturating_add(self.limits.queue_time()));
        }
        let is_free = found.writer.holder.is_none();
        is_free.then(|| found.free_since.saturating_add(self.limits.stale_time()))
    }

    fn look(&mut self, id: BoxId, now: Time) {
        if let Some(found) = self.boxes.get_mut(&id) {
            found.queue.shrink();
        }
        let Some(found) = self.boxes.get(&id) else {
            return;
        };
        if self.due(found).is_none_or(|due| due > now) {
            return;
        }
        if let Some(reader) = found.reader.holder {
            self.end(reader, Refusal::Stuck);
            self.vacate(id, Role::Reader, now);
        } else if found.queue.is_empty() {
            self.counts.stale_boxes = self.counts.stale_boxes.saturating_add(1);
            // It is there.
            let _ = self.delete(id);
        } else {
            self.expire(id, now);
        }
    }
}
