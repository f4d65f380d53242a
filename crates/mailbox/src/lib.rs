//! The mailbox: a relay to which a host and its phones both dial out, and meet in streams, so that neither needs an address that
//! others can reach. It learns the public keys of streams, the networks of its clients, and sizes and times of messages; it
//! stores nothing on disk. Trust in it is not needed: records are end-to-end encrypted, and a stream belongs to whoever has its
//! key, which both ends of a link derive from what they share.
//!
//! ```text
//! host  ── one carrier, a stream for each owner ──┐
//! phone ── a carrier of its own ──────────────────┴─> connection.rs ─> protocol/ ─> core/
//! ```
//!
//! - [`core`] is the relay as a deterministic value: connections, streams, queues, fair turns, limits. Begin there.
//! - [`protocol`] reads and writes the messages of clients. A second protocol has its place there.
//! - [`hashmail`] is the mailbox of Lightning Node Connect, for stock clients and servers: listeners and boxes of its own.
//! - [`Mailbox`] is the shell: listeners, a task for each connection, the clock, metrics (`/metrics`), wake calls.
//! - [`MailboxConfig`] has the settings (`docs/mailbox.example.toml`).
//!
//! The rules that clients meet:
//! - One reader for each end: the newest authenticated attach takes over ([`core::Code::TakenOver`]).
//! - A message for an end without a reader waits, for a while and within limits. With a reader it waits in the same queue for
//!   its turn, so that a slow reader holds nobody else up.
//! - A stream that sends too fast is slowed down alone, see `core/relay/queues.rs`.
//! - A message is never lost in silence while both ends are attached: a stream that loses one ends at both of them.

pub mod config;
mod connection;
pub mod core;
pub mod hashmail;
mod mailbox;
mod metrics;
pub mod protocol;
mod shared;
mod wake;

pub use config::{ConfigError, MailboxConfig, Settings};
use longhand_link::LinkError;
use longhand_proto::Code;
pub use mailbox::Mailbox;

/// Why a mailbox does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MailboxError {
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A port cannot be listened to.
    #[error("cannot listen on {address} ({reason}): choose another {key}, or stop what uses it")]
    Listen {
        /// The setting.
        key: &'static str,
        /// Its address.
        address: String,
        /// The system's reason.
        reason: String,
    },
    /// A carrier cannot be set up.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The TLS library cannot be set up.
    #[error("TLS cannot be set up ({0}): look at the system's libraries")]
    Tls(String),
}

impl MailboxError {
    /// A stable code.
    pub fn code(&self) -> Code {
        match self {
            MailboxError::Config(_) => Code::Config,
            MailboxError::Listen { .. } => Code::CannotListen,
            MailboxError::Link(LinkError::Tls(_)) => Code::Tls,
            MailboxError::Link(_) => Code::LinkFailed,
            MailboxError::Tls(_) => Code::Tls,
        }
    }
}
