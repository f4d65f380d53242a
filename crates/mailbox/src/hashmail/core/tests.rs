#![allow(clippy::unwrap_used, clippy::expect_used)]
//! The boxes, with the time as an argument.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use super::*;
use crate::core::MESSAGE_BYTES;

mod property;

/// Boxes, and a clock.
pub(super) struct World {
    pub core: Core,
    pub now: Time,
    /// Who was woken since it was last looked at.
    woken: BTreeSet<EndId>,
}

pub(super) fn network(last: u8) -> Option<SourceNetwork> {
    Some(IpAddr::from(Ipv4Addr::new(192, 0, 2, last)).into())
}

pub(super) fn id(number: u8) -> BoxId {
    BoxId::new(&[number])
}

impl World {
    fn new() -> World {
        World::with(HashmailLimits::default())
    }

    pub fn with(limits: HashmailLimits) -> World {
        World {
            core: Core::new(limits),
            now: Time::ZERO,
            woken: BTreeSet::new(),
        }
    }

    /// With one box.
    fn with_box() -> World {
        let mut world = World::new();
        world.create(1).unwrap();
        world
    }

    fn create(&mut self, number: u8) -> Result<(), Refusal> {
        self.core.create(id(number), network(1), self.now)
    }

    fn attach(&mut self, number: u8, role: Role) -> EndId {
        let end = self.core.attach(id(number), role, network(2), self.now);
        end.unwrap()
    }

    fn reader(&mut self) -> EndId {
        self.attach(1, Role::Reader)
    }

    fn writer(&mut self) -> EndId {
        self.attach(1, Role::Writer)
    }

    fn put(&mut self, writer: EndId, payload: &[u8]) {
        let put = self.core.put(writer, payload.to_vec(), self.now);
        put.unwrap();
        self.check();
    }

    fn take(&mut self, reader: EndId) -> Taken {
        let taken = self.core.take(reader, self.now);
        self.check();
        taken
    }

    fn leave(&mut self, end: EndId) {
        self.core.leave(end, self.now);
        self.check();
    }

    /// Lets time pass as the shell does: whatever is due is done when it is.
    pub fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(due) = self.core.next_tick().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.core.tick(self.now);
            self.check();
        }
        self.now = until;
    }

    fn was_woken(&mut self, end: EndId) -> bool {
        self.woken.extend(self.core.woken());
        self.woken.remove(&end)
    }

    /// The books agree with what there is.
    pub fn check(&mut self) {
        self.woken.extend(self.core.woken());
        let core = &self.core;
        let mut used: HashMap<SourceNetwork, NetworkUse> = HashMap::new();
        let mut bytes = 0;
        let mut add = |by: Option<SourceNetwork>, cost: usize, boxes: usize, ends: usize| {
            bytes += cost;
            if let Some(by) = by {
                let used = used.entry(by).or_default();
                used.bytes += cost;
                used.boxes += boxes;
                used.ends += ends;
            }
        };
        let mut seated = 0;
        for (id, found) in &core.boxes {
            add(found.by, 0, 1, 0);
            found
                .queue
                .costs()
                .for_each(|(by, cost)| add(by, cost, 0, 0));
            let is_used = found.reader.holder.is_some() || found.writer.holder.is_some();
            assert!(is_used || found.queue.is_empty(), "nobody is there for it");
            for seat in [&found.reader, &found.writer] {
                assert!(seat.holder.is_some() || seat.waiting.is_empty());
                assert!(seat.waiting.len() <= MAX_WAITING);
                seated += seat.waiting.len() + usize::from(seat.holder.is_some());
            }
            match found.look_at {
                Some(at) => assert!(core.looks.contains(&(at, *id))),
                None => assert_eq!(core.due(found), None),
            }
        }
        for end in core.ends.values() {
            add(end.by, end.sending, 0, 1);
        }
        let expecting: usize = core.expected.values().map(VecDeque::len).sum();
        assert_eq!(core.expecting, expecting);
        assert!(core.expected.keys().all(|id| !core.boxes.contains_key(id)));
        used.retain(|_, used| *used != NetworkUse::default());
        assert_eq!(core.networks, used);
        assert_eq!(core.bytes, bytes);
        assert!(core.looks.len() <= core.boxes.len());
        let over = core.ends.values();
        let over = over.filter(|end| matches!(end.standing, Standing::Ended(_)));
        assert_eq!(core.ends.len() - over.count(), seated + expecting);
    }
}

