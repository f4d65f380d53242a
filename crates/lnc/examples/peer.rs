//! An end of Lightning Node Connect over TCP, with packets of four bytes of length before them in place of a mailbox, which loses some.
//! For `scripts/lnc-interop`, whose other end is the stock library.
//!
//! `peer client|server ADDRESS "WORDS" LOSES`: a server sends back every message; a client sends messages of many sizes and compares.
//! The second connection of a pair has the keys that the first has learned.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use bitcoin::secp256k1::{PublicKey, SecretKey, rand::thread_rng};
use longhand_lnc::{
    Finished, GoBackN, Handshake, Keys, Phrase, Role, Timing, Transport, VERSIONS, message,
};

const TEXT: &[u8] = b"Macaroon: 0201036c6e64";
const SIZES: [usize; 9] = [0, 1, 100, 32 * 1024, 65_535, 7, 65_535, 65_535, 2];
/// Longer than any pause of the two ends.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, role, address, words, loses] = &arguments[..] else {
        eprintln!("usage: peer client|server ADDRESS WORDS LOSES");
        std::process::exit(2);
    };
    let role = match role.as_str() {
        "client" => Role::Client,
        _ => Role::Server,
    };
    let loses = loses.parse().expect("LOSES is a number");
    let phrase = Phrase::parse(words).expect("WORDS are a phrase");
    let listener = (role == Role::Server).then(|| TcpListener::bind(address).expect("to listen"));
    if let Some(listener) = &listener {
        println!("{}", listener.local_addr().unwrap());
    }
    let local = SecretKey::new(&mut thread_rng());
    let mut known = None;
    for _ in 0..2 {
        let socket = match &listener {
            Some(listener) => listener.accept().unwrap().0,
            None => TcpStream::connect(address).expect("to connect"),
        };
        let keys = match known {
            Some(remote) => Keys::Known(remote),
            None => Keys::Phrase(phrase.stretch().unwrap()),
        };
        known = Some(End::over(socket, role, loses).talk(keys, local));
    }
}

/// A connection, and the thread that reads it.
struct End {
    role: Role,
    socket: TcpStream,
    packets: Receiver<Vec<u8>>,
    connection: GoBackN,
    /// Every so many packets one is lost; 0 = none.
    loses: usize,
    sent: usize,
    /// The socket is closed: its last packet may have been lost.
    is_gone: bool,
}

impl End {
    fn over(socket: TcpStream, role: Role, loses: usize) -> End {
        let mut reader = socket.try_clone().unwrap();
        let (send, packets) = channel();
        thread::spawn(move || {
            let mut length = [0; 4];
            while reader.read_exact(&mut length).is_ok() {
                let mut packet = vec![0; u32::from_be_bytes(length) as usize];
                if reader.read_exact(&mut packet).is_err() || send.send(packet).is_err() {
                    return;
                }
            }
        });
        End {
            role,
            socket,
            packets,
            connection: GoBackN::new(role, Timing::default(), Instant::now()),
            loses,
            sent: 0,
            is_gone: false,
        }
    }

    fn talk(mut self, keys: Keys, local: SecretKey) -> PublicKey {
        let Finished {
            mut transport,
            remote,
            text,
            ..
        } = self.shake_hands(keys, local);
        match self.role {
            Role::Client => {
                assert_eq!(text[..], *TEXT);
                for (at, size) in SIZES.into_iter().enumerate() {
                    let message = vec![at as u8; size];
                    self.say(&transport.seal(&message).unwrap());
                    assert_eq!(self.listen(&mut transport), message, "message {at}");
                }
                self.connection.close();
                self.flush();
            }
            Role::Server => {
                for _ in SIZES {
                    let message = self.listen(&mut transport);
                    self.say(&transport.seal(&message).unwrap());
                }
                while self.connection.over().is_none() && !self.is_gone {
                    self.turn();
                }
            }
        }
        // The thread that reads has it too.
        let _ = self.socket.shutdown(Shutdown::Both);
        remote
    }

    fn shake_hands(&mut self, keys: Keys, local: SecretKey) -> Finished {
        let text = match self.role {
            Role::Client => Vec::new(),
            Role::Server => TEXT.to_vec(),
        };
        let ephemeral = SecretKey::new(&mut thread_rng());
        let handshake = Handshake::new(self.role, keys, local, ephemeral, text.into(), VERSIONS);
        let mut handshake = handshake.unwrap();
        loop {
            while let Some(act) = handshake.write() {
                self.say(&act);
            }
            if handshake.is_complete() {
                return handshake.finish().unwrap();
            }
            let act = self.next_message();
            handshake.read(message::payload(&act).unwrap()).unwrap();
        }
    }

    fn say(&mut self, bytes: &[u8]) {
        let framed = message::frame(bytes).unwrap();
        self.connection.send(Instant::now(), &framed).unwrap();
        self.flush();
    }

    fn listen(&mut self, transport: &mut Transport) -> Vec<u8> {
        loop {
            if let Some(message) = transport.next_message().unwrap() {
                return message.to_vec();
            }
            let framed = self.next_message();
            transport.received(message::payload(&framed).unwrap());
        }
    }

    fn next_message(&mut self) -> Vec<u8> {
        let began = Instant::now();
        loop {
            if let Some(message) = self.connection.next_message() {
                return message;
            }
            assert_eq!(self.connection.over(), None);
            assert!(!self.is_gone, "the other end has gone");
            assert!(began.elapsed() < PATIENCE, "nothing came");
            self.turn();
        }
    }

    /// One packet, or a pause until something is due.
    fn turn(&mut self) {
        let due = self.connection.next_due();
        let pause = due.map_or(PATIENCE, |due| {
            due.saturating_duration_since(Instant::now())
        });
        match self.packets.recv_timeout(pause.min(PATIENCE)) {
            Ok(packet) => self.connection.received(Instant::now(), &packet),
            Err(RecvTimeoutError::Timeout) => self.connection.advance(Instant::now()),
            Err(RecvTimeoutError::Disconnected) => self.is_gone = true,
        }
        self.flush();
    }

    fn flush(&mut self) {
        while let Some(packet) = self.connection.next_packet() {
            self.sent += 1;
            if self.loses > 0 && self.sent.is_multiple_of(self.loses) {
                continue;
            }
            let length = (packet.len() as u32).to_be_bytes();
            // The other end may have gone with its last message.
            let _ = self.socket.write_all(&[&length[..], &packet].concat());
        }
    }
}
