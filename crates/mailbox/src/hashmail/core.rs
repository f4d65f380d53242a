//! The boxes without I/O: requests and the time go in; answers, and the ends that have to be woken, come out.
//!
//! A box is simplex: one writer and one reader, each an *end*, and a queue between them. An end that is taken can be waited for; the
//! shell decides for how long. The first of those who wait has it as soon as it is free. So can a box that is not there yet: the client
//! of a stock server asks for the box of the answers just before the server creates it, and would ask again after two seconds only.
//!
//! Messages are whole in the queue, so that a writer that breaks off leaves no part of one. What waits belongs to those who are
//! there now:
//! - It is delivered to the reader, or to the next one while the writer stays: a reader may come back after a lost connection.
//! - It waits for a reader no longer than [`HashmailLimits::queue_s`]. Go-back-N has sent it again by then.
//! - It is dropped when the writer leaves a box without a reader, or the reader one without a writer: the next to come would get
//!   packets of a conversation that has ended.
//!
//! A writer whose box is full is read no further ([`Pace::Room`]). What is in all boxes, and what the shell has read of messages
//! that are not complete ([`Core::reserve`]), is counted for all together and for the network that sent it; beyond these limits a
//! writer is refused.

mod queue;
mod timers;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;

use longhand_link::carrier::admission::SourceNetwork;

use super::limits::HashmailLimits;
use super::refusal::Refusal;
use crate::core::Time;
use crate::core::rates::Bucket;
use queue::Queue;

/// Those who wait for one end at the most. More are refused at once.
const MAX_WAITING: usize = 8;
/// Those who wait for boxes that are not there. Others are refused at once.
const MAX_EXPECTING: usize = 4_096;

/// The id of a box. Who knows it can use the box: it is not for logs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoxId([u8; 64]);

impl BoxId {
    /// Short ids are padded with zeros, and long ones cut.
    pub fn new(bytes: &[u8]) -> BoxId {
        let mut id = [0; 64];
        for (to, from) in id.iter_mut().zip(bytes) {
            *to = *from;
        }
        BoxId(id)
    }

    /// All of it.
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Debug for BoxId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxId(hidden)")
    }
}

/// The use of one end of a box, or the wait for it. Never used again for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndId(u64);

/// Which end of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Takes messages.
    Reader,
    /// Puts messages.
    Writer,
}

impl Role {
    fn occupied(self) -> Refusal {
        match self {
            Role::Reader => Refusal::ReadOccupied,
            Role::Writer => Refusal::WriteOccupied,
        }
    }
}

/// Where the use of an end stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The end is in use.
    Holds,
    /// Another one has it.
    Waits,
    /// It is over.
    Ended(Refusal),
}

/// When a writer's next message may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// At once.
    Now,
    /// Not before this time.
    At(Time),
    /// When the end is woken.
    Room,
    /// Never.
    Ended(Refusal),
}

/// What a reader gets.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// The next message. It counts until the next call: then it is sent.
    Message(Vec<u8>),
    /// Nothing before the end is woken.
    Nothing,
    /// Never anything more.
    Ended(Refusal),
}

/// How much there is now, and what has happened since the beginning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Boxes.
    pub boxes: usize,
    /// Ends in use, and waits for one.
    pub ends: usize,
    /// Bytes that wait, arrive or are being sent.
    pub bytes: usize,
    /// Messages given to readers.
    pub moved_messages: u64,
    /// Bytes of these.
    pub moved_bytes: u64,
    /// Messages dropped because nobody was there who would read them.
    pub dropped_messages: u64,
    /// Boxes removed because nobody used them.
    pub stale_boxes: u64,
    /// Ends whose silent user had to give them to another.
    pub taken_over: u64,
}

