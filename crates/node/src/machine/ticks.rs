//! The machine's timers, and what each of them does when it expires.

use super::{LOST_PAUSE, MANAGER_TICK, NodeMachine, PEER_TICK, REBROADCAST};
use crate::machine::timers::Timer;

impl NodeMachine {
    /// Sets and pauses the timers that depend on the node's state.
    pub(super) fn arm_timers(&mut self) {
        let timers = &mut self.timers;
        let is_available = self.session.is_available();
        timers.pause(Timer::Announcement, !self.turn.config.is_hub);
        timers.pause(Timer::Rebroadcast, !is_available);
        timers.pause(Timer::Waking, !self.requests.has_deferred());
        match self.session.detach_until() {
            Some(until) => timers.set(Timer::Detach, until),
            None => timers.stop(Timer::Detach),
        }
        let dials = is_available && !self.session.is_detaching();
        match self.dialing.next(&self.connections).filter(|_| dials) {
            Some(next) => timers.set(Timer::Dial, next),
            None => timers.stop(Timer::Dial),
        }
        let now = self.turn.now.instant;
        match self.connections.is_empty() {
            true => timers.stop(Timer::PeerTick),
            false => timers.set_if_stopped(Timer::PeerTick, now + PEER_TICK),
        }
        if self.connections.take_lost() {
            timers.set_if_stopped(Timer::CheckPeers, now + LOST_PAUSE);
        }
    }

    pub(super) fn expire_timers(&mut self) {
        let now = self.turn.now.instant;
        self.timers
            .pause(Timer::Rebroadcast, !self.session.is_available());
        if self.timers.expire(Timer::PeerTick, now) {
            self.turn.ldk.peer_manager.timer_tick_occurred();
        }
        if !self.connections.is_empty() {
            self.timers.activity(now);
        }
        if self
            .timers
            .expire_every(Timer::ManagerTick, now, MANAGER_TICK)
        {
            self.turn.ldk.manager.timer_tick_occurred();
        }
        if self.turn.config.is_hub {
            self.announcements.advance(&self.turn, &mut self.timers);
        }
        if self
            .timers
            .expire_every(Timer::Rebroadcast, now, REBROADCAST)
        {
            self.turn.ldk.chain_monitor.rebroadcast_pending_claims();
            if let Some(remote) = self.turn.remote() {
                remote.clear_retries();
                self.unblock();
            }
        }
    }
}
