//! The listener that carriers over HTTP share, as strangers, proxies and operators meet it.

use std::io::Write;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::{Pem, TlsFiles, address, dial, listen};
use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::get;
use longhand_link::carrier::admission::{Places, SourceNetwork};
use longhand_link::carrier::http::{Http2, HttpServer};
use longhand_link::{Address, Carriers, DialOptions, Listener};
use longhand_proto::link::Record;
use longhand_proto::link::carrier_client::CarrierClient;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, http};
use tokio_tungstenite::{WebSocketStream, client_async};

const FORWARDED: &str = "x-forwarded-for";

/// Sends bytes to a listener, and reads all that it answers until it closes the connection.
async fn ask(listener: &dyn Listener, request: &str) -> String {
    let mut stream = connect(listener).await;
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn connect(listener: &dyn Listener) -> TcpStream {
    let address = listener.addresses()[0].clone();
    TcpStream::connect(address.authority()).await.unwrap()
}

#[tokio::test]
async fn a_request_without_an_upgrade_is_answered_with_what_this_is() {
    let listener = listen("grpc://127.0.0.1:0").await;
    let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    // The second request of a connection has no answer.
    let answer = ask(&*listener, &request.repeat(2)).await;
    assert!(
        answer.starts_with("HTTP/1.1 426 Upgrade Required\r\n"),
        "{answer}"
    );
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    for header in ["upgrade: websocket", "sec-websocket-version: 13"] {
        assert!(answer.contains(header), "{answer}");
    }
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(body.contains("Longhand server"), "{body}");
    assert_eq!(body.lines().count(), 1, "{body}");
}

#[tokio::test]
async fn an_upgrade_to_something_else_is_refused() {
    let listener = listen("ws://127.0.0.1:0").await;
    let upgrade = "host: a\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n";
    for request in [
        format!("GET / HTTP/1.1\r\n{upgrade}upgrade: h2c\r\nsec-websocket-key: a\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{upgrade}upgrade: websocket\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{upgrade}upgrade: websocket\r\nsec-websocket-key: a\r\n\r\n"),
    ] {
        let answer = ask(&*listener, &request).await;
        assert!(answer.starts_with("HTTP/1.1 426"), "{request}{answer}");
    }
}

#[tokio::test]
async fn headers_that_come_one_byte_at_a_time_are_not_waited_for() {
    let listener = listen("ws://127.0.0.1:0").await;
    let (mut reading, mut writing) = connect(&*listener).await.into_split();
    writing
        .write_all(b"GET / HTTP/1.1\r\nslow: ")
        .await
        .unwrap();
    tokio::time::pause();
    let begun = Instant::now();
    let slow = tokio::spawn(async move {
        while writing.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    });
    // The connection may be reset, when a byte came after it was closed.
    let _ = reading.read_to_end(&mut Vec::new()).await;
    let lasted = begun.elapsed();
    assert!(lasted <= Duration::from_secs(7), "{lasted:?}");
    slow.await.unwrap();
}

#[tokio::test]
async fn headers_above_their_limit_are_refused() {
    let listener = listen("ws://127.0.0.1:0").await;
    let large = format!("GET / HTTP/1.1\r\na: {}", "a".repeat(8 << 10));
    let answer = ask(&*listener, &large).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(65));
    let answer = ask(&*listener, &many).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn a_connection_that_sends_nothing_is_closed() {
    let listener = listen("ws://127.0.0.1:0").await;
    let mut silent = connect(&*listener).await;
    tokio::time::pause();
    let begun = Instant::now();
    assert_eq!(silent.read(&mut [0]).await.unwrap(), 0);
    let lasted = begun.elapsed();
    assert!(lasted <= Duration::from_secs(11), "{lasted:?}");
}

#[tokio::test]
async fn routes_of_others_are_served_beside_the_carriers() {
    let address = "ws://127.0.0.1:0".parse().unwrap();
    let routes = Router::new().route("/health", get(|| async { "it runs" }));
    let server = HttpServer::bind(&address).await.unwrap();
    let mut listener = server.with_routes(routes).serve();
    let answer = ask(&listener, "GET /health HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer.ends_with("it runs"), "{answer}");
    for address in listener.addresses() {
        let options = DialOptions::default();
        let dialled = dial(&address.to_string(), &options).await;
        dialled.unwrap();
        listener.accept().await.unwrap();
    }
}

#[tokio::test]
async fn a_server_of_routes_alone_takes_in_no_carriers() {
    let address = "ws://127.0.0.1:0".parse().unwrap();
    let routes = Router::new().route("/health", get(|| async { "it runs" }));
    let http2 = Http2 {
        streams: 4,
        window: 1 << 16,
        stream_window: 1 << 16,
        stranger_bytes: 1 << 16,
        ping_every: Duration::from_secs(6),
        ping_timeout: Duration::from_secs(6),
    };
    let server = HttpServer::bind(&address).await.unwrap();
    let listener = server.serve_only(routes, http2);
    let answer = ask(&listener, "GET /health HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert!(answer.ends_with("it runs"), "{answer}");
    for address in listener.addresses() {
        let dialled = dial(&address.to_string(), &DialOptions::default()).await;
        // Over gRPC the answer shows when it is read.
        if let Ok(mut carrier) = dialled {
            let received = carrier.stream.recv().await;
            assert!(received.is_err(), "{address}");
        }
    }
    let place = listener.addresses()[0].authority().to_owned();
    drop(listener);
    // The port is closed soon after.
    let closed = async { while TcpStream::connect(&place).await.is_ok() {} };
    let closed = tokio::time::timeout(Duration::from_secs(20), closed).await;
    closed.expect("nobody listens");
}

#[tokio::test]
async fn the_route_of_an_address_is_sent_where_a_load_balancer_reads_it() {
    let seen: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let balancer = seen.clone();
    let routes = Router::new().fallback(move |request: Request| async move {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let header = request.headers().get("longhand-route");
        let header = header.map(|value| value.to_str().unwrap().to_owned());
        let mut seen = balancer.lock().unwrap();
        seen.push((query, header.unwrap_or_default()));
        StatusCode::SERVICE_UNAVAILABLE
    });
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = socket.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(socket, routes).await });
    for scheme in ["ws", "grpc"] {
        let address = format!("{scheme}://{place}?route=c&later=x");
        // The balancer serves neither of them.
        let _ = dial(&address, &DialOptions::default()).await;
    }
    let expected = [("route=c", ""), ("", "c")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(*seen.lock().unwrap(), expected);
}

/// A listener behind a proxy on this machine.
async fn proxied() -> Box<dyn Listener> {
    listen("ws://127.0.0.1:0?proxies=10.0.0.0/8%2C127.0.0.1/32").await
}

/// A WebSocket through a proxy that names this client.
async fn websocket_for(
    listener: &dyn Listener,
    client: &str,
) -> tungstenite::Result<WebSocketStream<TcpStream>> {
    let stream = connect(listener).await;
    let address = listener.addresses()[0].to_string();
    let mut request = address.into_client_request().unwrap();
    let client = http::HeaderValue::from_str(client).unwrap();
    request.headers_mut().insert(FORWARDED, client);
    let opened = client_async(request, stream).await;
    opened.map(|(socket, _)| socket)
}

fn source(address: &str) -> Option<SourceNetwork> {
    Some(address.parse::<IpAddr>().unwrap().into())
}

#[tokio::test]
async fn a_proxy_says_whose_connection_it_is() {
    let mut listener = proxied().await;
    let forged_before = "198.51.100.1, 203.0.113.9, 10.0.0.7";
    let _socket = websocket_for(&*listener, forged_before).await.unwrap();
    let carrier = listener.accept().await.unwrap();
    assert_eq!(carrier.source, source("203.0.113.9"));
}

#[tokio::test]
async fn without_a_proxy_the_header_is_ignored() {
    let mut listener = listen("ws://127.0.0.1:0?proxies=10.0.0.0/8").await;
    let _socket = websocket_for(&*listener, "203.0.113.9").await.unwrap();
    let carrier = listener.accept().await.unwrap();
    assert_eq!(carrier.source, source("127.0.0.1"));
}

#[tokio::test]
async fn a_client_of_a_proxy_has_its_own_places_and_no_more() {
    let mut listener = proxied().await;
    let mut sockets = Vec::new();
    let mut carriers = Vec::new();
    for _ in 0..Places::STRANGERS.each {
        sockets.push(websocket_for(&*listener, "203.0.113.9").await.unwrap());
        carriers.push(listener.accept().await.unwrap());
    }
    let refused = websocket_for(&*listener, "203.0.113.9").await.unwrap_err();
    let tungstenite::Error::Http(answer) = refused else {
        panic!("{refused}");
    };
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let status = grpc_for(&*listener, "203.0.113.9").await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
    websocket_for(&*listener, "203.0.113.10").await.unwrap();
    grpc_for(&*listener, "203.0.113.11").await.unwrap();
    carriers.pop();
    websocket_for(&*listener, "203.0.113.9").await.unwrap();
}

/// Attaches through a proxy that names this client.
async fn grpc_for(listener: &dyn Listener, client: &str) -> Result<(), tonic::Status> {
    let url = format!("http://{}", listener.addresses()[0].authority());
    let mut channel = CarrierClient::connect(url).await.unwrap();
    let mut request = tonic::Request::new(tokio_stream::pending::<Record>());
    request
        .metadata_mut()
        .insert(FORWARDED, client.parse().unwrap());
    channel.attach(request).await.map(drop)
}

/// All that is logged, by the thread that this was made on.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn lines_with(&self, part: &str) -> usize {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().filter(|line| line.contains(part)).count()
    }
}