fn message(payload: &[u8]) -> Taken {
    Taken::Message(payload.to_vec())
}

#[test]
fn ids_are_padded_and_cut_to_64_bytes() {
    assert_eq!(BoxId::new(&[1, 2]), BoxId::new(&[1, 2, 0, 0]));
    assert_eq!(BoxId::new(&[7; 64]), BoxId::new(&[7; 90]));
    assert_ne!(BoxId::new(&[7; 63]), BoxId::new(&[7; 64]));
    assert!(!format!("{:?}", BoxId::new(&[7; 64])).contains('7'));
}

#[test]
fn a_box_is_created_once_and_deleted_once() {
    let mut world = World::with_box();
    assert_eq!(world.create(1), Err(Refusal::Exists));
    assert_eq!(world.core.delete(id(1)), Ok(()));
    assert_eq!(world.core.delete(id(1)), Err(Refusal::NotFound));
    assert_eq!(world.create(1), Ok(()));
}

#[test]
fn messages_come_in_their_order_and_one_waits_for_a_reader_that_comes_later() {
    let mut world = World::with_box();
    let writer = world.writer();
    world.put(writer, b"a");
    world.put(writer, b"");
    let reader = world.reader();
    assert_eq!(world.take(reader), message(b"a"));
    assert_eq!(world.take(reader), message(b""));
    assert_eq!(world.take(reader), Taken::Nothing);
    world.woken.clear();
    world.put(writer, b"c");
    assert!(world.was_woken(reader));
    assert_eq!(world.take(reader), message(b"c"));
}

#[test]
fn the_next_reader_goes_on_where_the_one_before_has_left() {
    let mut world = World::with_box();
    let writer = world.writer();
    let first = world.reader();
    world.put(writer, b"a");
    world.put(writer, b"b");
    assert_eq!(world.take(first), message(b"a"));
    world.leave(first);
    let second = world.reader();
    assert_eq!(world.take(second), message(b"b"));
}

#[test]
fn what_a_writer_has_left_unread_is_no_ones() {
    let mut world = World::with_box();
    let writer = world.writer();
    world.put(writer, b"stale");
    world.leave(writer);
    let reader = world.reader();
    assert_eq!(world.take(reader), Taken::Nothing);
    assert_eq!(world.core.counts().dropped_messages, 1);
}

#[test]
fn a_reader_that_is_there_gets_the_last_words_of_a_writer() {
    let mut world = World::with_box();
    let (reader, writer) = (world.reader(), world.writer());
    world.put(writer, b"a");
    world.put(writer, b"end");
    world.leave(writer);
    assert_eq!(world.take(reader), message(b"a"));
    assert_eq!(world.take(reader), message(b"end"));
    let writer = world.writer();
    world.put(writer, b"begin");
    world.leave(writer);
    world.leave(reader);
    let reader = world.reader();
    assert_eq!(world.take(reader), Taken::Nothing, "of two who have left");
}

#[test]
fn a_message_waits_for_a_reader_for_a_while_only() {
    let mut world = World::with_box();
    let writer = world.writer();
    world.put(writer, b"old");
    world.pass(Duration::from_secs(6));
    world.put(writer, b"new");
    world.pass(Duration::from_secs(5));
    let reader = world.reader();
    assert_eq!(world.take(reader), message(b"new"));
    assert_eq!(world.core.counts().dropped_messages, 1);
}

#[test]
fn a_reader_that_comes_back_late_gets_nothing_old() {
    let mut world = World::with_box();
    let (reader, writer) = (world.reader(), world.writer());
    world.put(writer, b"old");
    world.pass(Duration::from_secs(11));
    world.leave(reader);
    let reader = world.reader();
    assert_eq!(world.take(reader), Taken::Nothing);
}

