//! ChaCha20-Poly1305 with counted nonces and keys that change, as in BOLT 8.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

/// Bytes of an authentication tag.
pub(crate) const TAG_BYTES: usize = 16;
/// Messages that are encrypted with one key.
const ROTATION: u64 = 1_000;

/// The decryption has failed: the other side has another key, or somebody has changed the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Forged;

/// Two keys of 32 bytes from a secret (RFC 5869).
pub(crate) fn derive(salt: &[u8; 32], secret: &[u8]) -> [Zeroizing<[u8; 32]>; 2] {
    let mut bytes = Zeroizing::new([0; 64]);
    let expanded = Hkdf::<Sha256>::new(Some(salt), secret).expand(&[], &mut bytes[..]);
    debug_assert!(expanded.is_ok(), "64 bytes are fewer than 255 hashes");
    let half = |at: usize| {
        let mut key = Zeroizing::new([0; 32]);
        key.copy_from_slice(&bytes[at..at + 32]);
        key
    };
    [half(0), half(32)]
}

/// One direction, or both during a handshake.
pub(crate) struct Cipher {
    key: Zeroizing<[u8; 32]>,
    salt: Zeroizing<[u8; 32]>,
    nonce: u64,
}

impl Cipher {
    pub fn new(key: Zeroizing<[u8; 32]>, salt: Zeroizing<[u8; 32]>) -> Cipher {
        let nonce = 0;
        Cipher { key, salt, nonce }
    }

    pub fn seal(&mut self, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        let sealed = self
            .aead()
            .encrypt(&self.nonce(), Payload { msg: plain, aad });
        self.advance();
        // It fails for messages of 256 GB alone.
        sealed.unwrap_or_default()
    }

    pub fn open(&mut self, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, Forged> {
        let opened = self
            .aead()
            .decrypt(&self.nonce(), Payload { msg: sealed, aad });
        self.advance();
        opened.map(Zeroizing::new).map_err(|_| Forged)
    }

    fn aead(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new(Key::from_slice(&self.key[..]))
    }

    fn nonce(&self) -> Nonce {
        let mut nonce = Nonce::default();
        nonce[4..].copy_from_slice(&self.nonce.to_le_bytes());
        nonce
    }

    fn advance(&mut self) {
        self.nonce += 1;
        if self.nonce == ROTATION {
            let [salt, key] = derive(&self.salt, &self.key[..]);
            *self = Cipher::new(key, salt);
        }
    }
}
