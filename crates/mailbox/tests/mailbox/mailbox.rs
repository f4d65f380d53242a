//! A running mailbox and its clients, in this process and over gRPC on loopback.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{Client, Push, config, key, start, started};
use async_trait::async_trait;
use longhand_link::carrier::mailbox::stream::End;
use longhand_link::carrier::{CarrierError, RecordSink};
use longhand_link::{Carrier, Carriers};
use longhand_mailbox::Mailbox;
use longhand_mailbox::core::Limits;
use longhand_proto::Code;
use longhand_proto::mailbox::client_message::Body as Asked;
use longhand_proto::mailbox::server_message::Body;
use longhand_proto::mailbox::{ClientMessage, Ping, Pong};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

/// Two attach, and send both ways.
async fn meet(mut host: Client, mut phone: Client) {
    assert!(!host.attach(1, &key(1), End::Host).await);
    assert!(phone.attach(9, &key(1), End::Phone).await);
    let large = vec![7; 60_000];
    for payload in [&b"small"[..], &large] {
        phone.send(9, payload).await;
        assert_eq!(host.data().await, (1, payload.to_vec()));
        host.send(1, payload).await;
        assert_eq!(phone.data().await, (9, payload.to_vec()));
    }
}

#[tokio::test]
async fn a_host_and_a_phone_meet() {
    let mailbox = started().await;
    let host = Client::connect(&mailbox).await;
    meet(host, Client::connect(&mailbox).await).await;
}

#[tokio::test]
async fn a_host_and_a_phone_meet_over_grpc() {
    let mailbox = started().await;
    let host = Client::dial(&mailbox).await;
    meet(host, Client::dial(&mailbox).await).await;
}

/// A listener has 64 places for strangers of one address.
#[tokio::test]
async fn a_client_that_has_attached_gives_its_place_at_the_listener_back() {
    let mailbox = started().await;
    let mut clients = Vec::new();
    for secret in 0..70 {
        let mut client = Client::dial(&mailbox).await;
        client.attach(1, &key(secret), End::Phone).await;
        clients.push(client);
    }
    let metrics = mailbox.metrics();
    assert!(metrics.contains("longhand_mailbox_connections 70\n"));
}

#[tokio::test]
async fn a_message_waits_for_a_host_that_comes_later() {
    let mailbox = started().await;
    let mut phone = Client::connect(&mailbox).await;
    phone.attach(1, &key(1), End::Phone).await;
    phone.send(1, b"is anybody there").await;
    let mut host = Client::connect(&mailbox).await;
    assert!(host.attach(1, &key(1), End::Host).await);
    assert_eq!(host.data().await, (1, b"is anybody there".to_vec()));
}

#[tokio::test]
async fn a_newer_connection_takes_over_and_an_older_one_is_told_so() {
    let mailbox = started().await;
    let mut older = Client::connect(&mailbox).await;
    older.attach(1, &key(1), End::Host).await;
    let mut newer = Client::connect(&mailbox).await;
    newer.attach(2, &key(1), End::Host).await;
    assert_eq!(older.ended().await, (1, Code::TakenOver.into()));
    let mut phone = Client::connect(&mailbox).await;
    assert!(phone.attach(3, &key(1), End::Phone).await);
    phone.send(3, b"to the newer").await;
    assert_eq!(newer.data().await, (2, b"to the newer".to_vec()));
}

#[tokio::test]
async fn a_signature_of_another_connection_is_refused() {
    let mailbox = started().await;
    let owner = Client::connect(&mailbox).await;
    let mut thief = Client::connect(&mailbox).await;
    assert_ne!(owner.nonce, thief.nonce);
    for _ in 0..2 {
        thief.ask_attach(1, &key(1), End::Host, owner.nonce).await;
        assert_eq!(thief.ended().await, (1, Code::BadSignature.into()));
    }
    thief.ask_attach(1, &key(1), End::Host, owner.nonce).await;
    // The third reply may be sent before the connection is closed.
    while thief.next().await.is_some() {}
}

#[tokio::test]
async fn a_ping_is_answered_at_once() {
    let mailbox = started().await;
    let mut client = Client::connect(&mailbox).await;
    client.ping().await;
    assert_eq!(client.next().await, Some(Body::Pong(Pong {})));
}

#[tokio::test]
async fn a_deleted_stream_ends() {
    let mailbox = started().await;
    let mut host = Client::connect(&mailbox).await;
    host.attach(1, &key(1), End::Host).await;
    let mut phone = Client::connect(&mailbox).await;
    phone.attach(2, &key(1), End::Phone).await;
    phone.delete(&key(1)).await;
    assert_eq!(host.ended().await, (1, Code::Deleted.into()));
    assert_eq!(phone.ended().await, (2, Code::Deleted.into()));
}

