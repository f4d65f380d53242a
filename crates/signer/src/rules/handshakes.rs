//! Handshakes with peers (BOLT 8). Whoever has the secret of one may act as the node towards that peer; for any point, it could read
//! onions and messages to the node.

use bitcoin::secp256k1::PublicKey;

use super::{Refused, Rule, refuse_unless};
use crate::ledger::Channel;
use crate::proposal::{Act, Handshake};
use crate::view::{Close, View};

/// The secret of a handshake that a peer begins is that of its act's tag: whoever made the act has it.
pub(super) fn are_begun_with_their_secret(view: &View<'_>, it: &Handshake) -> Result<(), Refused> {
    let Act::One(act) = &it.act else {
        return Ok(());
    };
    let secret = view.own.handshake_secret(&it.ephemeral);
    refuse_unless(
        secret.is_some_and(|secret| act.is_by_holder_of(&secret, &view.own.node_id())),
        Rule::HandshakeAct,
        "Act One of the handshake was not made for this node by a peer that has the secret",
    )
}

/// The host says whom it dials, and could name another one. While the phone registers it does not know the host's hub yet, to which its node
/// connects before the host answers: until then any peer may be the hub.
pub(super) fn are_with_known_peers(view: &View<'_>, it: &Handshake) -> Result<(), Refused> {
    let Act::Two(peer) = &it.act else {
        return Ok(());
    };
    let may_be_hub = view.hub.is_none_or(|hub| hub == *peer);
    refuse_unless(
        may_be_hub || has_channel(view, peer) || is_wanted(view, peer),
        Rule::HandshakePeer,
        "the owner has no channel with this peer and does not want one: `longhand phone connect` allows it",
    )
}

/// Of peers that dial, with the secret that they have, there may be any number.
pub(super) fn are_not_too_many(view: &View<'_>, it: &Handshake) -> Result<(), Refused> {
    // One that is asked for again counts once.
    let is_free = matches!(it.act, Act::One(_)) || view.points.dialed.has(&it.ephemeral);
    refuse_unless(
        is_free || view.handshakes.has_room(view.now_unix_s),
        Rule::HandshakePace,
        "there were too many handshakes with peers in a short time",
    )
}

/// Points of handshakes and of onions are kept apart.
pub(super) fn are_not_of_onions(view: &View<'_>, it: &Handshake) -> Result<(), Refused> {
    refuse_unless(
        !view.points.onions.has(&it.ephemeral),
        Rule::PointReused,
        "the point of the handshake is that of an onion",
    )
}

fn has_channel(view: &View<'_>, peer: &PublicKey) -> bool {
    let is_open = |channel: &Channel| !matches!(view.sight.close(channel), Close::Proven(_));
    let mut channels = view.state.channels.values();
    channels.any(|channel| channel.counterparty_node_id == *peer && is_open(channel))
}

fn is_wanted(view: &View<'_>, peer: &PublicKey) -> bool {
    let mut intents = view.state.channel_intents.values();
    view.handshakes.is_wanted(peer)
        || intents.any(|known| known.awaits_delivery && known.is_opening_with(peer))
}
