//! The limit of file descriptors: each phone and each peer takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For some 4,000 phones and peers, with the database and the listeners.
const ENOUGH: usize = 4_096;

/// The limit of this process.
pub(crate) fn limit() -> usize {
    // None: there is no limit.
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Raises the limit of this process as far as the system allows, and warns when that is little: without a descriptor no phone
/// and no peer can connect.
pub(crate) fn raise_limit() {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        ..before
    };
    if before.current != before.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::debug!(%error, "the limit of file descriptors cannot be raised");
    }
    let descriptors = limit();
    if descriptors < ENOUGH {
        tracing::warn!(
            descriptors,
            "few file descriptors: each phone and each peer takes one; raise the limit (ulimit -n, or LimitNOFILE)"
        );
    }
}
