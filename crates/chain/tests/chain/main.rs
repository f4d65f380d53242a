//! The chain crate from outside: devnet's consensus and policy over RPC, the Bitcoin Core source,
//! and the follower. All of it over real loopback sockets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod devnet;
mod follower;
mod keys;
mod policy;
mod rpc;
mod source;
