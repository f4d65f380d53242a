//! Tor for hosts and phones: no daemon beside the program.
//!
//! - `onion`: addresses and keys of onion services.
//! - `dial`: what opens streams to them, for the carrier of phones in `longhand-link`.
//! - `progress`: how far a client has come, and where it is stuck.
//! - [`control`]: the messages between a host and its Tor process.
//!
//! With the feature `arti`, which takes long to build, Tor itself:
//! - `arti`: a client with its onion services, on the Tor Project's Arti.
//! - `process`: the Tor process of a host (`longhand tor`).
//!
//! Arti is generic over its runtime, so that most of it is built again whenever this crate is: no other crate of the workspace is
//! used here.

pub mod control;
mod dial;
mod onion;
mod progress;

#[cfg(feature = "arti")]
mod arti;
#[cfg(feature = "arti")]
pub mod process;

#[cfg(feature = "arti")]
pub use arti::{
    Arrived, LazyTor, OnionService, ServiceState, Tor, TorConfig, TorError, TorStream, Use,
};
pub use dial::{DialError, OnionDialer, OnionStream};
pub use onion::{DiscoveryKey, DiscoverySecret, OnionAddress, OnionAddressError, OnionSeed};
pub use progress::{Progress, Step};

/// The scheme of addresses in pairing codes: `tor://<56 characters>.onion:<port>`.
pub const SCHEME: &str = "tor";
/// The port of onion services for phones.
pub const LINK_PORT: u16 = 9750;
/// The port of the onion service for the hub's peers.
pub const PEER_PORT: u16 = 9735;
