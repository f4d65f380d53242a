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
//! - [`runtime`] is what tasks and timers run on, handed in: phones run in browsers too, where the host's side and the carriers of
//!   this crate are left out.

#[cfg(not(target_family = "wasm"))]
mod accept;
mod address;
pub mod carrier;
#[cfg(not(target_family = "wasm"))]
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

#[cfg(not(target_family = "wasm"))]
pub use accept::{Accepted, HostIdentity, Pairing, accept};
pub use address::{Address, AddressError, MAX_ADDRESS};
pub use carrier::{Carrier, CarrierError, RecordSink, RecordStream};
#[cfg(not(target_family = "wasm"))]
pub use carrier::{Carriers, Connect, DialOptions, Dialer, Listen, Listener};
pub use connect::{Credentials, Dial, HEAD_START, connect, connect_over};
pub use conversation::Conversation;
pub use core::{Config, Side};
pub use error::{CloseCode, CloseReason, LinkError};
pub use incoming::{Incoming, IncomingRequests, Responder};
pub use key::{HexError, Instance, LinkKey, LinkKeypair, OwnerId, PairingId};
pub use link::Link;
pub use longhand_base::runtime;
pub use pairing::{PairingCode, PairingCodeError, PairingSecret};
pub use rendezvous::{DiscoverySeed, Rendezvous};

/// The version of the link that this crate speaks.
pub const VERSION: u8 = 3;

/// Whether this is a build for tests. A program for use refuses to be compiled with it.
pub const IS_FOR_TESTS: bool = cfg!(feature = "fuzzing");
