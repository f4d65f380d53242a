//! Quotas of keys, networks and all together.

use super::super::limits::{Bucket, MAX_REPLIES, Rate};
use super::*;

const MESSAGE: usize = 60_000;

#[test]
fn a_bucket_gives_its_burst_at_once_and_then_its_rate() {
    let rate = Rate {
        per_s: 10,
        burst: 20,
    };
    let mut bucket = Bucket::default();
    let at = Duration::from_secs;
    assert!(bucket.charge(20, rate, at(5)) <= at(5));
    assert_eq!(bucket.charge(10, rate, at(5)), at(6));
    assert_eq!(bucket.charge(10, rate, at(6)), at(7));
    assert!(bucket.charge(20, rate, at(100)) <= at(100));
    assert!(bucket.charge(u64::MAX, rate, at(100)) > at(1_000_000));
}

#[test]
fn a_phone_that_sends_too_fast_is_read_later_and_loses_nothing() {
    let limits = Limits {
        bytes_per_s: 60_000,
        bytes_burst: 120_000,
        ..Limits::default()
    };
    let mut world = World::with(limits);
    let host = world.attached(1, 1, End::Host);
    let phone = world.attached(1, 1, End::Phone);
    assert_eq!(world.send(phone, 1, &[0; MESSAGE]), Pace::Now);
    assert_eq!(world.send(phone, 1, &[0; MESSAGE]), Pace::Now);
    let one_second = Duration::from_secs(1);
    assert_eq!(world.send(phone, 1, &[0; MESSAGE]), Pace::At(one_second));
    assert_eq!(world.read(host).len(), 3);
    world.pass(1);
    assert_eq!(world.relay.pace(phone, world.now), Pace::Now);
}

/// A host with two streams; a phone at each.
fn shared(limits: Limits) -> (World, ConnectionId, [ConnectionId; 2]) {
    let mut world = World::with(limits);
    let host = world.connect();
    world.attach(host, 1, 1, End::Host);
    world.attach(host, 2, 2, End::Host);
    let phones = [1, 2].map(|key| world.attached(1, key, End::Phone));
    (world, host, phones)
}

#[test]
fn a_stream_of_a_shared_connection_that_is_too_fast_waits_and_the_others_do_not() {
    let (mut world, host, [fast, other]) = shared(Limits {
        messages_per_s: 1,
        messages_burst: 3,
        ..Limits::default()
    });
    for n in 1..=5 {
        assert_eq!(world.send(host, 1, &[n]), Pace::Now);
        if n == 3 {
            assert_eq!(world.read(fast).len(), 3);
        }
    }
    world.send(host, 2, b"at once");
    assert_eq!(world.read(other), [data(1, b"at once")]);
    assert_eq!(world.read(fast), []);
    assert_eq!(world.relay.next_tick(), Some(Duration::from_secs(2)));
    world.pass(2);
    assert_eq!(world.read(fast), [data(1, &[4]), data(1, &[5])]);
    assert_eq!(world.read(host), []);
}

#[test]
fn a_stream_of_a_shared_connection_that_is_much_too_fast_ends_and_no_other() {
    let (mut world, host, [fast, other]) = shared(Limits {
        bytes_per_s: 1_000,
        bytes_burst: 100_000,
        ..Limits::default()
    });
    for _ in 0..9 {
        world.send(host, 1, &[0; MESSAGE]);
    }
    assert_eq!(world.read(host), [ended(1, Code::TooFast)]);
    assert_eq!(world.read(fast), [ended(1, Code::TooFast)]);
    world.send(host, 2, b"goes on");
    assert_eq!(world.read(other), [data(1, b"goes on")]);
}

#[test]
fn a_reader_that_comes_while_messages_are_held_waits_for_them_too() {
    let (mut world, host, [fast, _]) = shared(Limits {
        messages_per_s: 1,
        messages_burst: 1,
        ..Limits::default()
    });
    world.send(host, 1, b"one");
    world.send(host, 1, b"two");
    world.close(fast);
    let newer = world.attached(9, 1, End::Phone);
    assert_eq!(world.read(newer), []);
    world.pass(1);
    assert_eq!(world.read(newer), [data(9, b"one"), data(9, b"two")]);
}

#[test]
fn a_network_has_no_more_attached_ends_than_its_own() {
    let limits = Limits {
        ends_per_network: 2,
        ..Limits::default()
    };
    let mut world = World::with(limits);
    let (here, there) = (world.connect_from(1), world.connect_from(2));
    world.attach(here, 1, 1, End::Host);
    world.attach(here, 2, 2, End::Host);
    assert_eq!(world.attach(here, 3, 3, End::Host), ended(3, Code::Full));
    let elsewhere = world.attach(there, 3, 3, End::Host);
    assert!(matches!(elsewhere, Reply::Attached { .. }));
    let again = world.connect_from(1);
    let taken_over = world.attach(again, 1, 1, End::Host);
    assert!(matches!(taken_over, Reply::Attached { .. }));
}

