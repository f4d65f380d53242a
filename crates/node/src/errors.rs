//! Errors of commands, for people and programs.

use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::error::Action;
use longhand_proto::command::{CommandReply, Error};

/// An error with a stable code and one line for a person.
pub(crate) fn command_error(code: &str, action: Action, message: impl Into<String>) -> Error {
    Error {
        code: code.to_owned(),
        message: message.into(),
        action: action.into(),
    }
}

/// The request has to be changed.
pub(crate) fn bad_input(code: &str, message: impl Into<String>) -> Error {
    command_error(code, Action::FixInput, message)
}

/// The code of a payment or a funding whose transaction the chain source does not take.
pub(crate) const REFUSED_BY_SOURCE: &str = "REFUSED_BY_NETWORK";
/// The code of a command that another phone of the owner has asked for, and that was not signed.
pub(crate) const OTHER_PHONE: &str = "PAIRING_RENEWED";
/// Its line for a person.
pub(crate) const OTHER_PHONE_REASON: &str = "another phone had asked for it, and the pairing was renewed: nothing was spent; ask again if you want it";

/// A command that needs the phone fails with this while it is away.
pub(crate) fn signer_away() -> Error {
    command_error(
        "SIGNER_AWAY",
        Action::WaitForPhone,
        "the phone is not connected and this needs its signature: bring it online and try again",
    )
}

/// The node's task has ended.
pub(crate) fn node_stopped() -> Error {
    command_error(
        "NODE_STOPPED",
        Action::Retry,
        "the node has stopped: try again when the host is back",
    )
}

/// A reply that is an error.
pub(crate) fn error_reply(error: Error) -> CommandReply {
    CommandReply {
        reply: Some(Reply::Error(error)),
    }
}
