//! The network that a host reaches peers and phones by, behind one trait.
//!
//! [`Sockets`] (`network/sockets.rs`) is the program's: TCP to peers, HTTP to wake phones. An embedder that has its own ways to reach peers or
//! phones gives [`crate::Host::embed`] its own [`Network`], which may pass on to [`Sockets`] whatever it does not do itself.

mod names;
mod reach;
mod sockets;

use std::time::Duration;

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
pub use longhand_base::wake::WakeError;
use longhand_node::PeerStream;
use serde::Serialize;

pub use self::reach::Reach;
pub(crate) use self::reach::is_public;
pub use self::sockets::Sockets;

/// Bytes in flight between two nodes of one host, each way.
const PIPE: usize = 64 * 1024;

/// The two ends of a connection inside one process.
pub type Joined = (Box<dyn PeerStream>, Box<dyn PeerStream>);

/// How a host reaches peers and calls phones. Shared by all of its nodes; every call may be dropped half-way.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Opens a byte stream to a peer that is no node of this host. The host drops a call that takes longer than
    /// [`Network::limit`].
    ///
    /// # Errors
    /// Why there is no connection; the node tries again while it wants the peer.
    async fn dial(&self, peer: PeerDial<'_>) -> std::io::Result<Box<dyn PeerStream>>;

    /// The time that dialling this peer may take, when it is another than `peer.connect_timeout_ms`.
    fn limit(&self, peer: PeerDial<'_>) -> Option<Duration> {
        let _ = peer;
        None
    }

    /// Connects two nodes of this host: the first end is for `from`, which dials, the second for `to`. A pipe in
    /// memory, unless it is done otherwise.
    ///
    /// # Errors
    /// As for [`Network::dial`].
    fn join(&self, from: PublicKey, to: PublicKey) -> std::io::Result<Joined> {
        let _ = (from, to);
        let (near, far) = tokio::io::duplex(PIPE);
        Ok((Box::new(near), Box::new(far)))
    }

    /// Delivers one wake call to one of an owner's wake URLs. The host calls again, later and later, until the phone is there
    /// or the deadline is over, whatever this returns; it drops a call that takes longer than `wake.timeout_ms`.
    ///
    /// # Errors
    /// Why the call was not taken.
    async fn wake(&self, url: &WakeUrl, call: &WakeCall) -> Result<(), WakeError>;
}

/// A peer that one of the host's nodes dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerDial<'a> {
    /// The node that dials.
    pub from: DialFrom,
    /// The peer.
    pub node_id: PublicKey,
    /// Where it is, `host:port`: given by the owner or the operator, or announced by the peer.
    pub address: &'a str,
}

/// A node that dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DialFrom {
    /// The hub: its operator decides where it connects.
    Hub,
    /// An owner's node, by its node id. Owners may be strangers to the operator: an address that one of them gives must not
    /// reach what only this machine can reach.
    Owner(PublicKey),
}

/// A wake URL. It may have a token: it is not for logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WakeUrl {
    /// The one who gave it.
    pub from: WakeFrom,
    /// `http` or `https`, with a host.
    pub url: String,
}

/// The one who gave a wake URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeFrom {
    /// The operator, whose push service may be anywhere.
    Operator,
    /// An owner's phone. As with [`DialFrom::Owner`], its URL must not reach what only this machine can reach.
    Phone,
}

/// Why a phone is called, and until when. Has no secret in it: the operator of the push service may read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct WakeCall {
    /// The owner's name.
    pub owner: String,
    /// The owner's node; hexadecimal in JSON.
    pub node_id: PublicKey,
    /// Why the phone is needed.
    pub reason: WakeReason,
    /// The phone has to be there before this height.
    pub deadline_height: u32,
}

/// Why a phone is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WakeReason {
    /// A payment waits at the hub.
    Payment,
    /// The deadline of an HTLC in flight is near.
    Deadline,
}