#[test]
fn all_together_have_no_more_attached_ends_than_all() {
    let limits = Limits {
        ends: 1,
        ..Limits::default()
    };
    let mut world = World::with(limits);
    let first = world.attached(1, 1, End::Host);
    let second = world.connect();
    assert_eq!(world.attach(second, 1, 2, End::Host), ended(1, Code::Full));
    world.ask(first, Request::Detach { handle: 1 });
    let free = world.attach(second, 1, 2, End::Host);
    assert!(matches!(free, Reply::Attached { .. }));
}

#[test]
fn a_network_has_no_more_connections_with_streams_than_its_own() {
    let limits = Limits {
        connections_per_network: 1,
        ..Limits::default()
    };
    let mut world = World::with(limits);
    let first = world.connect_from(1);
    world.attach(first, 1, 1, End::Host);
    let second = world.connect_from(1);
    assert_eq!(world.attach(second, 1, 2, End::Host), ended(1, Code::Full));
    let more = world.attach(first, 2, 2, End::Host);
    assert!(matches!(more, Reply::Attached { .. }));
    world.close(first);
    let free = world.attach(second, 1, 2, End::Host);
    assert!(matches!(free, Reply::Attached { .. }));
}

/// Each sends a message to a phone that is away, on its own stream.
fn sent_by(world: &mut World, networks: &[u8]) -> Vec<Vec<Reply>> {
    let mut replies = Vec::new();
    for (key, last) in (1..).zip(networks) {
        let host = world.connect_from(*last);
        world.attach(host, 1, key, End::Host);
        world.send(host, 1, &[0; MESSAGE]);
        replies.push(world.read(host));
    }
    replies
}

#[test]
fn all_queues_together_hold_no_more_than_all() {
    let limits = Limits {
        total_bytes: 2 * (MESSAGE + MESSAGE_BYTES),
        ..Limits::default()
    };
    let mut world = World::with(limits);
    let replies = sent_by(&mut world, &[1, 2, 3]);
    assert_eq!(replies, [vec![], vec![], vec![ended(1, Code::Full)]]);
}

#[test]
fn what_one_network_has_sent_fills_its_own_part_of_the_queues() {
    let limits = Limits {
        bytes_per_network: MESSAGE + MESSAGE_BYTES,
        ..Limits::default()
    };
    let mut world = World::with(limits);
    let replies = sent_by(&mut world, &[1, 1, 2]);
    assert_eq!(replies, [vec![], vec![ended(1, Code::Full)], vec![]]);
    world.pass(60);
    assert_eq!(sent_by(&mut world, &[1]), [vec![]]);
}

#[test]
fn a_client_that_reads_no_replies_is_read_no_further() {
    let mut world = World::new();
    let client = world.attached(1, 1, End::Host);
    let mut pace = Pace::Now;
    let mut asked = 0;
    while pace == Pace::Now {
        pace = world.ask(client, Request::Detach { handle: 2 });
        asked += 1;
    }
    assert_eq!((pace, asked), (Pace::AfterReplies, MAX_REPLIES + 1));
    assert!(world.relay.take(client).is_some());
    assert_eq!(world.relay.output().readable, [client]);
    assert_eq!(world.relay.pace(client, world.now), Pace::Now);
}

/// It sends all its attaches before it reads their replies.
#[test]
fn a_host_with_many_streams_attaches_them_all_before_it_reads_a_reply() {
    let mut world = World::new();
    let host = world.connect();
    for handle in 0..1_000_u32 {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&handle.to_be_bytes());
        let attach = Request::Attach {
            handle,
            stream: StreamId::of(&key),
            end: End::Host,
        };
        // The books of a thousand streams are checked once.
        let pace = world.relay.receive(host, attach, world.now);
        assert_eq!(pace, Pace::Now, "after {handle}");
    }
    assert_eq!(world.relay.counts().ends, 1_000);
    world.settle();
}

#[test]
fn requests_without_end_are_read_at_a_bounded_rate() {
    let mut world = World::new();
    let client = world.connect();
    let mut asked = 0;
    loop {
        let pace = world.ask(client, Request::Detach { handle: 2 });
        world.read(client);
        asked += 1;
        if let Pace::At(time) = pace {
            assert_eq!(time, Duration::from_millis(1));
            break;
        }
    }
    assert_eq!(asked, 20_001);
}

#[test]
fn an_idle_end_is_small() {
    use super::super::connection::{Attachment, Connection};
    use super::super::stream::Stream;
    let connection = size_of::<Connection>() + 4 * size_of::<(u32, Attachment)>();
    let shared = size_of::<(u32, Attachment)>();
    // The hash tables are at least half full.
    let pair = connection + 2 * (shared + size_of::<(StreamId, Stream)>());
    assert!(pair < 1_200, "{pair} bytes");
}
