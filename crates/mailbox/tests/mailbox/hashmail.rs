//! The mailbox of Lightning Node Connect as clients reach it: over gRPC, REST and WebSockets on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use crate::common::{config, start};
use futures::{SinkExt, StreamExt};
use longhand_mailbox::hashmail::limits::HashmailLimits;
use longhand_mailbox::{Mailbox, MailboxConfig};
use longhand_proto::hashmail::hash_mail_client::HashMailClient;
use longhand_proto::hashmail::{
    CipherBox, CipherBoxAuth, CipherBoxDesc, LndAuth, cipher_box_auth, cipher_init_resp,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{WebSocketStream, client_async};
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};

const REST: &str = "/v1/lightning-node-connect/hashmail";
/// For whatever has to happen: nothing waits for as long as this when all is well.
const SOON: Duration = Duration::from_secs(20);

fn with_limits(limits: HashmailLimits) -> MailboxConfig {
    let mut config = config();
    config.hashmail.listen = vec!["grpc://127.0.0.1:0".into()];
    config.hashmail.limits = limits;
    config
}

async fn started() -> Mailbox {
    start(with_limits(HashmailLimits::default())).await
}

fn place(mailbox: &Mailbox) -> SocketAddr {
    let address = &mailbox.hashmail_addresses()[0];
    address.authority().parse().unwrap()
}

fn desc(id: &[u8]) -> CipherBoxDesc {
    CipherBoxDesc {
        stream_id: id.to_vec(),
    }
}

fn auth(id: &[u8]) -> CipherBoxAuth {
    CipherBoxAuth {
        desc: Some(desc(id)),
        auth: Some(cipher_box_auth::Auth::LndAuth(LndAuth {})),
    }
}

fn cipher_box(id: &[u8], msg: &[u8]) -> CipherBox {
    CipherBox {
        desc: Some(desc(id)),
        msg: msg.to_vec(),
    }
}

