//! The phone's runtime: a vault on the disk, a signer, a link to the host, and the owner's commands.
//!
//! ```no_run
//! # async fn example() -> Result<(), longhand_phone::PhoneError> {
//! use longhand_phone::{DialOptions, Phone, Vault};
//! let vault = Vault::open("phone".as_ref(), &"passphrase".to_owned().into())?;
//! let phone = Phone::new(vault, DialOptions::default())?;
//! phone.attach().await?;
//! println!("{}", phone.balance().await?.lightning_msat);
//! phone.detach().await?;
//! # Ok(())
//! # }
//! ```
//! Start reading at [`Phone`]. Batches of the node go through `serve`, `durable_signer` and [`vault`], in this order: no answer of the
//! signer is sent before the ledger is durable. Commands of the owner go through `owner`, after [`input`] has checked them; those that
//! must not be done twice have their ids from `idempotency`. [`Phone::events`] is a stream of what happens (`events`, `watching`). [`control`] gives other processes of the owner access to a running phone.
//!
//! Storage, clocks, timers and tasks are handed in ([`Storage`], [`runtime::Runtime`]), so that a phone also runs in a browser. There it has
//! no directory, no control socket and no carriers of its own.
//!
//! The feature `testing` is for simulations (`testing`): a disk with faults, and a runtime of one thread.

pub mod approval;
mod apps;
mod attach;
mod attachment;
mod backoff;
pub mod birthday;
mod chain;
pub mod command;
#[cfg(not(target_family = "wasm"))]
pub mod control;
mod durable_signer;
mod error;
mod events;
mod idempotency;
pub mod input;
mod lifeline;
mod limits;
mod owner;
mod paying;
mod phone;
pub mod preview;
pub mod refusals;
mod roaming;
mod sends;
mod serve;
pub mod source;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod uri;
pub mod vault;
mod wake_urls;
mod watching;
mod ways;
mod witness;

pub use birthday::Birthday;
pub use command::{OwnerCommand, OwnerReply};
pub use error::{ErrorReport, PhoneError};
pub use events::PhoneEvent;
pub use longhand_base::runtime;
pub use longhand_link::Dial;
#[cfg(not(target_family = "wasm"))]
pub use longhand_link::DialOptions;
pub use longhand_signer::{Seed, SeedError};
pub use phone::Phone;
pub use vault::{Passphrase, Secrets, Storage, Vault, VaultError, Words};
pub use witness::{Said, Witness};

/// Whether this is a build for tests. A program for use refuses to be compiled with it.
pub const IS_FOR_TESTS: bool =
    cfg!(any(feature = "fuzzing", feature = "testing")) || longhand_signer::IS_FOR_TESTS;
