//! The coins that a node keeps on chain to defend its channels.
//!
//! A channel with anchors pays for its forced close with coins of the wallet: its commitment alone has the fee rate of the
//! day it was signed, which may be too low to confirm before an HTLC expires. A hub has many channels with peers that it
//! did not choose, so it keeps an amount for each ([`NodeConfig::reserve_sat_per_channel`]), and takes no channel that it
//! could not defend.
//!
//! [`NodeConfig::reserve_sat_per_channel`]: crate::api::NodeConfig::reserve_sat_per_channel

use bitcoin::secp256k1::PublicKey;
use lightning::ln::channel_state::ChannelDetails;

use crate::machine::turn::Turn;

/// Kept on chain by every node that has a channel, to pay for closing it.
pub(crate) const ANCHOR_RESERVE_SAT: u64 = 10_000;

/// The reserve for the node's channels, and for `more`; 0 without any. Channels that strangers have asked for and not funded do
/// not count: they cost nothing, and would take the coins from everybody else's.
pub(crate) fn wanted_sat(turn: &Turn, more: usize) -> u64 {
    let channels = turn.channels();
    let counted = channels.iter().filter(|channel| is_counted(turn, channel));
    for_channels(turn, counted.count().saturating_add(more))
}

fn is_counted(turn: &Turn, channel: &ChannelDetails) -> bool {
    let is_funded = channel.confirmations.is_some_and(|depth| depth > 0);
    channel.is_outbound || is_funded || turn.ldk.gate.is_hosted(&channel.counterparty.node_id)
}

fn for_channels(turn: &Turn, channels: usize) -> u64 {
    let count = u64::try_from(channels).unwrap_or(u64::MAX);
    let for_all = count.saturating_mul(turn.config.reserve_sat_per_channel);
    match channels {
        0 => 0,
        _ => for_all.max(ANCHOR_RESERVE_SAT),
    }
}

/// Whether a channel that a peer asks for could be defended with the coins of the wallet, also those that are not confirmed
/// yet: such as the change of a channel that was just funded, long before this one can be closed. A node without a reserve for each
/// channel takes all: an owner may get the first coins over the channel itself. For a stranger's channel all count.
pub(crate) fn defends_another(turn: &Turn, peer: &PublicKey) -> bool {
    let (confirmed, pending) = turn.wallet().balance();
    let coins_sat = confirmed.saturating_add(pending);
    let wanted_sat = match turn.ldk.gate.is_hosted(peer) {
        true => wanted_sat(turn, 1),
        false => for_channels(turn, turn.channels().len().saturating_add(1)),
    };
    turn.config.reserve_sat_per_channel == 0 || wanted_sat <= coins_sat
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::testing::{Id, World, world_with_channel};

    const PER_CHANNEL_SAT: u64 = 30_000;

    /// A hub without channels that keeps a reserve for each, with so many coins.
    fn hub(coins_sat: u64) -> (World, Id) {
        let mut world = World::new();
        let hub = world.add_hub_with_reserve(1, PER_CHANNEL_SAT);
        if coins_sat > 0 {
            world.fund(hub, coins_sat);
        }
        (world, hub)
    }

    fn defends(world: &mut World, id: Id) -> bool {
        let turn = world.turn(id);
        defends_another(turn, &turn.node_id())
    }

    #[test]
    fn a_hub_defends_as_many_channels_as_it_has_coins_for() {
        let (mut world, id) = hub(0);
        assert!(!defends(&mut world, id));
        let (mut world, id) = hub(PER_CHANNEL_SAT - 1);
        assert!(!defends(&mut world, id));
        let (mut world, id) = hub(PER_CHANNEL_SAT);
        assert!(defends(&mut world, id));
    }

    #[test]
    fn nothing_is_kept_without_a_channel() {
        let (mut world, id) = hub(0);
        assert_eq!(wanted_sat(world.turn(id), 0), 0);
        assert_eq!(wanted_sat(world.turn(id), 2), 2 * PER_CHANNEL_SAT);
    }

    #[test]
    fn an_owner_keeps_one_reserve_for_all_channels_and_takes_channels_without() {
        let (mut world, _, owner) = world_with_channel();
        let turn = world.turn(owner);
        assert_eq!(wanted_sat(turn, 5), ANCHOR_RESERVE_SAT);
        let peer = turn.node_id();
        assert!(defends_another(turn, &peer));
    }
}
