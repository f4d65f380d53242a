//! Errors of a link, each in one line for a person, and with a stable code where it crosses the wire.

use std::fmt;
use std::path::PathBuf;

use longhand_proto::Code;

/// The reason for which a session ended, as a stable code.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CloseCode {
    /// A newer link of the same owner took over.
    Replaced,
    /// The other side speaks another version of the protocol.
    Version,
    /// The process is stopping; a later attempt may succeed.
    Shutdown,
    /// The other side broke the protocol.
    Protocol,
    /// Nothing was received for too long.
    Dead,
    /// The host does not know this phone.
    UnknownOwner,
    /// The host does not know this pairing code.
    PairingUnknown,
    /// The pairing code is no longer taken.
    PairingExpired,
    /// Another phone has used the pairing code.
    PairingUsed,
    /// The phone asked to detach, and the step in hand was finished.
    Detached,
    /// The carrier broke. Never sent.
    Lost,
    /// The host cannot do it now; a later attempt may succeed.
    Unavailable,
    /// A code this version does not know.
    Other(String),
}

impl CloseCode {
    /// The code as it is sent.
    pub fn as_str(&self) -> &str {
        match self {
            CloseCode::Replaced => Code::Replaced.as_str(),
            CloseCode::Version => Code::Version.as_str(),
            CloseCode::Shutdown => Code::Shutdown.as_str(),
            CloseCode::Protocol => Code::Protocol.as_str(),
            CloseCode::Dead => Code::Dead.as_str(),
            CloseCode::UnknownOwner => Code::UnknownOwner.as_str(),
            CloseCode::PairingUnknown => Code::PairingUnknown.as_str(),
            CloseCode::PairingExpired => Code::PairingExpired.as_str(),
            CloseCode::PairingUsed => Code::PairingUsed.as_str(),
            CloseCode::Detached => Code::Detached.as_str(),
            CloseCode::Lost => Code::Lost.as_str(),
            CloseCode::Unavailable => Code::Unavailable.as_str(),
            CloseCode::Other(code) => code,
        }
    }

    /// The code with this name.
    pub fn from_name(name: &str) -> CloseCode {
        use CloseCode::*;
        let known = [
            Replaced,
            Version,
            Shutdown,
            Protocol,
            Dead,
            UnknownOwner,
            PairingUnknown,
            PairingExpired,
            PairingUsed,
            Detached,
            Lost,
            Unavailable,
        ];
        let found = known.into_iter().find(|code| code.as_str() == name);
        found.unwrap_or_else(|| Other(name.chars().take(64).collect()))
    }

    /// Whether a new link may go on where this one ended: requests wait out the grace.
    pub fn is_resumable(&self) -> bool {
        matches!(
            self,
            CloseCode::Lost | CloseCode::Dead | CloseCode::Protocol
        )
    }
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The reason for which a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReason {
    /// The stable code.
    pub code: CloseCode,
    /// One line for a person.
    pub message: String,
    /// Whether the other side ended the session, rather than this one.
    pub by_peer: bool,
}

impl CloseReason {
    pub(crate) fn local(code: CloseCode, message: impl Into<String>) -> CloseReason {
        CloseReason {
            code,
            message: message.into(),
            by_peer: false,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

/// An error of a link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// There is no link, and none came back within the grace.
    #[error("the link is down: {0}; it is tried again when there is a link")]
    Down(CloseReason),
    /// The other side's process was started anew, so it is not known whether it acted on the request.
    #[error("the other side restarted before it answered: ask again")]
    Restarted,
    /// The other side did not understand or take the request.
    #[error("the request was refused: {message} ({code})")]
    Refused {
        /// Stable code: UNKNOWN_KIND, BUSY, FORGOTTEN, UNANSWERED, or one of the answering crate.
        code: String,
        /// One line for a person.
        message: String,
    },
    /// The payload is larger than a frame may be.
    #[error(
        "a message of {size} bytes is too large for the link, which takes {max}: send less at once"
    )]
    TooLarge {
        /// Size of the encoded frame.
        size: usize,
        /// Largest frame.
        max: usize,
    },
    /// The host could not be reached at any of its addresses.
    #[error(
        "the host cannot be reached at {address} ({reason}): check the network, and that the host runs"
    )]
    Unreachable {
        /// The last address tried.
        address: String,
        /// The error of the socket.
        reason: String,
    },
    /// No carrier of this build takes the address.
    #[error(
        "the address {0} is of no carrier this program knows: use grpc://, ws://, mailbox+grpc:// or mailbox+ws://, or the same with TLS (grpcs, wss)"
    )]
    UnknownCarrier(String),
    /// The carrier of the address cannot listen there as it is written.
    #[error("the address {address} cannot be listened on: {reason}")]
    Address {
        /// As given.
        address: String,
        /// The part that is wrong, and what to write.
        reason: String,
    },
    /// The connection ended or failed before the handshake was done.
    #[error("the connection broke during the handshake ({0}): try again")]
    Carrier(String),
    /// The handshake took too long.
    #[error("the other side did not finish the handshake in time: try again")]
    HandshakeTimeout,
    /// The handshake cannot be read: other keys, or not our protocol.
    #[error(
        "the handshake failed: the other side has other keys, or speaks another protocol; pair again if the host was set up anew"
    )]
    Handshake,
    /// The host's key is not the one in the pairing code.
    #[error(
        "the host at this address is not the one of the pairing code: get a new code from the host"
    )]
    WrongHost,
    /// The other side speaks another version.
    #[error(
        "the other side speaks version {theirs} of the link, this program {ours}: update the older one"
    )]
    Version {
        /// This program's.
        ours: u8,
        /// As announced.
        theirs: u8,
    },
    /// The host refused the session: an unknown, expired or used code, an unknown phone.
    #[error("the link was refused: {0}")]
    Closed(CloseReason),
    /// A frame of the other side breaks the protocol.
    #[error("the other side broke the protocol: {0}")]
    Protocol(String),
    /// A file that an address names cannot be read.
    #[error("{path} cannot be read ({reason}): check the path and its permissions")]
    Unreadable {
        /// As in the address.
        path: PathBuf,
        /// The error of the file system.
        reason: String,
    },
    /// A certificate or key in PEM cannot be used.
    #[error("the TLS certificate or key cannot be used ({0}): check the PEM files")]
    Tls(String),
    /// The host's own storage failed while it pinned a phone.
    #[error("the phone could not be recorded ({0}): nothing was changed, try again")]
    Identity(String),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({reason}): choose another port, or stop what uses it")]
    Listen {
        /// As configured.
        address: String,
        /// The error of the socket.
        reason: String,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gives no randomness ({0})")]
    Randomness(String),
}
