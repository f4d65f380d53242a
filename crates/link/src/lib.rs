//! The link between a phone and its node: one live, end-to-end encrypted connection over any carrier.
//!
//! `docs/PROTOCOL.md` has it byte by byte. Here it is, from the outside in:
//!
//! - [`connect`] (the phone) and [`accept`] (the host) turn a [`Carrier`] into a [`Link`].
//! - A [`Conversation`] is what outlives links: it asks and answers requests, and goes on where a dropped link
//!   ended. The host has one for each owner, a phone one for its process.
//! - [`PairingCode`] is what is shown and scanned before the first meeting.
//! - [`core`] is the protocol as deterministic values, without sockets, clocks and tasks.
//! - [`carrier`] has what carries: an in-memory pair, gRPC, and the traits for more.

mod address;
pub mod carrier;
mod connect;
mod conversation;
pub mod core;
mod error;
mod incoming;
mod key;
mod link;
mod pairing;

pub use address::{Address, AddressError, MAX_ADDRESS};
pub use carrier::{
    Carrier, CarrierError, Carriers, DialOptions, Dialer, Listen, Listener, RecordSink,
    RecordStream,
};
pub use connect::{
    Accepted, Credentials, HostIdentity, Pairing, accept, connect, connect_over, dial,
};
pub use conversation::Conversation;
pub use core::handshake::plain;
pub use core::{Config, Side};
pub use error::{CloseCode, CloseReason, LinkError};
pub use incoming::{Incoming, IncomingRequests, Responder};
pub use key::{HexError, Instance, LinkKey, LinkKeypair, OwnerId, PairingId};
pub use link::Link;
pub use pairing::{PairingCode, PairingCodeError, PairingSecret};

/// The version of the link that this crate speaks.
pub const VERSION: u8 = 1;
