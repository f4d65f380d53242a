//! Acts of a handshake between Lightning nodes (BOLT 8), as far as Longhand looks into them: LDK carries handshakes out.
//!
//! A node has no key of its own. For each handshake it asks its owner's phone for one shared secret, of the node key with the ephemeral key
//! in the peer's act: Act One of a peer that dials, Act Two of a peer that was dialled. The two differ in what they show:
//!
//! - [`ActOne::is_by_holder_of`]: the tag of Act One is made with the same secret that the phone is asked for. Whoever made the act
//!   had the secret already, and learns nothing by the answer.
//! - The tag of Act Two is made with secrets of the ephemeral key of the node that dialled, which a host has. It shows a host's honesty to
//!   nobody.
//!
//! ```
//! # use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey, ecdh::SharedSecret};
//! # use longhand_bolt8::{ActOne, ephemeral_key};
//! # let secp = Secp256k1::new();
//! # let [node, ephemeral] = [[1; 32], [2; 32]].map(|bytes| SecretKey::from_slice(&bytes).unwrap());
//! let responder = node.public_key(&secp);
//! let act = ActOne::new(&responder, &ephemeral);
//! // The other end:
//! let point = ephemeral_key(act.as_bytes())?;
//! let secret = SharedSecret::new(&point, &node).secret_bytes();
//! assert!(ActOne::parse(act.as_bytes())?.is_by_holder_of(&secret, &responder));
//! # Ok::<(), longhand_bolt8::ActError>(())
//! ```
#![forbid(unsafe_code)]

use bitcoin::secp256k1::ecdh::SharedSecret;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use chacha20poly1305::aead::{AeadInPlace, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce, Tag};
use hkdf::Hkdf;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Length of Act One and of Act Two in bytes: a version, the ephemeral key, a tag.
pub const ACT_BYTES: usize = 50;

/// The only version of handshakes.
const VERSION: u8 = 0;
/// Where the tag of an act begins.
const TAG_AT: usize = 34;
const PROTOCOL: &[u8] = b"Noise_XK_secp256k1_ChaChaPoly_SHA256";
const PROLOGUE: &[u8] = b"lightning";

/// The reason for which bytes are no act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ActError {
    /// Acts One and Two have [`ACT_BYTES`].
    #[error("an act of a handshake has {ACT_BYTES} bytes, and this one {0}")]
    Length(usize),
    /// Of a later version of BOLT 8.
    #[error("a handshake of version {0}, which this version does not have")]
    Version(u8),
    /// The ephemeral key is no point.
    #[error("the ephemeral key of the act is not a public key")]
    Key,
}

/// The ephemeral key of whoever made Act One or Act Two.
///
/// # Errors
/// See [`ActError`].
pub fn ephemeral_key(act: &[u8]) -> Result<PublicKey, ActError> {
    let act: &[u8; ACT_BYTES] = act.try_into().map_err(|_| ActError::Length(act.len()))?;
    match act[0] {
        VERSION => PublicKey::from_slice(&act[1..TAG_AT]).map_err(|_| ActError::Key),
        other => Err(ActError::Version(other)),
    }
}

/// Act One: the first message of the node that dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActOne {
    bytes: [u8; ACT_BYTES],
    ephemeral: PublicKey,
}

impl ActOne {
    /// Begins a handshake with the node `responder`.
    pub fn new(responder: &PublicKey, ephemeral: &SecretKey) -> ActOne {
        let secret = Zeroizing::new(SharedSecret::new(responder, ephemeral).secret_bytes());
        let ephemeral = ephemeral.public_key(&Secp256k1::signing_only());
        let (cipher, hash) = sealed_with(responder, &ephemeral, &secret);
        let tag = cipher.encrypt_in_place_detached(&Nonce::default(), &hash, &mut []);
        let mut bytes = [VERSION; ACT_BYTES];
        bytes[1..TAG_AT].copy_from_slice(&ephemeral.serialize());
        // It fails for messages of 256 GB alone.
        bytes[TAG_AT..].copy_from_slice(&tag.unwrap_or_default());
        ActOne { bytes, ephemeral }
    }

    /// Reads an act, and does not verify its tag.
    ///
    /// # Errors
    /// See [`ActError`].
    pub fn parse(act: &[u8]) -> Result<ActOne, ActError> {
        let ephemeral = ephemeral_key(act)?;
        let bytes = act.try_into().map_err(|_| ActError::Length(act.len()))?;
        Ok(ActOne { bytes, ephemeral })
    }

