//! The limit of file descriptors: each phone and each peer takes one.

use longhand_base::system;

/// For some 4,000 phones and peers, with the database and the listeners.
const ENOUGH: usize = 4_096;

/// Raises the limit of this process as far as the system allows, and warns when that is little: without a descriptor no phone
/// and no peer can connect.
pub(crate) fn raise_limit() {
    if let Err(error) = system::raise_descriptors() {
        tracing::debug!(%error, "the limit of file descriptors cannot be raised");
    }
    let descriptors = system::descriptors();
    if descriptors < ENOUGH {
        tracing::warn!(
            descriptors,
            "few file descriptors: each phone and each peer takes one; raise the limit (ulimit -n, or LimitNOFILE)"
        );
    }
}
