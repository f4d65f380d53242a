//! Errors of commands, for people and programs.

use longhand_proto::Code;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{CommandReply, Error};

/// The line of [`Code::PairingRenewed`].
pub(crate) const OTHER_PHONE_REASON: &str = "another phone had asked for it, and the pairing was renewed: nothing was spent; ask again if you want it";

/// A command that needs the phone fails with this while it is away.
pub(crate) fn signer_away() -> Error {
    Error::new(
        Code::SignerAway,
        "the phone is not connected and this needs its signature: bring it online and try again",
    )
}

/// The failure of an opening or a payment that is on record with the name of its code. The command has ended with it, whichever it is.
pub(crate) fn recorded(code: &str, message: impl Into<String>) -> Error {
    // An earlier version wrote no code, or one that is no more.
    let code = Code::from_name(code).unwrap_or(Code::SignerRefused);
    Error {
        is_final: true,
        ..Error::new(code, message)
    }
}

/// The node's task has ended.
pub(crate) fn node_stopped() -> Error {
    Error::new(
        Code::NodeStopped,
        "the node has stopped: try again when the host is back",
    )
}

/// A reply that is an error.
pub(crate) fn error_reply(error: Error) -> CommandReply {
    CommandReply {
        reply: Some(Reply::Error(error)),
    }
}
