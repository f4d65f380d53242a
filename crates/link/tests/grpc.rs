//! Real sockets on loopback: gRPC with and without TLS.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use common::{Host, phone, serve};
use longhand_link::carrier::grpc::{GrpcListener, ServerTls};
use longhand_link::{
    Address, Carriers, CloseCode, Conversation, Credentials, Dial, DialOptions, LinkError,
    LinkKeypair, Listener, PairingSecret, Rendezvous, accept, connect,
};

/// A certificate for `localhost` and its key.
fn certificate() -> (ServerTls, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let pem = made.cert.pem().into_bytes();
    let key_pem = made.signing_key.serialize_pem().into_bytes().into();
    (
        ServerTls {
            certificate_pem: pem.clone(),
            key_pem,
        },
        pem,
    )
}

/// Listens at an address, then pairs, sends requests both ways, detaches, attaches again.
async fn meet(listen: &str, options: DialOptions) {
    let (host, commands) = Host::new();
    serve(commands);
    let carriers = Carriers::default();
    let mut listener = carriers.listen(&listen.parse().unwrap()).await.unwrap();
    let [advertised] = &listener.addresses()[..] else {
        panic!("one address for one port");
    };
    let address = advertised.to_string().replace("127.0.0.1", "localhost");
    let code = host.code(&address);
    let (conversation, signing) = phone();
    serve(signing);
    let key = LinkKeypair::generate().unwrap();
    let addresses = code.addresses.clone();
    let pair = Credentials::Pair {
        phone: key.clone(),
        code: Box::new(code),
    };
    let attach = Credentials::Attach {
        phone: key,
        host: host.public(),
    };

    for credentials in [pair, attach] {
        let (accepted, connected) = tokio::join!(
            async { accept(listener.accept().await.unwrap(), &host).await },
            connect(&addresses, &credentials, &options, &conversation),
        );
        let (node, (link, _)) = (accepted.unwrap().link, connected.unwrap());
        let (answer, signed) = tokio::join!(
            link.request("command", vec![1; 300_000]),
            node.request("signer", b"batch".to_vec()),
        );
        assert_eq!(answer.unwrap().len(), 300_000);
        assert_eq!(signed.unwrap(), b"hctab");
        let (left, ()) = tokio::join!(link.detach(), async {
            node.detach_requested().await;
            node.confirm_detach();
        });
        left.unwrap();
        link.ended().await;
        assert_eq!(node.closed().await.code, CloseCode::Detached);
    }
}

#[tokio::test]
async fn a_phone_pairs_and_attaches_over_plain_grpc() {
    meet("grpc://127.0.0.1:0", DialOptions::default()).await;
}

#[tokio::test]
async fn a_phone_pairs_and_attaches_over_grpc_with_tls() {
    let (tls, ca) = certificate();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let address = Address::new("grpcs", "127.0.0.1:0")
        .and_then(|it| it.with("certificate", &file("host.pem", &tls.certificate_pem)))
        .and_then(|it| it.with("key", &file("the key.pem", &tls.key_pem)))
        .unwrap();
    let options = DialOptions {
        ca_pem: Some(ca),
        ..DialOptions::default()
    };
    meet(&address.to_string(), options).await;
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_refused() {
    let (tls, _) = certificate();
    let listener = GrpcListener::bind("127.0.0.1:0", Some(tls)).await.unwrap();
    let address = format!("grpcs://localhost:{}", listener.local_addr().port());
    let failed = dial(&address).await;
    assert!(matches!(failed, LinkError::Unreachable { .. }), "{failed}");
}

/// As a phone sees it whose clock is years behind.
#[tokio::test]
async fn a_certificate_that_is_not_valid_yet_is_refused_with_the_time_of_the_clock() {
    let mut made = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    made.not_before = rcgen::date_time_ymd(2090, 1, 1);
    made.not_after = rcgen::date_time_ymd(2091, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = made.self_signed(&key).unwrap().pem().into_bytes();
    let tls = ServerTls {
        certificate_pem: pem.clone(),
        key_pem: key.serialize_pem().into_bytes().into(),
    };
    let listener = GrpcListener::bind("127.0.0.1:0", Some(tls)).await.unwrap();
    let address = format!("grpcs://localhost:{}", listener.local_addr().port());
    let options = DialOptions {
        ca_pem: Some(pem),
        ..DialOptions::default()
    };
    let failed = options.dial(&address, &meeting()).await;
    let line = failed.err().expect("refused").to_string();
    for part in ["not valid yet", "this machine's clock shows 20"] {
        assert!(line.contains(part), "{line}");
    }
}

#[tokio::test]
async fn the_first_address_that_answers_is_taken() {
    let (host, _commands) = Host::new();
    let mut listener = GrpcListener::bind("127.0.0.1:0", None).await.unwrap();
    let code = host.code(&format!("grpc://{}", listener.local_addr()));
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
    for address in ["ws://127.0.0.1:1", "127.0.0.1:1", "grpc://", "grpc://a b"] {
        assert!(
            matches!(dial(address).await, LinkError::UnknownCarrier(_)),
            "{address}"
        );
    }
    let listener = GrpcListener::bind("127.0.0.1:0", None).await.unwrap();
    let taken = GrpcListener::bind(&listener.local_addr().to_string(), None).await;
    assert!(matches!(taken, Err(LinkError::Listen { .. })));
    let bad = ServerTls {
        certificate_pem: b"no".to_vec(),
        key_pem: b"no".to_vec().into(),
    };
    let bad = GrpcListener::bind("127.0.0.1:0", Some(bad)).await;
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
        ["grpc://127.0.0.1:1", "wss://127.0.0.1:1"],
        ["wss://127.0.0.1:1", "grpc://127.0.0.1:1"],
    ] {
        let failed = dial_all(&addresses).await;
        assert!(matches!(failed, LinkError::Unreachable { .. }), "{failed}");
    }
}

fn meeting() -> Rendezvous {
    Rendezvous::of_pairing(&PairingSecret::from_bytes([1; 16]))
}

async fn dial(address: &str) -> LinkError {
    dial_all(&[address]).await
}

async fn dial_all(addresses: &[&str]) -> LinkError {
    let (conversation, _requests): (Conversation, _) = phone();
    let credentials = Credentials::Attach {
        phone: LinkKeypair::generate().unwrap(),
        host: longhand_link::LinkKey([9; 32]),
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
    let mut listener = GrpcListener::bind("127.0.0.1:0", None).await.unwrap();
    let code = host.code(&format!("grpc://{}", listener.local_addr()));
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
