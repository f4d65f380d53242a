//! Quotas of keys, networks and all together.

use super::super::limits::MAX_REPLIES;
use super::*;

const MESSAGE: usize = 60_000;
/// As it is counted.
const COST: usize = MESSAGE + MESSAGE_BYTES;

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
fn messages_for_readers_that_are_away_have_half_of_all_queues() {
    let mut world = World::with(Limits {
        total_bytes: 4 * COST,
        ..Limits::default()
    });
    let replies = sent_by(&mut world, &[1, 2, 3]);
    assert_eq!(replies, [vec![], vec![], vec![ended(1, Code::Full)]]);
    let (host, phone) = (
        world.attached(1, 9, End::Host),
        world.attached(1, 9, End::Phone),
    );
    for client in [host, phone] {
        world.send(client, 1, &[0; MESSAGE]);
    }
    assert_eq!(world.read(host), [data(1, &[0; MESSAGE])]);
    assert_eq!(world.read(phone), [data(1, &[0; MESSAGE])]);
}

#[test]
fn messages_for_readers_that_are_away_have_half_of_their_network() {
    let mut world = World::with(Limits {
        bytes_per_network: 2 * COST,
        ..Limits::default()
    });
    let replies = sent_by(&mut world, &[1, 1, 2]);
    assert_eq!(replies, [vec![], vec![ended(1, Code::Full)], vec![]]);
    world.pass(60);
    assert_eq!(sent_by(&mut world, &[1]), [vec![]]);
}

/// A phone of this network at which a message waits that it does not read; its host is of the other one.
fn unread(world: &mut World, key: u8, reader: u8, sender: u8) -> ConnectionId {
    let phone = world.attached_from(reader, 1, key, End::Phone);
    let host = world.attached_from(sender, 1, key, End::Host);
    world.send(host, 1, &[0; MESSAGE]);
    phone
}

#[test]
fn phones_that_do_not_read_fill_the_account_of_their_own_network() {
    let mut world = World::new();
    for key in 1..=3 {
        unread(&mut world, key, 2, 1);
    }
    assert_eq!((world.bytes_of(1), world.bytes_of(2)), (0, 3 * COST));
    let away = world.attached_from(1, 1, 9, End::Host);
    world.send(away, 1, &[0; MESSAGE]);
    assert_eq!(
        world.bytes_of(1),
        COST,
        "while nobody is there the sender pays"
    );
    world.attached_from(3, 1, 9, End::Phone);
    assert_eq!((world.bytes_of(1), world.bytes_of(3)), (0, COST));
}

#[test]
fn a_full_mailbox_ends_a_stream_of_the_network_that_uses_most_and_no_other() {
    let mut world = World::with(Limits {
        total_bytes: 4 * COST,
        ..Limits::default()
    });
    let strangers: Vec<_> = (1..=3).map(|key| unread(&mut world, key, 2, 2)).collect();
    let slow = unread(&mut world, 4, 4, 3);
    let (host, phone) = (
        world.attached_from(3, 1, 9, End::Host),
        world.attached_from(4, 1, 9, End::Phone),
    );
    world.send(host, 1, &[0; MESSAGE]);
    assert_eq!(world.read(phone), [data(1, &[0; MESSAGE])]);
    assert_eq!(
        (world.read(host), world.read(slow)),
        (vec![], vec![data(1, &[0; MESSAGE])])
    );
    let lost = vec![ended(1, Code::Full)];
    let replies: Vec<_> = strangers.iter().map(|id| world.read(*id)).collect();
    assert_eq!(replies.iter().filter(|it| **it == lost).count(), 1);
}

#[test]
fn a_full_network_ends_its_own_largest_queue() {
    let mut world = World::with(Limits {
        bytes_per_network: 4 * COST,
        ..Limits::default()
    });
    let elsewhere = unread(&mut world, 1, 1, 1);
    let stuck = unread(&mut world, 2, 2, 1);
    let host = world.attached_from(3, 1, 2, End::Host);
    for _ in 0..3 {
        world.send(host, 1, &[0; MESSAGE]);
    }
    let neighbour = unread(&mut world, 3, 2, 1);
    assert_eq!(world.read(stuck), [ended(1, Code::Full)]);
    assert_eq!(world.read(neighbour), [data(1, &[0; MESSAGE])]);
    assert_eq!(world.read(elsewhere), [data(1, &[0; MESSAGE])]);
}

