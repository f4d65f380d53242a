//! Addresses and keys of onion services, version 3 (Tor's rend-spec-v3, 6).

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE32_NOPAD;
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha3::{Digest, Sha3_256};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

const SUFFIX: &str = ".onion";
const VERSION: u8 = 3;
/// Public key, checksum and version.
const BYTES: usize = 32 + 2 + 1;

/// An onion service's address: its public key. As text `<56 characters>.onion`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OnionAddress([u8; 32]);

impl OnionAddress {
    /// The service's Ed25519 public key.
    pub fn public_key(&self) -> &[u8; 32] {
        &self.0
    }

    fn checksum(&self) -> [u8; 2] {
        let mut hash = Sha3_256::new();
        hash.update(b".onion checksum");
        hash.update(self.0);
        hash.update([VERSION]);
        let digest: [u8; 32] = hash.finalize().into();
        [digest[0], digest[1]]
    }
}

impl fmt::Display for OnionAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&self.0[..], &self.checksum(), &[VERSION]].concat();
        let text = BASE32_NOPAD.encode(&bytes).to_ascii_lowercase();
        write!(f, "{text}{SUFFIX}")
    }
}

impl fmt::Debug for OnionAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for OnionAddress {
    type Err = OnionAddressError;

    fn from_str(text: &str) -> Result<OnionAddress, OnionAddressError> {
        let text = text.to_ascii_uppercase();
        let label = text.strip_suffix(".ONION").ok_or(OnionAddressError)?;
        let decoded = BASE32_NOPAD.decode(label.as_bytes());
        let bytes: [u8; BYTES] = decoded
            .ok()
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or(OnionAddressError)?;
        let (key, rest) = bytes.split_first_chunk::<32>().ok_or(OnionAddressError)?;
        let address = OnionAddress(*key);
        let [first, second] = address.checksum();
        match rest == [first, second, VERSION] {
            true => Ok(address),
            false => Err(OnionAddressError),
        }
    }
}

/// Text that is no address of an onion service, or one with a wrong character.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "it is no address of an onion service: 56 characters and .onion, of which one may be wrong"
)]
pub struct OnionAddressError;

/// The secret of an onion service: an Ed25519 seed (RFC 8032). Zeroized when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct OnionSeed(Zeroizing<[u8; 32]>);

impl OnionSeed {
    /// From 32 bytes of chance.
    pub fn from_bytes(bytes: [u8; 32]) -> OnionSeed {
        OnionSeed(Zeroizing::new(bytes))
    }

    /// The seed of one of several services that follow from this one.
    pub fn derive(&self, purpose: &str) -> OnionSeed {
        derive("longhand onion service", purpose.as_bytes(), &self.0).into()
    }

    /// The service's address.
    pub fn address(&self) -> OnionAddress {
        OnionAddress(SigningKey::from_bytes(&self.0).verifying_key().to_bytes())
    }

    /// The bytes.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<Zeroizing<[u8; 32]>> for OnionSeed {
    fn from(bytes: Zeroizing<[u8; 32]>) -> OnionSeed {
        OnionSeed(bytes)
    }
}

impl fmt::Debug for OnionSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnionSeed(secret)")
    }
}

/// The X25519 secret by which a client reads the descriptor of a service with restricted discovery. Zeroized when dropped.
#[derive(Clone)]
pub struct DiscoverySecret(StaticSecret);

impl DiscoverySecret {
    /// From 32 secret bytes.
    pub fn from_bytes(bytes: &[u8; 32]) -> DiscoverySecret {
        DiscoverySecret(StaticSecret::from(*bytes))
    }

    /// The key that the service's descriptor is encrypted to.
    pub fn public(&self) -> DiscoveryKey {
        DiscoveryKey(PublicKey::from(&self.0).to_bytes())
    }

    /// The bytes.
    pub fn expose(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }
}

impl fmt::Debug for DiscoverySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiscoverySecret(secret)")
    }
}

/// The public half of a [`DiscoverySecret`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiscoveryKey(pub [u8; 32]);

