//! Handshakes and messages of the stock library, of both ends (`vectors/make.go`): ours sends the same bytes, and reads theirs.
#![allow(clippy::unwrap_used)]

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::hex::{DisplayHex, FromHex};
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use longhand_lnc::{Finished, Handshake, Keys, Phrase, Role, Streams, Transport};
use serde::Deserialize;

/// Messages of each end.
const MESSAGES: usize = 1_200;

#[derive(Deserialize)]
struct Vector {
    name: String,
    words: String,
    client_key: String,
    server_key: String,
    client_ephemeral: String,
    server_ephemeral: String,
    known: bool,
    server_highest_version: u8,
    text: String,
    acts: Vec<String>,
    to_server: Vec<String>,
    to_client: Vec<String>,
    all_to_server_sha256: String,
    all_to_client_sha256: String,
    stream_to_client: String,
}

fn vectors() -> Vec<Vector> {
    serde_json::from_str(include_str!("vectors/handshake.json")).unwrap()
}

fn secret(hex: &str) -> SecretKey {
    SecretKey::from_slice(&Vec::from_hex(hex).unwrap()).unwrap()
}

fn public(hex: &str) -> PublicKey {
    secret(hex).public_key(&Secp256k1::new())
}

impl Vector {
    fn phrase(&self) -> Phrase {
        Phrase::parse(&self.words).unwrap()
    }

    fn keys(&self, other: &str) -> Keys {
        match self.known {
            true => Keys::Known(public(other)),
            false => Keys::Phrase(self.phrase().stretch().unwrap()),
        }
    }

    fn end(&self, role: Role) -> Handshake {
        let (own, ephemeral, other, text, highest) = match role {
            Role::Client => (
                &self.client_key,
                &self.client_ephemeral,
                &self.server_key,
                "",
                2,
            ),
            Role::Server => (
                &self.server_key,
                &self.server_ephemeral,
                &self.client_key,
                &self.text[..],
                self.server_highest_version,
            ),
        };
        let text = text.as_bytes().to_vec().into();
        let (own, ephemeral) = (secret(own), secret(ephemeral));
        Handshake::new(role, self.keys(other), own, ephemeral, text, 0..=highest).unwrap()
    }

    /// Plays one end against the acts of the other.
    fn play(&self, role: Role) -> Finished {
        let mut end = self.end(role);
        for act in &self.acts {
            match end.write() {
                Some(ours) => assert_eq!(ours.to_lower_hex_string(), *act, "{}", self.name),
                None => end.read(&Vec::from_hex(act).unwrap()).unwrap(),
            }
        }
        end.finish().unwrap()
    }
}

/// The messages of one end, as the stock library was made to send them.
fn messages(first: u8) -> impl Iterator<Item = Vec<u8>> {
    (0..MESSAGES).map(move |at| vec![first.wrapping_add(at as u8); at % 40])
}

fn check_sent(transport: &mut Transport, first: u8, some: &[String], all_sha256: &str) {
    let mut all = sha256::Hash::engine();
    let mut expected = some.iter();
    for (at, message) in messages(first).enumerate() {
        let sealed = transport.seal(&message).unwrap();
        if matches!(at, 0 | 1 | 499 | 500 | 1_001) {
            assert_eq!(&sealed.to_lower_hex_string(), expected.next().unwrap());
        }
        all.input(&sealed);
    }
    assert_eq!(expected.next(), None);
    assert_eq!(sha256::Hash::from_engine(all).to_string(), all_sha256);
}

#[test]
fn both_ends_speak_as_the_stock_ones_do() {
    for vector in vectors() {
        let (mut client, mut server) = (vector.play(Role::Client), vector.play(Role::Server));
        assert_eq!(client.remote, public(&vector.server_key));
        assert_eq!(server.remote, public(&vector.client_key));
        assert_eq!(client.version, vector.server_highest_version);
        assert_eq!(server.version, vector.server_highest_version);
        assert_eq!(client.text[..], *vector.text.as_bytes(), "{}", vector.name);
        let Vector {
            to_server,
            to_client,
            ..
        } = &vector;
        check_sent(
            &mut client.transport,
            1,
            to_server,
            &vector.all_to_server_sha256,
        );
        check_sent(
            &mut server.transport,
            101,
            to_client,
            &vector.all_to_client_sha256,
        );
    }
}

#[test]
fn messages_are_read_across_changes_of_keys_however_they_are_cut() {
    for vector in vectors() {
        let (mut client, mut server) = (vector.play(Role::Client), vector.play(Role::Server));
        for (at, message) in messages(1).enumerate() {
            let sealed = client.transport.seal(&message).unwrap();
            let (first, second) = sealed.split_at(at % sealed.len());
            server.transport.received(first);
            assert_eq!(server.transport.next_message(), Ok(None));
            server.transport.received(second);
            let read = server.transport.next_message().unwrap().unwrap();
            assert_eq!(*read, message);
        }
    }
}

#[test]
fn the_streams_are_those_that_stock_ends_use() {
    for vector in vectors() {
        let client = match vector.known {
            false => Streams::paired_by(&vector.phrase()),
            true => Streams::between(&secret(&vector.client_key), &public(&vector.server_key)),
        };
        let hex = client.to_client.to_lower_hex_string();
        assert_eq!(hex, vector.stream_to_client, "{}", vector.name);
        let mut flipped = client.to_client;
        flipped[63] ^= 1;
        assert_eq!(client.to_server, flipped);
    }
    let known = vectors().into_iter().find(|it| it.known).unwrap();
    let server = Streams::between(&secret(&known.server_key), &public(&known.client_key));
    let client = Streams::between(&secret(&known.client_key), &public(&known.server_key));
    assert!(server == client);
}

#[test]
fn a_server_does_not_answer_a_client_with_another_phrase() {
    let vectors = vectors();
    let (one, other) = (&vectors[0], &vectors[1]);
    let mut client = one.end(Role::Client);
    let mut server = Handshake::new(
        Role::Server,
        other.keys(""),
        secret(&one.server_key),
        secret(&one.server_ephemeral),
        Vec::new().into(),
        0..=2,
    )
    .unwrap();
    let act = client.write().unwrap();
    // The hash of an unmasked key that is not the client's.
    let refused = server.read(&act).unwrap_err();
    assert_eq!(refused, longhand_lnc::ActError::Forged);
    assert!(server.write().is_none(), "nothing of the server's is sent");
}
