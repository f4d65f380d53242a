//! A chain, hosts, nodes and phones for tests, the demo, the benchmarks and the simulation, in this
//! process or as processes of the `longhand` binary. Each layer is a feature, so that a user builds only what it composes.
//!
//! - [`wait`]: conditions, on any clock. [`accounts`]: every satoshi, against the chain.
//! - `phone` (feature `node`): a phone without a link, for nodes of this process. `nodes` (feature `nodes`): a hub and
//!   owners' nodes on a devnet.
//! - `vault` (feature `phone`): files of phones.
//! - `host`, `forwarder` (feature `host`): a host and phones in this process, and distance between them. `rpc`, `operator`, `rounds`: a devnet and a host, asked as
//!   other programs ask them, and signer round trips, counted.
//! - `embedded`, `link_phone`, `failing_source` (feature `embedded`): hosts inside a test, and phones in their barest form.
//! - `scripted`, `invoices` (feature `scripted`): a host whose replies are scripted, for tests of a phone alone.
//! - `processes` (feature `processes`): a devnet, a host and phones, each a process of the `longhand` binary.
//!
//! Layers that the binary ships with return errors; those that only tests use panic.

pub mod accounts;
#[cfg(any(feature = "node", feature = "scripted"))]
#[allow(clippy::unwrap_used)]
pub mod clock;
#[cfg(feature = "embedded")]
#[allow(clippy::unwrap_used)]
pub mod embedded;
#[cfg(feature = "host")]
mod error;
#[cfg(feature = "embedded")]
#[allow(clippy::unwrap_used)]
pub mod failing_source;
#[cfg(feature = "host")]
pub mod forwarder;
#[cfg(feature = "host")]
pub mod host;
#[cfg(feature = "scripted")]
#[allow(clippy::unwrap_used)]
pub mod invoices;
#[cfg(feature = "embedded")]
#[allow(clippy::unwrap_used)]
pub mod link_phone;
#[cfg(feature = "nodes")]
#[allow(clippy::unwrap_used)]
pub mod nodes;
#[cfg(feature = "host")]
pub mod operator;
#[cfg(feature = "node")]
#[allow(clippy::unwrap_used)]
pub mod phone;
#[cfg(feature = "processes")]
pub mod processes;
#[cfg(feature = "host")]
pub mod rounds;
#[cfg(feature = "host")]
pub mod rpc;
#[cfg(feature = "scripted")]
#[allow(clippy::unwrap_used)]
pub mod scripted;
#[cfg(feature = "phone")]
pub mod vault;
pub mod wait;

#[cfg(feature = "host")]
pub use error::KitError;
pub use wait::{Late, Patience, until};