#[test]
fn an_end_that_is_in_use_goes_to_the_first_who_waits() {
    let mut world = World::with_box();
    for role in [Role::Reader, Role::Writer] {
        let first = world.attach(1, role);
        let second = world.attach(1, role);
        let third = world.attach(1, role);
        assert_eq!(world.core.standing(first), Standing::Holds);
        assert_eq!(world.core.standing(second), Standing::Waits);
        assert_eq!(world.core.holder(second), Some(first));
        world.leave(first);
        assert!(world.was_woken(second));
        assert_eq!(world.core.standing(second), Standing::Holds);
        assert_eq!(world.core.standing(third), Standing::Waits);
        world.leave(third);
        world.leave(second);
    }
}

#[test]
fn no_more_than_a_few_wait_for_an_end() {
    let mut world = World::with_box();
    for _ in 0..=MAX_WAITING {
        world.writer();
    }
    let refused = world.core.attach(id(1), Role::Writer, None, world.now);
    assert_eq!(refused, Err(Refusal::WriteOccupied));
}

#[test]
fn a_box_that_is_not_there_yet_can_be_waited_for() {
    let mut world = World::new();
    let (reader, writer) = (world.reader(), world.writer());
    let second = world.reader();
    assert_eq!(world.core.standing(reader), Standing::Waits);
    assert_eq!(world.core.refusal(reader), Refusal::NotFound);
    world.create(1).unwrap();
    for end in [reader, writer] {
        assert!(world.was_woken(end));
        assert_eq!(world.core.standing(end), Standing::Holds);
    }
    assert_eq!(world.core.standing(second), Standing::Waits);
    assert_eq!(world.core.refusal(second), Refusal::ReadOccupied);
    world.put(writer, b"a");
    assert_eq!(world.take(reader), message(b"a"));
}

#[test]
fn no_more_than_a_bound_wait_for_boxes_that_are_not_there() {
    let mut world = World::new();
    let attach = |world: &mut World, number: usize| {
        let id = BoxId::new(&number.to_be_bytes());
        world.core.attach(id, Role::Reader, None, world.now)
    };
    for _ in 0..MAX_WAITING {
        attach(&mut world, 0).unwrap();
    }
    assert_eq!(attach(&mut world, 0), Err(Refusal::NotFound));
    let ends: Vec<_> = (MAX_WAITING..MAX_EXPECTING)
        .map(|number| attach(&mut world, number).unwrap())
        .collect();
    assert_eq!(attach(&mut world, 1), Err(Refusal::NotFound));
    world.leave(ends[0]);
    attach(&mut world, 1).unwrap();
    world.check();
}

#[test]
fn one_who_waits_takes_over_from_a_silent_one() {
    let mut world = World::with_box();
    let (silent, writer) = (world.reader(), world.writer());
    world.put(writer, b"a");
    world.put(writer, b"b");
    assert_eq!(world.take(silent), message(b"a"));
    let newer = world.reader();
    assert_eq!(world.take(newer), Taken::Ended(Refusal::ReadOccupied));
    world.core.take_over(newer, world.now);
    assert_eq!(world.take(newer), message(b"b"));
    let ended = Standing::Ended(Refusal::ReadOccupied);
    assert_eq!(world.core.standing(silent), ended);
    assert_eq!(world.take(silent), Taken::Ended(Refusal::ReadOccupied));
    world.leave(silent);
    assert_eq!(world.core.standing(newer), Standing::Holds);
    assert_eq!(world.core.counts().taken_over, 1);
}

#[test]
fn the_writer_of_a_full_box_is_read_again_when_there_is_room() {
    let limits = HashmailLimits {
        queue_bytes: 1_000,
        ..HashmailLimits::default()
    };
    let mut world = World::with(limits);
    world.create(1).unwrap();
    let (reader, writer) = (world.reader(), world.writer());
    assert_eq!(world.core.pace(writer, world.now), Pace::Now);
    world.put(writer, &[7; 2_000]);
    assert_eq!(world.core.pace(writer, world.now), Pace::Room);
    world.woken.clear();
    assert_eq!(world.take(reader), message(&[7; 2_000]));
    assert!(world.was_woken(writer));
    assert_eq!(world.core.pace(writer, world.now), Pace::Now);
}

