//! Trunks of a host and of a phone, with a mailbox between them that is played here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use longhand_proto::Code;
use longhand_proto::mailbox::{
    ClientMessage, Data, Ended, Ping, Pong, ServerMessage, Welcome, client_message, server_message,
};
use prost::Message;

use tokio::time::Duration;

use super::packet::{Body, Packet, WINDOW};
use super::pump::{Pump, User};
use super::stream::{End, Permit, StreamId, StreamKey};
use super::trunk::{Event, Line, Trunk, TrunkError};
use crate::{Carrier, CarrierError, PairingSecret, Rendezvous};

const NONCE: [u8; 32] = [9; 32];

fn key(secret: u8) -> StreamKey {
    let secret = PairingSecret::from_bytes([secret; 16]);
    StreamKey::new(&Rendezvous::of_pairing(&secret), "relay:1")
}

fn server(body: server_message::Body) -> Vec<u8> {
    ServerMessage { body: Some(body) }.encode_to_vec()
}

fn welcome() -> Vec<u8> {
    server(server_message::Body::Welcome(Welcome {
        version: 1,
        nonce: NONCE.to_vec(),
        has_routes: false,
    }))
}

/// A trunk that the mailbox has answered, with one attached stream, and its handle.
fn attached(end: End) -> (Trunk, u32) {
    let mut trunk = Trunk::new(end, 0);
    let handle = trunk.attach(key(1));
    trunk.receive(&welcome(), 0).unwrap();
    assert_eq!(trunk.poll_event(), Some(Event::Ready { has_routes: false }));
    (trunk, handle)
}

fn sent(trunk: &mut Trunk) -> Vec<client_message::Body> {
    let messages = std::iter::from_fn(|| trunk.poll_message());
    messages
        .map(|bytes| ClientMessage::decode(&*bytes).unwrap().body.unwrap())
        .collect()
}

/// The packets among what a trunk has sent.
fn packets(trunk: &mut Trunk) -> Vec<Packet> {
    let data = sent(trunk).into_iter().filter_map(|body| match body {
        client_message::Body::Data(data) => Packet::decode(&data.payload),
        _ => None,
    });
    data.collect()
}

fn deliver(trunk: &mut Trunk, handle: u32, packet: &Packet) {
    let payload = packet.encode();
    let data = server(server_message::Body::Data(Data { handle, payload }));
    trunk.receive(&data, 0).unwrap();
}

fn events(trunk: &mut Trunk) -> Vec<Event> {
    std::iter::from_fn(|| trunk.poll_event()).collect()
}

/// A packet of the phone that opens a connection, and its line at the host.
fn opening(handle: u32, connection: [u8; 8]) -> (Packet, Line) {
    let body = Body::Open(vec![1]);
    let packet = Packet { connection, body };
    (packet, Line { handle, connection })
}

/// Moves the packets of each trunk to the other, until neither has any.
fn exchange(phone: (&mut Trunk, u32), host: (&mut Trunk, u32)) {
    loop {
        let (to_host, to_phone) = (packets(phone.0), packets(host.0));
        if to_host.is_empty() && to_phone.is_empty() {
            return;
        }
        to_host.iter().for_each(|it| deliver(host.0, host.1, it));
        to_phone.iter().for_each(|it| deliver(phone.0, phone.1, it));
    }
}