/// All boxes of one process. No call does more than return its result and note who has to be woken ([`Core::woken`]).
pub struct Core {
    limits: HashmailLimits,
    boxes: HashMap<BoxId, CipherBox>,
    ends: HashMap<EndId, End>,
    /// Who waits for boxes that are not there.
    expected: HashMap<BoxId, VecDeque<EndId>>,
    expecting: usize,
    networks: HashMap<SourceNetwork, NetworkUse>,
    /// Boxes by the time at which they have to be looked at.
    looks: BTreeSet<(Time, BoxId)>,
    last_end: u64,
    bytes: usize,
    counts: Counts,
    woken: Vec<EndId>,
    is_sooner: bool,
}

/// What the clients of one source network use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct NetworkUse {
    boxes: usize,
    /// In use, waited for, or ended and not left.
    ends: usize,
    bytes: usize,
}

struct CipherBox {
    by: Option<SourceNetwork>,
    reader: Seat,
    writer: Seat,
    queue: Queue,
    messages: Bucket,
    bytes: Bucket,
    /// Since when both ends are free.
    free_since: Time,
    /// Its entry in [`Core::looks`]: not later than something has to be done.
    look_at: Option<Time>,
}

#[derive(Default)]
struct Seat {
    holder: Option<EndId>,
    waiting: VecDeque<EndId>,
}

struct End {
    id: BoxId,
    role: Role,
    by: Option<SourceNetwork>,
    standing: Standing,
    /// It found nothing to do, and is woken when there is.
    is_asleep: bool,
    /// Of a reader: bytes of the message that is being sent to it.
    sending: usize,
    /// Of a reader: since when it has had something to take.
    busy_since: Time,
}

impl Core {
    /// Without boxes.
    pub fn new(limits: HashmailLimits) -> Core {
        Core {
            limits,
            boxes: HashMap::new(),
            ends: HashMap::new(),
            expected: HashMap::new(),
            expecting: 0,
            networks: HashMap::new(),
            looks: BTreeSet::new(),
            last_end: 0,
            bytes: 0,
            counts: Counts::default(),
            woken: Vec::new(),
            is_sooner: false,
        }
    }

    /// The limits.
    pub fn limits(&self) -> &HashmailLimits {
        &self.limits
    }

    /// Creates a box, for a client of this network.
    ///
    /// # Errors
    /// [`Refusal::Exists`], [`Refusal::Full`].
    pub fn create(
        &mut self,
        id: BoxId,
        by: Option<SourceNetwork>,
        now: Time,
    ) -> Result<(), Refusal> {
        if self.boxes.contains_key(&id) {
            return Err(Refusal::Exists);
        }
        let of_network = self.used_by(by).boxes;
        if self.boxes.len() >= self.limits.boxes || of_network >= self.limits.boxes_per_network {
            return Err(Refusal::Full);
        }
        self.account(by, |used| used.boxes = used.boxes.saturating_add(1));
        let new = CipherBox {
            by,
            reader: Seat::default(),
            writer: Seat::default(),
            queue: Queue::default(),
            messages: Bucket::default(),
            bytes: Bucket::default(),
            free_since: now,
            look_at: None,
        };
        self.boxes.insert(id, new);
        self.schedule(id);
        self.seat_expecting(id, now);
        Ok(())
    }

    /// Removes a box, and ends all use of it.
    ///
    /// # Errors
    /// [`Refusal::NotFound`].
    pub fn delete(&mut self, id: BoxId) -> Result<(), Refusal> {
        let removed = self.boxes.remove(&id).ok_or(Refusal::NotFound)?;
        if let Some(at) = removed.look_at {
            self.looks.remove(&(at, id));
        }
        self.account(removed.by, |used| {
            used.boxes = used.boxes.saturating_sub(1);
        });
        for message in removed.queue.into_messages() {
            self.uncharge(message.by, message.cost());
        }
        for seat in [removed.reader, removed.writer] {
            for end in seat.holder.into_iter().chain(seat.waiting) {
                self.end(end, Refusal::NotFound);
            }
        }
        Ok(())
    }

