//! What the two ends of a link know, and nobody between them: where they meet at a mailbox follows from it.

use std::fmt;

use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use zeroize::Zeroizing;

use crate::key::{LinkKey, LinkKeypair, hash};
use crate::pairing::PairingSecret;

/// A secret that a host shares with one phone, or with the holder of one pairing code. Zeroized when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Rendezvous(Zeroizing<[u8; 32]>);

impl Rendezvous {
    /// For the first connection, with a pairing code.
    pub fn of_pairing(secret: &PairingSecret) -> Rendezvous {
        Rendezvous(hash(
            "longhand rendezvous pairing",
            secret.to_bytes().as_ref(),
        ))
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
        Rendezvous(hash("longhand rendezvous keys", shared.as_ref()))
    }

    /// For dialling where nobody is met.
    #[cfg(feature = "mailbox")]
    pub(crate) fn nobody() -> Rendezvous {
        Rendezvous(Zeroizing::new([0; 32]))
    }

    /// A secret for one use of it.
    #[cfg(feature = "mailbox")]
    pub(crate) fn derive(&self, domain: &str, data: &[u8]) -> Zeroizing<[u8; 32]> {
        let mut input = Zeroizing::new(Vec::with_capacity(32 + data.len()));
        input.extend_from_slice(self.0.as_ref());
        input.extend_from_slice(data);
        hash(domain, &input)
    }
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
