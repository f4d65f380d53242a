//! Messages that wait, expire and overflow; fair turns.

use super::*;

#[test]
fn messages_wait_for_a_reader_in_their_order() {
    let mut world = World::new();
    let phone = world.attached(1, 1, End::Phone);
    world.send(phone, 1, b"one");
    world.send(phone, 1, b"two");
    world.pass(59);
    let host = world.attached(8, 1, End::Host);
    assert_eq!(world.read(host), [data(8, b"one"), data(8, b"two")]);
    world.pass(10);
    assert!(
        !world
            .events
            .iter()
            .any(|it| matches!(it, Event::Expired { .. }))
    );
}

#[test]
fn a_message_that_waits_too_long_is_dropped_and_a_younger_one_is_not() {
    let mut world = World::new();
    let phone = world.attached(1, 1, End::Phone);
    world.send(phone, 1, b"old");
    world.pass(30);
    world.send(phone, 1, b"young");
    assert_eq!(world.relay.next_tick(), Some(Duration::from_secs(60)));
    world.pass(30);
    assert_eq!(world.events.last(), Some(&Event::Expired { messages: 1 }));
    assert_eq!(world.relay.next_tick(), Some(Duration::from_secs(90)));
    let host = world.attached(1, 1, End::Host);
    assert_eq!(world.read(host), [data(1, b"young")]);
}

#[test]
fn a_stream_is_forgotten_with_its_last_message() {
    let mut world = World::new();
    let phone = world.attached(1, 1, End::Phone);
    world.send(phone, 1, b"while I am away");
    world.close(phone);
    assert_eq!(world.relay.counts().streams, 1);
    world.pass(60);
    assert_eq!(world.relay.counts(), Counts::default());
}

#[test]
fn a_stream_without_a_message_is_forgotten_with_its_last_client() {
    let mut world = World::new();
    let phone = world.attached(1, 1, End::Phone);
    world.ask(phone, Request::Detach { handle: 1 });
    assert_eq!(world.relay.counts().streams, 0);
}

#[test]
fn more_messages_than_may_wait_end_their_stream_and_no_other() {
    let mut world = World::new();
    let host = world.connect();
    world.attach(host, 1, 1, End::Host);
    world.attach(host, 2, 2, End::Host);
    let phone = world.attached(1, 2, End::Phone);
    for _ in 0..64 {
        world.send(host, 1, b"to nobody");
    }
    assert_eq!(world.read(host), []);
    world.send(host, 1, b"one too many");
    assert_eq!(world.read(host), [ended(1, Code::Overflow)]);
    assert_eq!(world.relay.counts().queued_bytes, 0);
    world.send(host, 2, b"to the other phone");
    assert_eq!(world.read(phone), [data(1, b"to the other phone")]);
}

#[test]
fn more_bytes_than_may_wait_for_a_slow_reader_end_the_stream_at_both_ends() {
    let mut world = World::new();
    let host = world.connect();
    world.attach(host, 1, 1, End::Host);
    world.attach(host, 2, 2, End::Host);
    let slow = world.attached(5, 1, End::Phone);
    let other = world.attached(6, 2, End::Phone);
    world.send(host, 2, b"waits beside it");
    let message = vec![0; 60_000];
    for _ in 0..8 {
        world.send(host, 1, &message);
    }
    assert_eq!(world.read(host), []);
    world.send(host, 1, &message);
    assert_eq!(world.read(host), [ended(1, Code::Overflow)]);
    assert_eq!(world.read(slow), [ended(5, Code::Overflow)]);
    assert_eq!(world.read(other), [data(6, b"waits beside it")]);
}

#[test]
fn an_empty_message_has_its_cost_too() {
    let mut world = World::new();
    let host = world.attached(1, 1, End::Host);
    let phone = world.attached(1, 1, End::Phone);
    let most = Limits::default().queue_bytes / MESSAGE_BYTES;
    for _ in 0..most {
        world.now += Duration::from_millis(1);
        world.send(host, 1, b"");
    }
    assert_eq!(world.relay.counts().queued_bytes, most * MESSAGE_BYTES);
    world.send(host, 1, b"");
    assert_eq!(world.read(phone), [ended(1, Code::Overflow)]);
}