/// Lets the listener look at its files once, until it has found `what`.
async fn look(what: impl Fn() -> bool) {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(10)).await;
    tokio::time::resume();
    while !what() {
        tokio::task::yield_now().await;
    }
}

async fn is_served(listener: &dyn Listener, pem: &Pem) -> bool {
    let mut is_served = Vec::new();
    for scheme in ["wss", "grpcs"] {
        let address = address(listener, scheme);
        is_served.push(dial(&address, &pem.trusted()).await.is_ok());
    }
    assert_eq!(is_served[0], is_served[1], "both carriers have the same");
    is_served[0]
}

#[tokio::test]
async fn a_certificate_that_was_replaced_is_served_and_one_that_cannot_be_used_is_not() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(move || writer.clone())
        .with_ansi(false)
        .finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    let (old, new) = (Pem::valid(), Pem::valid());
    let files = TlsFiles::new(&old);
    let listener = listen(&files.address("wss")).await;
    let certificate = listener.certificate().unwrap();
    let far = certificate.expires_unix_s();
    assert!(is_served(&*listener, &old).await);

    files.write(&new.certificate, &old.key);
    let warning = format!("{} with the key", files.path("host.pem"));
    look(|| log.lines_with(&warning) == 1).await;
    assert!(is_served(&*listener, &old).await, "the old one stays");

    files.write(&new.certificate, &new.key);
    look(|| log.lines_with("is in use") == 1).await;
    assert!(is_served(&*listener, &new).await);
    assert!(!is_served(&*listener, &old).await);

    let expired = Pem::of_year(2001);
    files.write(&expired.certificate, &expired.key);
    look(|| certificate.expires_unix_s() != far).await;
    assert_eq!(certificate.expires_unix_s(), 1_009_843_200);
    assert_eq!(log.lines_with(&warning), 1);
}

#[tokio::test]
async fn a_listener_without_tls_has_no_certificate() {
    let listener = listen("ws://127.0.0.1:0").await;
    assert!(listener.certificate().is_none());
    let address: Address = "ws://127.0.0.1:0?certificate=a&key=b".parse().unwrap();
    assert!(Carriers::default().listen(&address).await.is_err());
}
