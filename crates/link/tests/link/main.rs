//! Links over each carrier.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
mod grpc;
mod http;
mod links;
#[cfg(feature = "mailbox")]
mod mailbox;
mod pairing;
mod ways;
mod websocket;
