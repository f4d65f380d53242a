//! The two streams of a mailbox over which client and server talk, one for each direction.

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256, sha512};
use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::{PublicKey, SecretKey};

use crate::Phrase;

/// Ids of streams. Whoever knows one can read or write it, or have it deleted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Streams {
    /// From the server to the client.
    pub to_client: [u8; 64],
    /// From the client to the server.
    pub to_server: [u8; 64],
}

impl Streams {
    /// Before the first handshake.
    pub fn paired_by(phrase: &Phrase) -> Streams {
        Streams::of(phrase.entropy())
    }

    /// When both keys are known.
    pub fn between(local: &SecretKey, remote: &PublicKey) -> Streams {
        let shared = SharedSecret::new(remote, local);
        let mut engine = HmacEngine::<sha256::Hash>::new(shared.as_ref());
        engine.input(b"mailbox");
        Streams::of(Hmac::from_engine(engine).as_byte_array())
    }

    /// Of what both ends know, and nobody else.
    pub fn of(secret: &[u8]) -> Streams {
        let to_client = sha512::Hash::hash(secret).to_byte_array();
        let mut to_server = to_client;
        to_server[63] ^= 1;
        Streams {
            to_client,
            to_server,
        }
    }
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Streams(..)")
    }
}