    /// Begins to use an end of a box, or to wait for it: see [`Core::standing`].
    ///
    /// # Errors
    /// The end is in use, or there is no such box, and too many wait already; [`Refusal::Full`].
    pub fn attach(
        &mut self,
        id: BoxId,
        role: Role,
        by: Option<SourceNetwork>,
        now: Time,
    ) -> Result<EndId, Refusal> {
        if by.is_some() && self.used_by(by).ends >= self.limits.ends_per_network {
            return Err(Refusal::Full);
        }
        self.last_end = self.last_end.saturating_add(1);
        let end = EndId(self.last_end);
        let mut is_free = false;
        match self.boxes.get_mut(&id) {
            Some(found) => {
                let seat = found.seat_mut(role);
                is_free = seat.holder.is_none();
                if !is_free && seat.waiting.len() >= MAX_WAITING {
                    return Err(role.occupied());
                }
                seat.waiting.push_back(end);
            }
            None => self.expect(id, end)?,
        }
        let new = End {
            id,
            role,
            by,
            standing: Standing::Waits,
            is_asleep: false,
            sending: 0,
            busy_since: now,
        };
        self.ends.insert(end, new);
        self.account(by, |used| used.ends = used.ends.saturating_add(1));
        if is_free {
            self.seat_next(id, role, now);
        }
        Ok(end)
    }

    /// Where the use of an end stands.
    pub fn standing(&self, end: EndId) -> Standing {
        let found = self.ends.get(&end).map(|end| end.standing);
        found.unwrap_or(Standing::Ended(Refusal::NotFound))
    }

    /// Why one who waits does not get the end now.
    pub fn refusal(&self, waiting: EndId) -> Refusal {
        let end = self.ends.get(&waiting);
        let there = end.filter(|end| self.boxes.contains_key(&end.id));
        there.map_or(Refusal::NotFound, |end| end.role.occupied())
    }

    /// The one that has the end which this one waits for.
    pub fn holder(&self, waiting: EndId) -> Option<EndId> {
        let end = self.ends.get(&waiting)?;
        self.boxes.get(&end.id)?.seat(end.role).holder
    }

    /// Ends the use of an end that this one waits for: its user is silent.
    pub fn take_over(&mut self, waiting: EndId, now: Time) {
        let Some((id, role)) = self.ends.get(&waiting).map(|end| (end.id, end.role)) else {
            return;
        };
        if let Some(holder) = self.holder(waiting).filter(|holder| *holder != waiting) {
            self.counts.taken_over = self.counts.taken_over.saturating_add(1);
            self.end(holder, role.occupied());
            self.vacate(id, role, now);
        }
    }

    /// An end is used, or waited for, no longer.
    pub fn leave(&mut self, end: EndId, now: Time) {
        let Some(left) = self.ends.remove(&end) else {
            return;
        };
        self.uncharge(left.by, left.sending);
        self.account(left.by, |used| used.ends = used.ends.saturating_sub(1));
        let Some(found) = self.boxes.get_mut(&left.id) else {
            return self.expect_no_longer(left.id, end);
        };
        let seat = found.seat_mut(left.role);
        seat.waiting.retain(|waiting| *waiting != end);
        if seat.holder == Some(end) {
            self.vacate(left.id, left.role, now);
        }
    }

    /// Ends all use, and removes all boxes.
    pub fn stop(&mut self) {
        self.expected.clear();
        self.expecting = 0;
        let ends: Vec<EndId> = self.ends.keys().copied().collect();
        for end in ends {
            self.end(end, Refusal::Stopping);
        }
        let boxes: Vec<BoxId> = self.boxes.keys().copied().collect();
        for id in boxes {
            // It is there.
            let _ = self.delete(id);
        }
    }

    /// The ends that have to be woken since the last call.
    pub fn woken(&mut self) -> impl Iterator<Item = EndId> {
        self.woken.drain(..)
    }

    /// Whether the next tick is due sooner than at the last call.
    pub fn is_sooner(&mut self) -> bool {
        std::mem::take(&mut self.is_sooner)
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        Counts {
            boxes: self.boxes.len(),
            ends: self.ends.len(),
            bytes: self.bytes,
            ..self.counts
        }
    }

