//! When a node has to do something by itself.
//!
//! Between turns it sleeps, however many there are of it on a machine: what is not named here happens only when
//! something comes from outside.

use tokio::time::Instant;

use super::{Actor, LOST_PAUSE};

impl Actor {
    /// When the next turn is due at the latest. Every turn moves on, or does away with, whatever has made it due.
    pub(super) fn next_due(&mut self) -> Instant {
        let now = Instant::now();
        if self.is_restless {
            return now;
        }
        if self.core.peers.take_lost() {
            self.look_around.get_or_insert(now + LOST_PAUSE);
        }
        let there = self.signer_is_there();
        let has_peers = !self.core.peers.is_empty();
        let also = [
            self.keep_by,
            self.look_around,
            has_peers.then_some(self.next_peer_tick),
            self.core.config.is_hub.then_some(self.next_announcement),
            there.then_some(self.next_rebroadcast),
            (!self.deferred.is_empty()).then_some(self.awake_by),
            self.detaching.as_ref().map(|detaching| detaching.until),
            self.next_dial(),
        ];
        let also = also.into_iter().flatten();
        also.fold(self.next_manager_tick, Instant::min)
    }

    /// When a peer may be dialled again that is wanted and not there.
    fn next_dial(&self) -> Option<Instant> {
        if !self.dials_now() {
            return None;
        }
        let peers = &self.core.peers;
        let waiting = self.dials.values().filter(|dial| !dial.is_going_on(peers));
        waiting.map(|dial| dial.not_before).min()
    }
}