#[test]
fn a_message_with_a_payload_too_long_ends_its_stream() {
    let mut world = World::new();
    let host = world.attached(1, 1, End::Host);
    let phone = world.attached(2, 1, End::Phone);
    world.send(host, 1, &vec![0; MAX_PAYLOAD]);
    assert_eq!(world.read(phone).len(), 1);
    world.send(host, 1, &vec![0; MAX_PAYLOAD + 1]);
    assert_eq!(world.read(phone), [ended(2, Code::BadRequest)]);
    assert_eq!(world.read(host), [ended(1, Code::BadRequest)]);
}

#[test]
fn the_streams_of_a_connection_take_turns() {
    let mut world = World::new();
    let host = world.connect();
    let mut phones = Vec::new();
    for key in [1, 2, 3] {
        world.attach(host, key.into(), key, End::Host);
        phones.push(world.attached(1, key, End::Phone));
    }
    for _ in 0..100 {
        world.send(phones[0], 1, b"many");
    }
    world.send(phones[1], 1, b"one");
    world.send(phones[2], 1, b"first");
    world.send(phones[2], 1, b"second");
    let replies: Vec<Reply> = (0..6).map_while(|_| world.take(host)).collect();
    let expected = [
        data(1, b"many"),
        data(2, b"one"),
        data(3, b"first"),
        data(1, b"many"),
        data(3, b"second"),
        data(1, b"many"),
    ];
    assert_eq!(replies, expected);
}

#[test]
fn an_end_that_is_detached_loses_its_turn_and_keeps_its_messages() {
    let mut world = World::new();
    let host = world.connect();
    world.attach(host, 1, 1, End::Host);
    world.attach(host, 2, 2, End::Host);
    for key in [1, 2] {
        let phone = world.attached(1, key, End::Phone);
        world.send(phone, 1, &[key]);
    }
    world.ask(host, Request::Detach { handle: 1 });
    assert_eq!(world.read(host), [data(2, &[2])]);
    let other = world.attached(9, 1, End::Host);
    assert_eq!(world.read(other), [data(9, &[1])]);
}

#[test]
fn a_reader_that_takes_nothing_for_too_long_loses_its_stream() {
    let mut world = World::new();
    let host = world.attached(1, 1, End::Host);
    let stuck = world.attached(2, 1, End::Phone);
    world.pass(1);
    world.send(host, 1, b"unread");
    world.pass(30);
    for client in [host, stuck] {
        world.ask(client, Request::Pong);
    }
    world.pass(30);
    assert_eq!(world.read(host), [ended(1, Code::Overflow)]);
    assert_eq!(world.read(stuck), [ended(2, Code::Overflow)]);
}

#[test]
fn each_message_for_a_reader_that_is_away_is_reported() {
    let mut world = World::new();
    let host = world.attached(1, 1, End::Host);
    let phone = world.attached(1, 1, End::Phone);
    world.send(host, 1, b"to a reader that is there");
    assert_eq!(world.waits(), 0);
    world.close(phone);
    assert_eq!(
        world.waits(),
        1,
        "the reader has left with a message unread"
    );
    world.send(host, 1, b"to nobody");
    assert_eq!(world.waits(), 2);
    let waits = Event::Waits {
        stream: stream(1),
        end: End::Phone,
        by: None,
    };
    assert_eq!(world.events.last(), Some(&waits));
}

#[test]
fn a_message_counts_until_it_is_sent() {
    let mut world = World::new();
    let host = world.attached_from(1, 1, 1, End::Host);
    let phone = world.attached_from(2, 1, 1, End::Phone);
    world.send(host, 1, b"to be sent");
    let cost = 10 + MESSAGE_BYTES;
    assert_eq!(world.take(phone), Some(data(1, b"to be sent")));
    assert_eq!(
        (world.relay.counts().queued_bytes, world.bytes_of(2)),
        (cost, cost)
    );
    assert_eq!(world.take(phone), None, "it is sent now");
    assert_eq!(
        (world.relay.counts().queued_bytes, world.bytes_of(2)),
        (0, 0)
    );
    world.send(host, 1, b"to be lost");
    world.take(phone);
    world.close(phone);
    assert_eq!(world.relay.counts().queued_bytes, 0);
}