#[test]
fn a_full_box_without_a_reader_has_room_again_when_its_messages_are_old() {
    let limits = HashmailLimits {
        queue_messages: 2,
        ..HashmailLimits::default()
    };
    let mut world = World::with(limits);
    world.create(1).unwrap();
    let writer = world.writer();
    world.put(writer, b"a");
    world.put(writer, b"b");
    assert_eq!(world.core.pace(writer, world.now), Pace::Room);
    world.pass(Duration::from_secs(10));
    assert!(world.was_woken(writer));
    assert_eq!(world.core.pace(writer, world.now), Pace::Now);
}

#[test]
fn a_box_through_which_too_much_is_sent_is_slowed_down_alone() {
    let mut world = World::with_box();
    world.create(2).unwrap();
    let (reader, writer) = (world.reader(), world.writer());
    let other = world.attach(2, Role::Writer);
    for _ in 0..5_000 {
        world.core.put(writer, vec![], world.now).unwrap();
        world.core.take(reader, world.now);
    }
    let half_a_second = Duration::from_millis(500);
    let pace = world.core.pace(writer, world.now);
    assert_eq!(pace, Pace::At(half_a_second));
    assert_eq!(world.core.pace(other, world.now), Pace::Now);
    world.pass(half_a_second);
    assert_eq!(world.core.pace(writer, world.now), Pace::Now);
}

#[test]
fn a_network_has_its_share_of_all_bytes() {
    let limits = HashmailLimits {
        bytes_per_network: 1_000,
        total_bytes: 1_500,
        ..HashmailLimits::default()
    };
    let mut world = World::with(limits);
    let cost = 900 + MESSAGE_BYTES;
    for (number, by, expected) in [
        (1, network(1), Ok(())),
        (2, network(1), Err(Refusal::Full)),
        (3, network(2), Err(Refusal::Full)),
    ] {
        world.create(number).unwrap();
        let writer = world.core.attach(id(number), Role::Writer, by, world.now);
        let put = world.core.put(writer.unwrap(), vec![0; 900], world.now);
        assert_eq!(put, expected, "{number}");
        assert_eq!(world.core.counts().bytes, cost);
    }
    assert!(!world.core.reserve(network(1), 5));
    assert!(world.core.reserve(network(2), 504));
    assert!(!world.core.reserve(network(3), 1));
    world.core.release(network(2), 504);
    assert!(world.core.reserve(network(3), 1));
}

#[test]
fn boxes_are_limited_for_a_network_and_in_all() {
    let limits = HashmailLimits {
        boxes: 3,
        boxes_per_network: 2,
        ..HashmailLimits::default()
    };
    let mut world = World::with(limits);
    assert_eq!(world.create(1), Ok(()));
    assert_eq!(world.create(2), Ok(()));
    assert_eq!(world.create(3), Err(Refusal::Full));
    assert_eq!(world.core.create(id(3), network(9), world.now), Ok(()));
    assert_eq!(
        world.core.create(id(4), network(10), world.now),
        Err(Refusal::Full)
    );
    world.core.delete(id(1)).unwrap();
    assert_eq!(world.create(4), Ok(()));
}

#[test]
fn ends_are_limited_for_a_network() {
    let limits = HashmailLimits {
        ends_per_network: 2,
        ..HashmailLimits::default()
    };
    let mut world = World::with(limits);
    world.create(1).unwrap();
    let (reader, _writer) = (world.reader(), world.writer());
    let now = world.now;
    let third = world.core.attach(id(1), Role::Reader, network(2), now);
    assert_eq!(third, Err(Refusal::Full));
    let other = world.core.attach(id(1), Role::Reader, network(3), now);
    assert!(other.is_ok());
    world.leave(reader);
    world.reader();
    world.check();
}

