//! CPU affinity (`sched_setaffinity(2)`): the host under attack runs on one core and the attackers on another, so that
//! the attackers take no time of the host's but what the host spends on them.

/// A core of each, or none where there are not two.
pub struct Cores {
    pub host: Option<usize>,
    pub attackers: Option<usize>,
}

impl Cores {
    /// The first two that this process may run on.
    pub fn of_this_process() -> Cores {
        match system::allowed()[..] {
            [host, attackers, ..] => Cores {
                host: Some(host),
                attackers: Some(attackers),
            },
            _ => Cores {
                host: None,
                attackers: None,
            },
        }
    }

    /// For the notes of the figures.
    pub fn note(&self) -> String {
        match (self.host, self.attackers) {
            (Some(host), Some(attackers)) => format!(
                "The host and the honest phones run on core {host}, the attackers on core {attackers}; the baseline \
                 likewise."
            ),
            _ => "There are no two cores to be chosen: the host, the honest phones and the attackers share what there \
                  is."
                .into(),
        }
    }
}

/// Runs this on a new thread of this core, or of any. Threads and processes that it starts stay on the core.
pub fn on_core<T: Send>(
    core: Option<usize>,
    work: impl FnOnce() -> std::io::Result<T> + Send,
) -> std::io::Result<T> {
    let pinned = || {
        pin(core)?;
        work()
    };
    std::thread::scope(|scope| scope.spawn(pinned).join()).unwrap_or_else(|_| {
        Err(std::io::Error::other(
            "a thread of the benchmark has panicked",
        ))
    })
}

/// Keeps this thread on this core.
pub fn pin(core: Option<usize>) -> std::io::Result<()> {
    core.map_or(Ok(()), system::pin)
}

#[cfg(target_os = "linux")]
mod system {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

    pub fn allowed() -> Vec<usize> {
        let allowed = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
        let all = 0..CpuSet::MAX_CPU;
        all.filter(|core| allowed.is_set(*core)).collect()
    }

    pub fn pin(core: usize) -> std::io::Result<()> {
        let mut only = CpuSet::new();
        only.set(core);
        Ok(sched_setaffinity(None, &only)?)
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    pub fn allowed() -> Vec<usize> {
        Vec::new()
    }

    pub fn pin(_: usize) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_thread_on_a_core_stays_there_with_the_threads_that_it_starts() {
        let here = system::allowed();
        let core = here[0];
        let there = on_core(Some(core), || {
            Ok(std::thread::spawn(system::allowed).join().unwrap())
        });
        assert_eq!(there.unwrap(), [core]);
        assert_eq!(system::allowed(), here, "this thread is not moved");
    }
}
