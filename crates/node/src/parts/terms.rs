//! Terms of peers in new channels, which the phone compares with its owner's limits.

use bitcoin::secp256k1::PublicKey;
use longhand_proto::signer::ChannelTerms;

use crate::machine::turn::Turn;

/// Keeps for the phone what the peer of a channel asks for. LDK has accepted it: what a peer says beside that does not count.
pub(crate) fn keep(turn: &Turn, peer: &PublicKey, user_channel_id: u128, peer_dust_limit_sat: u64) {
    let Some(remote) = turn.remote() else { return };
    let channels = turn.ldk.manager.list_channels_with_counterparty(peer);
    let mut channels = channels.into_iter();
    let channel = channels.find(|it| it.user_channel_id == user_channel_id);
    if let Some(owner_reserve_sat) = channel.and_then(|it| it.unspendable_punishment_reserve) {
        let terms = ChannelTerms {
            peer_dust_limit_sat,
            owner_reserve_sat,
        };
        remote.set_terms(user_channel_id, terms);
    }
}
