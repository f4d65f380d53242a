//! The messages that cross a border between processes, and limits that both sides of it check.
//!
//! Generated from the `.proto` files beside this crate, which define each field.
//! `docs/PROTOCOL.md` describes their use.
//!
//! - [`link`]: the frames inside a link's Noise session, and the gRPC carrier.
//! - [`signer`]: operations that a node requests from its owner's phone.
//! - [`command`]: commands that a phone sends to its node.
//! - [`operator`]: the host's operator API. With the feature `serde` its messages can be written as JSON, with bytes as hex.
//! - [`mailbox`]: between a mailbox and its clients.
//! - [`hashmail`]: the same of Lightning Node Connect, as aperture has it.
//! - [`Code`]: the table of error codes.
//! - [`rule`]: the names of the rules by which a signer refuses.
//! - [`read_reply`]: reads a phone's answer to a batch, with bounds.
//! - [`utc`]: a time as text.

mod code;
#[cfg(feature = "serde")]
mod hex;
mod reply;
pub mod rule;
mod time;

pub use code::{Code, UnknownCode};
pub use reply::{BadReply, read_reply};
pub use time::utc;

/// The least capacity of a channel that an owner may open, in satoshis: below it, fees and reserves leave nothing to pay with.
/// A node refuses less; a phone refuses it before it asks its node.
pub const MIN_CHANNEL_SAT: u64 = 20_000;

/// The least fee rate that an owner may give, in satoshis per 1,000 weight units: 1 sat/vB, below which nothing is relayed.
pub const MIN_FEERATE_SAT_PER_KW: u32 = 250;

/// The highest fee rate that an owner may give, in satoshis per 1,000 weight units: 2,500 sat/vB, more than any block has
/// paid for as a whole.
pub const MAX_FEERATE_SAT_PER_KW: u32 = 625_000;

/// The most wake URLs that a phone may give its host.
pub const MAX_WAKE_URLS: usize = 4;

/// The longest wake URL of a phone, in bytes.
pub const MAX_WAKE_URL_BYTES: usize = 512;

/// The longest name of an app, in characters.
pub const MAX_APP_NAME: usize = 32;

/// Whether an app can have this name: 1 to [`MAX_APP_NAME`] characters that can be shown, without spaces around them.
pub fn is_app_name(name: &str) -> bool {
    let count = name.chars().take(MAX_APP_NAME + 1).count();
    let is_shown = name.trim() == name && !name.chars().any(char::is_control);
    is_shown && (1..=MAX_APP_NAME).contains(&count)
}

impl command::AppRights {
    /// The names of these rights, as people and stored records have them.
    pub fn names(&self) -> Vec<&'static str> {
        let all = [
            ("read", self.read),
            ("invoices", self.invoices),
            ("pay", self.pay),
        ];
        let granted = all.into_iter().filter(|(_, is_granted)| *is_granted);
        granted.map(|(name, _)| name).collect()
    }
}

/// The fee limit of a payment when its payer gives none, in msat: 1 % of the amount, and 50 sat so that small amounts find
/// a route.
pub fn default_max_fee_msat(amount_msat: u64) -> u64 {
    (amount_msat / 100).saturating_add(50_000)
}

/// Frames of a link, and the gRPC service that carries them.
#[allow(missing_docs, clippy::all)]
pub mod link {
    include!(concat!(env!("OUT_DIR"), "/longhand.link.v1.rs"));
}

/// Operations of the signer.
#[allow(missing_docs, clippy::all)]
pub mod signer {
    include!(concat!(env!("OUT_DIR"), "/longhand.signer.v1.rs"));
}

/// Commands of an owner.
#[allow(missing_docs, clippy::all)]
pub mod command {
    include!(concat!(env!("OUT_DIR"), "/longhand.command.v1.rs"));
}

/// The host's operator API.
#[allow(missing_docs, clippy::all)]
pub mod operator {
    include!(concat!(env!("OUT_DIR"), "/longhand.operator.v1.rs"));
}

/// Between a mailbox and its clients.
#[allow(missing_docs, clippy::all)]
pub mod mailbox {
    include!(concat!(env!("OUT_DIR"), "/longhand.mailbox.v1.rs"));
}

/// The mailbox of Lightning Node Connect.
#[allow(missing_docs, clippy::all)]
pub mod hashmail {
    include!(concat!(env!("OUT_DIR"), "/hashmailrpc.rs"));
}
