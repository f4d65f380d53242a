//! When a node has to do something by itself.
//!
//! Between turns it sleeps, however many nodes are in the process: everything that time alone causes has a timer here.
//!
//! LDK counts its limits in ticks of a minute each: none of its counts is longer than an hour. A node without peers, to
//! which nothing has come for that long, has nothing left to count; its claims are looked after with every block. So its
//! ticks come once an hour.

use std::time::{Duration, Instant};

/// How long a turn without visible effect may stay uncommitted.
pub(crate) const COMMIT_WITHIN: Duration = Duration::from_millis(100);
/// How long after an attach commands wait for the channels to be usable.
pub(crate) const WAKING_LIMIT: Duration = Duration::from_secs(10);
/// LDK's own periods.
pub(crate) const PEER_TICK: Duration = Duration::from_secs(10);
pub(crate) const MANAGER_TICK: Duration = Duration::from_secs(60);
pub(crate) const REBROADCAST: Duration = Duration::from_secs(30);
/// After a connection was lost, before peers are checked: a peer that hangs up each time is not dialled without a pause.
pub(crate) const LOST_PAUSE: Duration = Duration::from_secs(1);

/// LDK's longest count of ticks.
const QUIET_AFTER: Duration = Duration::from_secs(3600);
const QUIET_PERIOD: Duration = Duration::from_secs(3600);

/// The purpose of a timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// The turns since the last commit are committed at the latest.
    Commit,
    /// Connected and wanted peers are compared, and the node's state is updated.
    CheckPeers,
    /// LDK's peer manager: pings.
    PeerTick,
    /// LDK's channel manager.
    ManagerTick,
    /// A hub's `node_announcement` (BOLT 7).
    Announcement,
    /// LDK's claims are broadcast again, and refused operations are asked again.
    Rebroadcast,
    /// Commands wait no longer for the channels to be usable.
    Waking,
    /// A detach waits no longer for the step in hand.
    Detach,
    /// A peer may be dialled again.
    Dial,
    /// The search for the wallet's coins goes on after a failure.
    WalletScan,
    /// The signer's batches wait no longer for headers.
    Headers,
    /// Invoices wait no longer for proofs.
    Proofs,
}

const TIMERS: usize = Timer::Proofs as usize + 1;

#[derive(Clone, Copy, Default)]
struct Entry {
    at: Option<Instant>,
    /// Kept, but neither due nor expired.
    is_paused: bool,
}

/// All timers of a node.
pub(crate) struct TimerTable {
    entries: [Entry; TIMERS],
    last_activity: Instant,
}

impl TimerTable {
    /// No timer is set.
    pub fn new(now: Instant) -> TimerTable {
        TimerTable {
            entries: [Entry::default(); TIMERS],
            last_activity: now,
        }
    }

    /// Takes over the periods of the machine in whose place this one was loaded: one that is loaded again and again still
    /// ticks.
    pub fn continue_from(&mut self, earlier: &TimerTable) {
        for timer in [Timer::ManagerTick, Timer::Announcement, Timer::Rebroadcast] {
            self.entries[timer as usize] = earlier.entries[timer as usize];
        }
        self.last_activity = earlier.last_activity;
    }

    pub fn get(&self, timer: Timer) -> Option<Instant> {
        self.entries[timer as usize].at
    }

    /// Sets a timer, or stops it.
    pub fn set_or_stop(&mut self, timer: Timer, at: Option<Instant>) {
        match at {
            Some(at) => self.set(timer, at),
            None => self.stop(timer),
        }
    }

    pub fn set(&mut self, timer: Timer, at: Instant) {
        self.entries[timer as usize].at = Some(at);
    }

    /// Sets a timer that is not set.
    pub fn set_if_stopped(&mut self, timer: Timer, at: Instant) {
        self.entries[timer as usize].at.get_or_insert(at);
    }

    pub fn stop(&mut self, timer: Timer) {
        self.entries[timer as usize].at = None;
    }

    /// A paused timer keeps its time; it may expire at once when it goes on.
    pub fn pause(&mut self, timer: Timer, is_paused: bool) {
        self.entries[timer as usize].is_paused = is_paused;
    }

    /// The first timer's time.
    pub fn next(&self) -> Option<Instant> {
        let entries = self.entries.iter().filter(|entry| !entry.is_paused);
        entries.filter_map(|entry| entry.at).min()
    }

