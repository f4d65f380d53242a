//! Two ends, and nothing between them that loses a packet: `go_back_n.rs` has that.
#![allow(clippy::unwrap_used)]

use bitcoin::secp256k1::rand::thread_rng;
use bitcoin::secp256k1::{Secp256k1, SecretKey};

use super::*;
use crate::{Keys, Phrase, Stretched, VERSIONS};

const TEXT: &[u8] = b"a pairing code";

struct Pair {
    client: Connection,
    server: Connection,
    now: Instant,
}

impl Pair {
    fn of(make: impl Fn(Role, Instant) -> Connection) -> Pair {
        let now = Instant::now();
        Pair {
            client: make(Role::Client, now),
            server: make(Role::Server, now),
            now,
        }
    }

    fn exchange(&mut self) {
        loop {
            let (to_server, to_client) = (self.client.next_packet(), self.server.next_packet());
            if to_server.is_none() && to_client.is_none() {
                return;
            }
            if let Some(packet) = to_server {
                self.server.received(self.now, &packet);
            }
            if let Some(packet) = to_client {
                self.client.received(self.now, &packet);
            }
        }
    }
}

fn stretched(words: &str) -> Stretched {
    Phrase::parse(words).unwrap().stretch().unwrap()
}

fn encrypted(role: Role, keys: Keys, local: SecretKey, now: Instant) -> Connection {
    let text = match role {
        Role::Client => Vec::new(),
        Role::Server => TEXT.to_vec(),
    };
    let ephemeral = SecretKey::new(&mut thread_rng());
    let handshake = Handshake::new(role, keys, local, ephemeral, text.into(), VERSIONS);
    Connection::encrypted(handshake.unwrap(), Timing::default(), now)
}

fn key(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).unwrap()
}

fn public(byte: u8) -> PublicKey {
    key(byte).public_key(&Secp256k1::new())
}

fn known(role: Role, now: Instant) -> Connection {
    match role {
        Role::Client => encrypted(role, Keys::Known(public(2)), key(1), now),
        Role::Server => encrypted(role, Keys::Known(public(1)), key(2), now),
    }
}

fn all_of(end: &mut Connection) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| end.next_message().unwrap())
        .map(|message| message.to_vec())
        .collect()
}

#[test]
fn a_phrase_gives_both_ends_the_keys_and_the_client_the_text() {
    let stretched = stretched(&"abandon ".repeat(10));
    let mut pair = Pair::of(|role, now| {
        let local = key(if role == Role::Client { 1 } else { 2 });
        encrypted(role, Keys::Phrase(stretched.clone()), local, now)
    });
    assert!(!pair.client.is_ready());
    pair.exchange();
    assert!(pair.client.is_ready() && pair.server.is_ready());
    let (at_client, at_server) = (pair.client.peer().unwrap(), pair.server.peer().unwrap());
    assert_eq!((at_client.key, at_server.key), (public(2), public(1)));
    assert_eq!((&at_client.text[..], at_client.version), (TEXT, 2));
    assert!(at_server.text.is_empty());
}

#[test]
fn messages_of_any_size_come_both_ways_encrypted_or_not() {
    let plain = |role, now| Connection::plain(role, Timing::default(), now);
    for mut pair in [Pair::of(known), Pair::of(plain)] {
        pair.exchange();
        let messages: Vec<Vec<u8>> = [0, 1, 40_000, MAX_MESSAGE_BYTES]
            .map(|bytes| vec![bytes as u8; bytes])
            .into();
        for message in &messages {
            pair.client.send(pair.now, message).unwrap();
            pair.server.send(pair.now, message).unwrap();
        }
        pair.exchange();
        assert_eq!(all_of(&mut pair.server), messages);
        assert_eq!(all_of(&mut pair.client), messages);
        assert!(pair.client.is_all_acknowledged());
    }
}

#[test]
fn a_message_that_finds_no_room_leaves_the_encryption_as_it_was() {
    let mut pair = Pair::of(known);
    pair.exchange();
    let message = vec![7; MAX_MESSAGE_BYTES];
    let mut sent = 0;
    while pair.client.send(pair.now, &message).is_ok() {
        sent += 1;
    }
    assert!(sent > 20);
    let too_long = vec![7; MAX_MESSAGE_BYTES + 1];
    assert!(pair.client.send(pair.now, &too_long).is_err());
    let mut received = 0;
    while received < sent {
        pair.exchange();
        received += all_of(&mut pair.server).len();
    }
    pair.client.send(pair.now, b"after it").unwrap();
    pair.exchange();
    assert_eq!(all_of(&mut pair.server), [b"after it"]);
}

#[test]
fn another_phrase_is_seen_by_the_server_in_the_first_act() {
    let (right, wrong) = (
        stretched(&"abandon ".repeat(10)),
        stretched(&"ability ".repeat(10)),
    );
    let mut pair = Pair::of(|role, now| {
        let phrase = if role == Role::Client { &wrong } else { &right };
        encrypted(role, Keys::Phrase(phrase.clone()), key(3), now)
    });
    pair.exchange();
    let ended = pair.server.ended().unwrap();
    assert!(ended.is_wrong_secret(), "{ended}");
    assert_eq!(pair.server.next_message(), Err(ended));
    assert_eq!(pair.client.ended(), Some(Ended::Over(Over::ByPeer)));
    assert!(!pair.client.is_ready());
}

#[test]
fn messages_that_came_before_the_end_are_read() {
    let mut pair = Pair::of(known);
    pair.exchange();
    pair.client.send(pair.now, b"last").unwrap();
    pair.exchange();
    pair.client.close();
    pair.exchange();
    assert_eq!(pair.server.ended(), Some(Ended::Over(Over::ByPeer)));
    assert_eq!(all_of(&mut pair.server), [b"last"]);
}