    /// Waits for a box that is not there.
    fn expect(&mut self, id: BoxId, end: EndId) -> Result<(), Refusal> {
        let here = self.expected.get(&id).map_or(0, VecDeque::len);
        if self.expecting >= MAX_EXPECTING || here >= MAX_WAITING {
            return Err(Refusal::NotFound);
        }
        self.expecting = self.expecting.saturating_add(1);
        self.expected.entry(id).or_default().push_back(end);
        Ok(())
    }

    fn expect_no_longer(&mut self, id: BoxId, end: EndId) {
        let Some(waiting) = self.expected.get_mut(&id) else {
            return;
        };
        let before = waiting.len();
        waiting.retain(|other| *other != end);
        let left = before.saturating_sub(waiting.len());
        self.expecting = self.expecting.saturating_sub(left);
        if waiting.is_empty() {
            self.expected.remove(&id);
        }
    }

    /// A box is there for which some have waited.
    fn seat_expecting(&mut self, id: BoxId, now: Time) {
        let waiting = self.expected.remove(&id).unwrap_or_default();
        self.expecting = self.expecting.saturating_sub(waiting.len());
        for end in waiting {
            let role = self.ends.get(&end).map(|end| end.role);
            let found = self.boxes.get_mut(&id);
            if let Some((role, found)) = role.zip(found) {
                found.seat_mut(role).waiting.push_back(end);
            }
        }
        self.seat_next(id, Role::Reader, now);
        self.seat_next(id, Role::Writer, now);
    }

    /// The holder of an end is gone: the next has it, and messages are dropped that nobody is there for.
    fn vacate(&mut self, id: BoxId, role: Role, now: Time) {
        let Some(found) = self.boxes.get_mut(&id) else {
            return;
        };
        found.seat_mut(role).holder = None;
        let other = match role {
            Role::Reader => &found.writer,
            Role::Writer => &found.reader,
        };
        if other.holder.is_none() {
            found.free_since = now;
            self.drop_all(id);
        }
        self.seat_next(id, role, now);
        self.schedule(id);
    }

    /// Gives an end that is free to the first who waits for it.
    fn seat_next(&mut self, id: BoxId, role: Role, now: Time) {
        let Some(found) = self.boxes.get_mut(&id) else {
            return;
        };
        let seat = found.seat_mut(role);
        let Some(next) = seat.waiting.pop_front() else {
            return;
        };
        seat.holder = Some(next);
        if let Some(end) = self.ends.get_mut(&next) {
            end.standing = Standing::Holds;
            end.busy_since = now;
        }
        self.woken.push(next);
        if role == Role::Reader {
            self.expire(id, now);
        }
        self.schedule(id);
    }

    fn end(&mut self, end: EndId, refusal: Refusal) {
        if let Some(found) = self.ends.get_mut(&end)
            && !matches!(found.standing, Standing::Ended(_))
        {
            found.standing = Standing::Ended(refusal);
            self.woken.push(end);
        }
    }

    fn used_by(&self, by: Option<SourceNetwork>) -> NetworkUse {
        let used = by.and_then(|by| self.networks.get(&by)).copied();
        used.unwrap_or_default()
    }

    fn account(&mut self, by: Option<SourceNetwork>, change: impl FnOnce(&mut NetworkUse)) {
        let Some(by) = by else { return };
        let used = self.networks.entry(by).or_default();
        change(used);
        if *used == NetworkUse::default() {
            self.networks.remove(&by);
        }
    }
}

impl CipherBox {
    fn seat(&self, role: Role) -> &Seat {
        match role {
            Role::Reader => &self.reader,
            Role::Writer => &self.writer,
        }
    }

    fn seat_mut(&mut self, role: Role) -> &mut Seat {
        match role {
            Role::Reader => &mut self.reader,
            Role::Writer => &mut self.writer,
        }
    }
}

#[cfg(test)]
mod tests;
