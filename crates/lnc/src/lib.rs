//! Lightning Node Connect (LNC): how existing apps reach a node through a mailbox, without I/O.
//!
//! A [`Phrase`] of ten words pairs a client, the app, with a server, the node. The [`Handshake`] that follows masks the client's key with
//! the phrase (SPAKE2); from protocol version 2 on every later one uses the keys that the two have learned (Noise KK). A
//! [`Transport`] then encrypts messages. Between it and the mailbox, [`message`] frames what is sent at once, and [`GoBackN`] sends it again
//! until it has come. A [`Connection`] is all of it together.
//!
//! It is compatible with Lightning Labs' clients and servers, whose behaviour the vectors of the tests were made with.

mod cipher;
mod connection;
mod go_back_n;
mod handshake;
pub mod message;
mod packet;
mod phrase;
mod streams;
mod transport;

pub use bitcoin::secp256k1::{PublicKey, SecretKey};
pub use connection::{Connection, Ended, Peer};
pub use go_back_n::{GoBackN, Over, SendError, Timing};
pub use handshake::{
    ActError, Finished, Handshake, HandshakeError, Keys, MAX_ACT_BYTES, Role, VERSIONS, public,
};
pub use phrase::{Phrase, PhraseError, Stretched};
pub use streams::Streams;
pub use transport::{MAX_MESSAGE_BYTES, Transport, TransportError};
