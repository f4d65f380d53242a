//! The mailbox carrier: a host and its phones both dial out to a relay (`crates/mailbox`), and meet there in a stream that nobody
//! else can find. Its address is `mailbox+` and that of the relay: `mailbox+wss://relay.example`.
//!
//! From the outside in:
//! - [`Mailbox`] (the phone) and [`MailboxListener`] (the host) make carriers of connections through a mailbox.
//!   [`Meetings`] has all whom a host expects there.
//! - `pump` is the shell that both share, around [`trunk`], the protocol with the mailbox as a value without I/O.
//! - [`packet`]: what the two ends say to each other through it; the mailbox does not read it.
//! - [`stream`]: keys, ids and signatures of streams, which the mailbox checks.

mod dial;
mod ends;
mod listen;
mod meetings;
pub mod packet;
mod pump;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod trunk;

use crate::Address;

pub use dial::Mailbox;
pub use listen::{MailboxListener, Reconnect};
#[cfg(feature = "hashmail")]
pub(super) use meetings::Change;
#[cfg(feature = "hashmail")]
pub use meetings::Words;
pub use meetings::{Expected, Meeting, Meetings};

/// The parameter of a mailbox's address by which a load balancer chooses among its processes: see
/// [`stream::StreamId::route`].
pub const ROUTE: &str = "route";

/// What stands before the scheme of a mailbox's own address.
const PREFIX: &str = "mailbox+";

/// The mailbox's own address; `None` when the address is no mailbox's, or that of a mailbox behind another.
fn below(address: &Address) -> Option<Address> {
    let scheme = address.scheme().strip_prefix(PREFIX)?;
    if scheme.starts_with(PREFIX) {
        return None;
    }
    Address::new(scheme, address.authority()).ok()
}
