//! The dialling side of a peer's transport (BOLT 8), for a peer that says what it likes once the handshake is over.

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};
use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::{PublicKey, SecretKey};
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};

use crate::secp::secp;

/// Length of Act Two.
pub(crate) const ACT_TWO: usize = 50;

/// A handshake that has sent Act One.
pub(crate) struct Dialling {
    hash: [u8; 32],
    chaining_key: [u8; 32],
    ephemeral: SecretKey,
    own: SecretKey,
}

/// What seals messages once the handshake is over.
pub(crate) struct Sender {
    key: [u8; 32],
    nonce: u64,
}

impl Dialling {
    /// Begins with the node whose id is `to`. Returns Act One.
    pub fn begin(to: &PublicKey) -> (Dialling, Vec<u8>) {
        let protocol = sha256::Hash::hash(b"Noise_XK_secp256k1_ChaChaPoly_SHA256").to_byte_array();
        let mut dialling = Dialling {
            hash: protocol,
            chaining_key: protocol,
            ephemeral: SecretKey::from_slice(&[0x12; 32]).unwrap(),
            own: SecretKey::from_slice(&[0x11; 32]).unwrap(),
        };
        dialling.mix(b"lightning");
        dialling.mix(&to.serialize());
        let ephemeral = dialling.ephemeral.public_key(secp()).serialize();
        dialling.mix(&ephemeral);
        let key = dialling.mix_key(to, &dialling.ephemeral.clone());
        let tag = dialling.seal(&key, 0, b"");
        let act_one = [&[0][..], &ephemeral, &tag].concat();
        (dialling, act_one)
    }

    /// Takes Act Two. Returns Act Three.
    pub fn answered(mut self, act_two: &[u8]) -> (Sender, Vec<u8>) {
        let theirs = PublicKey::from_slice(&act_two[1..34]).expect("Act Two has a key");
        self.mix(&act_two[1..34]);
        let key = self.mix_key(&theirs, &self.ephemeral.clone());
        // Its tag is the node's to make and ours to believe.
        self.mix(&act_two[34..]);
        let own = self.own.public_key(secp()).serialize();
        let sealed = self.seal(&key, 1, &own);
        let key = self.mix_key(&theirs, &self.own.clone());
        let tag = self.seal(&key, 0, b"");
        let act_three = [&[0][..], &sealed, &tag].concat();
        let (sending, _) = hkdf(&self.chaining_key, b"");
        let sender = Sender {
            key: sending,
            nonce: 0,
        };
        (sender, act_three)
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
    sealed.expect("it can be sealed")
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
}
