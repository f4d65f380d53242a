//! Requests across connections that break, at every record.

use longhand_proto::Code;

use super::*;

/// The time at which the executing side answers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Answers {
    /// As soon as a request arrives.
    AtOnce,
    /// While there is no connection.
    WhileDown,
    /// When the next connection is there, before `Hello`.
    Connecting,
    /// When everything else has settled.
    Late,
}

/// Three commands and two signer batches; the connection breaks before record `cut`. Returns how many records
/// went over the first connection.
fn exchange(cut: usize, answers: Answers) -> usize {
    let mut world = World::new();
    world.connect();
    world.phone.ask("command", b"early");
    let mut delivered = 0;
    let mut asked = false;
    while delivered < cut && world.deliver_one() {
        delivered += 1;
        if !asked && world.host.requests.remote().is_some() {
            asked = true;
            world.phone.ask("command", b"second");
            world.host.ask("signer", b"batch");
        }
        if answers == Answers::AtOnce {
            world.host.answer_all();
            world.phone.answer_all();
        }
    }
    world.drop_connection();
    world.phone.ask("command", b"while away");
    if answers == Answers::WhileDown {
        world.host.answer_all();
        world.phone.answer_all();
    }
    world.connect();
    if answers == Answers::Connecting {
        world.host.answer_all();
        world.phone.answer_all();
    }
    world.run();
    for _ in 0..3 {
        world.host.answer_all();
        world.phone.answer_all();
        world.run();
    }
    let context = format!("cut at {cut}, answers {answers:?}");
    check(&world.phone, &world.host, &context);
    check(&world.host, &world.phone, &context);
    assert_eq!(
        (world.phone.closed().map(|r| &r.code)),
        Some(&CloseCode::Lost),
        "{context}"
    );
    delivered
}

/// Checks that every request was executed once and answered.
fn check(asker: &End, executor: &End, context: &str) {
    assert!(
        executor.executed.values().all(|times| *times == 1),
        "{context}: {:?}",
        executor.executed
    );
    assert_eq!(asker.answers.len(), executor.executed.len(), "{context}");
    assert!(
        asker.answers.values().all(Result::is_ok),
        "{context}: {:?}",
        asker.answers
    );
}

#[test]
fn a_connection_that_breaks_at_any_record_loses_nothing_and_repeats_nothing() {
    let all = [
        Answers::AtOnce,
        Answers::WhileDown,
        Answers::Connecting,
        Answers::Late,
    ];
    for answers in all {
        let longest = exchange(usize::MAX, answers);
        assert!(longest >= 5, "the exchange takes {longest} records");
        for cut in 0..longest {
            exchange(cut, answers);
        }
    }
}

#[test]
fn a_connection_that_breaks_many_times_in_a_row_gets_there_in_the_end() {
    let mut world = World::new();
    for n in 0..8u8 {
        world.phone.ask("command", &[n]);
        world.host.ask("signer", &[n]);
    }
    for records in 0..30 {
        world.connect();
        for _ in 0..records {
            world.deliver_one();
            world.host.answer_all();
            world.phone.answer_all();
        }
        world.drop_connection();
    }
    world.connect();
    world.run();
    check(&world.phone, &world.host, "phone");
    check(&world.host, &world.phone, "host");
    assert_eq!(world.phone.answers.len(), 8);
    assert_eq!(world.host.answers.len(), 8);
}

#[test]
fn a_request_in_execution_is_not_sent_again() {
    let mut world = World::connected();
    let payload = vec![7; 100_000];
    let id = world.phone.ask("command", &payload);
    world.run();
    world.drop_connection();
    world.connect();
    let mut bytes = 0;
    loop {
        world.collect();
        bytes += world.to_host.iter().map(Vec::len).sum::<usize>();
        if !world.deliver_one() {
            break;
        }
    }
    assert!(bytes < 10_000, "{bytes} bytes went to the host");
    world.host.answer_all();
    world.run();
    assert_eq!(world.phone.answers[&id], Ok(payload));
}

