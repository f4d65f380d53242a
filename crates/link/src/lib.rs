//! The link between a phone and its node: one live, end-to-end encrypted connection over any carrier.
//!
//! `docs/PROTOCOL.md` defines it byte by byte. From the outside in:
//!
//! - [`connect`] (the phone) and [`accept`] (the host) turn a [`Carrier`] into a [`Link`].
//! - A [`Conversation`] outlives links: it sends and answers requests, and goes on where a broken link ended. The host has one for
//!   each owner, a phone one for its process.
//! - A [`PairingCode`] is shown by the host and scanned by the phone before the first connection. It holds [`Address`]es.
//! - [`core`] is the protocol as deterministic values, without sockets, clocks and tasks.
//! - [`carrier`] moves records: an in-memory pair, gRPC, WebSocket, and the traits and the registry for more.

mod accept;
mod address;
pub mod carrier;
mod clock;
mod connect;
mod conversation;
pub mod core;
mod error;
#[cfg(all(
    feature = "fuzzing",
    feature = "grpc",
    feature = "mailbox",
    feature = "websocket"
))]
pub mod fuzzing;
mod incoming;
mod key;
mod link;
mod pairing;
mod rendezvous;

pub use accept::{Accepted, HostIdentity, Pairing, accept};
pub use address::{Address, AddressError, MAX_ADDRESS};
pub use carrier::{
    Carrier, CarrierError, Carriers, Connect, DialOptions, Dialer, HEAD_START, Listen, Listener,
    RecordSink, RecordStream,
};
pub use connect::{Credentials, Dial, connect, connect_over};
pub use conversation::Conversation;
pub use core::{Config, Side};
pub use error::{CloseCode, CloseReason, LinkError};
pub use incoming::{Incoming, IncomingRequests, Responder};
pub use key::{HexError, Instance, LinkKey, LinkKeypair, OwnerId, PairingId};
pub use link::Link;
pub use pairing::{PairingCode, PairingCodeError, PairingSecret};
pub use rendezvous::{DiscoverySeed, Rendezvous};

/// The version of the link that this crate speaks.
pub const VERSION: u8 = 1;