    /// The act as it is sent.
    pub fn as_bytes(&self) -> &[u8; ACT_BYTES] {
        &self.bytes
    }

    /// The ephemeral key of the node that dials.
    pub fn ephemeral_key(&self) -> &PublicKey {
        &self.ephemeral
    }

    /// Whether the act was made for the node `responder` with this secret (`es`): that of the act's ephemeral key and the responder's node
    /// key.
    pub fn is_by_holder_of(&self, secret: &[u8; 32], responder: &PublicKey) -> bool {
        let (cipher, hash) = sealed_with(responder, &self.ephemeral, secret);
        let tag = Tag::from_slice(&self.bytes[TAG_AT..]);
        let opened = cipher.decrypt_in_place_detached(&Nonce::default(), &hash, &mut [], tag);
        opened.is_ok()
    }
}

/// The cipher of Act One, whose message is empty, and the data that it authenticates.
fn sealed_with(
    responder: &PublicKey,
    ephemeral: &PublicKey,
    secret: &[u8; 32],
) -> (ChaCha20Poly1305, [u8; 32]) {
    let protocol = Sha256::digest(PROTOCOL);
    let hash = mixed(&protocol, PROLOGUE);
    let hash = mixed(&hash, &responder.serialize());
    let hash = mixed(&hash, &ephemeral.serialize());
    let key = temporary_key(&protocol, secret);
    (ChaCha20Poly1305::new(Key::from_slice(&key[..])), hash)
}

/// The hash of a handshake after `data` (`MixHash` of Noise).
fn mixed(hash: &[u8], data: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(hash)
        .chain_update(data)
        .finalize()
        .into()
}

/// The key of Act One's tag (`MixKey` of Noise); the chaining key that comes with it is of no use here.
fn temporary_key(chaining_key: &[u8], secret: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    let mut both = Zeroizing::new([0; 64]);
    let expanded = Hkdf::<Sha256>::new(Some(chaining_key), secret).expand(&[], &mut both[..]);
    debug_assert!(expanded.is_ok(), "64 bytes are fewer than 255 hashes");
    let mut key = Zeroizing::new([0; 32]);
    key.copy_from_slice(&both[32..]);
    key
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::hex::FromHex;

    use super::*;

    /// BOLT 8, Appendix A.
    const ACT_ONE: &str = "00036360e856310ce5d294e8be33fc807077dc56ac80d95d9cd4ddbd21325eff73f70df6086551151f58b8afe6c195782c6a";

    fn key(byte: u8) -> SecretKey {
        SecretKey::from_slice(&[byte; 32]).unwrap()
    }

    fn responder() -> PublicKey {
        key(0x21).public_key(&Secp256k1::new())
    }

    fn act_one() -> Vec<u8> {
        Vec::from_hex(ACT_ONE).unwrap()
    }

    #[test]
    fn act_one_is_that_of_bolt_8() {
        let made = ActOne::new(&responder(), &key(0x12));
        assert_eq!(made.as_bytes()[..], act_one());
        let secret = SharedSecret::new(made.ephemeral_key(), &key(0x21)).secret_bytes();
        let parsed = ActOne::parse(&act_one()).unwrap();
        assert!(parsed.is_by_holder_of(&secret, &responder()));
    }

    #[test]
    fn another_tag_another_secret_and_another_responder_are_found() {
        let act = ActOne::parse(&act_one()).unwrap();
        let secret = SharedSecret::new(act.ephemeral_key(), &key(0x21)).secret_bytes();
        for at in TAG_AT..ACT_BYTES {
            let mut bytes = act_one();
            bytes[at] ^= 1;
            let forged = ActOne::parse(&bytes).unwrap();
            assert!(!forged.is_by_holder_of(&secret, &responder()));
        }
        assert!(!act.is_by_holder_of(&[7; 32], &responder()));
        let other = key(0x22).public_key(&Secp256k1::new());
        assert!(!act.is_by_holder_of(&secret, &other));
    }

    /// BOLT 8, Appendix A: "transport-responder act1 short read test", "bad version", "bad key serialization".
    #[test]
    fn bytes_that_are_no_act_are_refused_with_the_reason() {
        assert_eq!(ActOne::parse(&act_one()[..49]), Err(ActError::Length(49)));
        let mut later = act_one();
        later[0] = 1;
        assert_eq!(ActOne::parse(&later), Err(ActError::Version(1)));
        let mut no_key = act_one();
        no_key[1] = 4;
        assert_eq!(ephemeral_key(&no_key), Err(ActError::Key));
    }
}
