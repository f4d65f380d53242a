//! A hub's `node_announcement` (BOLT 7).

use std::time::{Duration, Instant};

use lightning::ln::msgs::SocketAddress;

use crate::machine::timers::{Timer, TimerTable};
use crate::machine::turn::Turn;

/// Peers pass on no more than one an hour or so.
const PERIOD: Duration = Duration::from_secs(3600);
/// Before the first: how often the channels are looked at.
const CHECK_PERIOD: Duration = Duration::from_secs(60);
/// The same once a channel is public, but not in the graph yet.
const CHECK_SOON: Duration = Duration::from_secs(10);
/// A hub's colour.
const COLOR: [u8; 3] = [0x10, 0x4f, 0x9a];

/// See the module.
#[derive(Clone, Copy, Default)]
pub(crate) struct Announcements {
    is_announced: bool,
}

impl Announcements {
    /// Announces the hub when it is time to.
    pub fn advance(&mut self, turn: &Turn, timers: &mut TimerTable) {
        let period = match self.is_announced {
            true => PERIOD,
            false => CHECK_PERIOD,
        };
        let now = turn.now.instant;
        if timers.expire_every(Timer::Announcement, now, period)
            && let Some(next) = self.announce(turn, now)
        {
            timers.set(Timer::Announcement, next);
        }
    }

    /// Announces the hub, if the graph has one of its channels: peers drop the announcement of a node before they know a
    /// channel of its. A usable channel is not in the graph yet: that takes both sides' signatures. Returns when to try
    /// again, if that differs from the usual.
    fn announce(&mut self, turn: &Turn, now: Instant) -> Option<Instant> {
        let is_known = |scid| turn.graph.knows(scid);
        let mut channels = turn.channels();
        channels.retain(|channel| channel.is_announced);
        let mut public = channels.iter();
        self.is_announced = public.any(|channel| channel.short_channel_id.is_some_and(is_known));
        if !self.is_announced {
            return (!channels.is_empty()).then_some(now + CHECK_SOON);
        }
        let mut alias = [0; 32];
        let name = turn.config.alias.as_bytes();
        let length = name.len().min(alias.len());
        alias[..length].copy_from_slice(&name[..length]);
        let addresses = turn.config.announce.iter();
        let addresses = addresses.filter_map(|text| text.parse::<SocketAddress>().ok());
        turn.ldk
            .peer_manager
            .broadcast_node_announcement(COLOR, alias, addresses.collect());
        Some(now + PERIOD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::testing::World;
    use crate::parts::testing::open;

    /// When a hub with one channel looks again whether it can announce itself.
    fn next_check(announced: bool) -> Duration {
        let mut world = World::new();
        let (hub, peer) = (world.add_hub(1), world.add_hub(2));
        world.fund(hub, 1_000_000);
        open(&mut world, hub, peer, 1, 0, announced);
        let turn = world.turn(hub);
        let now = turn.now.instant;
        let mut timers = TimerTable::new(now);
        let mut announcements = Announcements::default();
        announcements.advance(turn, &mut timers);
        assert!(!announcements.is_announced);
        let next = timers.get(Timer::Announcement);
        next.map_or(Duration::ZERO, |next| next - now)
    }

    #[test]
    fn a_hub_whose_public_channel_is_not_in_the_graph_yet_looks_again_soon() {
        assert_eq!(next_check(true), CHECK_SOON);
    }

    #[test]
    fn a_hub_without_public_channels_is_not_announced() {
        assert_eq!(next_check(false), CHECK_PERIOD);
    }
}
