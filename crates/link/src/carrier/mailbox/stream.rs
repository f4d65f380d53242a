//! Streams of a mailbox: a key each, which both ends derive, and the signatures by which a mailbox knows them.

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use longhand_proto::mailbox;

use crate::Rendezvous;
use crate::key::hash;

/// Random bytes of a mailbox for which all signatures of one connection are made.
pub type Nonce = [u8; 32];

/// One of the two ends of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// Read by a host.
    Host,
    /// Read by a phone.
    Phone,
}

impl End {
    /// The other one.
    pub fn other(self) -> End {
        match self {
            End::Host => End::Phone,
            End::Phone => End::Host,
        }
    }

    /// As it is sent.
    pub fn to_wire(self) -> mailbox::End {
        match self {
            End::Host => mailbox::End::Host,
            End::Phone => mailbox::End::Phone,
        }
    }

    /// As it was sent.
    pub fn from_wire(end: mailbox::End) -> Option<End> {
        match end {
            mailbox::End::Host => Some(End::Host),
            mailbox::End::Phone => Some(End::Phone),
            mailbox::End::Unknown => None,
        }
    }
}

/// What a signature permits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permit {
    /// To create a stream, to read at this end of it, and to write to the other.
    Attach(End),
    /// To delete a stream.
    Delete,
}

impl Permit {
    /// What is signed: the protocol, the act, and the connection's nonce, so that it is of no use on another connection.
    fn text(self, nonce: &Nonce) -> Vec<u8> {
        let act = match self {
            Permit::Attach(End::Host) => 1,
            Permit::Attach(End::Phone) => 2,
            Permit::Delete => 3,
        };
        [b"longhand mailbox v1".as_slice(), &[0, act], nonce].concat()
    }

    /// Whether the holder of a stream's key has signed this for the connection with this nonce.
    pub fn is_signed(self, public_key: &[u8; 32], nonce: &Nonce, signature: &[u8; 64]) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(public_key) else {
            return false;
        };
        let signature = Signature::from_bytes(signature);
        key.verify_strict(&self.text(nonce), &signature).is_ok()
    }
}

/// The id of a stream: the BLAKE2s-256 hash of its public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId([u8; 32]);

impl StreamId {
    /// Of a stream with this key.
    pub fn of(public_key: &[u8; 32]) -> StreamId {
        StreamId(*hash("longhand mailbox stream", public_key))
    }

    /// The id itself, for those who have the key. Not for logs.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The route by which a load balancer chooses among several processes of a mailbox: one hexadecimal digit. All messages of a
    /// stream have the same.
    pub fn route(&self) -> char {
        char::from_digit(u32::from(self.0[0] >> 4), 16).unwrap_or('0')
    }

    /// For logs: another hash, from which neither id nor key follows.
    pub fn for_logs(&self) -> impl fmt::Display {
        let digest = hash("longhand mailbox log", &self.0);
        let head = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        format!("{head:08x}")
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamId(log {})", self.for_logs())
    }
}

/// The key of a stream at one mailbox, which both ends have. Zeroized when dropped.
#[derive(Clone)]
pub struct StreamKey(SigningKey);

impl StreamKey {
    /// The key of those who share `meeting`, at the mailbox with this authority (`host:port`). At each mailbox they have another
    /// one: no mailbox can act for a client at another, nor see that it serves the same two.
    pub fn new(meeting: &Rendezvous, authority: &str) -> StreamKey {
        let authority = authority.to_ascii_lowercase();
        let seed = meeting.derive("longhand mailbox key", authority.as_bytes());
        StreamKey(SigningKey::from_bytes(&seed))
    }

    /// The stream's public key.
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// The stream's id.
    pub fn id(&self) -> StreamId {
        StreamId::of(&self.public())
    }

    /// Permits an act on a connection.
    pub fn sign(&self, permit: Permit, nonce: &Nonce) -> [u8; 64] {
        self.0.sign(&permit.text(nonce)).to_bytes()
    }
}

impl fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamKey(secret of {:?})", self.id())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::PairingSecret;

    fn key(authority: &str) -> StreamKey {
        let secret = PairingSecret::from_bytes([7; 16]);
        StreamKey::new(&Rendezvous::of_pairing(&secret), authority)
    }

    #[test]
    fn a_signature_permits_one_act_on_one_connection() {
        let key = key("relay.example:443");
        let (nonce, public) = ([1; 32], key.public());
        let act = Permit::Attach(End::Host);
        let signature = key.sign(act, &nonce);
        assert!(act.is_signed(&public, &nonce, &signature));
        assert!(!act.is_signed(&public, &[2; 32], &signature));
        for other in [Permit::Attach(End::Phone), Permit::Delete] {
            assert!(!other.is_signed(&public, &nonce, &signature));
        }
        let foreign = StreamKey::new(
            &Rendezvous::of_pairing(&PairingSecret::from_bytes([8; 16])),
            "relay.example:443",
        );
        assert!(!act.is_signed(&foreign.public(), &nonce, &signature));
        assert!(!act.is_signed(&[0xff; 32], &nonce, &signature));
    }

    #[test]
    fn each_mailbox_has_its_own_stream_of_the_same_two() {
        let here = key("relay.example:443");
        assert_eq!(key("RELAY.example:443").id(), here.id());
        assert_ne!(key("other.example:443").id(), here.id());
    }

    #[test]
    fn neither_key_nor_id_shows() {
        let key = key("relay.example:443");
        let shown = format!("{key:?}");
        let id: String = key.id().0.iter().map(|b| format!("{b:02x}")).collect();
        assert!(!shown.contains(&id[..8]), "{shown}");
        assert!(key.id().route().is_ascii_hexdigit());
    }
}
