//! What the two ends of a link know, and nobody between them: where they meet at a mailbox follows from it.

use std::fmt;

use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use zeroize::Zeroizing;

use crate::key::{LinkKey, LinkKeypair, hash};
use crate::pairing::PairingSecret;

/// A secret that a host shares with one phone, or with the holder of one pairing code. Zeroized when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Rendezvous {
    secret: Zeroizing<[u8; 32]>,
    discovery: Option<DiscoverySeed>,
    is_pairing: bool,
}

impl Rendezvous {
    /// For the first connection, with a pairing code.
    pub fn of_pairing(secret: &PairingSecret) -> Rendezvous {
        Rendezvous {
            secret: hash("longhand rendezvous pairing", secret.to_bytes().as_ref()),
            discovery: Some(DiscoverySeed::of(secret)),
            is_pairing: true,
        }
    }

    /// For every later connection: it follows from the static keys of both ends (X25519), so that nobody else can relate it to
    /// the pairing. The same value at both ends.
    pub fn of_keys(own: &LinkKeypair, other: &LinkKey) -> Rendezvous {
        let mut shared = Zeroizing::new([0; 32]);
        if let Some(mut dh) = DefaultResolver.resolve_dh(&DHChoice::Curve25519) {
            dh.set(own.to_bytes().as_ref());
            // Fails for no 32 bytes.
            let _ = dh.dh(&other.0, shared.as_mut());
        }
        Rendezvous {
            secret: hash("longhand rendezvous keys", shared.as_ref()),
            discovery: None,
            is_pairing: false,
        }
    }

    /// The same, of a phone that has kept this of its pairing.
    pub fn with_discovery(self, discovery: Option<DiscoverySeed>) -> Rendezvous {
        Rendezvous { discovery, ..self }
    }

    /// Whether it is that of a pairing code, which may have been made just now.
    pub fn is_pairing(&self) -> bool {
        self.is_pairing
    }

    /// By which the host's onion service is found, if it has restricted discovery.
    pub fn discovery(&self) -> Option<&DiscoverySeed> {
        self.discovery.as_ref()
    }

    /// For dialling where nobody is met.
    #[cfg(feature = "mailbox")]
    pub(crate) fn nobody() -> Rendezvous {
        Rendezvous {
            secret: Zeroizing::new([0; 32]),
            discovery: None,
            is_pairing: false,
        }
    }

    /// A secret for one use of it.
    #[cfg(feature = "mailbox")]
    pub(crate) fn derive(&self, domain: &str, data: &[u8]) -> Zeroizing<[u8; 32]> {
        derive(domain, &self.secret, data)
    }
}

/// What a phone keeps of its pairing: for as long as the pairing is the owner's last one, the phone finds the host's onion service by
/// it (restricted discovery). The key for links is another one. Zeroized when dropped.
///
/// It is of the pairing, and not of the static keys, because a service announces its clients beforehand, and the host does not know the
/// phone's key before.
#[derive(Clone, PartialEq, Eq)]
pub struct DiscoverySeed(Zeroizing<[u8; 32]>);

impl DiscoverySeed {
    /// Of the last pairing.
    pub fn of(secret: &PairingSecret) -> DiscoverySeed {
        DiscoverySeed(hash("longhand discovery", secret.to_bytes().as_ref()))
    }

    /// From [`DiscoverySeed::to_bytes`].
    pub fn from_bytes(bytes: [u8; 32]) -> DiscoverySeed {
        DiscoverySeed(Zeroizing::new(bytes))
    }

    /// For the phone's files.
    pub fn to_bytes(&self) -> Zeroizing<[u8; 32]> {
        self.0.clone()
    }

    /// A secret for one use of it.
    #[cfg(feature = "tor")]
    pub(crate) fn derive(&self, domain: &str, data: &[u8]) -> Zeroizing<[u8; 32]> {
        derive(domain, &self.0, data)
    }
}

impl fmt::Debug for DiscoverySeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DiscoverySeed(secret)")
    }
}

#[cfg(any(feature = "mailbox", feature = "tor"))]
fn derive(domain: &str, secret: &[u8; 32], data: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut input = Zeroizing::new(Vec::with_capacity(32 + data.len()));
    input.extend_from_slice(secret);
    input.extend_from_slice(data);
    hash(domain, &input)
}

impl fmt::Debug for Rendezvous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Rendezvous(secret)")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn both_ends_come_to_the_same_secret_and_another_pair_to_another() {
        let [host, phone, other] = [(); 3].map(|()| LinkKeypair::generate().unwrap());
        let at_phone = Rendezvous::of_keys(&phone, &host.public());
        assert_eq!(Rendezvous::of_keys(&host, &phone.public()), at_phone);
        assert_ne!(Rendezvous::of_keys(&host, &other.public()), at_phone);
    }

    #[test]
    fn the_pairing_is_met_elsewhere_than_the_phone_after_it() {
        let secret = PairingSecret::generate().unwrap();
        let other = PairingSecret::generate().unwrap();
        let met = Rendezvous::of_pairing(&secret);
        assert_eq!(Rendezvous::of_pairing(&secret), met);
        assert_ne!(Rendezvous::of_pairing(&other), met);
        assert_eq!(format!("{met:?}"), "Rendezvous(secret)");
    }
}