#[test]
fn an_open_session_says_whether_it_goes_on() {
    let mut world = World::connected();
    world.drop_connection();
    world.connect();
    world.run();
    let opened = world.host.events.iter().filter_map(|event| match event {
        Event::Open {
            resumed, remote, ..
        } => Some((*resumed, *remote)),
        _ => None,
    });
    let opened: Vec<_> = opened.collect();
    assert_eq!(opened, [(false, PHONE), (true, PHONE)]);
}

#[test]
fn after_a_restart_of_the_other_side_what_was_sent_is_given_back_and_the_rest_goes_on() {
    let mut world = World::connected();
    let sent = world.phone.ask("command", b"sent");
    world.run();
    world.drop_connection();
    let unsent = world.phone.ask("command", b"unsent");
    world.host = End::new(Side::Host, Instance([0xcc; 16]));
    world.connect();
    world.run();
    assert_eq!(world.phone.answers[&sent], Err(LinkError::Restarted));
    world.host.answer_all();
    world.run();
    assert_eq!(world.phone.answers[&unsent], Ok(b"tnesnu".to_vec()));
    assert_eq!(world.host.executed.len(), 1);
}

#[test]
fn answers_for_a_process_that_is_gone_are_not_given_to_another() {
    let mut world = World::connected();
    world.phone.ask("command", b"first process");
    world.run();
    world.drop_connection();
    world.phone = End::new(Side::Phone, Instance([0xdd; 16]));
    world.connect();
    world.run();
    let id = world.phone.ask("command", b"2");
    assert_eq!(id, 1, "the same id as the other process used");
    world.run();
    world.host.answer_all();
    world.run();
    assert_eq!(world.phone.answers[&id], Ok(b"2".to_vec()));
}

#[test]
fn a_process_that_comes_back_after_another_one_still_has_its_answers() {
    let mut world = World::connected();
    let id = world.phone.ask("command", b"ab");
    world.run();
    world.drop_connection();
    let first = std::mem::replace(
        &mut world.phone,
        End::new(Side::Phone, Instance([0xdd; 16])),
    );
    world.connect();
    world.run();
    world.host.answer_all();
    world.drop_connection();
    world.phone = first;
    world.connect();
    world.run();
    assert_eq!(world.phone.answers[&id], Ok(b"ba".to_vec()));
    assert_eq!(world.host.executed[&id], 1);
}

#[test]
fn requests_of_processes_long_gone_are_cancelled() {
    let mut world = World::connected();
    let id = world.phone.ask("command", b"x");
    world.run();
    for n in 0..4 {
        world.drop_connection();
        world.phone = End::new(Side::Phone, Instance([n; 16]));
        world.connect();
        world.run();
    }
    assert!(
        world
            .host
            .events
            .contains(&Event::Cancelled { remote: PHONE, id })
    );
}

#[test]
fn answers_that_both_sides_have_settled_are_let_go_and_never_computed_again() {
    let mut world = World::connected();
    let id = world.phone.ask("command", b"x");
    world.run();
    world.host.answer_all();
    world.drop_connection();
    world.host.requests.forget_answers();
    world.connect();
    world.run();
    let forgotten = |code: &str| code == Code::Forgotten;
    assert!(
        matches!(&world.phone.answers[&id], Err(LinkError::Refused { code, .. }) if forgotten(code))
    );
    assert_eq!(world.host.executed[&id], 1);
}

#[test]
fn an_answer_that_was_promised_and_is_no_longer_kept_is_told_to_be_forgotten() {
    let mut world = World::connected();
    let id = world.phone.ask("command", b"x");
    world.run();
    world.drop_connection();
    world.connect();
    // The host has listed the request as open. Then it is answered, and other answers take its place.
    world.host.answer_all();
    world.host.requests.forget_answers();
    world.run();
    let answer = &world.phone.answers[&id];
    assert!(
        matches!(answer, Err(LinkError::Refused { code, .. }) if *code == Code::Forgotten),
        "{answer:?}"
    );
    assert_eq!(world.host.executed[&id], 1);
}
