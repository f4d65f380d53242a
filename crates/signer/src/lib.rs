//! The phone's signer engine: keys, ledger and rules, without sockets, clock, files and randomness of its own.
//!
//! A [`Signer`] is a value. Its shell gives it input and the time, and gets output and the records that must be durable before that:
//! [`Signer::handle`] answers a node's [`SignerBatch`](longhand_proto::signer::SignerBatch)
//! with an [`Outcome`]. **The shell writes and syncs `records` first, and sends the reply after that.** When it cannot write, it
//! drops the engine and restores it from the disk ([`Signer::restore`]).
//!
//! - [`keys`]: the derivation of every key of the phone from a mnemonic.
//! - `proposal`: operations of the host, read.
//! - [`rules`]: the rules by which a proposal is refused; each is a pure function of the proposal and a `view`.
//! - `sign`: carries out what was judged, and refuses nothing.
//! - [`ledger`]: the records, and the state that they define.
//! - `audit` (a feature of its name): an observer of operations and answers, for tests, that finds answers a phone must never give.
//! - [`Signer`]: the operations of a node, and the calls of an owner.
//!
//! The host shows it block headers with its operations ([`Signer::headers`]), proves that its channels are in their blocks, and
//! shows by filters of the blocks that they are open ([`Signer::filters`]).

#[cfg(feature = "audit")]
pub mod audit;
mod balance;
mod chain;
mod commitment;
mod deadlines;
mod engine;
mod filters;
mod handshakes;
mod hidden;
mod htlcs;
mod intents;
mod invoices;
pub mod keys;
pub mod ledger;
pub mod limits;
mod parallel;
mod payments;
mod points;
mod proposal;
pub mod rules;
mod sign;
mod source;
mod view;

pub use chain::{SeenChannel, SeenHtlc};
pub use deadlines::Deadline;
pub use engine::{Notice, Outcome, Recorded, Signer, SignerError};
pub use filters::{Filters, StoredFiltersError};
pub use intents::{ChannelIntent, OnchainIntent, PaymentIntent};
pub use invoices::InvoiceRequest;
pub use keys::{Account, Keychain, Seed, SeedError};
pub use ledger::{LedgerError, LedgerRecord};
pub use limits::{LimitError, Limits};
pub use payments::{Payment, Released};
pub use rules::{Refused, Rule};
pub use source::{OutputState, SourceAnswer};
pub use view::Close;

/// Whether this is a build for tests. A program for use refuses to be compiled with it.
pub const IS_FOR_TESTS: bool = cfg!(any(feature = "audit", feature = "fuzzing"));
