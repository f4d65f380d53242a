//! One connection: requests, heartbeats, endings, and an other side that misbehaves.

use longhand_proto::Code;
use longhand_proto::link::{Hello, LinkFrame, Ping, Request, Response, link_frame::Body, response};
use prost::Message;

use super::*;
use crate::core::requests::refusal;

/// A host's session whose other end the test plays itself, frame by frame.
struct Puppet {
    established: Established,
    host: End,
    sequence: u64,
}

impl Puppet {
    fn new() -> Puppet {
        let mut host = End::new(Side::Host, HOST);
        let (established, host_side) = handshake(PHONE);
        host.session = Some(Session::new(host_side, &host.requests, 0));
        let mut puppet = Puppet {
            established,
            host,
            sequence: 0,
        };
        assert!(matches!(puppet.received()[..], [Body::Hello(_)]));
        puppet
    }

    fn greeted() -> Puppet {
        let mut puppet = Puppet::new();
        puppet.say(hello(PHONE));
        puppet
    }

    fn say(&mut self, body: Body) {
        let sequence = self.sequence;
        self.say_frame(LinkFrame {
            version: VERSION.into(),
            sequence,
            body: Some(body),
        });
    }

    fn say_frame(&mut self, frame: LinkFrame) {
        self.sequence = frame.sequence + 1;
        for record in self
            .established
            .transport
            .seal(&frame.encode_to_vec())
            .unwrap()
        {
            self.host.receive(&record, 0);
        }
    }

    fn received(&mut self) -> Vec<Body> {
        let frames = self.host.records().into_iter().filter_map(|record| {
            let frame = self.established.transport.open(&record, 1 << 24).unwrap()?;
            LinkFrame::decode(frame.as_slice()).unwrap().body
        });
        frames.collect()
    }

    /// The code with which the host ended the session, on its side and in the `Close` that it sent.
    fn ended(&mut self) -> CloseReason {
        let reason = self.host.closed().cloned().expect("the session goes on");
        let received = self.received();
        let Some(Body::Close(close)) = received.last() else {
            panic!("no Close: {received:?}")
        };
        assert_eq!(
            (close.code.as_str(), &close.message),
            (reason.code.as_str(), &reason.message)
        );
        assert_eq!(self.host.session.as_ref().unwrap().next_timeout_ms(), None);
        reason
    }
}

fn hello(instance: Instance) -> Body {
    let instance = instance.0.to_vec();
    let (agent, open_requests) = ("test".into(), Vec::new());
    Body::Hello(Hello {
        agent,
        instance,
        heartbeat_ms: 10_000,
        open_requests,
        greeting: Vec::new(),
    })
}

fn request(id: u64, kind: &str) -> Body {
    Body::Request(Request {
        id,
        kind: kind.into(),
        payload: vec![1, 2, 3],
    })
}

#[test]
fn both_sides_ask_at_once_and_answers_come_in_any_order() {
    let mut world = World::connected();
    let commands: Vec<_> = (0..3)
        .map(|n| world.phone.ask("command", &[n, 0]))
        .collect();
    let signing = world.host.ask("signer", b"sign");
    world.run();
    assert_eq!((&commands[..], signing), (&[1, 3, 5][..], 2));
    world.host.answer_all();
    world.phone.answer_all();
    world.run();
    let order: Vec<_> = world.phone.events.iter().filter_map(answered).collect();
    assert_eq!(order, [5, 3, 1]);
    assert_eq!(world.phone.answers[&3], Ok(vec![0, 1]));
    assert_eq!(world.host.answers[&2], Ok(b"ngis".to_vec()));
}

fn answered(event: &Event) -> Option<u64> {
    match event {
        Event::Answered { id, .. } => Some(*id),
        _ => None,
    }
}

#[test]
fn a_refusal_reaches_who_asked() {
    let mut world = World::connected();
    let id = world.phone.ask("command", b"x");
    world.run();
    world
        .host
        .answer(PHONE, id, Err(refusal(Code::SignerAway, "not now")));
    world.run();
    let expected = LinkError::Refused {
        code: Code::SignerAway.into(),
        message: "not now".into(),
    };
    assert_eq!(world.phone.answers[&id], Err(expected));
}

#[test]
fn requests_of_an_unknown_kind_are_refused_by_name() {
    let mut world = World::connected();
    let id = world.phone.ask("poem", b"x");
    world.run();
    assert!(
        matches!(&world.phone.answers[&id], Err(LinkError::Refused { code, .. }) if *code == Code::UnknownKind)
    );
    assert!(world.host.executed.is_empty());
}

