//! The beginning of a link at a host: the handshake, and the exchange of `Hello`.

use async_trait::async_trait;
use longhand_proto::utc;

use crate::clock::now_unix_s;
use crate::connect::{HANDSHAKE_TIMEOUT, recv, send};
use crate::conversation::UNKNOWN_OWNER;
use crate::core::handshake::{AttachResponder, Established, PairResponder, Rejected, Responder};
use crate::core::session::refuse;
use crate::error::{CloseCode, CloseReason};
use crate::key::{LinkKey, LinkKeypair, OwnerId, PairingId};
use crate::pairing::PairingSecret;
use crate::{Carrier, Conversation, Link, LinkError};

const PAIRING_UNKNOWN: &str = "the host does not know this pairing code: get a new one";
const PAIRING_USED: &str = "the pairing code was used by another phone: get a new one";
const UNAVAILABLE: &str = "the host cannot look it up now: try again";

/// The state of a pairing code at its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// The code can be used.
    Open(PairingSecret),
    /// The code was used by this phone; it may finish a pairing that broke off, nobody else may.
    UsedBy(PairingSecret, LinkKey),
    /// The code has expired.
    Expired,
    /// There is no such code.
    Unknown,
}

/// The identity of a host, and the phones that it knows. The host crate implements it on its store.
#[async_trait]
pub trait HostIdentity: Send + Sync {
    /// The host's static key.
    fn keypair(&self) -> LinkKeypair;

    /// The state of a pairing code. Called before the phone has proved anything, so that nothing may change.
    async fn pairing(&self, id: &PairingId) -> Result<Pairing, LinkError>;

    /// Uses the code up and pins the phone's key to the owner, durably and in one step; called when the phone has proved that it has
    /// the code. Returns `None`, with nothing changed, when the code was used by another phone or expired meanwhile, and the owner
    /// again when it is called again for the same phone.
    async fn pin(&self, id: &PairingId, phone: &LinkKey) -> Result<Option<OwnerId>, LinkError>;

    /// The owner this phone is pinned to.
    async fn owner_of(&self, phone: &LinkKey) -> Result<Option<OwnerId>, LinkError>;

    /// The owner's [`Conversation`], always the same one while this process runs (or until requests need no longer
    /// be resumed). A link that becomes live on it closes the older one with `REPLACED`.
    fn conversation_of(&self, owner: &OwnerId) -> Conversation;
}

/// A phone that has proved its identity.
#[derive(Clone, Debug)]
pub struct Accepted {
    /// The owner of the phone.
    pub owner: OwnerId,
    /// The phone's static key.
    pub phone: LinkKey,
    /// Whether the link began with a pairing code.
    pub newly_paired: bool,
    /// The live link, the newest of its [`Conversation`].
    pub link: Link,
}

/// Takes one connection at the host: handshake, `Hello` both ways, and the link is live.
///
/// # Errors
/// The reason for which the phone was refused. The phone has received as much of it as it may know.
pub async fn accept(
    mut carrier: Carrier,
    identity: &dyn HostIdentity,
) -> Result<Accepted, LinkError> {
    let _place = carrier.take_place();
    let accepted = tokio::time::timeout(HANDSHAKE_TIMEOUT, accept_in_time(carrier, identity)).await;
    accepted.unwrap_or(Err(LinkError::HandshakeTimeout))
}

async fn accept_in_time(
    mut carrier: Carrier,
    identity: &dyn HostIdentity,
) -> Result<Accepted, LinkError> {
    let first = recv(&mut carrier).await?;
    match or_reject(
        &mut carrier,
        Responder::receive(&identity.keypair(), &first),
    )
    .await?
    {
        Responder::Pair(pairing) => accept_pairing(carrier, identity, pairing).await,
        Responder::Attach(attach) => accept_attach(carrier, identity, attach).await,
    }
}

