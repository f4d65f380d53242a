//! The limit of file descriptors: each phone and each peer takes one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For some 4,000 phones and peers, with the database and the listeners.
const ENOUGH: u64 = 4_096;

/// Raises the limit of this process as far as the system allows, and warns when that is little: without a descriptor no phone
/// and no peer can connect.
pub(crate) fn raise_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if limit.current != limit.maximum
        && let Err(error) = setrlimit(Resource::Nofile, raised)
    {
        tracing::debug!(%error, "the limit of file descriptors cannot be raised");
    }
    // None: there is no limit.
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if descriptors < ENOUGH {
        tracing::warn!(
            descriptors,
            "few file descriptors: each phone and each peer takes one; raise the limit (ulimit -n, or LimitNOFILE)"
        );
    }
}