#[test]
fn too_many_requests_at_once_are_refused_and_the_others_go_on() {
    let config = Config {
        max_in_flight: 2,
        ..Config::new("test", &["command"])
    };
    let mut world = World::of(
        End::new(Side::Phone, PHONE),
        End::with(Side::Host, HOST, config),
    );
    world.connect();
    world.run();
    for n in 0..3 {
        world.phone.ask("command", &[n]);
    }
    world.run();
    assert!(
        matches!(&world.phone.answers[&5], Err(LinkError::Refused { code, .. }) if *code == Code::Busy)
    );
    world.host.answer_all();
    world.run();
    assert_eq!(world.phone.answers[&1], Ok(vec![0]));
    assert_eq!(world.phone.answers[&3], Ok(vec![1]));
}

#[test]
fn requests_in_execution_take_only_so_much_memory() {
    let config = Config {
        max_in_flight_bytes: 10,
        ..Config::new("test", &["command"])
    };
    let mut world = World::of(
        End::new(Side::Phone, PHONE),
        End::with(Side::Host, HOST, config),
    );
    world.connect();
    world.run();
    // One alone is taken whatever its size; the next waits for room.
    let [large, next] = [[1; 12], [2; 12]].map(|bytes| world.phone.ask("command", &bytes));
    world.run();
    assert!(
        matches!(&world.phone.answers[&next], Err(LinkError::Refused { code, .. }) if *code == Code::Busy)
    );
    world.host.answer_all();
    world.run();
    assert_eq!(world.phone.answers[&large], Ok(vec![1; 12]));
    let again = world.phone.ask("command", &[3; 12]);
    world.run();
    world.host.answer_all();
    world.run();
    assert_eq!(world.phone.answers[&again], Ok(vec![3; 12]));
}

#[test]
fn a_request_that_comes_twice_is_executed_once() {
    let mut puppet = Puppet::greeted();
    puppet.say(request(1, "command"));
    puppet.say(request(1, "command"));
    assert_eq!(puppet.host.executed[&1], 1);
    puppet.host.answer_all();
    puppet.say(request(1, "command"));
    let answers: Vec<_> = puppet.received();
    assert_eq!(answers.len(), 2, "one when it was done, one from memory");
    assert_eq!(answers[0], answers[1]);
    assert_eq!(puppet.host.executed[&1], 1);
}

#[test]
fn an_answer_that_comes_twice_is_heard_once() {
    let mut puppet = Puppet::greeted();
    let id = puppet.host.ask("signer", b"sign");
    let answer = |payload: &[u8]| {
        Body::Response(Response {
            id,
            result: Some(response::Result::Payload(payload.to_vec())),
        })
    };
    puppet.say(answer(b"signed"));
    puppet.say(answer(b"another"));
    let received = puppet.host.events.iter().filter_map(answered);
    assert_eq!(received.collect::<Vec<_>>(), [id]);
    assert_eq!(puppet.host.answers[&id], Ok(b"signed".to_vec()));
    assert_eq!(puppet.host.closed(), None);
}

#[test]
fn an_answer_that_is_no_longer_kept_is_not_computed_again() {
    let mut puppet = Puppet::greeted();
    for n in 0..300 {
        puppet.say(request(2 * n + 1, "command"));
        puppet.host.answer_all();
    }
    puppet.received();
    puppet.say(request(1, "command"));
    let received = puppet.received();
    let [Body::Response(response)] = &received[..] else {
        panic!("{received:?}")
    };
    let Some(longhand_proto::link::response::Result::Error(error)) = &response.result else {
        panic!()
    };
    assert_eq!(error.code, Code::Forgotten);
    assert_eq!(puppet.host.executed[&1], 1);
}

#[test]
fn a_cancel_reaches_the_other_side_and_the_answer_is_left_out() {
    let mut world = World::connected();
    let id = world.phone.ask("command", b"x");
    world.run();
    assert!(world.phone.requests.withdraw(id));
    world.phone.session.as_mut().unwrap().cancel(id, 0);
    world.run();
    assert!(
        world
            .host
            .events
            .contains(&Event::Cancelled { remote: PHONE, id })
    );
    world.host.answer_all();
    assert!(world.host.records().is_empty());
}

#[test]
fn silence_brings_a_ping_and_a_pong_keeps_the_session() {
    let mut world = World::connected();
    assert_eq!(
        world.phone.session.as_ref().unwrap().next_timeout_ms(),
        Some(10_000)
    );
    for now_ms in (10_000..200_000).step_by(10_000) {
        world.tick(now_ms);
    }
    assert_eq!((world.phone.closed(), world.host.closed()), (None, None));
}

#[test]
fn on_an_idle_link_only_the_phone_pings() {
    let mut world = World::connected();
    for now_ms in (10_000..200_000).step_by(10_000) {
        // The side whose ping is due first, by the deadlines of both.
        let due_ms = |end: &End| end.session.as_ref().unwrap().next_timeout_ms();
        assert_eq!(due_ms(&world.phone), Some(now_ms));
        assert_eq!(due_ms(&world.host), Some(now_ms + 1_000));
        world.tick(now_ms);
    }
}

