//! The phone's ledger: records of all that the signer has validated, signed, revoked and promised.
//!
//! It is a list of [`LedgerRecord`]s, each with the changes of one call of the engine, numbered without gaps. Applied in order they give
//! the state; a snapshot is one record in place of all before it. Rules depend on the state alone, and the state changes only by
//! records.
//!
//! Compaction: write [`Signer::snapshot`](crate::Signer::snapshot) to a new file, sync it, and rename it to the old one's name.

mod channel;
mod record;
mod secrets;
mod state;

pub(crate) use channel::{Channel, Hidden, InBlock};
pub(crate) use record::{Entry, entry};
pub use record::{LedgerError, LedgerRecord};
pub(crate) use state::{KnownChannelIntent, OwnPayment, ReadOnion, State};
pub(crate) use state::{hidden_sums, htlc_owed, htlc_spend, in_block};