#[tokio::test]
async fn both_ends_learn_that_their_stream_was_dropped_and_meet_again() {
    let mailbox = Mailbox::embed(Limits::default());
    let mut host = Client::connect(&mailbox).await;
    let mut phone = Client::connect(&mailbox).await;
    host.attach(1, &key(1), End::Host).await;
    phone.attach(2, &key(1), End::Phone).await;
    mailbox.drop_stream(key(1).id());
    mailbox.drop_stream(key(2).id());
    assert_eq!(host.ended().await, (1, Code::Overflow.into()));
    assert_eq!(phone.ended().await, (2, Code::Overflow.into()));
    meet(host, phone).await;
}

#[tokio::test]
async fn a_phone_that_reads_nothing_does_not_hold_up_another_of_the_same_host() {
    let mailbox = started().await;
    let mut host = Client::connect(&mailbox).await;
    host.attach(1, &key(1), End::Host).await;
    host.attach(2, &key(2), End::Host).await;
    let mut stuck = Client::connect(&mailbox).await;
    stuck.attach(1, &key(1), End::Phone).await;
    let mut other = Client::connect(&mailbox).await;
    other.attach(1, &key(2), End::Phone).await;
    // More than its connection and its queue hold.
    for _ in 0..80 {
        host.send(1, &[0; 60_000]).await;
    }
    assert_eq!(host.ended().await, (1, Code::Overflow.into()));
    host.send(2, b"and you").await;
    assert_eq!(other.data().await, (1, b"and you".to_vec()));
}