#[test]
fn a_phone_that_waits_for_hello_does_not_ping_before_its_own() {
    let mut world = World::new();
    world.connect();
    let session = world.phone.session.as_mut().unwrap();
    let next_timeout_ms = session.next_timeout_ms().unwrap();
    session.tick(next_timeout_ms - 1);
    world.run();
    assert!(world.phone.session.as_ref().unwrap().is_open());
    assert!(world.host.session.as_ref().unwrap().is_open());
}

#[test]
fn two_missed_heartbeats_end_the_session() {
    let mut world = World::connected();
    let phone = world.phone.session.as_mut().unwrap();
    phone.tick(10_000);
    phone.tick(20_000);
    phone.tick(24_999);
    assert!(phone.is_open());
    phone.tick(25_000);
    world.phone.take_events();
    assert_eq!(world.phone.close_code(), Some(CloseCode::Dead));
    world.run();
    assert_eq!(world.host.close_code(), Some(CloseCode::Dead));
    assert!(world.host.closed().unwrap().by_peer);
}

#[test]
fn a_side_with_a_slower_heartbeat_is_given_its_time() {
    let slow = std::time::Duration::from_secs(60);
    let config = Config {
        heartbeat: slow,
        ..Config::new("test", &["command"])
    };
    let mut world = World::of(
        End::new(Side::Phone, PHONE),
        End::with(Side::Host, HOST, config),
    );
    world.connect();
    world.run();
    let phone = world.phone.session.as_mut().unwrap();
    phone.tick(149_999);
    assert!(phone.is_open());
    phone.tick(150_000);
    assert!(!phone.is_open());
}

#[test]
fn a_side_that_detaches_is_let_go_after_the_step_in_hand() {
    let mut world = World::connected();
    let id = world.host.ask("signer", b"last");
    world.run();
    world.phone.session.as_mut().unwrap().detach(0);
    world.run();
    assert!(world.host.events.contains(&Event::DetachRequested));
    world.phone.answer_all();
    world.run();
    assert!(world.host.answers.contains_key(&id));
    world.host.session.as_mut().unwrap().confirm_detach(0);
    world.host.take_events();
    world.run();
    assert_eq!(world.phone.close_code(), Some(CloseCode::Detached));
    assert_eq!(world.host.close_code(), Some(CloseCode::Detached));
}

#[test]
fn a_close_says_its_code_and_its_reason() {
    let mut world = World::connected();
    world
        .host
        .session
        .as_mut()
        .unwrap()
        .close(CloseCode::Shutdown, "upgrading\nnow", 0);
    world.run();
    let reason = world.phone.closed().unwrap();
    assert_eq!(
        (&reason.code, reason.message.as_str()),
        (&CloseCode::Shutdown, "upgrading now")
    );
    assert!(world.phone.ask("command", b"x") > 0);
    world.phone.take_events();
    assert!(world.phone.records().is_empty(), "nothing follows a close");
}

#[test]
fn a_session_that_was_refused_before_hello_says_why() {
    let (phone, mut host) = handshake(PHONE);
    let mut end = End::new(Side::Phone, PHONE);
    end.session = Some(Session::new(phone, &end.requests, 0));
    let records = super::super::session::refuse(&mut host, CloseCode::PairingUsed, "used");
    end.receive(&records.unwrap()[0], 0);
    assert_eq!(end.close_code(), Some(CloseCode::PairingUsed));
}

#[test]
fn a_record_that_is_garbage_changed_cut_or_repeated_ends_the_session() {
    let spoil: [fn(&mut Vec<u8>); 4] = [
        |record| *record = vec![0xff; 99],
        |record| record[3] ^= 1,
        |record| record.truncate(record.len() - 1),
        Vec::clear,
    ];
    for (case, spoil) in spoil.into_iter().enumerate() {
        let mut world = World::connected();
        world.phone.ask("command", b"x");
        world.collect();
        spoil(&mut world.to_host[0]);
        world.run();
        assert_eq!(
            world.host.close_code(),
            Some(CloseCode::Protocol),
            "case {case}"
        );
        assert!(
            world
                .host
                .closed()
                .unwrap()
                .message
                .contains("cannot be decrypted")
        );
        assert_eq!(
            world.phone.close_code(),
            Some(CloseCode::Protocol),
            "the phone gets the code"
        );
    }
    let mut world = World::connected();
    world.phone.ask("command", b"x");
    world.collect();
    let record = world.to_host[0].clone();
    world.to_host.push_back(record);
    world.run();
    assert_eq!(world.host.executed[&1], 1);
    assert_eq!(
        world.host.close_code(),
        Some(CloseCode::Protocol),
        "replayed"
    );
}

