//! The parts of a node. Each is a value with its own state, loaded from the store, and is lent a
//! [`Turn`](crate::machine::turn::Turn). No part holds another; where two must meet, the machine passes one to the other.
//!
//! - Channels: `openings.rs`, `acceptance.rs`, `coop_closes.rs`, `closed_channels.rs`, `balances.rs`, `reserve.rs`.
//! - Payments: `payments.rs`, `open_invoices.rs`, `invoices.rs`, `claims.rs`, `deadlines.rs`, `held_forwards.rs`,
//!   `forwarding.rs`, `in_flight.rs`.
//! - On chain: `onchain_sends.rs`, `replacements.rs`, `fee_bumps.rs`, `feerates.rs`, `sweeps.rs`, `chain_feed.rs`,
//!   `wallet_scan.rs`, `wallet_signing.rs`.
//! - The world outside: `requests.rs` (the owner's commands), `signer_session.rs` (the phone), `signer_headers.rs` and
//!   `funding_proofs.rs` and `block_filters.rs` (what it is shown of the chain), `connections.rs` and
//!   `dialing.rs` (peers), `announcements.rs` (a hub's `node_announcement`).

pub(crate) mod acceptance;
pub(crate) mod announcements;
pub(crate) mod balances;
pub(crate) mod block_filters;
pub(crate) mod chain_feed;
pub(crate) mod claims;
pub(crate) mod closed_channels;
pub(crate) mod connections;
pub(crate) mod coop_closes;
pub(crate) mod deadlines;
pub(crate) mod dialing;
pub(crate) mod fee_bumps;
pub(crate) mod feerates;
pub(crate) mod forwarding;
pub(crate) mod funding_proofs;
pub(crate) mod held_forwards;
pub(crate) mod in_flight;
pub(crate) mod invoices;
pub(crate) mod no_route;
pub(crate) mod onchain_sends;
pub(crate) mod open_invoices;
pub(crate) mod openings;
pub(crate) mod payments;
pub(crate) mod replacements;
pub(crate) mod requests;
pub(crate) mod reserve;
pub(crate) mod signer_headers;
pub(crate) mod signer_session;
pub(crate) mod sweeps;
pub(crate) mod terms;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod wallet_scan;
pub(crate) mod wallet_signing;
