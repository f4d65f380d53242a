//! Attaching, taking over, detaching, deleting.

use super::*;

#[test]
fn two_meet_and_send_both_ways() {
    let mut world = World::new();
    let (host, phone) = (world.connect(), world.connect());
    let first = world.attach(host, 7, 1, End::Host);
    assert_eq!(
        first,
        Reply::Attached {
            handle: 7,
            is_met: false
        }
    );
    let second = world.attach(phone, 0, 1, End::Phone);
    assert_eq!(
        second,
        Reply::Attached {
            handle: 0,
            is_met: true
        }
    );
    world.send(phone, 0, b"hello");
    world.send(host, 7, b"good day");
    assert_eq!(world.read(host), [data(7, b"hello")]);
    assert_eq!(world.read(phone), [data(0, b"good day")]);
}

#[test]
fn messages_may_follow_an_attach_before_it_is_answered() {
    let mut world = World::new();
    let host = world.attached(1, 1, End::Host);
    let phone = world.connect();
    let attach = Request::Attach {
        handle: 1,
        stream: stream(1),
        end: End::Phone,
    };
    world.ask(phone, attach);
    world.send(phone, 1, b"at once");
    assert_eq!(world.read(host), [data(1, b"at once")]);
}

#[test]
fn the_newest_reader_of_an_end_takes_over() {
    let mut world = World::new();
    let phone = world.attached(1, 1, End::Phone);
    let older = world.attached(5, 1, End::Host);
    world.send(phone, 1, b"for the newest");
    let newer = world.attached(6, 1, End::Host);
    assert_eq!(world.read(older), [ended(5, Code::TakenOver)]);
    assert_eq!(world.read(newer), [data(6, b"for the newest")]);
    world.send(older, 5, b"from the older");
    assert_eq!(world.read(older), [ended(5, Code::BadRequest)]);
    assert_eq!(world.read(phone), []);
    world.send(newer, 6, b"from the newer");
    assert_eq!(world.read(phone), [data(1, b"from the newer")]);
}

#[test]
fn a_client_takes_over_from_itself() {
    let mut world = World::new();
    let phone = world.attached(1, 1, End::Phone);
    let attach = Request::Attach {
        handle: 2,
        stream: stream(1),
        end: End::Phone,
    };
    world.ask(phone, attach);
    let met = Reply::Attached {
        handle: 2,
        is_met: false,
    };
    assert_eq!(world.read(phone), [ended(1, Code::TakenOver), met]);
    assert_eq!(world.relay.counts().ends, 1);
}

#[test]
fn a_handle_in_use_is_refused_and_goes_on_as_it_was() {
    let mut world = World::new();
    let host = world.attached(1, 1, End::Host);
    let phone = world.attached(1, 1, End::Phone);
    let refused = world.attach(host, 1, 2, End::Host);
    assert_eq!(refused, ended(1, Code::BadRequest));
    world.send(phone, 1, b"still there");
    assert_eq!(world.read(host), [data(1, b"still there")]);
}

#[test]
fn an_unknown_handle_is_refused() {
    let mut world = World::new();
    let host = world.attached(1, 1, End::Host);
    world.send(host, 2, b"to whom");
    world.ask(host, Request::Detach { handle: 3 });
    let refused = [ended(2, Code::BadRequest), ended(3, Code::BadRequest)];
    assert_eq!(world.read(host), refused);
}

#[test]
fn the_third_bad_signature_closes_the_connection() {
    let mut world = World::new();
    let host = world.attached(1, 1, End::Host);
    let phone = world.attached(1, 1, End::Phone);
    let forged = || Request::Refused {
        handle: 9,
        code: Code::BadSignature,
    };
    world.ask(host, forged());
    world.ask(host, forged());
    let refused = [ended(9, Code::BadSignature), ended(9, Code::BadSignature)];
    assert_eq!(world.read(host), refused);
    world.send(phone, 1, b"nothing else has changed");
    assert_eq!(world.read(host).len(), 1);
    assert_eq!(world.ask(host, forged()), Pace::Closed);
    assert_eq!(world.closed, [host]);
    world.send(phone, 1, b"waits now");
    assert_eq!(world.waits(), 1);
}

