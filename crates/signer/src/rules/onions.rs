//! Onions of incoming HTLCs (BOLT 4). Their secrets are given for those alone that the phone could read, and that end here: with the
//! secret of another, its holder would read what is meant for somebody else.

use super::{Refused, Rule, refuse_unless};
use crate::proposal::{Content, Onion};
use crate::view::View;

pub(super) fn can_be_read(_: &View<'_>, it: &Onion<'_>) -> Result<(), Refused> {
    refuse_unless(
        it.content != Content::Foreign,
        Rule::OnionForeign,
        "the onion was made for another node or another payment hash",
    )
}

pub(super) fn are_for_the_last_hop(_: &View<'_>, it: &Onion<'_>) -> Result<(), Refused> {
    refuse_unless(
        it.content != Content::Forward,
        Rule::OnionForward,
        "the HTLC is to be forwarded, and this node is the last hop of its payments",
    )
}

pub(super) fn have_their_own_points(view: &View<'_>, it: &Onion<'_>) -> Result<(), Refused> {
    let is_reused = it
        .onion_key
        .is_some_and(|key| view.points.has_handshake(&key));
    refuse_unless(
        !is_reused,
        Rule::PointReused,
        "the point of the onion was used in a handshake",
    )
}
