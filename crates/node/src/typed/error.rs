//! Errors of commands.

use longhand_proto::Code;
use longhand_proto::command::Error;
use longhand_proto::command::error::Action;

use crate::errors::node_stopped;

/// Why a command was not carried out, by what can be done about it. As text, one line for a person.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// It needs the node's signer, which is away: the same command succeeds when one is attached.
    #[error("{}", .0.message)]
    WaitForSigner(Error),
    /// The input has to be changed.
    #[error("{}", .0.message)]
    FixInput(Error),
    /// The same command may succeed later.
    #[error("{}", .0.message)]
    Retry(Error),
    /// It cannot be done.
    #[error("{}", .0.message)]
    GiveUp(Error),
    /// The payment failed, for this reason: nothing was paid.
    #[error("the payment failed: {0}")]
    PaymentFailed(String),
}

impl CommandError {
    /// Stable, for programs: the name of a [`Code`].
    pub fn code(&self) -> &str {
        match self {
            CommandError::WaitForSigner(error)
            | CommandError::FixInput(error)
            | CommandError::Retry(error)
            | CommandError::GiveUp(error) => &error.code,
            CommandError::PaymentFailed(_) => Code::PaymentFailed.as_str(),
        }
    }

    pub(super) fn unexpected(message: &str) -> CommandError {
        Error::new(Code::Internal, message).into()
    }

    pub(super) fn stopped() -> CommandError {
        node_stopped().into()
    }
}

impl From<Error> for CommandError {
    fn from(error: Error) -> CommandError {
        match error.action() {
            Action::WaitForPhone => CommandError::WaitForSigner(error),
            Action::FixInput => CommandError::FixInput(error),
            Action::Retry => CommandError::Retry(error),
            Action::GiveUp | Action::Unspecified => CommandError::GiveUp(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_has_its_code_and_its_line() {
        let error = Error::new(Code::SignerAway, "attach it");
        let error = CommandError::from(error);
        assert!(matches!(error, CommandError::WaitForSigner(_)));
        assert_eq!(error.code(), Code::SignerAway);
        assert_eq!(error.to_string(), "attach it");
        let failed = CommandError::PaymentFailed(Code::NoRoute.into());
        assert_eq!(failed.code(), Code::PaymentFailed);
    }
}
