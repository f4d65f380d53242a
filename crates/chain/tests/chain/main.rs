//! The chain crate from outside: devnet's consensus and policy over RPC, the sources over RPC, over Esplora's REST and
//! without a socket, the follower, and others' clients of Esplora. Sockets are real ones, on loopback.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod devnet;
mod direct;
mod esplora;
mod filters;
mod follower;
mod keys;
mod kinds;
mod others;
mod policy;
mod proxy;
mod rpc;
mod scan;
mod source;
