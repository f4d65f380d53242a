//! A peer's transport (BOLT 8), as initiator and responder, for a peer that sends any message after the handshake.

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::{PublicKey, SecretKey};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};

use crate::secp::secp;

/// Length of Act Two.
pub(crate) const ACT_TWO: usize = 50;

/// Length of Act One.
pub(crate) const ACT_ONE: usize = 50;
/// Length of Act Three.
pub(crate) const ACT_THREE: usize = 66;

/// A handshake that has sent Act One.
pub(crate) struct Dialling(Handshake);

/// A handshake that has sent Act Two.
pub(crate) struct Dialled(Handshake);

/// The state of a handshake.
struct Handshake {
    hash: [u8; 32],
    chaining_key: [u8; 32],
    ephemeral: SecretKey,
    own: SecretKey,
}

/// Encrypts messages after the handshake.
pub(crate) struct Sender {
    key: [u8; 32],
    nonce: u64,
}

impl Dialling {
    /// Begins with the node whose id is `to`. Returns Act One.
    pub fn begin(to: &PublicKey) -> (Dialling, Vec<u8>) {
        let mut handshake = Handshake::new(to, 0x12, 0x11);
        let ephemeral = handshake.ephemeral.public_key(secp()).serialize();
        handshake.mix(&ephemeral);
        let key = handshake.mix_key(to, &handshake.ephemeral.clone());
        let tag = handshake.seal(&key, 0, b"");
        let act_one = [&[0][..], &ephemeral, &tag].concat();
        (Dialling(handshake), act_one)
    }

    /// Takes Act Two. Returns Act Three.
    pub fn answered(self, act_two: &[u8]) -> (Sender, Vec<u8>) {
        let Dialling(mut handshake) = self;
        let theirs = PublicKey::from_slice(&act_two[1..34]).expect("Act Two has a key");
        handshake.mix(&act_two[1..34]);
        let key = handshake.mix_key(&theirs, &handshake.ephemeral.clone());
        // The node's tag is not verified.
        handshake.mix(&act_two[34..]);
        let own = handshake.own.public_key(secp()).serialize();
        let sealed = handshake.seal(&key, 1, &own);
        let key = handshake.mix_key(&theirs, &handshake.own.clone());
        let tag = handshake.seal(&key, 0, b"");
        let act_three = [&[0][..], &sealed, &tag].concat();
        let (sending, _) = hkdf(&handshake.chaining_key, b"");
        let sender = Sender {
            key: sending,
            nonce: 0,
        };
        (sender, act_three)
    }
}

impl Dialled {
    /// The node id that a node dials to reach us.
    pub fn node_id() -> PublicKey {
        own_key(0x21).public_key(secp())
    }

    /// Takes Act One. Returns Act Two.
    pub fn begin(act_one: &[u8]) -> (Dialled, Vec<u8>) {
        let mut handshake = Handshake::new(&Dialled::node_id(), 0x22, 0x21);
        let theirs = PublicKey::from_slice(&act_one[1..34]).expect("Act One has a key");
        handshake.mix(&act_one[1..34]);
        handshake.mix_key(&theirs, &handshake.own.clone());
        handshake.mix(&act_one[34..]);
        let ephemeral = handshake.ephemeral.public_key(secp()).serialize();
        handshake.mix(&ephemeral);
        let key = handshake.mix_key(&theirs, &handshake.ephemeral.clone());
        let tag = handshake.seal(&key, 0, b"");
        let act_two = [&[0][..], &ephemeral, &tag].concat();
        (Dialled(handshake), act_two)
    }

    /// Takes Act Three of this node.
    pub fn answered(self, node_id: &PublicKey, act_three: &[u8]) -> Sender {
        let Dialled(mut handshake) = self;
        handshake.mix(&act_three[1..50]);
        handshake.mix_key(node_id, &handshake.ephemeral.clone());
        let (_, sending) = hkdf(&handshake.chaining_key, b"");
        Sender {
            key: sending,
            nonce: 0,
        }
    }
}

fn own_key(byte: u8) -> SecretKey {
    SecretKey::from_slice(&[byte; 32]).unwrap()
}

impl Handshake {
    /// The state before Act One, on either side; `to` is the responder's node id.
    fn new(to: &PublicKey, ephemeral: u8, own: u8) -> Handshake {
        let protocol = sha256::Hash::hash(b"Noise_XK_secp256k1_ChaChaPoly_SHA256").to_byte_array();
        let mut handshake = Handshake {
            hash: protocol,
            chaining_key: protocol,
            ephemeral: own_key(ephemeral),
            own: own_key(own),
        };
        handshake.mix(b"lightning");
        handshake.mix(&to.serialize());
        handshake
    }

