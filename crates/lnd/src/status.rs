//! Errors as apps get them: gRPC's code and one line.

use longhand_base::text;
use tonic::{Code, Status};

use crate::macaroon::MacaroonError;
use crate::node::NodeError;

/// The longest line of an error, in characters: it is a header of the reply.
const MOST_CHARS: usize = 500;

/// One line of any text.
pub(crate) fn status(code: Code, line: &str) -> Status {
    let line = text::plain(line);
    let line: String = line.chars().take(MOST_CHARS).collect();
    Status::new(code, line)
}

/// The app asks for what cannot be carried out as it is.
pub(crate) fn bad_input(line: impl AsRef<str>) -> Status {
    status(Code::InvalidArgument, line.as_ref())
}

impl From<NodeError> for Status {
    fn from(error: NodeError) -> Status {
        let code = match &error {
            NodeError::PhoneAway(_) | NodeError::NotRunning(_) => Code::Unavailable,
            NodeError::Refused(_) => Code::PermissionDenied,
            NodeError::NotAnswered(_) => Code::DeadlineExceeded,
            NodeError::BadInput(_) => Code::InvalidArgument,
            NodeError::NotFound(_) => Code::NotFound,
            NodeError::AlreadyPaid | NodeError::InFlight => Code::AlreadyExists,
            NodeError::NotPossible(_) => Code::FailedPrecondition,
            NodeError::Busy(_) => Code::ResourceExhausted,
            NodeError::Unsupported(_) => Code::Unimplemented,
            NodeError::Internal(_) => Code::Internal,
        };
        status(code, &error.to_string())
    }
}

impl From<MacaroonError> for Status {
    fn from(error: MacaroonError) -> Status {
        let code = match &error {
            MacaroonError::NotAllowed(_) => Code::PermissionDenied,
            _ => Code::Unauthenticated,
        };
        status(code, &error.to_string())
    }
}

/// A call that a node does not answer, by the name that the app used.
pub(crate) fn unimplemented(name: &str) -> Status {
    let name: String = text::excerpt(name).chars().take(100).collect();
    status(
        Code::Unimplemented,
        &format!(
            "{name} is not answered by Longhand: the owner does it on the phone, or it is not for an app"
        ),
    )
}
