//! Real sockets on loopback: WebSocket with and without TLS.

use crate::common::{Pem, TlsFiles, address, dial, listen, meet};
use futures::{SinkExt, StreamExt};
use longhand_link::carrier::MAX_MESSAGE;
use longhand_link::{Carrier, CarrierError, DialOptions, LinkError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::{WebSocketStream, client_async};

#[tokio::test]
async fn a_phone_pairs_and_attaches_over_plain_websocket() {
    let mut listener = listen("ws://127.0.0.1:0").await;
    meet(&mut *listener, "ws", &DialOptions::default()).await;
}

#[tokio::test]
async fn a_phone_pairs_and_attaches_over_websocket_with_tls() {
    let pem = Pem::valid();
    let files = TlsFiles::new(&pem);
    let mut listener = listen(&files.address("wss")).await;
    meet(&mut *listener, "wss", &pem.trusted()).await;
}

#[tokio::test]
async fn each_carrier_is_served_at_the_port_of_the_other() {
    let options = DialOptions::default();
    let mut listener = listen("ws://127.0.0.1:0").await;
    meet(&mut *listener, "grpc", &options).await;
    let mut listener = listen("grpc://127.0.0.1:0").await;
    meet(&mut *listener, "ws", &options).await;
    let pem = Pem::valid();
    let files = TlsFiles::new(&pem);
    let mut listener = listen(&files.address("wss")).await;
    meet(&mut *listener, "grpcs", &pem.trusted()).await;
}

async fn refused(address: String, options: &DialOptions) -> String {
    let failed = dial(&address, options).await.err().expect("refused");
    assert!(matches!(failed, LinkError::Unreachable { .. }), "{failed}");
    failed.to_string()
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_or_not_valid_yet_is_refused_with_the_reason() {
    let pem = Pem::of_year(2090);
    let files = TlsFiles::new(&pem);
    let listener = listen(&files.address("wss")).await;
    let address = address(&*listener, "wss");
    let line = refused(address.clone(), &pem.trusted()).await;
    for part in ["not valid yet", "this machine's clock shows 20"] {
        assert!(line.contains(part), "{line}");
    }
    let line = refused(address, &DialOptions::default()).await;
    assert!(line.contains("certificate"), "{line}");
}

#[tokio::test]
async fn a_host_that_is_not_there_is_named_and_one_that_speaks_no_websocket_too() {
    let options = DialOptions::default();
    let line = refused("ws://127.0.0.1:1".into(), &options).await;
    assert!(line.contains("ws://127.0.0.1:1"), "{line}");
    let web = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("ws://{}", web.local_addr().unwrap());
    let answering = async {
        let (mut stream, _) = web.accept().await.unwrap();
        let _request = stream.read(&mut [0; 2_000]).await.unwrap();
        let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
    };
    let (line, ()) = tokio::join!(refused(address, &options), answering);
    assert!(line.contains("404"), "{line}");
}

/// A carrier at a host, and the other end of its connection: a browser's.
async fn browser() -> (Carrier, WebSocketStream<TcpStream>) {
    let mut listener = listen("ws://127.0.0.1:0").await;
    let address = listener.addresses()[0].clone();
    let stream = TcpStream::connect(address.authority()).await.unwrap();
    let opened = client_async(format!("{address}/any/path"), stream).await;
    (listener.accept().await.unwrap(), opened.unwrap().0)
}

fn frame(kind: Data, size: usize, is_last: bool) -> Message {
    Message::Frame(Frame::message(vec![7; size], OpCode::Data(kind), is_last))
}

#[tokio::test]
async fn a_binary_message_is_a_record_in_one_frame_or_several() {
    let (mut carrier, mut browser) = browser().await;
    let largest = vec![1; MAX_MESSAGE];
    for message in [
        Message::Binary(largest.clone().into()),
        frame(Data::Binary, 1_000, false),
        Message::Ping(Vec::new().into()),
        frame(Data::Continue, 1_000, false),
        frame(Data::Continue, 0, true),
    ] {
        browser.send(message).await.unwrap();
    }
    assert_eq!(carrier.stream.recv().await, Ok(Some(largest.clone())));
    assert_eq!(carrier.stream.recv().await, Ok(Some(vec![7; 2_000])));
    let pong = browser.next().await.unwrap().unwrap();
    assert!(pong.is_pong(), "{pong}");
    carrier.sink.send(largest.clone()).await.unwrap();
    let received = browser.next().await.unwrap().unwrap();
    assert_eq!(received, Message::Binary(largest.into()));
    let empty = carrier.sink.send(Vec::new()).await;
    assert_eq!(empty, Ok(()));
    let received = browser.next().await.unwrap().unwrap();
    assert_eq!(received, Message::Binary(Vec::new().into()));
}

/// The error at the host, and the code with which it closes.
async fn ends(messages: Vec<Message>) -> (String, Option<CloseCode>) {
    let (mut carrier, mut browser) = browser().await;
    for message in messages {
        browser.send(message).await.unwrap();
    }
    let CarrierError(line) = carrier.stream.recv().await.unwrap_err();
    let again = carrier.stream.recv().await;
    assert_eq!(again, Err(CarrierError(line.clone())), "it stays so");
    assert!(carrier.sink.send(vec![1]).await.is_err());
    match browser.next().await {
        Some(Ok(Message::Close(frame))) => (line, frame.map(|frame| frame.code)),
        _ => (line, None),
    }
}

#[tokio::test]
async fn text_ends_the_connection() {
    let (line, code) = ends(vec![Message::text("hello")]).await;
    assert!(line.contains("text message"), "{line}");
    assert_eq!(code, Some(CloseCode::Unsupported));
}

#[tokio::test]
async fn a_message_above_the_limit_ends_the_connection_before_it_is_read() {
    let (mut carrier, mut browser) = browser().await;
    // The head of a frame alone (RFC 6455, 5.2): final, binary, masked, 64 bits of length, the mask.
    let length = (MAX_MESSAGE as u64 + 1).to_be_bytes();
    let head = [&[0x82, 0xff][..], &length, &[0; 4]].concat();
    browser.get_mut().write_all(&head).await.unwrap();
    let CarrierError(line) = carrier.stream.recv().await.unwrap_err();
    assert!(line.contains("larger than 66047 bytes"), "{line}");
    let Some(Ok(Message::Close(Some(frame)))) = browser.next().await else {
        panic!("closed with a reason");
    };
    assert_eq!(frame.code, CloseCode::Size);
}

#[tokio::test]
async fn fragments_beyond_the_limit_end_the_connection() {
    let half = MAX_MESSAGE / 2 + 1;
    let messages = vec![
        frame(Data::Binary, half, false),
        frame(Data::Continue, half, false),
    ];
    let (line, _) = ends(messages).await;
    assert!(line.contains("larger than 66047 bytes"), "{line}");
}

#[tokio::test]
async fn a_record_above_the_limit_is_not_sent() {
    let (mut carrier, mut browser) = browser().await;
    let refused = carrier.sink.send(vec![0; MAX_MESSAGE + 1]).await;
    assert!(refused.is_err());
    carrier.sink.send(vec![1]).await.unwrap();
    let received = browser.next().await.unwrap().unwrap();
    assert_eq!(received, Message::Binary(vec![1].into()));
}

#[tokio::test]
async fn the_end_of_the_sink_is_a_close_frame_after_all_that_was_sent() {
    let (carrier, mut browser) = browser().await;
    let Carrier {
        mut sink,
        mut stream,
        ..
    } = carrier;
    sink.send(vec![1; 50_000]).await.unwrap();
    drop(sink);
    let received = browser.next().await.unwrap().unwrap();
    assert_eq!(received.len(), 50_000);
    let received = browser.next().await.unwrap().unwrap();
    assert!(received.is_close(), "{received}");
    let answered = async {
        assert_eq!(stream.recv().await, Ok(None));
        drop(stream);
    };
    let (end, ()) = tokio::join!(browser.next(), answered);
    assert!(end.is_none(), "the host closes the connection first");
}

#[tokio::test]
async fn the_peers_close_is_the_end() {
    let (mut carrier, mut browser) = browser().await;
    browser.send(Message::Binary(vec![1].into())).await.unwrap();
    browser.close(None).await.unwrap();
    assert_eq!(carrier.stream.recv().await, Ok(Some(vec![1])));
    assert_eq!(carrier.stream.recv().await, Ok(None));
    assert_eq!(carrier.stream.recv().await, Ok(None));
    assert!(carrier.sink.send(vec![1]).await.is_err());
}

#[tokio::test]
async fn a_connection_that_breaks_without_a_close_is_an_error() {
    let (mut carrier, browser) = browser().await;
    drop(browser);
    assert!(carrier.stream.recv().await.is_err());
}
