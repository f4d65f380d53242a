//! Heights before which a node needs its phone for HTLCs in flight. Stateless: channels and claims have them.
//!
//! An incoming HTLC whose preimage is known can be settled in the channel until LDK gives that up and closes the channel
//! (36 blocks before its expiry), and on chain until its expiry: both take the phone. After it the peer may take the HTLC
//! back. One whose preimage is still on the phone has one deadline, 39 blocks before its expiry, whether its channel is
//! open or closed: from then on LDK takes no preimage, and its monitors take one only from LDK.
//! An outgoing one is claimed on chain by a peer that knows the preimage while its own time is running out, and failed by
//! LDK three blocks after its expiry: the channel is closed, but nothing is lost. An incoming one that is not the owner's
//! has to be failed before it expires, or the peer closes the channel.

use lightning::chain::channelmonitor::HTLC_FAIL_BACK_BUFFER;
use lightning::ln::channel_state::ChannelDetails;

use crate::api::PeerNeeded;
use crate::keys::incoming::IncomingHtlc;
use crate::machine::turn::Turn;
use crate::parts::claims::Claims;
use crate::parts::payments::Payments;

/// The next height before which an HTLC needs the phone. Most have two: one to be settled in the channel, one on chain.
pub(crate) fn earliest(turn: &Turn, claims: &Claims, payments: &Payments) -> Option<u32> {
    let channels = turn.channels();
    let open = channels.iter();
    let open = open.flat_map(|channel| in_channel(turn, channel, claims, payments));
    let closed = claims
        .iter()
        .flat_map(|claim| claim.deadlines_in_closed(&channels));
    let heights = open.chain(closed);
    heights.filter(|height| *height > turn.height).min()
}

/// Peers of a hub that are away and have been sent HTLCs, with the next height before which each has to be connected.
pub(crate) fn peers_needed(turn: &Turn) -> Vec<PeerNeeded> {
    let channels = turn.channels().into_iter();
    let away = channels.filter(|channel| !channel.is_usable);
    let needed = away.filter_map(|channel| {
        let heights = outbound(&channel).into_iter();
        Some(PeerNeeded {
            node_id: channel.counterparty.node_id,
            deadline_height: heights.filter(|height| *height > turn.height).min()?,
        })
    });
    needed.collect()
}

/// HTLCs that came in, until our own commitment is without them too. Some are there twice.
pub(crate) fn incoming(turn: &Turn, channel: &ChannelDetails) -> Vec<IncomingHtlc> {
    let listed = channel.pending_inbound_htlcs.iter();
    let listed = listed.map(|htlc| IncomingHtlc {
        payment_hash: htlc.payment_hash,
        cltv_expiry: htlc.cltv_expiry,
    });
    let signed = turn.remote().map_or_else(Vec::new, |remote| {
        remote.incoming_htlcs(channel.user_channel_id)
    });
    listed.chain(signed).collect()
}

/// Height at which LDK fails an HTLC that is not claimed; three blocks later it closes the channel for one that is.
pub(crate) fn fail_back_height(expiry: u32) -> u32 {
    expiry.saturating_sub(HTLC_FAIL_BACK_BUFFER)
}

/// The expiry of an HTLC that LDK fails at this height.
pub(crate) fn expiry_of(fail_back_height: u32) -> u32 {
    fail_back_height.saturating_add(HTLC_FAIL_BACK_BUFFER)
}

fn in_channel(
    turn: &Turn,
    channel: &ChannelDetails,
    claims: &Claims,
    payments: &Payments,
) -> Vec<u32> {
    let mut heights = outbound(channel);
    for htlc in incoming(turn, channel) {
        heights.push(htlc.cltv_expiry);
        let hash = &htlc.payment_hash;
        // The preimage is here, or on the phone.
        if payments.has_preimage(hash) || claims.contains(hash) {
            heights.push(fail_back_height(htlc.cltv_expiry));
        }
    }
    heights
}

fn outbound(channel: &ChannelDetails) -> Vec<u32> {
    let htlcs = channel.pending_outbound_htlcs.iter();
    htlcs
        .flat_map(|htlc| [fail_back_height(htlc.cltv_expiry), htlc.cltv_expiry])
        .collect()
}

#[cfg(test)]
#[path = "tests/deadlines.rs"]
mod tests;