#[tokio::test(start_paused = true)]
async fn a_phone_that_sends_too_fast_is_slowed_down() {
    let mut config = config();
    config.limits.messages_per_s = 10;
    config.limits.messages_burst = 5;
    let mailbox = start(config).await;
    let mut host = Client::connect(&mailbox).await;
    host.attach(1, &key(1), End::Host).await;
    let mut phone = Client::connect(&mailbox).await;
    phone.attach(1, &key(1), End::Phone).await;
    let begun = Instant::now();
    for n in 0..20 {
        phone.send(1, &[n]).await;
        assert_eq!(host.data().await, (1, vec![n]));
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(1_300), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_host_that_sends_too_fast_to_one_phone_is_slowed_down_in_that_stream_alone() {
    let mut config = config();
    config.limits.messages_per_s = 10;
    config.limits.messages_burst = 5;
    let mailbox = start(config).await;
    let mut host = Client::connect(&mailbox).await;
    let mut phones = Vec::new();
    for n in 1..=2 {
        host.attach(n.into(), &key(n), End::Host).await;
        let mut phone = Client::connect(&mailbox).await;
        phone.attach(1, &key(n), End::Phone).await;
        phones.push(phone);
    }
    let begun = Instant::now();
    for n in 0..20 {
        host.send(1, &[n]).await;
    }
    host.send(2, b"at once").await;
    assert_eq!(phones[1].data().await, (1, b"at once".to_vec()));
    assert!(begun.elapsed() < Duration::from_millis(100));
    for n in 0..20 {
        assert_eq!(phones[0].data().await, (1, vec![n]));
    }
    let took = begun.elapsed();
    let expected = Duration::from_millis(1_300)..Duration::from_millis(1_900);
    assert!(expected.contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_attaches_nothing_is_closed() {
    let mailbox = started().await;
    let mut silent = Client::connect(&mailbox).await;
    let mut attached = Client::connect(&mailbox).await;
    attached.attach(1, &key(1), End::Host).await;
    let begun = Instant::now();
    assert_eq!(silent.next().await, None);
    let lasted = begun.elapsed();
    let expected = Duration::from_secs(9)..Duration::from_secs(12);
    assert!(expected.contains(&lasted), "{lasted:?}");
    attached.attach(2, &key(2), End::Host).await;
}

#[tokio::test]
async fn a_client_of_another_protocol_is_disconnected() {
    let mailbox = started().await;
    let mut client = Client::connect(&mailbox).await;
    client.send_bytes(b"GET / HTTP/1.1".to_vec()).await;
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn a_reader_that_is_away_is_called_once() {
    let mut config = config();
    config.wake.url = "https://push.example/?token=t".into();
    let push = Push::default();
    let hook = Arc::new(push.clone());
    let mailbox = Mailbox::start_with(config, Carriers::default(), hook).await;
    let mailbox = mailbox.unwrap();
    let mut host = Client::connect(&mailbox).await;
    host.attach(1, &key(1), End::Host).await;
    for _ in 0..5 {
        host.send(1, b"wake up").await;
    }
    host.attach(2, &key(2), End::Host).await;
    let calls = push.calls().await;
    let id: String = key(1)
        .id()
        .as_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let body = format!("{{\"stream\":\"{id}\",\"end\":\"phone\"}}");
    let url = "https://push.example/?token=t".to_owned();
    assert_eq!(calls, [(url, body)]);
}

#[tokio::test]
async fn the_wake_url_is_called_by_http() {
    let push = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = config();
    config.wake.url = format!("http://{}/wake?token=t", push.local_addr().unwrap());
    let mailbox = start(config).await;
    let mut phone = Client::connect(&mailbox).await;
    phone.attach(1, &key(1), End::Phone).await;
    phone.send(1, b"wake up").await;
    let (mut socket, _) = push.accept().await.unwrap();
    let mut asked = Vec::new();
    while !asked.ends_with(b"\"end\":\"host\"}") {
        assert_ne!(socket.read_buf(&mut asked).await.unwrap(), 0);
    }
    let asked = String::from_utf8(asked).unwrap().to_lowercase();
    assert!(asked.starts_with("post /wake?token=t http/1.1"), "{asked}");
    assert!(asked.contains("content-type: application/json"), "{asked}");
    assert!(!mailbox.metrics().contains("answered"));
    let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
    socket.write_all(answer).await.unwrap();
    while !mailbox
        .metrics()
        .contains("longhand_mailbox_wakes_total{result=\"answered\"} 1\n")
    {
        tokio::task::yield_now().await;
    }
}

/// Takes the `Welcome`, and nothing more.
struct Stuck(bool);

#[async_trait]
impl RecordSink for Stuck {
    async fn send(&mut self, _: Vec<u8>) -> Result<(), CarrierError> {
        match std::mem::replace(&mut self.0, true) {
            false => Ok(()),
            true => std::future::pending().await,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_closed_though_it_goes_on_sending() {
    let mut config = config();
    config.limits.attach_within_s = 1_000;
    let mailbox = start(config).await;
    let (requests, stream) = tokio::sync::mpsc::channel(1);
    mailbox.take(Carrier::new(Stuck(false), stream));
    let begun = Instant::now();
    let ping = ClientMessage {
        body: Some(Asked::Ping(Ping {})),
    };
    let mut each_second = tokio::time::interval(Duration::from_secs(1));
    // It is answered, so that something is sent.
    while requests.send(ping.encode_to_vec()).await.is_ok() {
        each_second.tick().await;
    }
    let took = begun.elapsed();
    assert!(took <= Duration::from_secs(62), "{took:?}");
}

#[tokio::test]
async fn a_client_for_which_there_is_no_room_is_closed() {
    let mut config = config();
    config.limits.connections = 1;
    let mailbox = start(config).await;
    let _first = Client::connect(&mailbox).await;
    let (mut near, far) = Carrier::pair();
    mailbox.take(far);
    assert_eq!(near.stream.recv().await, Ok(None));
    assert!(
        mailbox
            .metrics()
            .contains("longhand_mailbox_connections 1\n")
    );
}

#[tokio::test]
async fn one_of_several_processes_says_so() {
    let mut config = config();
    config.has_routes = true;
    let mailbox = start(config).await;
    assert!(Client::connect(&mailbox).await.has_routes);
    assert!(!Client::connect(&started().await).await.has_routes);
}

#[tokio::test]
async fn metrics_are_served_over_http() {
    let mut config = config();
    config.metrics.listen = "127.0.0.1:0".into();
    let mailbox = start(config).await;
    let mut host = Client::connect(&mailbox).await;
    host.attach(1, &key(1), End::Host).await;
    let address = mailbox.metrics_address().unwrap();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n";
    socket.write_all(request).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("longhand_mailbox_ends 1\n"), "{answer}");
}

#[tokio::test]
async fn a_port_that_is_in_use_stops_the_start_with_its_setting() {
    let mailbox = started().await;
    let mut second = config();
    second.link.listen = vec![mailbox.addresses()[0].to_string()];
    let refused = Mailbox::start(second, Carriers::default()).await;
    let refused = refused.err().unwrap();
    assert_eq!(refused.code(), Code::CannotListen);
    assert!(refused.to_string().contains("link.listen"), "{refused}");
}

#[tokio::test]
async fn a_stopped_mailbox_closes_its_connections() {
    let mailbox = started().await;
    let mut near = Client::connect(&mailbox).await;
    let mut far = Client::dial(&mailbox).await;
    mailbox.stop().await;
    assert_eq!(near.next().await, None);
    assert_eq!(far.next().await, None);
}
