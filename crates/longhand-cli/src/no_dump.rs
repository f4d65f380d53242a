//! A process that holds keys leaves no copy of its memory on a disk, and none for other processes of its user.

/// Turns core dumps off (`RLIMIT_CORE`, and `PR_SET_DUMPABLE` for dumps that are piped to a program, which has no limit), and
/// with the second also reading by a debugger. Linux only. A system that refuses is no reason not to run.
#[cfg(target_os = "linux")]
pub(crate) fn turn_core_dumps_off() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let limited = setrlimit(Resource::Core, none);
    let hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    if limited.is_err() || hidden.is_err() {
        eprintln!(
            "warning[CORE_DUMPS]: the system does not let core dumps be turned off: keys may be in one after a crash"
        );
    }
}

/// Nothing: the system's own settings decide.
#[cfg(not(target_os = "linux"))]
pub(crate) fn turn_core_dumps_off() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};

    use super::*;

    #[test]
    fn a_process_that_holds_keys_leaves_no_core_dump() {
        turn_core_dumps_off();
        assert_eq!(getrlimit(Resource::Core).current, Some(0));
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
    }
}