/// SHA3-256 of a domain, what the secret is for, and a secret: SHA3 needs no HMAC around it (FIPS 202, A.2).
fn derive(domain: &str, purpose: &[u8], secret: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    let mut hash = Sha3_256::new();
    for part in [domain.as_bytes(), purpose] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.update(secret);
    Zeroizing::new(hash.finalize().into())
}

impl Serialize for DiscoveryKey {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&BASE32_NOPAD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for DiscoveryKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<DiscoveryKey, D::Error> {
        read_base32(from).map(|bytes| DiscoveryKey(*bytes))
    }
}

impl Serialize for OnionSeed {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&Zeroizing::new(BASE32_NOPAD.encode(self.expose())))
    }
}

impl<'de> Deserialize<'de> for OnionSeed {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<OnionSeed, D::Error> {
        read_base32(from).map(OnionSeed::from)
    }
}

fn read_base32<'de, D: Deserializer<'de>>(from: D) -> Result<Zeroizing<[u8; 32]>, D::Error> {
    use serde::de::Error;
    let text = Zeroizing::new(String::deserialize(from)?);
    let bytes = BASE32_NOPAD.decode(text.as_bytes()).map(Zeroizing::new);
    let bytes = bytes.map_err(|_| D::Error::custom("not base32"))?;
    let bytes = <[u8; 32]>::try_from(bytes.as_slice());
    bytes
        .map(Zeroizing::new)
        .map_err(|_| D::Error::custom("not 32 bytes"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    /// The Tor Project's website.
    const TOR_PROJECT: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";

    #[test]
    fn an_address_is_read_in_any_case_and_written_as_tor_writes_it() {
        let address: OnionAddress = TOR_PROJECT.parse().unwrap();
        assert_eq!(address.to_string(), TOR_PROJECT);
        let capitals: OnionAddress = TOR_PROJECT.to_uppercase().parse().unwrap();
        assert_eq!(capitals, address);
    }

    #[test]
    fn an_address_with_a_wrong_character_is_refused() {
        let label = TOR_PROJECT.trim_end_matches(".onion");
        let swapped = TOR_PROJECT.replacen("2g", "g2", 1);
        let version_two = "expyuzz4wqqyqhjn.onion";
        for text in [
            "",
            ".onion",
            label,
            &swapped,
            version_two,
            &format!("a{TOR_PROJECT}"),
            &format!("www.{TOR_PROJECT}"),
            "ä.onion",
        ] {
            assert_eq!(
                text.parse::<OnionAddress>(),
                Err(OnionAddressError),
                "{text}"
            );
        }
    }

    #[test]
    fn each_purpose_has_a_service_of_its_own_and_always_the_same() {
        let seed = OnionSeed::from_bytes([7; 32]);
        let links = seed.derive("links 0").address();
        assert_eq!(seed.derive("links 0").address(), links);
        assert_ne!(seed.derive("links 1").address(), links);
        assert_ne!(seed.address(), links);
        assert_ne!(
            OnionSeed::from_bytes([8; 32]).derive("links 0").address(),
            links
        );
        // As it stands in pairing codes: it must never change.
        let shown = "fna6jxkxozfwfba7yzfpdhl2x4v4pgokdsr6hl6b233xpfiipjlq4rqd.onion";
        assert_eq!(links.to_string(), shown);
    }

    #[test]
    fn a_discovery_key_is_the_public_half_of_its_secret() {
        // RFC 7748, 6.1: Alice's keys.
        let bytes = |text: &str| {
            let decoded = data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap();
            <[u8; 32]>::try_from(decoded).unwrap()
        };
        let secret = bytes("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a");
        let public = bytes("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
        assert_eq!(
            DiscoverySecret::from_bytes(&secret).public(),
            DiscoveryKey(public)
        );
    }

    proptest! {
        #[test]
        fn any_text_is_an_address_or_refused(text in "[a-zA-Z2-7]{50,60}(\\.onion)?|\\PC{0,70}") {
            if let Ok(address) = text.parse::<OnionAddress>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }

        #[test]
        fn every_key_has_an_address(key: [u8; 32]) {
            let address = OnionAddress(key);
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }
    }
}