#[test]
fn connections_that_do_not_take_what_is_sent_to_them_make_room_too() {
    let mut world = World::with(Limits {
        total_bytes: 2 * COST,
        ..Limits::default()
    });
    let stuck = [1, 2].map(|key| {
        let phone = unread(&mut world, key, 2, 2);
        assert!(world.take(phone).is_some(), "it is being sent");
        phone
    });
    let phone = unread(&mut world, 9, 4, 3);
    assert_eq!(world.read(phone), [data(1, &[0; MESSAGE])]);
    assert_eq!(world.closed, stuck[..1]);
}

/// Connections inside this process have no network that could give something up.
#[test]
fn a_stream_ends_when_there_is_nothing_to_give_up_for_it() {
    let mut world = World::with(Limits {
        total_bytes: 2 * COST,
        ..Limits::default()
    });
    let (host, phone) = (
        world.attached(1, 1, End::Host),
        world.attached(1, 1, End::Phone),
    );
    for _ in 0..3 {
        world.send(host, 1, &[0; MESSAGE]);
    }
    assert_eq!(world.read(phone), [ended(1, Code::Full)]);
}

#[test]
fn all_together_have_no_more_connections_than_all() {
    let mut world = World::with(Limits {
        connections: 2,
        ..Limits::default()
    });
    let first = world.connect_from(1);
    world.connect_from(2);
    assert_eq!(world.relay.open(Some(network(3)), world.now), None);
    world.settle();
    let code = Code::Full;
    assert_eq!(world.events, [Event::Refused { code }]);
    world.close(first);
    world.connect_from(3);
}

#[test]
fn a_key_that_was_too_fast_gains_nothing_by_a_new_stream() {
    let mut world = World::with(Limits {
        bytes_per_s: 60_000,
        bytes_burst: 60_000,
        ..Limits::default()
    });
    let phone = world.attached(1, 1, End::Phone);
    assert_eq!(world.send(phone, 1, &[0; MESSAGE]), Pace::Now);
    let stream = stream(1);
    world.ask(phone, Request::Delete { stream });
    world.close(phone);
    assert_eq!(world.relay.counts().streams, 0);
    let again = world.attached(1, 1, End::Phone);
    let one_second = Pace::At(Duration::from_secs(1));
    assert_eq!(world.send(again, 1, &[0; MESSAGE]), one_second);
    let other = world.attached(1, 2, End::Phone);
    assert_eq!(world.send(other, 1, &[0; MESSAGE]), Pace::Now);
}

#[test]
fn all_keys_of_a_network_share_its_rate() {
    let mut world = World::with(Limits {
        network_bytes_per_s: 2 * 60_000,
        ..Limits::default()
    });
    let half_a_second = Pace::At(Duration::from_millis(500));
    for (key, pace) in [(1, Pace::Now), (2, Pace::Now), (3, half_a_second)] {
        let phone = world.attached_from(1, 1, key, End::Phone);
        assert_eq!(world.send(phone, 1, &[0; MESSAGE]), pace);
    }
    let newer = world.connect_from(1);
    assert_eq!(world.relay.pace(newer, world.now), half_a_second);
    let elsewhere = world.attached_from(2, 1, 4, End::Phone);
    assert_eq!(world.send(elsewhere, 1, &[0; MESSAGE]), Pace::Now);
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

/// New connections gain nothing: it is the network that is slowed down.
#[test]
fn signatures_of_a_network_are_checked_at_a_bounded_rate_and_those_of_a_large_host_at_once() {
    let mut world = World::new();
    let forged = || Request::Refused {
        handle: 1,
        code: Code::BadSignature,
    };
    let check = |world: &mut World| {
        let id = world.connect_from(1);
        let pace = world.relay.receive(id, forged(), world.now);
        world.relay.close(id);
        pace
    };
    for _ in 0..25_000 {
        assert_eq!(check(&mut world), Pace::Now);
    }
    let later = Pace::At(Duration::from_millis(2));
    assert_eq!(check(&mut world), later);
    let newer = world.connect_from(1);
    assert_eq!(world.relay.pace(newer, world.now), later);
    world.attached_from(2, 1, 1, End::Host);
    world.pass(41);
    let again = (0..20_000).all(|_| check(&mut world) == Pace::Now);
    assert!(again, "all of a large host's, soon after another restart");
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
