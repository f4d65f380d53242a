//! A mailbox, from outside: its own protocol, hashmail, and links over both.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod balancer;
mod common;
mod hashmail;
mod hashmail_link;
mod link;
#[path = "../../../link/tests/link/common/mod.rs"]
mod links;
mod mailbox;
