//! What a phone can see of the chain by itself, without a node of its own: pure logic, without I/O, clock, tasks or threads.
//!
//! | question | answered by | rests on |
//! |---|---|---|
//! | which blocks are there? | [`Headers`] from a [`Checkpoint`] | proof of work; on a signet the signature of each block ([`SignetProof`]) |
//! | is a transaction in a block? | [`Proof`] | the block's header |
//! | is an output spent? | [`SpendWatch`], blocks | the blocks' headers |
//! | is it not spent? | [`SpendWatch`], filters | filters of a source ([`FilterChain`]), best compared with another source's |
//!
//! All that is handed in may be an adversary's: it is bounded, checked, and refused with an error that says what to do. A call that
//! fails changes nothing. Times are unix seconds of the caller's clock.
//!
//! Headers show what was worked for, not that blocks keep all rules: a miner who spends the work of a block on an invalid one can
//! deceive a phone for as long as nobody builds on the valid chain faster. Whether a source keeps back the newest blocks shows only in the
//! age of the tip ([`Headers::is_stale`]).
//!
//! Checkpoints are built in of mainnet, testnet3 and signet; see [`checkpoint`]. Headers of testnet4 begin at its genesis block, unless a
//! checkpoint is made from those of a trusted node.
//!
//! ```
//! use bitcoin::Network;
//! use longhand_spv::{Checkpoint, Headers, Params};
//!
//! let params = Params::of(Network::Bitcoin);
//! let checkpoint = Checkpoint::latest(&params);
//! let headers = Headers::new(params, checkpoint);
//! assert_eq!(headers.height(), 878_976);
//! assert!(headers.is_stale(1_800_000_000));
//! ```

mod bytes;
pub mod checkpoint;
pub mod filter;
pub mod headers;
mod merkle;
pub mod params;
pub mod proof;
mod recent;
pub mod signet;
pub mod watch;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use filter::{Filter, FilterChain, FilterError};
pub use headers::{Extended, HeaderError, Headers, Restored, StoredChange, StoredError};
pub use merkle::{MAX_DEPTH, MAX_TRANSACTION_BYTES};
pub use params::Params;
pub use proof::{Proof, ProofError, Proven};
pub use signet::{SignetError, SignetProof};
pub use watch::{FilterAnswer, Spend, SpendWatch, Status, WatchError};
