//! Over a pipe in memory, with tokio's paused clock.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::pin::pin;

use futures::{FutureExt, poll};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);

async fn socket(stream: DuplexStream, role: Role) -> WebSocketStream<DuplexStream> {
    WebSocketStream::from_raw_socket(stream, role, Some(config())).await
}

/// A client's carrier, and the server's end of its connection, over a pipe of this many bytes.
async fn connected(bytes: usize) -> (Carrier, WebSocketStream<DuplexStream>) {
    let (client, server) = duplex(bytes);
    let client = carrier(socket(client, Role::Client).await, None);
    (client, socket(server, Role::Server).await)
}

#[tokio::test]
async fn a_record_is_sent_when_the_socket_has_taken_all_of_it() {
    let (mut client, mut server) = connected(1_000).await;
    let record: Vec<u8> = (0..10_000_u16).map(|n| n as u8).collect();
    {
        let mut sending = pin!(client.sink.send(record.clone()));
        assert!(poll!(&mut sending).is_pending(), "there is no room");
        let (received, sent) = tokio::join!(server.next(), sending);
        sent.unwrap();
        let received = received.unwrap().unwrap();
        assert_eq!(received.into_data(), record);
    }
    client.sink.send(vec![1; 900]).await.unwrap();
}

#[tokio::test]
async fn a_record_whose_sender_was_cancelled_goes_before_the_next() {
    let (mut client, mut server) = connected(1_000).await;
    assert!(client.sink.send(vec![1; 5_000]).now_or_never().is_none());
    let received = async {
        let first = server.next().await.unwrap().unwrap();
        (first, server.next().await.unwrap().unwrap())
    };
    let ((first, second), sent) = tokio::join!(received, client.sink.send(vec![2; 5]));
    sent.unwrap();
    assert_eq!(first.into_data(), vec![1; 5_000]);
    assert_eq!(second.into_data(), vec![2; 5]);
}

#[tokio::test(start_paused = true)]
async fn a_sender_that_waits_for_room_fails_when_the_other_side_closes() {
    let (client, mut server) = connected(1_000).await;
    let Carrier {
        mut sink,
        mut stream,
        ..
    } = client;
    let sending = tokio::spawn(async move { sink.send(vec![1; 5_000]).await });
    // Runs the sender until it waits.
    tokio::task::yield_now().await;
    assert!(!sending.is_finished());
    let (closed, end) = tokio::join!(server.close(None), stream.recv());
    closed.unwrap();
    assert_eq!(end, Ok(None));
    let sent = timeout(HOUR, sending).await.expect("it is woken");
    assert!(sent.unwrap().is_err());
}

/// Fragments (RFC 6455, 5.4), so that no buffer of either side grows to the size of the record.
#[tokio::test]
async fn a_large_record_is_sent_in_frames_that_fit_the_buffer_of_the_other_side() {
    let (server, mut wire) = duplex(100_000);
    let mut server = carrier(socket(server, Role::Server).await, None);
    server.sink.send(vec![1; 5_000]).await.unwrap();
    let (mut left, mut kind) = (5_000, 0x02);
    while left > 0 {
        // Final or not and the kind, then 126: the length is in the next two bytes.
        let mut head = [0; 4];
        wire.read_exact(&mut head).await.unwrap();
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        left -= length;
        let is_last = if left == 0 { 0x80 } else { 0 };
        assert_eq!(head[..2], [is_last | kind, 126]);
        assert!(head.len() + length <= BUFFER, "{length}");
        wire.read_exact(&mut vec![0; length]).await.unwrap();
        kind = 0;
    }
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_sent_when_nothing_was_sent_for_25_seconds() {
    let (mut client, mut server) = connected(10_000).await;
    let begun = Instant::now();
    let serving = async {
        let ping = server.next().await.unwrap().unwrap();
        assert!(ping.is_ping(), "{ping}");
        assert_eq!(begun.elapsed(), PING_EVERY);
        // Written with this: the pong.
        server.flush().await.unwrap();
    };
    tokio::select! {
        received = client.stream.recv() => panic!("{received:?}"),
        () = serving => {}
    }
    let silent = timeout(PING_EVERY - Duration::from_secs(1), client.stream.recv()).await;
    assert!(silent.is_err(), "it waits on");
    client.sink.send(vec![1]).await.unwrap();
    let record = server.next().await.unwrap().unwrap();
    assert!(record.is_binary(), "{record}");
    let sent = Instant::now();
    let serving = async {
        let ping = server.next().await.unwrap().unwrap();
        assert!(ping.is_ping(), "{ping}");
        assert_eq!(sent.elapsed(), PING_EVERY);
    };
    tokio::select! {
        received = client.stream.recv() => panic!("{received:?}"),
        () = serving => {}
    }
}

#[tokio::test(start_paused = true)]
async fn two_ends_that_send_nothing_stay_connected() {
    let (client, server) = connected(10_000).await;
    let server = carrier(server, None);
    let Carrier {
        sink: mut sending,
        stream: mut receiving,
        ..
    } = server;
    let mut client_end = client;
    let silence = timeout(HOUR, async {
        tokio::join!(client_end.stream.recv(), receiving.recv())
    });
    assert!(silence.await.is_err());
    sending.send(vec![1]).await.unwrap();
    assert_eq!(client_end.stream.recv().await, Ok(Some(vec![1])));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_no_ping_is_gone() {
    let (mut client, _server) = connected(10_000).await;
    let begun = Instant::now();
    let received = timeout(HOUR, client.stream.recv()).await;
    let CarrierError(line) = received.expect("it does not wait").unwrap_err();
    assert!(line.contains("no longer answers"), "{line}");
    assert_eq!(begun.elapsed(), PING_EVERY + PONG_TIMEOUT);
    assert!(client.sink.send(vec![1]).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn pings_of_a_side_that_reads_nothing_take_little_memory() {
    const PIPE: usize = 1_000;
    const PINGS: usize = 10_000;
    let (near, mut far) = duplex(PIPE);
    let mut carrier = carrier(socket(near, Role::Server).await, None);
    let receiving = tokio::spawn(async move { carrier.stream.recv().await });
    // Masked with zeros, as a client sends it.
    let ping = [&[0x89, 0x80 | 125, 0, 0, 0, 0][..], &[7; 125]].concat();
    for _ in 0..PINGS {
        far.write_all(&ping).await.unwrap();
    }
    let mut answered = 0;
    let mut buffer = [0; 4_096];
    while let Ok(read) = timeout(Duration::from_millis(1), far.read(&mut buffer)).await {
        answered += read.unwrap();
    }
    assert!(answered > 0, "pings are answered");
    // Those that were in the pipe are answered while this side reads.
    let most = 4 * PIPE + MAX_UNSENT;
    assert!(answered <= most, "{answered} bytes waited, not {most}");
    receiving.abort();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_takes_nothing_of_a_record_is_left() {
    let (client, _server) = connected(1_000).await;
    let Carrier {
        mut sink,
        mut stream,
        ..
    } = client;
    let begun = Instant::now();
    let (sent, received) = tokio::join!(sink.send(vec![1; 60_000]), stream.recv());
    assert!(sent.is_err() && received.is_err());
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(80), "{took:?}");
}
