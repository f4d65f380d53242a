//! Facts about this process and its machine that servers and phones need.

use std::io;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::sync::mpsc;

/// The limit of file descriptors of this process.
pub fn descriptors() -> usize {
    // None: there is no limit.
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit).unwrap_or(usize::MAX)
}

/// Raises the limit of file descriptors of this process as far as the system allows, and returns it.
///
/// # Errors
/// When the system refuses; the limit is as before.
pub fn raise_descriptors() -> io::Result<usize> {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: before.maximum,
        ..before
    };
    if before.current != before.maximum {
        setrlimit(Resource::Nofile, raised)?;
    }
    Ok(descriptors())
}

/// Sends a message each time the machine was suspended, such as by a laptop's lid, as soon as it runs again; never where the system
/// does not show it. A thread waits for it, and ends within ten seconds after the receiver.
pub fn suspensions() -> mpsc::Receiver<()> {
    let (suspended, suspensions) = mpsc::channel(1);
    clocks::watch(suspended);
    suspensions
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod clocks {
    //! A suspended machine shows in two clocks: `CLOCK_BOOTTIME` goes on, `CLOCK_MONOTONIC` does not.

    use std::io;
    use std::time::Duration;

    use rustix::time::{
        ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
        clock_gettime, timerfd_create, timerfd_settime,
    };
    use tokio::sync::mpsc;

    /// How often the clocks are compared, and the difference from which the machine was suspended.
    const COMPARE_EVERY: Duration = Duration::from_secs(10);
    const SUSPENDED_FOR: Duration = Duration::from_secs(2);

    pub(super) fn watch(suspended: mpsc::Sender<()>) {
        let watch = move || {
            // Without it a dead connection is found by its heartbeat.
            let _ = compare(&suspended);
        };
        let _ = std::thread::Builder::new()
            .name("suspensions".into())
            .spawn(watch);
    }

    fn compare(suspended: &mpsc::Sender<()>) -> io::Result<()> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)?;
        while !suspended.is_closed() {
            let before = asleep();
            let zero = Timespec::default();
            let whole = Timespec {
                tv_sec: COMPARE_EVERY.as_secs().try_into().unwrap_or(i64::MAX),
                ..zero
            };
            // Expires at once when the machine slept longer: this clock goes on meanwhile.
            let once = Itimerspec {
                it_interval: zero,
                it_value: whole,
            };
            timerfd_settime(&timer, TimerfdTimerFlags::empty(), &once)?;
            rustix::io::read(&timer, &mut [0; 8])?;
            if asleep().saturating_sub(before) >= SUSPENDED_FOR {
                // One that is not taken yet is enough.
                let _ = suspended.try_send(());
            }
        }
        Ok(())
    }

    /// How long the machine has been suspended since it was started.
    fn asleep() -> Duration {
        let since = |clock| {
            let now = clock_gettime(clock);
            let whole = Duration::from_secs(now.tv_sec.try_into().unwrap_or(0));
            whole + Duration::from_nanos(now.tv_nsec.try_into().unwrap_or(0))
        };
        since(ClockId::Boottime).saturating_sub(since(ClockId::Monotonic))
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_machine_that_runs_is_not_suspended() {
            let before = asleep();
            assert!(asleep().saturating_sub(before) < SUSPENDED_FOR);
        }
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod clocks {
    /// Holds the sender, so that the receiver waits for ever.
    pub(super) fn watch(suspended: tokio::sync::mpsc::Sender<()>) {
        std::mem::forget(suspended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_descriptors_is_raised_once() {
        let raised = raise_descriptors().ok();
        assert_eq!(raised, Some(descriptors()));
        assert!(suspensions().try_recv().is_err());
    }
}
