//! The phone's engine: keys, ledger and rules. No sockets, no clock, no files, no randomness of its own.
//!
//! A [`Signer`] is a value. Its shell gives it what came in and what time it is, and gets back what goes out and what
//! must be on disk before that: [`Signer::handle`] answers a node's [`SignerBatch`](longhand_proto::signer::SignerBatch)
//! with an [`Outcome`]. **The shell writes and syncs `records` first and lets the answer go after.** When it cannot
//! write, it drops the engine and makes it again from what is on disk ([`Signer::restore`]).
//!
//! - [`keys`]: from a mnemonic to every key of the phone.
//! - [`rules`]: what the signer refuses, by name.
//! - [`ledger`]: the records, and the state they add up to.
//! - `audit` (a feature of its name): what a phone must never do, looked at from outside.
//! - [`Signer`]: the operations of a node, and the calls of an owner.
//!
//! The signer is `blind` so far: it refuses what its ledger alone shows to be wrong (a second state with one number, a
//! secret before its successor, a preimage that could be sold), and does not yet weigh amounts and fees against what
//! the owner meant. Intents are recorded so that it can.

#[cfg(feature = "audit")]
pub mod audit;
mod chan;
mod closing;
mod commitment;
mod engine;
mod intents;
mod invoices;
pub mod keys;
pub mod ledger;
mod node_ops;
mod onchain;
mod payments;
pub mod rules;

pub use engine::{Outcome, Recorded, Signer, SignerError};
pub use intents::{ChannelIntent, OnchainIntent, PaymentIntent};
pub use invoices::InvoiceRequest;
pub use keys::{Account, Keychain, Seed, SeedError};
pub use ledger::{LedgerError, LedgerRecord};
pub use payments::{Payment, Released};
pub use rules::Refused;
