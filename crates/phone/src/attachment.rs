//! The state of the link to the host.

use crate::error::ErrorReport;

/// The state of the phone's link to its host.
#[derive(Clone)]
pub(crate) enum Attachment {
    /// No link now, with the reason for a person.
    Down(String),
    /// Attached.
    Up,
    /// No link any more, and none will be dialled.
    Ended(ErrorReport),
}
