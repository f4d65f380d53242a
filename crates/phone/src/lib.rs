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
//! Start reading at [`Phone`]. What is asked of the phone goes through `serve`, `durable_signer` and [`vault`], in this order:
//! no answer of the signer leaves before the ledger is durable. What the owner asks goes through `owner`, after [`input`]
//! has looked at it; what must not be done twice has its id from `idempotency`. [`control`] lets other processes of the owner use a phone that runs.
//!
//! The feature `testing` adds what simulations need (`testing`): a disk that fails as told, a phone that can be killed.

mod attach;
mod backoff;
pub mod command;
pub mod control;
mod durable_signer;
mod error;
mod idempotency;
pub mod input;
mod owner;
mod paying;
mod phone;
mod serve;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
pub mod vault;

pub use attach::Dial;
pub use command::{OwnerCommand, OwnerReply};
pub use error::{ErrorReport, PhoneError};
pub use longhand_link::DialOptions;
pub use longhand_signer::{Seed, SeedError};
pub use phone::Phone;
pub use vault::{Passphrase, Secrets, Vault, VaultError, Words};
