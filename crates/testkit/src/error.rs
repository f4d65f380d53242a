//! One error for all layers that a program runs: it names what did not happen, for a person.

use longhand_chain::{ChainError, DevnetError};
use longhand_host::HostError;
use longhand_host::client::ClientError;
use longhand_phone::PhoneError;
use longhand_store::StoreError;

use crate::Late;

/// Why something did not come about.
#[derive(Debug, thiserror::Error)]
pub enum KitError {
    /// An error of the operating system.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// The chain answered with an error, or not at all.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The host answered an operator's call with an error.
    #[error("the host answered {}: {}", .0.code(), .0.message())]
    Status(#[from] tonic::Status),
    /// The host does not start.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The devnet refuses.
    #[error(transparent)]
    Devnet(#[from] DevnetError),
    /// The host's store fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The host's operator API cannot be reached.
    #[error("the operator's API: {0}")]
    Unreachable(#[from] ClientError),
    /// A phone answered a command with an error.
    #[error("{code}: {0}", code = .0.code())]
    Phone(#[from] PhoneError),
    /// A process did not do what it was started for.
    #[error("{name}: {reason}; its log is {log}")]
    Process {
        /// Of the process.
        name: String,
        /// How it failed.
        reason: String,
        /// The path of its log file.
        log: String,
    },
    /// The process that was to be asked is not running.
    #[error("{0} does not run")]
    Away(String),
    /// A condition was not met in time.
    #[error(transparent)]
    Late(#[from] Late),
    /// A result is not as expected.
    #[error("{0}")]
    Unexpected(String),
}
