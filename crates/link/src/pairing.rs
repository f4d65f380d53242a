//! Pairing codes, which a host shows and a phone scans before the first connection.

use std::fmt;
use std::str::FromStr;

use bech32::{Bech32m, Hrp, primitives::decode::CheckedHrpstring};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};
use zeroize::Zeroizing;

use crate::LinkError;
use crate::key::{LinkKey, OwnerId, PairingId, hash, random};

/// Human-readable part of a pairing code.
const PREFIX: &str = "longhand";
/// Version of the code's content.
const VERSION: u8 = 1;
/// The length for which the checksum of bech32m is made.
const MAX_TEXT: usize = 1023;

/// The one-time secret of a pairing code, 128 random bits. Zeroized when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct PairingSecret(Zeroizing<[u8; 16]>);

impl PairingSecret {
    /// A new random secret.
    pub fn generate() -> Result<PairingSecret, LinkError> {
        Ok(PairingSecret(Zeroizing::new(random()?)))
    }

    /// The secret with these bytes, as [`PairingSecret::to_bytes`] gave them.
    pub fn from_bytes(bytes: [u8; 16]) -> PairingSecret {
        PairingSecret(Zeroizing::new(bytes))
    }

    /// The 16 secret bytes.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 16]> {
        self.0.clone()
    }

    /// The id of the secret on the wire and in the host's store.
    pub fn id(&self) -> PairingId {
        let digest = hash("longhand pairing id", self.0.as_ref());
        let mut id = [0; 16];
        id.copy_from_slice(&digest[..16]);
        PairingId(id)
    }

    /// Ten words for which a host gives the pairing code at a mailbox with Lightning Node Connect. The secret does not follow from them.
    #[cfg(feature = "hashmail")]
    pub fn words(&self) -> longhand_lnc::Phrase {
        let digest = hash("longhand pairing words", self.0.as_ref());
        let mut bits = [0; 14];
        bits.copy_from_slice(&digest[..14]);
        longhand_lnc::Phrase::from_bits(bits)
    }

    /// The pre-shared key of the Noise handshake.
    pub(crate) fn psk(&self) -> Zeroizing<[u8; 32]> {
        hash("longhand pairing psk", self.0.as_ref())
    }
}

impl fmt::Debug for PairingSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PairingSecret({})", self.id())
    }
}

/// A pairing code: everything that a phone needs for its first connection to a host. Its text holds a secret: show it to the owner
/// alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairingCode {
    /// Addresses of the host, best first, such as `grpc://127.0.0.1:9750`: the text of an [`crate::Address`], kept as the host wrote it,
    /// since a newer host may write what this version cannot read.
    pub addresses: Vec<String>,
    /// The host's static key.
    pub host: LinkKey,
    /// The owner for whom the code was made.
    pub owner: OwnerId,
    /// Proves to the host that this phone is the owner's.
    pub secret: PairingSecret,
    /// The expiry, in seconds since 1970. After it the host refuses the code.
    pub expires_unix_s: u64,
}

impl PairingCode {
    /// The code as text: bech32m (BIP 350) with the prefix `longhand`.
    ///
    /// # Errors
    /// [`PairingCodeError::TooLong`] when the addresses do not fit.
    pub fn to_text(&self) -> Result<Zeroizing<String>, PairingCodeError> {
        let data = self.to_bytes()?;
        let hrp = Hrp::parse(PREFIX).map_err(|_| PairingCodeError::TooLong)?;
        let text = bech32::encode::<Bech32m>(hrp, &data).map_err(|_| PairingCodeError::TooLong)?;
        Ok(Zeroizing::new(text))
    }

    /// The code as a QR code for a terminal: lines of half blocks, light on dark, with a quiet zone.
    ///
    /// # Errors
    /// [`PairingCodeError::TooLong`] when the addresses do not fit.
    pub fn to_qr(&self) -> Result<String, PairingCodeError> {
        // Upper case fits the QR alphanumeric mode, which is a third smaller.
        let text = Zeroizing::new(self.to_text()?.to_ascii_uppercase());
        let qr = QrCode::with_error_correction_level(text.as_bytes(), EcLevel::L)
            .map_err(|_| PairingCodeError::TooLong)?;
        let picture = qr.render::<Dense1x2>();
        // A terminal is dark, so its blocks are the light modules.
        Ok({ picture }
            .dark_color(Dense1x2::Light)
            .light_color(Dense1x2::Dark)
            .build())
    }

    /// Whether a code has room for these addresses.
    pub fn has_room_for(addresses: &[String]) -> bool {
        let code = PairingCode {
            addresses: addresses.to_vec(),
            host: LinkKey([0; 32]),
            owner: OwnerId([0; 16]),
            secret: PairingSecret::from_bytes([0; 16]),
            expires_unix_s: 0,
        };
        code.to_text().is_ok()
    }

    fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, PairingCodeError> {
        let too_long = |_| PairingCodeError::TooLong;
        let mut data = Zeroizing::new(vec![VERSION]);
        data.extend_from_slice(&self.host.0);
        data.extend_from_slice(&self.owner.0);
        data.extend_from_slice(self.secret.0.as_ref());
        data.extend_from_slice(&self.expires_unix_s.to_be_bytes());
        data.push(u8::try_from(self.addresses.len()).map_err(too_long)?);
        for address in &self.addresses {
            data.push(u8::try_from(address.len()).map_err(too_long)?);
            data.extend_from_slice(address.as_bytes());
        }
        Ok(data)
    }