/// A metric of the mailbox.
fn metric(mailbox: &Mailbox, name: &str) -> u64 {
    let text = mailbox.metrics();
    let name = format!("longhand_mailbox_hashmail_{name} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&*name));
    value.expect("the metric is there").parse().unwrap()
}

/// Returns once a metric has this value.
async fn until(mailbox: &Mailbox, name: &str, value: u64) {
    let reached = async {
        while metric(mailbox, name) != value {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let reached = timeout(SOON, reached).await;
    reached.unwrap_or_else(|_| panic!("{name} is {}", metric(mailbox, name)));
}

async fn soon<T>(result: impl Future<Output = T>) -> T {
    timeout(SOON, result).await.expect("it happens soon")
}

fn refused<T>(result: Result<T, Status>) -> (Code, String) {
    let status = result.err().expect("it is refused");
    (status.code(), status.message().to_owned())
}

fn unknown(text: &str) -> (Code, String) {
    (Code::Unknown, text.to_owned())
}

/// A client over gRPC with a connection of its own.
struct Client(HashMailClient<Channel>);

/// A request that sends messages, and its end.
struct Writer {
    messages: mpsc::Sender<CipherBox>,
    id: Vec<u8>,
    end: JoinHandle<Result<Response<CipherBoxDesc>, Status>>,
}

impl Client {
    async fn connect(mailbox: &Mailbox) -> Client {
        let client = HashMailClient::connect(format!("http://{}", place(mailbox))).await;
        Client(client.unwrap().max_decoding_message_size(usize::MAX))
    }

    async fn create(&mut self, id: &[u8]) -> Result<(), Status> {
        self.0.new_cipher_box(auth(id)).await.map(drop)
    }

    async fn delete(&mut self, id: &[u8]) -> Result<(), Status> {
        self.0.del_cipher_box(auth(id)).await.map(drop)
    }

    async fn read(&mut self, id: &[u8]) -> Result<Streaming<CipherBox>, Status> {
        let reading = soon(self.0.recv_stream(desc(id))).await;
        reading.map(Response::into_inner)
    }

    /// Begins with this message.
    async fn write(&mut self, id: &[u8], first: CipherBox) -> Writer {
        let (messages, leaving) = mpsc::channel(1);
        messages.send(first).await.unwrap();
        let mut client = self.0.clone();
        let sending = async move { client.send_stream(ReceiverStream::new(leaving)).await };
        Writer {
            messages,
            id: id.to_vec(),
            end: tokio::spawn(sending),
        }
    }
}

impl Writer {
    async fn send(&self, msg: &[u8]) {
        let sent = self.messages.send(cipher_box(&self.id, msg));
        soon(sent).await.unwrap();
    }

    async fn end(self) -> Result<Response<CipherBoxDesc>, Status> {
        drop(self.messages);
        soon(self.end).await.unwrap()
    }
}

async fn next(reading: &mut Streaming<CipherBox>) -> Vec<u8> {
    let message = soon(reading.message()).await.unwrap();
    message.expect("a message").msg
}

#[tokio::test]
async fn a_box_takes_messages_from_one_end_to_the_other() {
    let mailbox = started().await;
    let mut server = Client::connect(&mailbox).await;
    let made = server.0.new_cipher_box(auth(b"a")).await.unwrap();
    let made = made.into_inner().resp;
    assert!(matches!(made, Some(cipher_init_resp::Resp::Success(_))));
    server.create(b"b").await.unwrap();
    let mut reading = server.read(b"a").await.unwrap();
    let back = server.write(b"b", cipher_box(b"b", b"welcome")).await;

    let mut client = Client::connect(&mailbox).await;
    let there = client.write(b"a", cipher_box(b"a", b"hello")).await;
    let message = soon(reading.message()).await.unwrap().unwrap();
    assert_eq!(message, cipher_box(b"a", b"hello"));
    let mut answers = client.read(b"b").await.unwrap();
    assert_eq!(next(&mut answers).await, b"welcome");
    for bytes in [0, 1, 4_093, 4_096, 32_768, 100_000, 2 << 20] {
        let message = vec![7; bytes];
        there.send(&message).await;
        assert_eq!(next(&mut reading).await, message);
        back.send(&message).await;
        assert_eq!(next(&mut answers).await, message);
    }
    assert_eq!(there.end().await.unwrap().into_inner(), desc(b"a"));
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_with_the_texts_of_stock_servers() {
    let mailbox = started().await;
    let mut client = Client::connect(&mailbox).await;
    let not_found = unknown("stream not found");
    assert_eq!(refused(client.read(b"a").await), not_found);
    assert_eq!(refused(client.delete(b"a").await), not_found);
    let writer = client.write(b"a", cipher_box(b"a", b"")).await;
    assert_eq!(refused(writer.end().await), not_found);
    client.create(b"a").await.unwrap();
    let twice = (Code::AlreadyExists, "stream already active".to_owned());
    assert_eq!(refused(client.create(b"a\0").await), twice);
    for (request, text) in [
        (
            CipherBoxAuth {
                desc: None,
                ..auth(b"")
            },
            "cipher box descriptor required",
        ),
        (auth(b""), "stream_id required"),
        (
            CipherBoxAuth {
                auth: None,
                ..auth(b"a")
            },
            "auth type required",
        ),
    ] {
        let created = client.0.new_cipher_box(request.clone()).await;
        assert_eq!(refused(created), unknown(text));
        let deleted = client.0.del_cipher_box(request).await;
        assert_eq!(refused(deleted), unknown(text));
    }
    for (first, text) in [
        (CipherBox::default(), "cipher box descriptor required"),
        (cipher_box(b"", b"a"), "stream_id required"),
    ] {
        let writer = client.write(b"a", first).await;
        assert_eq!(refused(writer.end().await), unknown(text));
    }
    let metrics = mailbox.metrics();
    let counted = "longhand_mailbox_hashmail_refused_total{reason=\"not_found\"} 3\n";
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn an_end_that_is_in_use_is_occupied_after_a_quarter_of_a_second() {
    let mailbox = started().await;
    let mut client = Client::connect(&mailbox).await;
    client.create(b"a").await.unwrap();
    let _reading = client.read(b"a").await.unwrap();
    let _writing = client.write(b"a", cipher_box(b"a", b"")).await;
    until(&mailbox, "ends", 2).await;
    let begun = Instant::now();
    let occupied = client.read(b"a").await;
    assert_eq!(refused(occupied), unknown("read stream occupied"));
    assert!(begun.elapsed() >= Duration::from_millis(250));
    let writer = client.write(b"a", cipher_box(b"a", b"")).await;
    let occupied = writer.end().await;
    assert_eq!(refused(occupied), unknown("write stream occupied"));
    assert_eq!(metric(&mailbox, "ends"), 2);
}

#[tokio::test]
async fn an_end_that_becomes_free_meanwhile_goes_to_the_one_who_waits() {
    let mailbox = started().await;
    let mut client = Client::connect(&mailbox).await;
    client.create(b"a").await.unwrap();
    for _ in 0..3 {
        let reading = client.read(b"a").await.unwrap();
        let mut other = Client::connect(&mailbox).await;
        let (next, ()) = tokio::join!(other.read(b"a"), async {
            until(&mailbox, "ends", 2).await;
            drop(reading);
        });
        drop(next.unwrap());
        until(&mailbox, "ends", 0).await;
    }
}

#[tokio::test]
async fn a_box_that_is_created_meanwhile_has_the_ends_that_wait_for_it() {
    let mailbox = started().await;
    let mut client = Client::connect(&mailbox).await;
    let mut server = Client::connect(&mailbox).await;
    let writer = client.write(b"a", cipher_box(b"a", b"hello")).await;
    let (reading, ()) = tokio::join!(client.read(b"a"), async {
        until(&mailbox, "ends", 2).await;
        server.create(b"a").await.unwrap();
    });
    assert_eq!(next(&mut reading.unwrap()).await, b"hello");
    drop(writer);
}

#[tokio::test]
async fn a_client_whose_connection_breaks_frees_its_ends_at_once() {
    let mailbox = started().await;
    let mut server = Client::connect(&mailbox).await;
    server.create(b"a").await.unwrap();
    server.create(b"b").await.unwrap();
    let mut client = Client::connect(&mailbox).await;
    let reading = client.read(b"a").await.unwrap();
    let writer = client.write(b"b", cipher_box(b"b", b"unread")).await;
    until(&mailbox, "ends", 2).await;
    writer.end.abort();
    drop((client, reading, writer));
    until(&mailbox, "ends", 0).await;
    assert_eq!(metric(&mailbox, "dropped_messages_total"), 1);
    // The next reader gets what is sent from now on.
    let writer = server.write(b"b", cipher_box(b"b", b"fresh")).await;
    let mut reading = server.read(b"b").await.unwrap();
    assert_eq!(next(&mut reading).await, b"fresh");
    drop(writer);
}

#[tokio::test]
async fn a_writer_is_read_no_further_than_its_box_has_room_and_loses_nothing() {
    const MESSAGES: u32 = 400;
    let limits = HashmailLimits {
        queue_bytes: 300_000,
        ..HashmailLimits::default()
    };
    let mailbox = start(with_limits(limits)).await;
    let mut client = Client::connect(&mailbox).await;
    client.create(b"a").await.unwrap();
    let writer = client.write(b"a", cipher_box(b"a", &[0; 4])).await;
    let sent = tokio::spawn(async move {
        for number in 1..MESSAGES {
            let mut message = vec![7; 20_000];
            message[..4].copy_from_slice(&number.to_be_bytes());
            writer.send(&message).await;
        }
        writer.end().await
    });
    until(&mailbox, "ends", 1).await;
    // Nobody reads: what the box and the connection hold is a small part of it all.
    let held = async {
        let mut before = 0;
        loop {
            let held = metric(&mailbox, "held_bytes");
            assert!(held <= 300_000 + 2 * 20_100, "{held}");
            if held > 300_000 - 20_100 && held == before {
                break;
            }
            before = held;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(held).await;
    assert!(!sent.is_finished());
    let mut other = Client::connect(&mailbox).await;
    let mut reading = other.read(b"a").await.unwrap();
    for number in 0..MESSAGES {
        let message = next(&mut reading).await;
        assert_eq!(message[..4], number.to_be_bytes());
    }
    soon(sent).await.unwrap().unwrap();
}

#[tokio::test]
async fn deleting_a_box_ends_both_ends() {
    let mailbox = started().await;
    let mut client = Client::connect(&mailbox).await;
    client.create(b"a").await.unwrap();
    let mut reading = client.read(b"a").await.unwrap();
    let writer = client.write(b"a", cipher_box(b"a", b"last")).await;
    assert_eq!(next(&mut reading).await, b"last");
    Client::connect(&mailbox).await.delete(b"a").await.unwrap();
    let not_found = unknown("stream not found");
    assert_eq!(refused(soon(reading.message()).await), not_found);
    assert_eq!(refused(soon(writer.end).await.unwrap()), not_found);
    assert_eq!(metric(&mailbox, "boxes"), 0);
}

#[tokio::test]
async fn a_message_above_the_limit_or_beyond_all_room_is_refused() {
    let limits = HashmailLimits {
        message_bytes: 300_000,
        bytes_burst: 300_000,
        bytes_per_network: 600_000,
        queue_bytes: 600_000,
        ..HashmailLimits::default()
    };
    let mailbox = start(with_limits(limits)).await;
    let mut client = Client::connect(&mailbox).await;
    for id in [b"a", b"b", b"c"] {
        client.create(id).await.unwrap();
    }
    let writer = client.write(b"a", cipher_box(b"a", &[0; 300_000])).await;
    let (code, text) = refused(writer.end().await);
    assert_eq!(code, Code::ResourceExhausted, "{text}");
    assert!(text.contains("larger than this mailbox allows"), "{text}");
    let first = client.write(b"a", cipher_box(b"a", &[0; 290_000])).await;
    let second = client.write(b"b", cipher_box(b"b", &[0; 290_000])).await;
    let both = 2 * (290_000 + longhand_mailbox::core::MESSAGE_BYTES);
    until(&mailbox, "held_bytes", both.try_into().unwrap()).await;
    let third = client.write(b"c", cipher_box(b"c", &[0; 290_000])).await;
    let (code, text) = refused(third.end().await);
    assert_eq!(code, Code::ResourceExhausted, "{text}");
    assert!(text.contains("no room"), "{text}");
    drop((first, second));
    until(&mailbox, "held_bytes", 0).await;
}

/// More than a listener reads of a stranger: the memory for it is reserved.
#[tokio::test]
async fn the_first_message_of_a_connection_may_be_large() {
    let mailbox = started().await;
    let large = vec![7; 3 << 20];
    let mut client = Client::connect(&mailbox).await;
    client.create(b"a").await.unwrap();
    let mut reading = client.read(b"a").await.unwrap();
    let mut other = Client::connect(&mailbox).await;
    let writer = other.write(b"a", cipher_box(b"a", &large)).await;
    assert_eq!(next(&mut reading).await, large);
    writer.end().await.unwrap();
    let mut writing = websocket(&mailbox, "send").await;
    let text = json!({"desc": {"stream_id": "YQ=="}, "msg": "AAAA".repeat(1 << 18)});
    writing.send(Message::text(text.to_string())).await.unwrap();
    assert_eq!(next(&mut reading).await, vec![0; 3 << 18]);
}

#[tokio::test]
async fn a_large_message_that_does_not_arrive_in_time_is_given_up() {
    let mailbox = started().await;
    let mut client = Client::connect(&mailbox).await;
    client.create(b"a").await.unwrap();
    let mut writing = websocket(&mailbox, "send").await.into_inner();
    // A masked text frame of a million bytes.
    let mut part = vec![0x81, 0xff, 0, 0, 0, 0, 0, 0x0f, 0x42, 0x40, 0, 0, 0, 0];
    part.extend([b' '; 200_000]);
    writing.write_all(&part).await.unwrap();
    until(&mailbox, "held_bytes", 3 << 16).await;
    // Now and then a byte, so that the connection is not a silent one.
    tokio::time::pause();
    let (mut reading, mut writing) = writing.into_split();
    let slow = tokio::spawn(async move {
        while writing.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(8)).await;
        }
    });
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(100), reading.read_to_end(&mut answer));
    // The connection may be reset, when a byte came after it was closed.
    let _ = read.await.unwrap();
    tokio::time::resume();
    slow.abort();
    let told = String::from_utf8_lossy(&answer);
    assert!(told.contains("did not arrive"), "{told}");
    until(&mailbox, "held_bytes", 0).await;
}

#[tokio::test]
async fn boxes_of_a_network_are_limited() {
    let limits = HashmailLimits {
        boxes_per_network: 1,
        ..HashmailLimits::default()
    };
    let mailbox = start(with_limits(limits)).await;
    let mut client = Client::connect(&mailbox).await;
    client.create(b"a").await.unwrap();
    let (code, text) = refused(client.create(b"b").await);
    assert_eq!(code, Code::ResourceExhausted, "{text}");
}

#[tokio::test]
async fn a_mailbox_that_stops_ends_what_is_open() {
    let mailbox = started().await;
    let mut client = Client::connect(&mailbox).await;
    client.create(b"a").await.unwrap();
    let mut reading = client.read(b"a").await.unwrap();
    mailbox.stop().await;
    let (code, _) = refused(soon(reading.message()).await);
    assert_eq!(code, Code::Unavailable);
}

#[tokio::test]
async fn many_sessions_share_a_connection() {
    let mailbox = started().await;
    let mut client = Client::connect(&mailbox).await;
    let mut sessions = Vec::new();
    for id in 0..20_u8 {
        let id = [id + 1];
        client.create(&id).await.unwrap();
        let reading = client.read(&id).await.unwrap();
        let writer = client.write(&id, cipher_box(&id, &id)).await;
        sessions.push((id, reading, writer));
    }
    for (id, reading, _) in &mut sessions {
        assert_eq!(next(reading).await, *id);
    }
}

/// A client of whose connection nothing comes: the phone's network is gone.
#[tokio::test]
async fn a_silent_reader_gives_way_to_a_newer_one() {
    let mailbox = started().await;
    let mut client = Client::connect(&mailbox).await;
    client.create(b"a").await.unwrap();
    let mut silent = websocket(&mailbox, "receive").await;
    silent
        .send(Message::text(json!({"stream_id": "YQ=="}).to_string()))
        .await
        .unwrap();
    until(&mailbox, "ends", 1).await;
    // It does not answer pings from here on, since nobody reads the socket.
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(11)).await;
    tokio::time::resume();
    let mut client = Client::connect(&mailbox).await;
    let mut reading = client.read(b"a").await.unwrap();
    let writer = client.write(b"a", cipher_box(b"a", b"to the newer")).await;
    assert_eq!(next(&mut reading).await, b"to the newer");
    assert_eq!(metric(&mailbox, "taken_over_total"), 1);
    drop(writer);
}

#[tokio::test]
async fn a_box_that_nobody_uses_is_removed() {
    let mailbox = started().await;
    let mut client = Client::connect(&mailbox).await;
    client.create(b"a").await.unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(3_601)).await;
    tokio::time::resume();
    until(&mailbox, "boxes", 0).await;
    assert_eq!(metric(&mailbox, "stale_boxes_total"), 1);
}

/// A request over HTTP/1.1: its status and its body.
async fn rest(mailbox: &Mailbox, method: &str, query: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(place(mailbox)).await.unwrap();
    let request = format!(
        "{method} {REST}{query} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, body.to_owned())
}

fn error(code: u8, message: &str) -> Value {
    json!({"code": code, "message": message, "details": []})
}

fn parsed((status, body): (u16, String)) -> (u16, Value) {
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test]
async fn boxes_are_created_and_deleted_over_rest() {
    let mailbox = started().await;
    let body = r#"{"desc":{"stream_id":"-_8="},"lnd_auth":{}}"#;
    let created = rest(&mailbox, "POST", "", body).await;
    assert_eq!(created, (200, r#"{"success":{"desc":null}}"#.to_owned()));
    let again = parsed(rest(&mailbox, "POST", "", body).await);
    assert_eq!(again, (409, error(6, "stream already active")));
    let mut client = Client::connect(&mailbox).await;
    let twice = refused(client.create(&[0xfb, 0xff]).await);
    assert_eq!(twice.0, Code::AlreadyExists);
    let deleted = rest(&mailbox, "DELETE", "", body).await;
    assert_eq!(deleted, (200, "{}".to_owned()));
    let again = parsed(rest(&mailbox, "DELETE", "", body).await);
    assert_eq!(again, (500, error(2, "stream not found")));
    rest(&mailbox, "POST", "", body).await;
    let deleted = rest(&mailbox, "DELETE", "?desc.stream_id=%2B/8%3D", "").await;
    assert_eq!(deleted, (200, "{}".to_owned()));
    for (body, expected) in [
        ("{}", error(2, "cipher box descriptor required")),
        (r#"{"desc":{}}"#, error(2, "stream_id required")),
        (
            r#"{"desc":{"stream_id":"YQ=="}}"#,
            error(2, "auth type required"),
        ),
    ] {
        let refused = parsed(rest(&mailbox, "POST", "", body).await);
        assert_eq!(refused, (500, expected));
    }
    let (status, _) = rest(&mailbox, "POST", "", "no JSON").await;
    assert_eq!(status, 400);
    let large = format!("\"{}\"", "a".repeat(10_000));
    let (status, _) = rest(&mailbox, "POST", "", &large).await;
    assert_eq!(status, 400);
}

async fn websocket(mailbox: &Mailbox, which: &str) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(place(mailbox)).await.unwrap();
    let url = format!("ws://{}{REST}/{which}?method=POST", place(mailbox));
    soon(client_async(url, stream)).await.unwrap().0
}

/// The next message that is no ping; `None` when the other side closes the connection.
async fn text(socket: &mut WebSocketStream<TcpStream>) -> Option<Value> {
    loop {
        match soon(socket.next()).await {
            Some(Ok(Message::Text(text))) => return Some(serde_json::from_str(&text).unwrap()),
            Some(Ok(Message::Ping(_))) => {}
            Some(Ok(Message::Close(_))) | None => return None,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn websockets_have_both_ends_of_a_box() {
    let mailbox = started().await;
    let mut client = Client::connect(&mailbox).await;
    client.create(b"a").await.unwrap();
    let mut reading = websocket(&mailbox, "receive").await;
    let id = json!({"stream_id": "YQ=="}).to_string();
    reading
        .send(Message::binary(id.into_bytes()))
        .await
        .unwrap();
    let mut writing = websocket(&mailbox, "send").await;
    let message = |msg: &str| json!({"desc": {"stream_id": "YQ"}, "msg": msg}).to_string();
    writing.send(Message::text(message("-_8="))).await.unwrap();
    let expected = |msg: &str| json!({"result": {"desc": {"stream_id": "YQ=="}, "msg": msg}});
    assert_eq!(text(&mut reading).await, Some(expected("+/8=")));
    writing.send(Message::text(message(""))).await.unwrap();
    assert_eq!(text(&mut reading).await, Some(expected("")));
    let large = "AAAA".repeat(1 << 20);
    writing
        .send(Message::text(message(&large[..4_000_000])))
        .await
        .unwrap();
    assert_eq!(
        text(&mut reading).await,
        Some(expected(&large[..4_000_000]))
    );
    writing.close(None).await.unwrap();
    reading.close(None).await.unwrap();
    until(&mailbox, "ends", 0).await;
}

#[tokio::test]
async fn a_websocket_is_told_why_and_closed() {
    let mailbox = started().await;
    let mut client = Client::connect(&mailbox).await;
    client.create(b"a").await.unwrap();
    let _reading = client.read(b"a").await.unwrap();
    let _writing = client.write(b"a", cipher_box(b"a", b"")).await;
    until(&mailbox, "ends", 2).await;
    for (which, first, expected) in [
        (
            "receive",
            json!({"stream_id": "Yg=="}),
            json!({"error": error(2, "stream not found")}),
        ),
        (
            "receive",
            json!({"stream_id": "YQ=="}),
            json!({"error": error(2, "read stream occupied")}),
        ),
        (
            "send",
            json!({"desc": {"stream_id": "YQ=="}, "msg": ""}),
            error(2, "write stream occupied"),
        ),
        (
            "send",
            json!({"desc": null, "msg": ""}),
            error(2, "cipher box descriptor required"),
        ),
    ] {
        let mut socket = websocket(&mailbox, which).await;
        let first = Message::text(first.to_string());
        socket.send(first).await.unwrap();
        assert_eq!(text(&mut socket).await, Some(expected));
        assert_eq!(text(&mut socket).await, None);
    }
    let mut socket = websocket(&mailbox, "send").await;
    socket.send(Message::text("no JSON")).await.unwrap();
    let told = text(&mut socket).await.unwrap();
    assert_eq!(told["code"], 3);
}

#[tokio::test]
async fn a_websocket_that_breaks_frees_its_end_though_its_box_is_full() {
    let limits = HashmailLimits {
        queue_messages: 1,
        ..HashmailLimits::default()
    };
    let mailbox = start(with_limits(limits)).await;
    let mut client = Client::connect(&mailbox).await;
    client.create(b"a").await.unwrap();
    let mut writing = websocket(&mailbox, "send").await;
    let message = json!({"desc": {"stream_id": "YQ=="}, "msg": "YQ=="}).to_string();
    writing.send(Message::text(message)).await.unwrap();
    until(&mailbox, "ends", 1).await;
    drop(writing);
    until(&mailbox, "ends", 0).await;
    assert_eq!(metric(&mailbox, "dropped_messages_total"), 1);
}

#[tokio::test]
async fn what_is_no_websocket_is_told_what_this_is() {
    let mailbox = started().await;
    let (status, body) = rest(&mailbox, "POST", "/send", "").await;
    assert_eq!(status, 426);
    assert!(body.contains("by WebSocket"), "{body}");
    let (status, _) = rest(&mailbox, "GET", "/other", "").await;
    assert_eq!(status, 404);
}