#[test]
fn nothing_is_sent_before_the_mailbox_has_given_its_nonce_and_then_all_is_signed_for_it() {
    let mut trunk = Trunk::new(End::Host, 0);
    let early = trunk.attach(key(1));
    assert_eq!(sent(&mut trunk), []);
    trunk.receive(&welcome(), 0).unwrap();
    let late = trunk.attach(key(2));
    let attaches: Vec<_> = sent(&mut trunk)
        .into_iter()
        .map(|body| match body {
            client_message::Body::Attach(attach) => attach,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        attaches.iter().map(|it| it.handle).collect::<Vec<_>>(),
        [early, late]
    );
    for (attach, key) in attaches.iter().zip([key(1), key(2)]) {
        let public = attach.public_key.as_slice().try_into().unwrap();
        let signature = attach.signature.as_slice().try_into().unwrap();
        assert_eq!(StreamId::of(public), key.id());
        assert!(Permit::Attach(End::Host).is_signed(public, &NONCE, signature));
    }
}

#[test]
fn records_go_both_ways_in_a_connection_that_the_phone_opens() {
    let ((mut phone, to_host), (mut host, to_phone)) = (attached(End::Phone), attached(End::Host));
    let (sent_by_phone, connection) = (vec![vec![1], vec![2; 60_000]], [7; 8]);
    let line = Line {
        handle: to_host,
        connection,
    };
    phone.open(line);
    for record in &sent_by_phone {
        phone.record(line, record.clone());
    }
    exchange((&mut phone, to_host), (&mut host, to_phone));
    let at_host = Line {
        handle: to_phone,
        connection,
    };
    assert_eq!(
        events(&mut host),
        [
            Event::Opened(at_host),
            Event::Record(at_host, vec![1]),
            Event::Record(at_host, vec![2; 60_000]),
        ]
    );
    host.record(at_host, vec![3]);
    host.close(at_host);
    exchange((&mut phone, to_host), (&mut host, to_phone));
    assert_eq!(
        events(&mut phone),
        [Event::Record(line, vec![3]), Event::Closed(line)]
    );
}

#[test]
fn a_record_of_a_connection_that_this_process_does_not_know_closes_it_at_the_other_end() {
    let (mut host, handle) = attached(End::Host);
    sent(&mut host);
    for body in [Body::Record(vec![1]), Body::Credit(1)] {
        let connection = [1; 8];
        deliver(&mut host, handle, &Packet { connection, body });
        let body = Body::Close;
        assert_eq!(packets(&mut host), [Packet { connection, body }]);
    }
    assert_eq!(events(&mut host), []);
}

#[test]
fn an_end_that_sends_more_than_its_window_loses_the_connection() {
    let (mut host, handle) = attached(End::Host);
    let connection = [1; 8];
    let line = Line { handle, connection };
    let open = Packet {
        connection,
        body: Body::Open(vec![0; 60_000]),
    };
    deliver(&mut host, handle, &open);
    let record = Packet {
        connection,
        body: Body::Record(vec![0; 60_000]),
    };
    let fitting = WINDOW / 60_064 - 1;
    (0..fitting).for_each(|_| deliver(&mut host, handle, &record));
    host.credit(line, 60_064);
    deliver(&mut host, handle, &record);
    assert!(!events(&mut host).contains(&Event::Closed(line)));
    deliver(&mut host, handle, &record);
    assert_eq!(events(&mut host), [Event::Closed(line)]);
}

#[test]
fn a_third_connection_takes_the_place_of_the_oldest() {
    let (mut host, handle) = attached(End::Host);
    sent(&mut host);
    for connection in [[1; 8], [2; 8], [3; 8]] {
        let body = Body::Open(vec![0]);
        deliver(&mut host, handle, &Packet { connection, body });
    }
    let closed = Line {
        handle,
        connection: [1; 8],
    };
    assert!(events(&mut host).contains(&Event::Closed(closed)));
    let connection = [1; 8];
    let body = Body::Close;
    assert_eq!(packets(&mut host), [Packet { connection, body }]);
}

#[test]
fn a_phone_takes_no_connection_that_the_other_end_opens() {
    let (mut phone, handle) = attached(End::Phone);
    let connection = [1; 8];
    let body = Body::Open(vec![0]);
    deliver(&mut phone, handle, &Packet { connection, body });
    assert_eq!(events(&mut phone), []);
}

#[test]
fn a_stream_that_the_mailbox_ends_takes_its_connections_with_it() {
    let (mut host, handle) = attached(End::Host);
    let connection = [1; 8];
    let body = Body::Open(vec![0]);
    deliver(&mut host, handle, &Packet { connection, body });
    events(&mut host);
    let ended = Ended {
        handle,
        code: Code::TakenOver.into(),
        message: "a line\nand more".into(),
    };
    let ended = server(server_message::Body::Ended(ended));
    host.receive(&ended, 0).unwrap();
    let line = Line { handle, connection };
    let [Event::Ended { code, message, .. }, Event::Closed(closed)] = &events(&mut host)[..] else {
        panic!("the reason comes first, then the connection is closed");
    };
    assert_eq!((*closed, code.parse()), (line, Ok(Code::TakenOver)));
    assert!(!message.contains('\n'));
    // It is not known any more.
    host.receive(&ended, 0).unwrap();
    assert_eq!(events(&mut host), []);
}

#[test]
fn a_mailbox_that_breaks_the_protocol_or_falls_silent_is_left() {
    let mut trunk = Trunk::new(End::Host, 0);
    let ping = server(server_message::Body::Ping(Ping {}));
    assert!(matches!(
        trunk.receive(&ping, 0),
        Err(TrunkError::Protocol(_))
    ));
    assert_eq!(trunk.receive(b"\xff", 0), Err(TrunkError::Malformed));
    let newer = server(server_message::Body::Welcome(Welcome {
        version: 2,
        nonce: NONCE.to_vec(),
        has_routes: false,
    }));
    assert_eq!(trunk.receive(&newer, 0), Err(TrunkError::Version(2)));

    let (mut trunk, _) = attached(End::Host);
    assert!(matches!(
        trunk.receive(&welcome(), 0),
        Err(TrunkError::Protocol(_))
    ));
    sent(&mut trunk);
    let ping_ms = trunk.next_tick_ms();
    trunk.tick(ping_ms).unwrap();
    assert!(matches!(
        sent(&mut trunk)[..],
        [client_message::Body::Ping(_)]
    ));
    trunk.tick(trunk.next_tick_ms() - 1).unwrap();
    assert_eq!(sent(&mut trunk), []);
    trunk.tick(trunk.next_tick_ms()).unwrap();
    assert_eq!(trunk.next_tick_ms(), 25_000);
    assert_eq!(trunk.tick(25_000), Err(TrunkError::Dead));
}

/// As after SIGSTOP and SIGCONT: what has arrived meanwhile is read after the tick that is late.
#[test]
fn a_process_that_was_stopped_gives_the_mailbox_two_seconds_to_show_that_it_is_there() {
    const HOUR_MS: u64 = 3_600_000;
    for is_there in [true, false] {
        let (mut trunk, _) = attached(End::Host);
        sent(&mut trunk);
        trunk.tick(HOUR_MS).unwrap();
        assert!(matches!(
            sent(&mut trunk)[..],
            [client_message::Body::Ping(_)]
        ));
        let next_ms = HOUR_MS + 2_000;
        assert_eq!(trunk.next_tick_ms(), next_ms);
        if is_there {
            let pong = server(server_message::Body::Pong(Pong {}));
            trunk.receive(&pong, next_ms - 1).unwrap();
        }
        assert_eq!(trunk.tick(next_ms).is_ok(), is_there);
    }
}

#[test]
fn a_stream_is_left_when_its_last_connection_has_ended_and_takes_no_new_one_meanwhile() {
    let (mut host, handle) = attached(End::Host);
    let (open, line) = opening(handle, [7; 8]);
    deliver(&mut host, handle, &open);
    sent(&mut host);
    events(&mut host);
    host.leave(handle);
    assert_eq!(sent(&mut host), [], "the link in it goes on");
    let (late, _) = opening(handle, [8; 8]);
    deliver(&mut host, handle, &late);
    let refused = packets(&mut host);
    assert!(matches!(
        &refused[..],
        [Packet {
            connection: [8, ..],
            body: Body::Close
        }]
    ));
    host.close(line);
    let [
        client_message::Body::Data(_),
        client_message::Body::Delete(delete),
    ] = &sent(&mut host)[..]
    else {
        panic!("the connection is closed, then the stream is deleted");
    };
    let public = delete.public_key.as_slice().try_into().unwrap();
    let signature = delete.signature.as_slice().try_into().unwrap();
    assert!(Permit::Delete.is_signed(public, &NONCE, signature));
    assert_eq!(events(&mut host), [Event::Left(handle)]);
}

#[test]
fn a_stream_without_a_connection_is_left_at_once() {
    let (mut host, handle) = attached(End::Host);
    sent(&mut host);
    host.leave(handle);
    assert!(matches!(
        sent(&mut host)[..],
        [client_message::Body::Delete(_)]
    ));
}

/// Does what a phone's pump needs, and no more.
struct Nothing;

impl User for Nothing {
    const ENDS_WITH_CARRIERS: bool = true;

    async fn change(&mut self, _: &mut Trunk) -> Result<(), CarrierError> {
        std::future::pending().await
    }

    fn event(&mut self, _: &mut Trunk, _: Event) -> Result<(), CarrierError> {
        Ok(())
    }

    fn opened(&mut self, _: Line, _: Carrier) {}
}

/// A phone's carrier through a mailbox, and the mailbox's end of the connection below it.
fn dialled() -> (Carrier, Carrier) {
    let (near, mailbox) = Carrier::pair();
    let mut pump = Pump::new(End::Phone);
    let handle = pump.trunk.attach(key(1));
    let line = Line {
        handle,
        connection: [7; 8],
    };
    pump.trunk.open(line);
    let carrier = pump.connect(line);
    tokio::spawn(async move { pump.run(near, &mut Nothing).await });
    (carrier, mailbox)
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_sent_before_the_mailbox_has_answered_follows_the_attach() {
    let (mut carrier, mut mailbox) = dialled();
    carrier.sink.send(vec![1]).await.unwrap();
    let early = tokio::time::timeout(Duration::from_secs(1), mailbox.stream.recv()).await;
    assert!(early.is_err(), "nothing is sent yet");
    mailbox.sink.send(welcome()).await.unwrap();
    for is_expected in [
        |it: &client_message::Body| matches!(it, client_message::Body::Attach(_)),
        |it: &client_message::Body| matches!(it, client_message::Body::Data(_)),
    ] {
        let message = mailbox.stream.recv().await.unwrap().unwrap();
        let body = ClientMessage::decode(&*message).unwrap().body.unwrap();
        assert!(is_expected(&body), "{body:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_was_cancelled_takes_nothing_of_the_window() {
    let (mut carrier, mut mailbox) = dialled();
    mailbox.sink.send(welcome()).await.unwrap();
    // The mailbox takes nothing: records wait in the connection, in the pump's queue, and then their senders.
    let record = vec![1; 100];
    let mut handed_over = 0;
    while let Ok(sent) = in_a_moment(carrier.sink.send(record.clone())).await {
        sent.unwrap();
        handed_over += 1;
    }
    assert!(handed_over < 1_000, "the queue is full before the window");
    for _ in 0..2_000 {
        let sent = in_a_moment(carrier.sink.send(record.clone())).await;
        assert!(sent.is_err(), "the queue is full");
    }
    let mut arrived = 0;
    while let Ok(message) = in_a_moment(mailbox.stream.recv()).await {
        let body = ClientMessage::decode(&*message.unwrap().unwrap())
            .unwrap()
            .body;
        arrived += u32::from(matches!(body, Some(client_message::Body::Data(_))));
    }
    assert_eq!(arrived, handed_over);
    let sent = in_a_moment(carrier.sink.send(record)).await;
    sent.expect("the window has room").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_phones_connection_to_the_mailbox_ends_with_its_carrier() {
    for is_welcome in [true, false] {
        let (carrier, mut mailbox) = dialled();
        if is_welcome {
            mailbox.sink.send(welcome()).await.unwrap();
        }
        drop(carrier);
        let ended = in_a_moment(async { while let Ok(Some(_)) = mailbox.stream.recv().await {} });
        ended.await.expect("nothing is left to do");
    }
}

/// As after SIGSTOP and SIGCONT.
#[tokio::test(start_paused = true)]
async fn a_process_that_was_stopped_reads_what_has_arrived_before_it_leaves_the_mailbox() {
    let (_carrier, mut mailbox) = dialled();
    mailbox.sink.send(welcome()).await.unwrap();
    mailbox.stream.recv().await.unwrap();
    let ping = server(server_message::Body::Ping(Ping {}));
    mailbox.sink.send(ping).await.unwrap();
    tokio::time::advance(Duration::from_secs(3_600)).await;
    let answer = mailbox.stream.recv().await.unwrap();
    let answer = ClientMessage::decode(&*answer.expect("it is still there")).unwrap();
    assert!(matches!(answer.body, Some(client_message::Body::Pong(_))));
}

/// The carrier is the phone's only one: without it nothing is left to keep a connection to the mailbox alive for.
#[tokio::test(start_paused = true)]
async fn a_phone_that_hangs_up_closes_its_connection_in_the_stream_before() {
    let (mut carrier, mut mailbox) = dialled();
    mailbox.sink.send(welcome()).await.unwrap();
    carrier.sink.send(vec![1]).await.unwrap();
    drop(carrier);
    let mut last = None;
    while let Ok(Some(message)) = in_a_moment(mailbox.stream.recv()).await.unwrap() {
        last = ClientMessage::decode(&*message).unwrap().body;
    }
    let Some(client_message::Body::Data(data)) = last else {
        panic!("{last:?}");
    };
    let packet = Packet::decode(&data.payload).unwrap();
    assert_eq!(packet.body, Body::Close);
}

#[test]
fn who_opens_connections_without_end_is_refused_and_may_open_some_later() {
    let (mut host, handle) = attached(End::Host);
    let mut open = |from: u8, to: u8| {
        for connection in from..to {
            let (packet, _) = opening(handle, [connection; 8]);
            deliver(&mut host, handle, &packet);
        }
        let opened = events(&mut host);
        opened
            .iter()
            .filter(|it| matches!(it, Event::Opened(_)))
            .count()
    };
    assert_eq!(open(0, 100), 8);
    assert_eq!(open(100, 120), 0);
    let ping = server(server_message::Body::Ping(Ping {}));
    host.receive(&ping, 3_000).unwrap();
    let mut later = 0;
    for connection in 120..140 {
        let (packet, _) = opening(handle, [connection; 8]);
        deliver(&mut host, handle, &packet);
    }
    for event in events(&mut host) {
        later += u32::from(matches!(event, Event::Opened(_)));
    }
    assert_eq!(later, 3);
}

/// Less than the time after which a mailbox that does not answer is left.
async fn in_a_moment<T>(work: impl Future<Output = T>) -> Result<T, tokio::time::error::Elapsed> {
    tokio::time::timeout(Duration::from_millis(1), work).await
}
