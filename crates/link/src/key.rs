//! Keys and ids: the X25519 static keys of both ends, the id of an owner, and the one hash of this crate.

use std::fmt;
use std::str::FromStr;

use snow::params::{DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use zeroize::{Zeroize, Zeroizing};

use crate::LinkError;

/// Fills an array with random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], LinkError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| LinkError::Randomness(e.to_string()))?;
    Ok(bytes)
}

/// BLAKE2s-256 of `domain`, a zero byte and `data`.
pub(crate) fn hash(domain: &str, data: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    if let Some(mut blake) = DefaultResolver.resolve_hash(&HashChoice::Blake2s) {
        blake.input(domain.as_bytes());
        blake.input(&[0]);
        blake.input(data);
        blake.result(out.as_mut());
    }
    out
}

/// An X25519 key pair, the static key (Noise) by which a host or a phone is recognised. The secret is zeroized when dropped.
#[derive(Clone)]
pub struct LinkKeypair {
    secret: Zeroizing<[u8; 32]>,
    public: LinkKey,
}

impl LinkKeypair {
    /// A new random key pair.
    pub fn generate() -> Result<LinkKeypair, LinkError> {
        let mut bytes = random()?;
        let key = LinkKeypair::from_bytes(bytes);
        bytes.zeroize();
        Ok(key)
    }

    /// The key pair of these 32 secret bytes, as [`LinkKeypair::to_bytes`] gave them.
    pub fn from_bytes(secret: [u8; 32]) -> LinkKeypair {
        let secret = Zeroizing::new(secret);
        let mut public = [0; 32];
        if let Some(mut dh) = DefaultResolver.resolve_dh(&DHChoice::Curve25519) {
            dh.set(secret.as_ref());
            public.copy_from_slice(dh.pubkey());
        }
        LinkKeypair {
            secret,
            public: LinkKey(public),
        }
    }

    /// The 32 secret bytes, to be stored where nobody else reads.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.secret.clone()
    }

    /// The public key.
    pub fn public(&self) -> LinkKey {
        self.public
    }
}

impl fmt::Debug for LinkKeypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LinkKeypair(secret of {})", self.public)
    }
}

/// Why text is not a key or an id: wrong length, or not hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not {expected} hexadecimal digits: copy all of it")]
pub struct HexError {
    /// The number of digits that there should be.
    pub expected: usize,
}

macro_rules! hex_bytes {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl FromStr for $name {
            type Err = HexError;

            fn from_str(text: &str) -> Result<$name, HexError> {
                let mut bytes = [0; $len];
                read_hex(text, &mut bytes)?;
                Ok($name(bytes))
            }
        }
    };
}

hex_bytes! {
    /// The public half of a [`LinkKeypair`]: an X25519 key, 32 bytes. Shown as hexadecimal.
    LinkKey, 32
}

hex_bytes! {
    /// One owner at one host: 16 random bytes, shown as hexadecimal. Not a secret.
    OwnerId, 16
}

hex_bytes! {
    /// The id of a pairing secret, which does not reveal it: the first 16 bytes of its hash.
    PairingId, 16
}

hex_bytes! {
    /// The id of one process of one side, 16 random bytes. Requests are resumed between the same two.
    Instance, 16
}

impl OwnerId {
    /// A new random id.
    pub fn generate() -> Result<OwnerId, LinkError> {
        Ok(OwnerId(random()?))
    }
}

fn read_hex(text: &str, out: &mut [u8]) -> Result<(), HexError> {
    let error = HexError {
        expected: out.len() * 2,
    };
    if text.len() != error.expected || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(error);
    }
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).map_err(|_| error)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_key_has_the_public_key_that_openssl_computes() {
        let key = LinkKeypair::from_bytes(std::array::from_fn(|n| n as u8 + 1));
        let openssl = "07a37cbc142093c8b755dc1b10e86cb426374ad16aa853ed0bdfc0b2b86d1c7c";
        assert_eq!(key.public().to_string(), openssl);
    }

    #[test]
    fn a_key_survives_its_bytes() {
        let key = LinkKeypair::generate().unwrap();
        assert_eq!(
            LinkKeypair::from_bytes(*key.to_bytes()).public(),
            key.public()
        );
        assert_ne!(LinkKeypair::generate().unwrap().public(), key.public());
    }

    #[test]
    fn secrets_do_not_show() {
        let key = LinkKeypair::from_bytes([0xab; 32]);
        assert!(!format!("{key:?}").contains("abab"));
    }

    #[test]
    fn text_that_is_no_id_is_refused() {
        for text in [
            "",
            "00",
            "zz112233445566778899aabbccddeeff",
            "é0112233445566778899aabbccddeef",
        ] {
            assert_eq!(
                text.parse::<OwnerId>(),
                Err(HexError { expected: 32 }),
                "{text}"
            );
        }
    }
}