    fn mix(&mut self, data: &[u8]) {
        self.hash = sha256::Hash::hash(&[&self.hash, data].concat()).to_byte_array();
    }

    /// Returns the temporary key.
    fn mix_key(&mut self, theirs: &PublicKey, ours: &SecretKey) -> [u8; 32] {
        let secret = SharedSecret::new(theirs, ours).secret_bytes();
        let (chaining_key, key) = hkdf(&self.chaining_key, &secret);
        self.chaining_key = chaining_key;
        key
    }

    fn seal(&mut self, key: &[u8; 32], nonce: u64, plain: &[u8]) -> Vec<u8> {
        let sealed = seal(key, nonce, &self.hash, plain);
        self.mix(&sealed);
        sealed
    }
}

impl Sender {
    /// The bytes of one message.
    pub fn message(&mut self, message: &[u8]) -> Vec<u8> {
        let message = &message[..message.len().min(usize::from(u16::MAX))];
        let length = (message.len() as u16).to_be_bytes();
        let head = seal(&self.key, self.nonce, b"", &length);
        let body = seal(&self.key, self.nonce + 1, b"", message);
        self.nonce += 2;
        [head, body].concat()
    }
}

fn seal(key: &[u8; 32], nonce: u64, place: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&nonce.to_le_bytes());
    let payload = Payload {
        msg: plain,
        aad: place,
    };
    let sealed = ChaCha20Poly1305::new(key.into()).encrypt(&Nonce::from(bytes), payload);
    sealed.expect("a message can be encrypted")
}

fn hkdf(salt: &[u8; 32], material: &[u8]) -> ([u8; 32], [u8; 32]) {
    let key = hmac(salt, &[material]);
    let first = hmac(&key, &[&[1]]);
    let second = hmac(&key, &[&first, &[2]]);
    (first, second)
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut engine = HmacEngine::<sha256::Hash>::new(key);
    parts.iter().for_each(|part| engine.input(part));
    Hmac::from_engine(engine).to_byte_array()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::hex::{DisplayHex, FromHex};

    /// BOLT 8, Appendix A: "transport-initiator successful handshake", and its first messages.
    #[test]
    fn the_handshake_is_bolt_8s() {
        let to = "028d7500dd4c12685d1f568b4c2b5048e8534b873319f3a8daa612b469132ec7f7";
        let (dialling, act_one) = Dialling::begin(&to.parse().unwrap());
        assert_eq!(
            act_one.to_lower_hex_string(),
            "00036360e856310ce5d294e8be33fc807077dc56ac80d95d9cd4ddbd21325eff73f70df6086551151f58b8afe6c195782c6a"
        );
        let act_two = "0002466d7fcae563e5cb09a0d1870bb580344804617879a14949cf22285f1bae3f276e2470b93aac583c9ef6eafca3f730ae";
        let (mut sender, act_three) = dialling.answered(&Vec::from_hex(act_two).unwrap());
        assert_eq!(
            act_three.to_lower_hex_string(),
            "00b9e3a702e93e3a9948c2ed6e5fd7590a6e1c3a0344cfc9d5b57357049aa22355361aa02e55a8fc28fef5bd6d71ad0c38228dc68b1c466263b47fdf31e560e139ba"
        );
        assert_eq!(
            sender.message(b"hello").to_lower_hex_string(),
            "cf2b30ddf0cf3f80e7c35a6e6730b59fe802473180f396d88a8fb0db8cbcf25d2f214cf9ea1d95"
        );
    }

    /// BOLT 8, Appendix A: "transport-responder successful handshake".
    #[test]
    fn being_dialled_is_bolt_8s() {
        let act_one = "00036360e856310ce5d294e8be33fc807077dc56ac80d95d9cd4ddbd21325eff73f70df6086551151f58b8afe6c195782c6a";
        let (_, act_two) = Dialled::begin(&Vec::from_hex(act_one).unwrap());
        assert_eq!(
            act_two.to_lower_hex_string(),
            "0002466d7fcae563e5cb09a0d1870bb580344804617879a14949cf22285f1bae3f276e2470b93aac583c9ef6eafca3f730ae"
        );
    }
}
