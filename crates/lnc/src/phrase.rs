//! The pairing phrase: ten words of the English list of BIP 39, which are 110 bits and have no checksum.

use std::fmt;

use bip39::Language;
use bitcoin::secp256k1::rand::{CryptoRng, RngCore};
use bitcoin::secp256k1::{PublicKey, Scalar, Secp256k1};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::handshake::HandshakeError;

const WORDS: usize = 10;
const BITS_PER_WORD: usize = 11;
const ENTROPY_BYTES: usize = 14;
/// scrypt's N = 2^16, r = 8, p = 1: some 64 MiB of memory.
const SCRYPT: (u8, u32, u32) = (16, 8, 1);

/// The generator by which a phrase masks a key: the SHA-256 of "Lightning Node Connect", tried until it is a point.
const GENERATOR: [u8; 33] = [
    0x02, 0x54, 0xa5, 0x8c, 0xd0, 0xf3, 0x1c, 0x00, 0x8f, 0xd0, 0xbc, 0x9b, 0x2d, 0xd5, 0xba, 0x58,
    0x61, 0x44, 0x93, 0x38, 0x29, 0xf6, 0xda, 0x33, 0xac, 0x41, 0x30, 0xb5, 0x55, 0xfb, 0x5e, 0xa3,
    0x2c,
];

/// The reason for which a text is no phrase. It has none of its words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PhraseError {
    /// Another number of words.
    #[error("a pairing phrase has ten words, and this has {0}")]
    Count(usize),
    /// A word that is not on the list; counted from 1.
    #[error("word {0} of the pairing phrase is not on the list of BIP 39: check its spelling")]
    Word(usize),
}

/// A phrase that pairs one app. Its words are wiped when it is dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Phrase {
    /// The bits of the words, the most significant first; the last two are zero.
    entropy: [u8; ENTROPY_BYTES],
}

impl Phrase {
    /// A new one.
    pub fn random(rng: &mut (impl RngCore + CryptoRng)) -> Phrase {
        let mut entropy = [0; ENTROPY_BYTES];
        rng.fill_bytes(&mut entropy);
        Phrase::from_bits(entropy)
    }

    /// The first 110 of these bits.
    pub fn from_bits(mut bits: [u8; ENTROPY_BYTES]) -> Phrase {
        bits[ENTROPY_BYTES - 1] &= !0b11;
        Phrase { entropy: bits }
    }

    /// Reads ten words, in any case, with any white space between them.
    ///
    /// # Errors
    /// See [`PhraseError`].
    ///
    /// ```
    /// let phrase = longhand_lnc::Phrase::parse(&"abandon ".repeat(10)).unwrap();
    /// assert_eq!(phrase.words().as_str(), "abandon ".repeat(10).trim());
    /// let short = longhand_lnc::Phrase::parse("abandon").unwrap_err();
    /// assert_eq!(short.to_string(), "a pairing phrase has ten words, and this has 1");
    /// ```
    pub fn parse(text: &str) -> Result<Phrase, PhraseError> {
        let count = text.split_whitespace().take(WORDS + 1).count();
        if count != WORDS {
            return Err(PhraseError::Count(text.split_whitespace().count()));
        }
        let mut entropy = [0; ENTROPY_BYTES];
        for (at, word) in text.split_whitespace().enumerate() {
            let word = Zeroizing::new(word.to_lowercase());
            let index = Language::English.find_word(&word);
            let index = index.ok_or(PhraseError::Word(at + 1))?;
            put(&mut entropy, at * BITS_PER_WORD, index);
        }
        Ok(Phrase { entropy })
    }

    /// The words, with spaces between them.
    pub fn words(&self) -> Zeroizing<String> {
        let list = Language::English.word_list();
        let words = (0..WORDS).map(|at| list[usize::from(get(&self.entropy, at * BITS_PER_WORD))]);
        Zeroizing::new(words.collect::<Vec<_>>().join(" "))
    }

    /// The secret that both ends know before they have paired, for [`crate::Streams::paired_by`].
    pub(crate) fn entropy(&self) -> &[u8] {
        &self.entropy
    }

