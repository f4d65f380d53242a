#![allow(clippy::unwrap_used)]

use super::*;
use crate::parts::testing::{Pair, pay};

#[test]
fn an_htlc_moves_until_both_sides_have_committed_to_it() {
    let mut pair = Pair::new();
    assert_eq!(in_flight(pair.world.turn(pair.owner)), InFlight::Nothing);
    // The phone does not sign: the HTLC is added to no commitment.
    pair.world.nodes[pair.owner].signer_hangs = true;
    let invoice = pair.hub_invoice(1_000_000);
    pair.world.begin(pair.owner, pay(&invoice));
    assert_eq!(in_flight(pair.world.turn(pair.owner)), InFlight::Moving);
}

#[test]
fn an_htlc_of_a_channel_whose_peer_is_away_is_moving() {
    let mut pair = Pair::new();
    let invoice = pair.owner_invoice(1_000_000);
    // The phone leaves before it gives the preimage.
    pair.world.nodes[pair.owner].signer_hangs = true;
    pair.world.begin(pair.hub, pay(&invoice));
    pair.phone_leaves();
    assert_eq!(in_flight(pair.world.turn(pair.hub)), InFlight::Moving);
}
