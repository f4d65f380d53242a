//! Runs of the simulation.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;
mod hashmail;
mod kinds;
mod mailbox;
mod replay;
mod world;