    /// The key that masks. Takes a good part of a second, and 64 MiB.
    ///
    /// # Errors
    /// A phrase in 2^128 cannot be used.
    pub fn stretch(&self) -> Result<Stretched, HandshakeError> {
        let (log_n, r, p) = SCRYPT;
        let mut key = Zeroizing::new([0; 32]);
        let parameters =
            scrypt::Params::new(log_n, r, p, key.len()).map_err(|_| HandshakeError::Unusable)?;
        scrypt::scrypt(&self.entropy, &self.entropy, &parameters, &mut key[..])
            .map_err(|_| HandshakeError::Unusable)?;
        Stretched::new(&key)
    }
}

impl fmt::Debug for Phrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Phrase(..)")
    }
}

/// A phrase that scrypt has stretched: a point that is added to a key.
#[derive(Clone, PartialEq, Eq)]
pub struct Stretched(PublicKey);

impl Stretched {
    fn new(key: &[u8; 32]) -> Result<Stretched, HandshakeError> {
        let unusable = |_| HandshakeError::Unusable;
        let scalar = Scalar::from_be_bytes(*key).map_err(|_| HandshakeError::Unusable)?;
        let generator = PublicKey::from_slice(&GENERATOR).map_err(unusable)?;
        let point = generator.mul_tweak(&Secp256k1::verification_only(), &scalar);
        Ok(Stretched(point.map_err(unusable)?))
    }

    /// `None` when the sum is no point, which nobody has ever seen.
    pub(crate) fn mask(&self, key: &PublicKey) -> Option<PublicKey> {
        key.combine(&self.0).ok()
    }

    pub(crate) fn unmask(&self, masked: &PublicKey) -> Option<PublicKey> {
        let negated = self.0.negate(&Secp256k1::verification_only());
        masked.combine(&negated).ok()
    }
}

impl fmt::Debug for Stretched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stretched(..)")
    }
}

/// Writes a word's bits.
fn put(entropy: &mut [u8; ENTROPY_BYTES], at: usize, index: u16) {
    for bit in 0..BITS_PER_WORD {
        if index >> (BITS_PER_WORD - 1 - bit) & 1 == 1 {
            let place = at + bit;
            entropy[place / 8] |= 0x80 >> (place % 8);
        }
    }
}

fn get(entropy: &[u8; ENTROPY_BYTES], at: usize) -> u16 {
    (at..at + BITS_PER_WORD).fold(0, |index, place| {
        let bit = entropy[place / 8] >> (7 - place % 8) & 1;
        index << 1 | u16::from(bit)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::secp256k1::rand::thread_rng;

    use super::*;

    #[test]
    fn a_random_phrase_is_read_back_from_its_words() {
        for _ in 0..100 {
            let phrase = Phrase::random(&mut thread_rng());
            let shouted = phrase.words().to_uppercase().replace(' ', "\n  ");
            assert_eq!(Phrase::parse(&shouted), Ok(phrase));
        }
    }

    #[test]
    fn a_wrong_word_is_named_by_its_place_and_not_by_itself() {
        let text = "abandon ".repeat(9);
        assert_eq!(Phrase::parse(&text), Err(PhraseError::Count(9)));
        let wrong = Phrase::parse(&format!("{text} secretword")).unwrap_err();
        assert_eq!(wrong, PhraseError::Word(10));
        assert!(!wrong.to_string().contains("secretword"));
        let twice = format!("{text}abandon abandon");
        assert_eq!(Phrase::parse(&twice), Err(PhraseError::Count(11)));
        assert_eq!(Phrase::parse(""), Err(PhraseError::Count(0)));
    }

    #[test]
    fn a_mask_is_taken_off_by_the_same_phrase_alone() {
        let phrase = |byte: u8| Stretched::new(&[byte; 32]).unwrap();
        let key = phrase(9).0;
        let masked = phrase(1).mask(&key).unwrap();
        assert_ne!(masked, key);
        assert_eq!(phrase(1).unmask(&masked), Some(key));
        assert_ne!(phrase(2).unmask(&masked), Some(key));
        assert_eq!(phrase(1).unmask(&phrase(1).0), None);
    }

    #[test]
    fn a_secret_is_not_shown() {
        let phrase = Phrase::random(&mut thread_rng());
        assert_eq!(format!("{phrase:?}"), "Phrase(..)");
    }
}
