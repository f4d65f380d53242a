//! Real sockets on loopback: gRPC with and without TLS.

use crate::common::{Host, Pem, TlsFiles, address, listen, meet, phone};
use longhand_link::carrier::MAX_MESSAGE;
use longhand_link::{
    Carriers, CloseCode, Conversation, Credentials, DialOptions, LinkError, LinkKeypair, accept,
    connect,
};

#[tokio::test]
async fn a_phone_pairs_and_attaches_over_plain_grpc() {
    let mut listener = listen("grpc://127.0.0.1:0").await;
    meet(&mut *listener, "grpc", &DialOptions::default()).await;
}

#[tokio::test]
async fn a_phone_pairs_and_attaches_over_grpc_with_tls() {
    let pem = Pem::valid();
    let files = TlsFiles::new(&pem);
    let mut listener = listen(&files.address("grpcs")).await;
    meet(&mut *listener, "grpcs", &pem.trusted()).await;
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_refused() {
    let files = TlsFiles::new(&Pem::valid());
    let listener = listen(&files.address("grpcs")).await;
    let failed = dial(&address(&*listener, "grpcs")).await;
    assert!(matches!(failed, LinkError::Unreachable { .. }), "{failed}");
}

/// As a phone sees it whose clock is years behind.
#[tokio::test]
async fn a_certificate_that_is_not_valid_yet_is_refused_with_the_time_of_the_clock() {
    let pem = Pem::of_year(2090);
    let files = TlsFiles::new(&pem);
    let listener = listen(&files.address("grpcs")).await;
    let address = address(&*listener, "grpcs");
    let failed = crate::common::dial(&address, &pem.trusted()).await;
    let line = failed.err().expect("refused").to_string();
    for part in ["not valid yet", "this machine's clock shows 20"] {
        assert!(line.contains(part), "{line}");
    }
}

#[tokio::test]
async fn the_first_address_that_answers_is_taken() {
    let (host, _commands) = Host::new();
    let mut listener = listen("grpc://127.0.0.1:0").await;
    let code = host.code(&address(&*listener, "grpc"));
    let addresses = [&["grpc://127.0.0.1:1".to_owned()], &code.addresses[..]].concat();
    let credentials = Credentials::Pair {
        phone: LinkKeypair::generate().unwrap(),
        code: Box::new(code),
    };
    let (conversation, _signing) = phone();
    let options = DialOptions::default();
    let (accepted, connected) = tokio::join!(
        async { accept(listener.accept().await.unwrap(), &host).await },
        connect(&addresses, &credentials, &options, &conversation),
    );
    accepted.unwrap();
    assert_eq!(connected.unwrap().1, 1);
}

#[tokio::test]
async fn a_host_that_is_not_there_an_unknown_carrier_and_a_taken_port_are_named() {
    let gone = dial("grpc://127.0.0.1:1").await;
    assert!(
        matches!(&gone, LinkError::Unreachable { address, .. } if address == "grpc://127.0.0.1:1"),
        "{gone}"
    );
    for address in ["tor://127.0.0.1:1", "127.0.0.1:1", "grpc://", "grpc://a b"] {
        assert!(
            matches!(dial(address).await, LinkError::UnknownCarrier(_)),
            "{address}"
        );
    }
    let listener = listen("grpc://127.0.0.1:0").await;
    let taken = Carriers::default().listen(&listener.addresses()[0]).await;
    assert!(matches!(taken, Err(LinkError::Listen { .. })));
    let files = TlsFiles::new(&Pem::valid());
    files.write("no", "no");
    let bad = files.address("grpcs").parse().unwrap();
    let bad = Carriers::default().listen(&bad).await;
    assert!(matches!(bad, Err(LinkError::Tls(_))));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_takes_connections_and_says_nothing_is_given_up() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let failed = dial(&format!("grpc://{}", silent.local_addr().unwrap())).await;
    assert!(matches!(failed, LinkError::Unreachable { .. }), "{failed}");
}

/// A phone gives up after an unknown carrier, and retries when the host is away.
#[tokio::test]
async fn an_address_for_newer_phones_does_not_hide_that_the_host_is_away() {
    for addresses in [
        ["grpc://127.0.0.1:1", "tor://127.0.0.1:1"],
        ["tor://127.0.0.1:1", "grpc://127.0.0.1:1"],
    ] {
        let failed = dial_all(&addresses).await;
        assert!(matches!(failed, LinkError::Unreachable { .. }), "{failed}");
    }
}

async fn dial(address: &str) -> LinkError {
    dial_all(&[address]).await
}

async fn dial_all(addresses: &[&str]) -> LinkError {
    let (conversation, _requests): (Conversation, _) = phone();
    let credentials = Credentials::Attach {
        phone: LinkKeypair::generate().unwrap(),
        host: longhand_link::LinkKey([9; 32]),
        discovery: None,
    };
    let addresses: Vec<String> = addresses.iter().map(|it| (*it).to_owned()).collect();
    let options = DialOptions::default();
    connect(&addresses, &credentials, &options, &conversation)
        .await
        .map(drop)
        .unwrap_err()
}

#[tokio::test]
async fn a_close_arrives_before_the_connection_ends() {
    let (host, _commands) = Host::new();
    let mut listener = listen("grpc://127.0.0.1:0").await;
    let code = host.code(&address(&*listener, "grpc"));
    let addresses = code.addresses.clone();
    let credentials = Credentials::Pair {
        phone: LinkKeypair::generate().unwrap(),
        code: Box::new(code),
    };
    let (conversation, _signing) = phone();
    let options = DialOptions::default();
    let (accepted, connected) = tokio::join!(
        async { accept(listener.accept().await.unwrap(), &host).await },
        connect(&addresses, &credentials, &options, &conversation),
    );
    let (node, (link, _)) = (accepted.unwrap().link, connected.unwrap());
    link.close(CloseCode::Shutdown, "the phone is switched off");
    let reason = node.closed().await;
    assert_eq!((reason.code, reason.by_peer), (CloseCode::Shutdown, true));
    tokio::join!(link.ended(), node.ended());
}

#[tokio::test]
async fn the_largest_message_of_a_carrier_goes_through_both_ways() {
    let mut listener = listen("grpc://127.0.0.1:0").await;
    let address = address(&*listener, "grpc");
    let mut phone = crate::common::dial(&address, &DialOptions::default())
        .await
        .unwrap();
    let mut host = listener.accept().await.unwrap();
    let largest = vec![1; MAX_MESSAGE];
    phone.sink.send(largest.clone()).await.unwrap();
    assert_eq!(host.stream.recv().await, Ok(Some(largest.clone())));
    host.sink.send(largest.clone()).await.unwrap();
    assert_eq!(phone.stream.recv().await, Ok(Some(largest)));
}