#[test]
fn a_message_above_the_limit_is_refused() {
    let mut world = World::with_box();
    let writer = world.writer();
    let most = world.core.limits().message_bytes;
    let put = world.core.put(writer, vec![0; most + 1], world.now);
    assert_eq!(put, Err(Refusal::TooLarge));
    world.put(writer, &vec![0; most]);
}

#[test]
fn a_message_counts_until_it_is_sent() {
    let mut world = World::with_box();
    let (reader, writer) = (world.reader(), world.writer());
    world.put(writer, b"a");
    assert_eq!(world.core.counts().bytes, 1 + MESSAGE_BYTES);
    assert_eq!(world.take(reader), message(b"a"));
    assert_eq!(world.core.counts().bytes, 1 + MESSAGE_BYTES);
    assert_eq!(world.take(reader), Taken::Nothing);
    assert_eq!(world.core.counts().bytes, 0);
    world.put(writer, b"b");
    assert_eq!(world.take(reader), message(b"b"));
    world.leave(reader);
    assert_eq!(world.core.counts().bytes, 0);
}

#[test]
fn deleting_a_box_ends_both_ends_and_all_who_wait() {
    let mut world = World::with_box();
    let (reader, writer, waiting) = (world.reader(), world.writer(), world.reader());
    world.put(writer, b"a");
    world.woken.clear();
    world.core.delete(id(1)).unwrap();
    for end in [reader, writer, waiting] {
        assert!(world.was_woken(end));
        let ended = Standing::Ended(Refusal::NotFound);
        assert_eq!(world.core.standing(end), ended);
    }
    assert_eq!(world.take(reader), Taken::Ended(Refusal::NotFound));
    assert_eq!(
        world.core.pace(writer, world.now),
        Pace::Ended(Refusal::NotFound)
    );
    assert_eq!(world.core.counts().bytes, 0);
    world.create(1).unwrap();
    world.leave(reader);
    world.leave(writer);
    let reader = world.reader();
    assert_eq!(world.core.standing(reader), Standing::Holds);
}

#[test]
fn a_box_is_stale_when_both_ends_were_free_for_an_hour() {
    let hour = Duration::from_secs(3_600);
    let mut world = World::with_box();
    world.pass(hour - Duration::from_secs(1));
    let reader = world.reader();
    world.pass(2 * hour);
    assert_eq!(world.core.counts().boxes, 1, "its reader is there");
    let writer = world.writer();
    world.leave(reader);
    world.pass(2 * hour);
    assert_eq!(world.core.counts().boxes, 1, "its writer is there");
    world.leave(writer);
    world.pass(hour - Duration::from_secs(1));
    assert_eq!(world.core.counts().boxes, 1);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.core.counts().boxes, 0);
    assert_eq!(world.core.counts().stale_boxes, 1);
    assert_eq!(world.core.next_tick(), None);
}

#[test]
fn a_reader_that_takes_nothing_loses_its_place() {
    let minute = Duration::from_secs(60);
    let mut world = World::with_box();
    let (reader, writer) = (world.reader(), world.writer());
    assert_eq!(world.take(reader), Taken::Nothing);
    world.pass(5 * minute);
    world.put(writer, b"a");
    world.pass(minute - Duration::from_secs(1));
    assert_eq!(world.take(reader), message(b"a"));
    world.pass(minute - Duration::from_secs(1));
    assert_eq!(world.core.standing(reader), Standing::Holds);
    world.pass(Duration::from_secs(1));
    let ended = Standing::Ended(Refusal::Stuck);
    assert_eq!(world.core.standing(reader), ended, "it is being sent still");
    let next = world.reader();
    assert_eq!(world.core.standing(next), Standing::Holds);
}

#[test]
fn stopping_ends_all() {
    let mut world = World::with_box();
    let (reader, writer) = (world.reader(), world.writer());
    world.put(writer, b"a");
    world.core.stop();
    world.check();
    assert_eq!(world.take(reader), Taken::Ended(Refusal::Stopping));
    world.leave(reader);
    world.leave(writer);
    assert_eq!(world.core.counts().boxes, 0);
    assert_eq!(world.core.counts().ends, 0);
}
