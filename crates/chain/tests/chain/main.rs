//! The chain crate from outside: devnet's consensus and policy over RPC, the Bitcoin Core source,
//! the source without RPC, and the follower. RPC is over real loopback sockets.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod devnet;
mod direct;
mod follower;
mod keys;
mod policy;
mod rpc;
mod scan;
mod source;