#[test]
fn records_out_of_order_end_the_session() {
    let mut world = World::connected();
    world.phone.ask("command", b"x");
    world.phone.ask("command", b"y");
    world.collect();
    world.to_host.swap(0, 1);
    world.run();
    assert_eq!(world.host.close_code(), Some(CloseCode::Protocol));
    assert!(world.host.executed.is_empty());
}

#[test]
fn a_frame_out_of_sequence_ends_the_session() {
    let mut puppet = Puppet::greeted();
    puppet.say_frame(LinkFrame {
        version: VERSION.into(),
        sequence: 5,
        body: None,
    });
    assert!(
        puppet
            .ended()
            .message
            .contains("frame 5 came when frame 1 was due")
    );
}

#[test]
fn a_frame_of_another_version_is_answered_with_version() {
    let mut puppet = Puppet::greeted();
    puppet.say_frame(LinkFrame {
        version: 9,
        sequence: 1,
        body: Some(request(1, "command")),
    });
    assert_eq!(puppet.ended().code, CloseCode::Version);
}

#[test]
fn a_kind_of_frame_from_the_future_is_left_out() {
    let mut puppet = Puppet::greeted();
    puppet.say_frame(LinkFrame {
        version: VERSION.into(),
        sequence: 1,
        body: None,
    });
    puppet.say(Body::Ping(Ping { nonce: 7 }));
    assert!(matches!(puppet.received()[..], [Body::Pong(_)]));
}

#[test]
fn requests_before_hello_two_hellos_and_foreign_ids_end_the_session() {
    let mut early = Puppet::new();
    early.say(request(1, "command"));
    assert!(early.ended().message.contains("Hello"));

    let mut twice = Puppet::greeted();
    twice.say(hello(PHONE));
    assert!(twice.ended().message.contains("twice"));

    for id in [0, 2] {
        let mut foreign = Puppet::greeted();
        foreign.say(request(id, "command"));
        assert!(foreign.ended().message.contains("not the other side's"));
    }
}

#[test]
fn a_hello_that_contradicts_the_handshake_ends_the_session() {
    for instance in [Instance([1; 16]), HOST] {
        let mut puppet = Puppet::new();
        puppet.say(hello(instance));
        assert_eq!(puppet.ended().code, CloseCode::Protocol);
        assert_eq!(puppet.host.requests.remote(), None, "nothing was changed");
    }
}

#[test]
fn a_frame_that_is_decrypted_but_makes_no_sense_ends_the_session() {
    let mut puppet = Puppet::greeted();
    let record = puppet
        .established
        .transport
        .seal(&[0xff; 40])
        .unwrap()
        .remove(0);
    puppet.host.receive(&record, 0);
    assert!(puppet.ended().message.contains("is no frame"));
}

#[test]
fn large_messages_are_split_and_come_whole() {
    let mut world = World::connected();
    let payload: Vec<u8> = (0..1_000_000u32).map(|n| n as u8).collect();
    let id = world.phone.ask("command", &payload);
    world.collect();
    assert_eq!(world.to_host.len(), 16);
    assert!(
        world
            .to_host
            .iter()
            .all(|record| record.len() <= crate::carrier::MAX_RECORD)
    );
    world.run();
    world.host.answer_all();
    world.run();
    let reversed: Vec<u8> = payload.into_iter().rev().collect();
    assert_eq!(world.phone.answers[&id], Ok(reversed));
}

#[test]
fn messages_above_the_limit_are_refused_where_they_are_made() {
    let mut world = World::connected();
    let too_large = world.phone.requests.ask("command", vec![0; 4 << 20]);
    assert!(matches!(too_large, Err(LinkError::TooLarge { .. })));
    let id = world.phone.ask("command", b"x");
    world.run();
    world.host.answer(PHONE, id, Ok(vec![0; 4 << 20]));
    world.run();
    assert!(
        matches!(&world.phone.answers[&id], Err(LinkError::Refused { code, .. }) if *code == Code::TooLarge)
    );
}

#[test]
fn a_frame_above_the_limit_ends_the_session_before_it_is_gathered() {
    let config = Config {
        max_frame: 100_000,
        ..Config::new("test", &["command"])
    };
    let mut world = World::of(
        End::new(Side::Phone, PHONE),
        End::with(Side::Host, HOST, config),
    );
    world.connect();
    world.run();
    world.phone.ask("command", &[0; 1_000_000]);
    world.run();
    assert!(
        world
            .host
            .closed()
            .unwrap()
            .message
            .contains("larger than 100000 bytes")
    );
    assert_eq!(world.phone.close_code(), Some(CloseCode::Protocol));
}