#[test]
fn a_deleted_stream_ends_at_both_ends_with_all_that_waits() {
    let mut world = World::new();
    let host = world.attached(1, 1, End::Host);
    let phone = world.attached(2, 1, End::Phone);
    world.send(phone, 2, b"unread");
    let stream = stream(1);
    world.ask(host, Request::Delete { stream });
    assert_eq!(world.read(host), [ended(1, Code::Deleted)]);
    assert_eq!(world.read(phone), [ended(2, Code::Deleted)]);
    let counts = world.relay.counts();
    assert_eq!((counts.streams, counts.queued_bytes), (0, 0));
    world.ask(host, Request::Delete { stream });
    assert_eq!(world.read(host), [], "there is none any more");
}

#[test]
fn who_detaches_or_disconnects_is_met_no_more() {
    let mut world = World::new();
    let host = world.attached(1, 1, End::Host);
    let is_met = |met: bool| Reply::Attached {
        handle: 4,
        is_met: met,
    };
    let phone = world.connect();
    assert_eq!(world.attach(phone, 4, 1, End::Phone), is_met(true));
    world.ask(phone, Request::Detach { handle: 4 });
    world.ask(host, Request::Detach { handle: 1 });
    assert_eq!(world.attach(phone, 4, 1, End::Phone), is_met(false));
    world.close(phone);
    assert_eq!(world.relay.counts().streams, 0);
}

#[test]
fn a_connection_that_attaches_nothing_in_time_is_closed() {
    let mut world = World::new();
    let attached = world.attached(1, 1, End::Host);
    let silent = world.connect();
    assert_eq!(world.relay.next_tick(), Some(Duration::from_secs(10)));
    world.pass(9);
    assert_eq!(world.closed, []);
    world.pass(1);
    assert_eq!(world.closed, [silent]);
    assert!(world.events.contains(&Event::Silent));
    assert_eq!(world.attach(attached, 2, 2, End::Host), {
        Reply::Attached {
            handle: 2,
            is_met: false,
        }
    });
    assert_eq!(world.relay.next_tick(), Some(Duration::from_secs(60)));
}

#[test]
fn a_connection_that_has_left_its_last_stream_is_closed_after_a_minute() {
    let mut world = World::new();
    let (idle, back) = (
        world.attached(1, 1, End::Host),
        world.attached(1, 2, End::Host),
    );
    world.pass(1);
    for client in [idle, back] {
        world.ask(client, Request::Detach { handle: 1 });
    }
    world.pass(59);
    world.attach(back, 2, 2, End::Host);
    world.ask(idle, Request::Ping);
    assert_eq!(world.closed, []);
    world.pass(1);
    assert_eq!(world.closed, [idle]);
    assert!(world.events.contains(&Event::Silent));
}

#[test]
fn a_ping_is_answered() {
    let mut world = World::new();
    let phone = world.attached(1, 1, End::Phone);
    world.ask(phone, Request::Ping);
    assert_eq!(world.read(phone), [Reply::Pong]);
}

#[test]
fn a_connection_of_which_nothing_comes_any_more_is_sent_a_ping_and_then_closed() {
    let mut world = World::new();
    let gone = world.attached(1, 1, End::Host);
    let quiet = world.attached(1, 1, End::Phone);
    let busy = world.attached(1, 2, End::Phone);
    world.pass(59);
    world.ask(busy, Request::Ping);
    assert_eq!(world.read(busy), [Reply::Pong]);
    world.pass(1);
    assert_eq!(world.read(gone), [Reply::Ping]);
    assert_eq!(world.read(quiet), [Reply::Ping]);
    world.pass(1);
    world.ask(quiet, Request::Pong);
    world.pass(28);
    assert_eq!(world.closed, []);
    world.pass(1);
    assert_eq!(world.closed, [gone]);
    world.send(quiet, 1, b"to the host that is gone");
    assert_eq!(world.waits(), 1);
    assert_eq!(world.read(busy), []);
}