    fn from_bytes(data: &[u8]) -> Result<PairingCode, PairingCodeError> {
        let mut reader = Reader(data);
        let version = reader.array::<1>()?[0];
        if version != VERSION {
            return Err(PairingCodeError::Version { found: version });
        }
        let host = LinkKey(reader.array()?);
        let owner = OwnerId(reader.array()?);
        let secret = PairingSecret::from_bytes(reader.array()?);
        let expires_unix_s = u64::from_be_bytes(reader.array()?);
        let count = reader.array::<1>()?[0];
        let mut addresses = Vec::new();
        for _ in 0..count {
            let length = reader.array::<1>()?[0];
            let bytes = reader.take(length.into())?;
            let text = std::str::from_utf8(bytes).map_err(|_| PairingCodeError::Damaged)?;
            addresses.push(text.to_owned());
        }
        if addresses.is_empty() || !reader.0.is_empty() {
            return Err(PairingCodeError::Damaged);
        }
        Ok(PairingCode {
            addresses,
            host,
            owner,
            secret,
            expires_unix_s,
        })
    }
}

impl FromStr for PairingCode {
    type Err = PairingCodeError;

    /// Reads a code in either case; white space, as from a line break in a mail, is skipped.
    fn from_str(text: &str) -> Result<PairingCode, PairingCodeError> {
        let mut clean = Zeroizing::new(String::with_capacity(text.len()));
        clean.extend(text.chars().filter(|c| !c.is_whitespace()));
        let start = clean.get(..=PREFIX.len()).unwrap_or_default();
        if !start.eq_ignore_ascii_case("longhand1") || !clean.is_ascii() {
            return Err(PairingCodeError::NotACode);
        }
        if clean.len() > MAX_TEXT {
            return Err(PairingCodeError::Damaged);
        }
        let checked =
            CheckedHrpstring::new::<Bech32m>(&clean).map_err(|_| PairingCodeError::Damaged)?;
        let mut data = Zeroizing::new(Vec::with_capacity(clean.len()));
        data.extend(checked.byte_iter());
        PairingCode::from_bytes(&data)
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], PairingCodeError> {
        let (taken, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(PairingCodeError::Damaged)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PairingCodeError> {
        self.take(N)?
            .try_into()
            .map_err(|_| PairingCodeError::Damaged)
    }
}

/// The reason for which text is not a pairing code that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PairingCodeError {
    /// The text does not begin like a pairing code.
    #[error("this is not a pairing code: it begins with \"longhand1\"; copy all of it")]
    NotACode,
    /// A character is wrong or missing.
    #[error("the pairing code is damaged or cut off: copy it again, all of it")]
    Damaged,
    /// The code is of another version.
    #[error(
        "the pairing code has version {found}, this program knows version 1: use the version the host uses"
    )]
    Version {
        /// The version in the code.
        found: u8,
    },
    /// The addresses do not fit.
    #[error("the host's addresses do not fit in a pairing code: give fewer or shorter ones")]
    TooLong,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn code() -> PairingCode {
        PairingCode {
            addresses: vec![
                "grpcs://host.example:9750".into(),
                "grpc://127.0.0.1:9750".into(),
            ],
            host: LinkKey([3; 32]),
            owner: OwnerId([7; 16]),
            secret: PairingSecret::from_bytes([0xcd; 16]),
            expires_unix_s: 1_900_000_000,
        }
    }

    #[test]
    fn text_comes_back_as_the_code_it_was() {
        let text = code().to_text().unwrap();
        assert!(text.starts_with("longhand1"));
        assert_eq!(text.parse(), Ok(code()));
        assert_eq!(text.to_uppercase().parse(), Ok(code()));
        let wrapped = format!("  {}\n {}\n", &text[..40], &text[40..]);
        assert_eq!(wrapped.parse(), Ok(code()));
    }

    #[test]
    fn every_cut_and_every_wrong_character_is_noticed() {
        let text = code().to_text().unwrap();
        for end in 0..text.len() {
            assert!(text[..end].parse::<PairingCode>().is_err(), "cut at {end}");
        }
        for at in PREFIX.len() + 1..text.len() {
            let other = if &text[at..=at] == "q" { "p" } else { "q" };
            let wrong = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert_eq!(
                wrong.parse::<PairingCode>(),
                Err(PairingCodeError::Damaged),
                "at {at}"
            );
        }
    }

    #[test]
    fn other_text_and_other_versions_are_named() {
        for text in [
            "",
            "lnbc1",
            "longhand",
            "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4",
            "ĸonghand1é",
        ] {
            assert_eq!(
                text.parse::<PairingCode>(),
                Err(PairingCodeError::NotACode),
                "{text}"
            );
        }
        let mut data = code().to_bytes().unwrap();
        data[0] = 2;
        let newer = bech32::encode::<Bech32m>(Hrp::parse(PREFIX).unwrap(), &data).unwrap();
        assert_eq!(
            newer.parse::<PairingCode>(),
            Err(PairingCodeError::Version { found: 2 })
        );
    }

    #[test]
    fn too_many_addresses_are_refused() {
        let long = PairingCode {
            addresses: vec!["grpc://a.example:1".repeat(10); 6],
            ..code()
        };
        assert_eq!(long.to_text(), Err(PairingCodeError::TooLong));
    }

    #[test]
    fn the_secret_shows_neither_in_debug_nor_in_its_id() {
        let shown = format!("{:?} {}", code(), code().secret.id());
        assert!(!shown.contains("cdcd") && !shown.contains("205, 205"));
    }

    #[test]
    fn the_qr_code_is_a_square_of_half_blocks() {
        let qr = code().to_qr().unwrap();
        let lines: Vec<_> = qr.lines().collect();
        let width = lines[0].chars().count();
        assert_eq!(lines.len(), width.div_ceil(2));
        assert!(qr.chars().all(|c| " ▀▄█\n".contains(c)));
    }
}