    /// Whether a timer has expired; it is stopped then.
    pub fn expire(&mut self, timer: Timer, now: Instant) -> bool {
        let entry = &mut self.entries[timer as usize];
        !entry.is_paused && entry.at.take_if(|at| *at <= now).is_some()
    }

    /// Whether a periodic timer has expired, or was never set; it is set to expire again. While the node is quiet the period
    /// is an hour at least. When it is not quiet any more, the timer does not wait for the hour's end.
    pub fn expire_every(&mut self, timer: Timer, now: Instant, period: Duration) -> bool {
        let again = now + self.period(now, period);
        let entry = &mut self.entries[timer as usize];
        let is_due = !entry.is_paused && entry.at.is_none_or(|at| at <= now);
        entry.at = match entry.at {
            Some(at) if !is_due => Some(at.min(again)),
            _ => Some(again),
        };
        is_due
    }

    /// Something has come, or a peer is there.
    pub fn activity(&mut self, now: Instant) {
        self.last_activity = now;
    }

    fn period(&self, now: Instant, usual: Duration) -> Duration {
        match now.saturating_duration_since(self.last_activity) < QUIET_AFTER {
            true => usual,
            false => QUIET_PERIOD.max(usual),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_quiet_node_ticks_once_an_hour_and_each_minute_again_after_activity() {
        let begin = Instant::now();
        let mut timers = TimerTable::new(begin);
        let (mut now, mut ticks) = (begin, Vec::new());
        while now < begin + 200 * MINUTE {
            if timers.expire_every(Timer::ManagerTick, now, MINUTE) {
                ticks.push((now - begin).as_secs() / 60);
            }
            now = timers.next().unwrap_or(now);
        }
        let in_the_first_hour: Vec<u64> = (0..=60).collect();
        assert_eq!(ticks[..61], in_the_first_hour);
        assert_eq!(ticks[61..], [120, 180]);

        let now = begin + 200 * MINUTE;
        timers.activity(now);
        assert!(!timers.expire_every(Timer::ManagerTick, now, MINUTE));
        assert_eq!(timers.next(), Some(now + MINUTE));
    }

    #[test]
    fn the_first_timer_is_next_and_expires_once() {
        let begin = Instant::now();
        let mut timers = TimerTable::new(begin);
        assert_eq!(timers.next(), None);
        timers.set(Timer::Detach, begin + MINUTE);
        timers.set_if_stopped(Timer::Detach, begin);
        timers.set(Timer::Dial, begin + 2 * MINUTE);
        assert_eq!(timers.next(), Some(begin + MINUTE));
        assert!(!timers.expire(Timer::Detach, begin));
        assert!(timers.expire(Timer::Detach, begin + MINUTE));
        assert!(!timers.expire(Timer::Detach, begin + MINUTE));
        timers.stop(Timer::Dial);
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn a_table_that_takes_over_from_another_keeps_its_periods_and_no_other_timer() {
        let begin = Instant::now();
        let mut earlier = TimerTable::new(begin);
        earlier.set(Timer::ManagerTick, begin + MINUTE);
        earlier.set(Timer::Detach, begin + MINUTE);
        let mut timers = TimerTable::new(begin);
        timers.set(Timer::ManagerTick, begin + 2 * MINUTE);
        timers.continue_from(&earlier);
        assert_eq!(timers.get(Timer::ManagerTick), Some(begin + MINUTE));
        assert_eq!(timers.get(Timer::Detach), None);
    }

    #[test]
    fn a_paused_timer_keeps_its_time_and_expires_when_it_goes_on() {
        let begin = Instant::now();
        let mut timers = TimerTable::new(begin);
        assert!(timers.expire_every(Timer::Rebroadcast, begin, MINUTE));
        timers.pause(Timer::Rebroadcast, true);
        assert_eq!(timers.next(), None);
        let later = begin + 5 * MINUTE;
        assert!(!timers.expire_every(Timer::Rebroadcast, later, MINUTE));
        timers.pause(Timer::Rebroadcast, false);
        assert_eq!(timers.next(), Some(begin + MINUTE));
        assert!(timers.expire_every(Timer::Rebroadcast, later, MINUTE));
        assert_eq!(timers.next(), Some(later + MINUTE));
    }
}
