//! A phone at a mailbox that does not do its part: each time one clear line, within seconds.

use crate::common::{paired, phone};
use longhand_link::{Carrier, Carriers, DialOptions, LinkError, connect};
use longhand_proto::Code;
use longhand_proto::mailbox::server_message::Body;
use longhand_proto::mailbox::{Attached, Data, Ended, ServerMessage, Welcome};
use prost::Message;

fn welcome(version: u32) -> Vec<u8> {
    message(Body::Welcome(Welcome {
        version,
        nonce: vec![7; 32],
        has_routes: false,
    }))
}

fn message(body: Body) -> Vec<u8> {
    ServerMessage { body: Some(body) }.encode_to_vec()
}

fn ended(code: Code, message_: &str) -> Vec<u8> {
    message(Body::Ended(Ended {
        handle: 1,
        code: code.into(),
        message: message_.into(),
    }))
}

fn data(handle: u32, payload: &[u8]) -> Vec<u8> {
    let payload = payload.to_vec();
    message(Body::Data(Data { handle, payload }))
}

/// A phone dials a mailbox that sends these messages, and closes the connection when `closes`. Why the phone has no link.
async fn refused(messages: &[Vec<u8>], closes: bool) -> LinkError {
    let at = "ws://127.0.0.1:0".parse().unwrap();
    let mut listener = Carriers::default().listen(&at).await.unwrap();
    let addresses = [format!("mailbox+{}", listener.addresses()[0])];
    let (_host, _commands, credentials) = paired();
    let (conversation, _signing) = phone();
    let options = DialOptions::default();
    let mailbox = async {
        let mut carrier = listener.accept().await.unwrap();
        for message in messages {
            carrier.sink.send(message.clone()).await.unwrap();
        }
        if !closes {
            drain(&mut carrier).await;
        }
    };
    let connecting = connect(&addresses, &credentials, &options, &conversation);
    let (_, connected) = tokio::join!(mailbox, connecting);
    connected.map(drop).unwrap_err()
}

/// Reads until the phone is gone.
async fn drain(carrier: &mut Carrier) {
    while let Ok(Some(_)) = carrier.stream.recv().await {}
}

#[tokio::test]
async fn a_mailbox_that_breaks_its_protocol_is_named_in_one_line() {
    let attached = message(Body::Attached(Attached {
        handle: 1,
        is_met: true,
    }));
    let cases: [(&[Vec<u8>], bool, &str); 6] = [
        (&[b"\xff".to_vec()], false, "no message"),
        (&[data(1, b"")], false, "no Welcome"),
        (&[welcome(1), welcome(1)], false, "a second Welcome"),
        (&[welcome(9)], false, "version 9"),
        (&[welcome(1), attached], true, "closed the connection"),
        (
            &[welcome(1), ended(Code::TakenOver, "another reader\ncame")],
            false,
            Code::TakenOver.as_str(),
        ),
    ];
    for (messages, closes, expected) in cases {
        let line = refused(messages, closes).await.to_string();
        assert!(line.contains(expected), "{line:?} has no {expected:?}");
        assert!(!line.contains('\n'), "{line:?} is one line");
    }
}

#[tokio::test]
async fn a_host_that_is_not_at_the_mailbox_is_named() {
    let alone = message(Body::Attached(Attached {
        handle: 1,
        is_met: false,
    }));
    let line = refused(&[welcome(1), alone], false).await.to_string();
    assert!(line.contains("the host is not at the mailbox"), "{line}");
}

#[tokio::test]
async fn foreign_packets_and_other_streams_reach_no_link() {
    let open = |kind: u8| [&[kind][..], &[9; 8], b"a record"].concat();
    let alone = message(Body::Attached(Attached {
        handle: 1,
        is_met: false,
    }));
    let mut messages = vec![welcome(1), data(2, b"another stream's"), data(1, b"")];
    messages.extend((0..=4).map(|kind| data(1, &open(kind))));
    messages.extend([data(1, &[0xff; 60_000]), alone]);
    let line = refused(&messages, false).await.to_string();
    assert!(line.contains("the host is not at the mailbox"), "{line}");
}
