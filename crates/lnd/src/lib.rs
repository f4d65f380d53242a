//! The part of lnd's RPC that existing apps call, answered by a node of Longhand.
//!
//! A host implements [`Node`] for each node, from the node's own data, and [`Apps`] for the apps that owners have connected; [`routes`]
//! then answers gRPC and REST alike, and [`serve`] serves them on any stream: a socket, TLS, Lightning Node Connect. Apps show a
//! [`Macaroon`] with each call, which their owner's [`Rights`] are in. What needs the phone is asked of the node, which asks the phone;
//! while it is away such a call fails at once, with a line that says so. A call that is not answered is `UNIMPLEMENTED`, by its name.
//!
//! - [`macaroon`], [`rights`]: who may do what. `door.rs`: the check of each call.
//! - [`node`]: what is asked of a node. Start reading here.
//! - `calls/`: one function for each call, from the message of a request to that of its reply; `calls/mod.rs` lists them all, with their
//!   permissions and paths.
//! - `call.rs`, `places.rs`, `routes.rs`: what a call is, where each is found, and all of them at one router.
//! - `grpc.rs`, `rest.rs`, `json.rs`: the two ways in. Both use the same functions.
//!
//! Names, field numbers, paths and permissions are those of lnd 0.21.

mod call;
mod calls;
mod door;
mod grpc;
mod json;
pub mod macaroon;
pub mod node;
mod places;
pub mod proto;
mod rest;
pub mod rights;
mod routes;
mod serve;
mod status;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use call::MOST_REQUEST_BYTES;
pub use calls::{LND_VERSION, MOST_MEMO_BYTES, MOST_PER_PAGE};
pub use door::{App, Apps, MOST_CALLS};
pub use macaroon::{Grant, MOST_APP_BYTES, Macaroon, MacaroonError, RootKey};
pub use node::{Node, NodeError};
pub use rights::{Op, Rights};
pub use routes::routes;
pub use serve::serve;

#[cfg(test)]
mod tests;
