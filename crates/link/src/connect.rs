//! How a link begins: dialling, the handshake, and the exchange of `Hello`.

use std::time::Duration;

use async_trait::async_trait;

use crate::key::{OwnerId, PairingId, PublicKey, StaticKey};
use crate::pairing::{PairingCode, PairingSecret};
use crate::{Carrier, Link, LinkError, Peer};

/// What a host knows of its pairing codes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// The code is good.
    Open(PairingSecret),
    /// The code was used by this phone; it may finish a pairing that broke off, nobody else may.
    UsedBy(PairingSecret, PublicKey),
    /// The code's time is over.
    Expired,
    /// There is no such code.
    Unknown,
}

/// Who a host is and whom it knows. The host crate implements it on its store.
#[async_trait]
pub trait HostIdentity: Send + Sync {
    /// The host's static key.
    fn static_key(&self) -> StaticKey;

    /// What is known of a pairing code. Asked before the phone has proved anything: nothing may change.
    async fn pairing(&self, id: &PairingId) -> Result<Pairing, LinkError>;

    /// The phone proved that it has the code: durably uses the code up and pins the phone's key to the
    /// owner, in one step. Returns `None`, with nothing changed, when the code was used by another phone or
    /// expired meanwhile. Asked again for the same phone it returns the owner again.
    async fn pin(&self, id: &PairingId, phone: &PublicKey) -> Result<Option<OwnerId>, LinkError>;

    /// The owner this phone is pinned to.
    async fn owner_of(&self, phone: &PublicKey) -> Result<Option<OwnerId>, LinkError>;

    /// The owner's [`Peer`], always the same one while this process runs (or until requests need no longer
    /// be resumed). A link that becomes live on it replaces the older one, which is told `REPLACED`.
    fn peer_of(&self, owner: &OwnerId) -> Peer;
}

/// A phone that has proved who it is.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// Whose phone it is.
    pub owner: OwnerId,
    /// The phone's static key.
    pub phone: PublicKey,
    /// Whether the link began with a pairing code.
    pub newly_paired: bool,
    /// The live link, the newest of its [`Peer`].
    pub link: Link,
}

/// Takes one connection at the host: handshake, `Hello` both ways, and the link is live.
///
/// # Errors
/// Whatever kept the phone out; it has been told as far as it may know.
pub async fn accept(carrier: Carrier, identity: &dyn HostIdentity) -> Result<Accepted, LinkError> {
    let _ = (carrier, identity);
    Err(LinkError::Handshake)
}

/// How a phone proves who it is.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// For the first meeting: the phone's new key and the code. The phone stores key, host and owner before.
    Pair {
        /// The phone's key; a pairing that broke off is tried again with the same.
        phone: StaticKey,
        /// The code.
        code: Box<PairingCode>,
    },
    /// For every later one.
    Attach {
        /// The phone's key.
        phone: StaticKey,
        /// The host's, from the code.
        host: PublicKey,
    },
}

/// How a phone dials.
#[derive(Clone, Debug, Default)]
pub struct DialOptions {
    /// Trust these certificates (PEM) for `grpcs` rather than the web's.
    pub ca_pem: Option<Vec<u8>>,
    /// Simulated one-way distance, for benchmarks.
    pub delay: Option<Duration>,
}

/// Dials the first of `addresses` that answers and makes a link of it. One attempt: when to try again is the
/// caller's to decide.
///
/// # Errors
/// [`LinkError::Unreachable`] when no address answers, else what the handshake ended with.
pub async fn connect(
    addresses: &[String],
    credentials: &Credentials,
    options: &DialOptions,
    peer: &Peer,
) -> Result<Link, LinkError> {
    connect_over(dial(addresses, options).await?, credentials, peer).await
}

/// Dials the first of `addresses` that answers.
///
/// # Errors
/// [`LinkError::Unreachable`] or [`LinkError::UnknownCarrier`] of the last address.
pub async fn dial(addresses: &[String], options: &DialOptions) -> Result<Carrier, LinkError> {
    let _ = (addresses, options);
    Err(LinkError::HandshakeTimeout)
}

/// Makes a link of a connection that the caller dialled.
///
/// # Errors
/// What the handshake ended with.
pub async fn connect_over(
    carrier: Carrier,
    credentials: &Credentials,
    peer: &Peer,
) -> Result<Link, LinkError> {
    let _ = (carrier, credentials, peer);
    Err(LinkError::Handshake)
}
