//! The phone's ledger: what it has validated, signed, revoked and promised.
//!
//! It is a list of [`LedgerRecord`]s, each the sum of one call of the engine and numbered without gaps. To apply them
//! in order gives the state again; a snapshot is one record that stands for all before it. Rules look only at the
//! state, and the state changes only by records: what is not in the ledger did not happen.
//!
//! Compaction: write [`Signer::snapshot`](crate::Signer::snapshot) to a new file, sync it, put it in the old one's place.

mod record;
mod secrets;
mod state;

pub(crate) use record::{Entry, entry};
pub use record::{LedgerError, LedgerRecord};
pub(crate) use state::{Channel, KnownChannelIntent, PeerCommitment, State};
