//! Scenarios of nodes, phones and peers on devnet, across crates.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bad_input;
mod broadcasts;
mod closes;
mod deadlines;
mod gossip;
mod interrupted;
mod justice;
mod liveness;
mod lost_ledger;
mod opens;
mod payments;
mod reorgs;
mod restored_words;