async fn accept_attach(
    mut carrier: Carrier,
    identity: &dyn HostIdentity,
    attach: AttachResponder,
) -> Result<Accepted, LinkError> {
    let phone = *attach.phone();
    let owner = match identity.owner_of(&phone).await {
        Ok(Some(owner)) => owner,
        Ok(None) => {
            let refusal = attach.refuse(CloseCode::UnknownOwner, UNKNOWN_OWNER)?;
            send(&mut carrier, refusal).await?;
            return Err(refused(CloseCode::UnknownOwner, UNKNOWN_OWNER));
        }
        Err(error) => {
            send(
                &mut carrier,
                attach.refuse(CloseCode::Unavailable, UNAVAILABLE)?,
            )
            .await?;
            return Err(error);
        }
    };
    let (established, answer) = attach.welcome()?;
    send(&mut carrier, answer).await?;
    let link = identity
        .conversation_of(&owner)
        .establish(carrier, established)
        .await?;
    Ok(Accepted {
        owner,
        phone,
        newly_paired: false,
        link,
    })
}

async fn accept_pairing(
    mut carrier: Carrier,
    identity: &dyn HostIdentity,
    pairing: PairResponder,
) -> Result<Accepted, LinkError> {
    let id = *pairing.id();
    let (secret, used_by) = match identity.pairing(&id).await {
        Ok(Pairing::Open(secret)) => (secret, None),
        Ok(Pairing::UsedBy(secret, phone)) => (secret, Some(phone)),
        Ok(no) => {
            let (code, message) = match no {
                Pairing::Expired => (CloseCode::PairingExpired, pairing_expired()),
                _ => (CloseCode::PairingUnknown, PAIRING_UNKNOWN.to_owned()),
            };
            send(&mut carrier, pairing.refuse(code.clone(), &message)?).await?;
            return Err(refused(code, &message));
        }
        Err(error) => {
            send(
                &mut carrier,
                pairing.refuse(CloseCode::Unavailable, UNAVAILABLE)?,
            )
            .await?;
            return Err(error);
        }
    };
    let (awaiting, answer) = pairing.welcome(&secret)?;
    send(&mut carrier, answer).await?;
    let second = recv(&mut carrier).await?;
    let mut established = or_reject(&mut carrier, awaiting.receive(&second)).await?;
    let phone = established.remote;
    let pinned = match used_by {
        Some(other) if other != phone => Ok(None),
        _ => identity.pin(&id, &phone).await,
    };
    let owner = match pinned {
        Ok(Some(owner)) => owner,
        Ok(None) => {
            hang_up(
                &mut carrier,
                &mut established,
                CloseCode::PairingUsed,
                PAIRING_USED,
            )
            .await?;
            return Err(refused(CloseCode::PairingUsed, PAIRING_USED));
        }
        Err(error) => {
            hang_up(
                &mut carrier,
                &mut established,
                CloseCode::Unavailable,
                UNAVAILABLE,
            )
            .await?;
            return Err(error);
        }
    };
    let link = identity
        .conversation_of(&owner)
        .establish(carrier, established)
        .await?;
    Ok(Accepted {
        owner,
        phone,
        newly_paired: true,
        link,
    })
}

async fn or_reject<T>(carrier: &mut Carrier, result: Result<T, Rejected>) -> Result<T, LinkError> {
    match result {
        Ok(value) => Ok(value),
        Err(Rejected { error, reply }) => {
            // The other side may be gone already; the reason of the rejection is the error that counts.
            let _ = send(carrier, reply).await;
            Err(error)
        }
    }
}

/// Ends a finished handshake with a reason.
async fn hang_up(
    carrier: &mut Carrier,
    established: &mut Established,
    code: CloseCode,
    message: &str,
) -> Result<(), LinkError> {
    let records = refuse(established, code, message);
    for record in records.map_err(|e| LinkError::Protocol(e.to_string()))? {
        send(carrier, record).await?;
    }
    Ok(())
}

/// The time is the host's: a phone whose clock is behind takes the code as valid.
fn pairing_expired() -> String {
    let now = utc(now_unix_s());
    format!("the pairing code has expired, the host's clock shows {now}: get a new one")
}

fn refused(code: CloseCode, message: &str) -> LinkError {
    LinkError::Closed(CloseReason::local(code, message))
}
