//! A server with a node that is made up, for `scripts/lnd-rpc-interop`: TLS, gRPC and REST on one port of loopback.
//!
//! It writes `tls.cert` and macaroons into a directory, prints its address, and obeys lines of standard input, with a line for each: `phone
//! here`, `phone away`, `phone refuses`, `invoice MSAT` (prints somebody else's invoice), `receive HASH` (pays one of its own). It
//! ends with its input.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::error::Error;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::HEXLOWER;
use longhand_lnd::testing::{ALL, FakeNode, OneApp, Phone, macaroon, macaroon_of};
use longhand_lnd::{Macaroon, Rights, routes, serve};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let dir = std::env::args()
        .nth(1)
        .ok_or("usage: fake_node DIRECTORY")?;
    let dir = Path::new(&dir);
    write_macaroons(dir)?;
    let tls = tls(dir)?;
    let node = Arc::new(FakeNode::default());
    let routes = routes(OneApp::new(node.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (tls, routes) = (tls.clone(), routes.clone());
            tokio::spawn(async move {
                if let Ok(stream) = tls.accept(stream).await {
                    serve(stream, routes).await;
                }
            });
        }
    });
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        println!("{}", obey(&node, &line)?);
    }
    Ok(())
}

fn obey(node: &FakeNode, line: &str) -> Result<String, Failure> {
    let (command, argument) = line.split_once(' ').ok_or("a command and its argument")?;
    match (command, argument) {
        ("phone", "here") => node.set_phone(Phone::Here),
        ("phone", "away") => node.set_phone(Phone::Away),
        ("phone", "refuses") => node.set_phone(Phone::Refuses),
        ("invoice", msat) => return Ok(FakeNode::foreign_invoice(msat.parse()?, now_unix_s())),
        ("receive", hash) => {
            let hash = HEXLOWER.decode(hash.as_bytes())?;
            node.receive(hash.try_into().map_err(|_| "a hash has 32 bytes")?);
        }
        _ => return Err("no such command".into()),
    }
    Ok("ok".into())
}

fn write_macaroons(dir: &Path) -> Result<(), Failure> {
    let read = Rights {
        read: true,
        ..Rights::default()
    };
    let (hour_ago, in_an_hour) = (now_unix_s() - 3_600, now_unix_s() + 3_600);
    let all: [(&str, Macaroon); 5] = [
        ("all", macaroon(ALL, Some(in_an_hour))),
        ("readonly", macaroon(read, None)),
        ("expired", macaroon(ALL, Some(hour_ago))),
        ("foreign", macaroon_of([9; 32], ALL, None)),
        ("tied", macaroon(ALL, None).narrowed("ipaddr 127.0.0.1")),
    ];
    for (name, macaroon) in all {
        std::fs::write(dir.join(format!("{name}.macaroon")), &*macaroon.to_bytes())?;
    }
    Ok(())
}

fn tls(dir: &Path) -> Result<TlsAcceptor, Failure> {
    let made = rcgen::generate_simple_self_signed(["localhost".into(), "127.0.0.1".into()])?;
    std::fs::write(dir.join("tls.cert"), made.cert.pem())?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let config = config.with_safe_default_protocol_versions()?;
    let config = config.with_no_client_auth();
    let mut config = config.with_single_cert(vec![made.cert.der().clone()], key.into())?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn now_unix_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_secs()
}
