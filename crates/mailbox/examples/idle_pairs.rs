//! Measures the memory of a mailbox with idle pairs: a phone's connection, and a stream of the host's one connection.
//!
//! `cargo run --release -p longhand-mailbox --example idle_pairs -- 2000`
//!
//! The clients are another process, so that only the mailbox is measured. On Linux; needs a file descriptor for each pair.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use longhand_link::carrier::mailbox::stream::{End, Nonce, Permit, StreamKey};
use longhand_link::{Carrier, Carriers, Dial, DialOptions, PairingSecret, Rendezvous};
use longhand_mailbox::{Mailbox, MailboxConfig};
use longhand_proto::mailbox::server_message::Body;
use longhand_proto::mailbox::{Attach, ClientMessage, ServerMessage, client_message};
use prost::Message;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments[1..] {
        [pairs] => measure(pairs.parse().expect("a number of pairs")).await,
        [pairs, address] => dial_pairs(pairs.parse().unwrap(), address).await,
        _ => eprintln!("give the number of pairs"),
    }
}

async fn measure(pairs: usize) {
    let mut config = MailboxConfig::default();
    config.link.listen = vec!["ws://127.0.0.1:0".into()];
    config.metrics.listen = String::new();
    config.limits.connections_per_network = pairs + 1;
    config.limits.ends_per_network = 2 * pairs;
    config.limits.ends = 2 * pairs;
    let mailbox = Mailbox::start(config, Carriers::default()).await.unwrap();
    let before = resident_bytes();
    let address = mailbox.addresses()[0].to_string();
    let mut clients = Command::new(std::env::current_exe().unwrap())
        .args([pairs.to_string(), address])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let ready = BufReader::new(clients.stdout.take().unwrap());
    let line = tokio::task::spawn_blocking(|| ready.lines().next()).await;
    line.unwrap().expect("the clients are attached").unwrap();
    let used = resident_bytes() - before;
    println!("{pairs} pairs: {} bytes each", used / pairs);
    print!("{}", mailbox.metrics());
    clients.kill().unwrap();
    clients.wait().unwrap();
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4_096
}

/// The host attaches all streams over one connection, and each phone one over its own.
async fn dial_pairs(pairs: usize, address: &str) {
    let (mut host, nonce) = dial(address).await;
    let mut phones = Vec::new();
    for pair in 0..pairs {
        let handle = u32::try_from(pair).unwrap();
        attach(&mut host, handle, pair, End::Host, &nonce).await;
        let (mut phone, nonce) = dial(address).await;
        attach(&mut phone, 1, pair, End::Phone, &nonce).await;
        phones.push(phone);
    }
    println!("ready");
    std::io::stdout().flush().unwrap();
    std::future::pending::<()>().await;
}

async fn dial(address: &str) -> (Carrier, Nonce) {
    let meeting = Rendezvous::of_pairing(&PairingSecret::from_bytes([0; 16]));
    let dialled = DialOptions::default().dial(address, &meeting).await;
    let mut carrier = dialled.unwrap();
    let Body::Welcome(welcome) = next(&mut carrier).await else {
        panic!("no Welcome");
    };
    (carrier, welcome.nonce.try_into().unwrap())
}

async fn next(carrier: &mut Carrier) -> Body {
    let message = carrier.stream.recv().await.unwrap().expect("a message");
    ServerMessage::decode(&message[..]).unwrap().body.unwrap()
}

async fn attach(carrier: &mut Carrier, handle: u32, pair: usize, end: End, nonce: &Nonce) {
    let mut secret = [0; 16];
    secret[..8].copy_from_slice(&u64::try_from(pair).unwrap().to_be_bytes());
    let meeting = Rendezvous::of_pairing(&PairingSecret::from_bytes(secret));
    let key = StreamKey::new(&meeting, "relay.example:443");
    let attach = Attach {
        handle,
        public_key: key.public().to_vec(),
        end: end.to_wire().into(),
        signature: key.sign(Permit::Attach(end), nonce).to_vec(),
    };
    let body = Some(client_message::Body::Attach(attach));
    let message = ClientMessage { body }.encode_to_vec();
    carrier.sink.send(message).await.unwrap();
    assert!(matches!(next(carrier).await, Body::Attached(_)));
}
