//! Encryption of small things at rest by the vault's data key.
//!
//! XChaCha20-Poly1305 with a random 192-bit nonce for each. A counter would not do: a record that
//! was torn by a crash is cut off and its number used again for other content, and a nonce must
//! not be used for two contents. The kind of a record and its place are the associated data.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

const NONCE_BYTES: usize = 24;

/// Bytes that sealing adds: nonce and authentication tag.
pub(crate) const OVERHEAD: usize = NONCE_BYTES + 16;

/// Seals and opens with one key, which is wiped when this is dropped.
#[derive(Clone)]
pub(crate) struct Sealer(XChaCha20Poly1305);

/// Sealed bytes that cannot be opened: damaged, forged, of another place, or of another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAuthentic;

impl Sealer {
    pub(crate) fn new(key: &[u8; 32]) -> Sealer {
        Sealer(XChaCha20Poly1305::new(key.into()))
    }

    /// Nonce and ciphertext. Fails only when the system has no randomness.
    pub(crate) fn seal(&self, place: &[u8], plain: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut nonce = [0; NONCE_BYTES];
        fill_random(&mut nonce)?;
        let sealed = self
            .0
            .encrypt(
                &XNonce::from(nonce),
                Payload {
                    msg: plain,
                    aad: place,
                },
            )
            .map_err(|_| std::io::Error::other("too long to be sealed"))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// The plaintext that [`Sealer::seal`] was given for the same place.
    pub(crate) fn open(
        &self,
        place: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
        let (nonce, body) = sealed
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or(NotAuthentic)?;
        self.0
            .decrypt(
                &XNonce::from(*nonce),
                Payload {
                    msg: body,
                    aad: place,
                },
            )
            .map(Zeroizing::new)
            .map_err(|_| NotAuthentic)
    }
}

/// Random bytes from the system.
pub(crate) fn fill_random(bytes: &mut [u8]) -> std::io::Result<()> {
    getrandom::fill(bytes).map_err(|error| std::io::Error::other(error.to_string()))
}
