use super::*;
use crate::parts::testing::Pair;

#[test]
fn an_expiry_and_the_height_at_which_ldk_fails_it_back_lead_to_each_other() {
    assert_eq!(fail_back_height(190), 151);
    assert_eq!(expiry_of(151), 190);
    assert_eq!(fail_back_height(7), 0);
}

#[test]
fn a_node_without_htlcs_needs_nobody() {
    let mut pair = Pair::new();
    pair.phone_leaves();
    let (claims, payments) = (Claims::default(), Payments::default());
    for id in [pair.hub, pair.owner] {
        let turn = pair.world.turn(id);
        assert_eq!(earliest(turn, &claims, &payments), None);
        assert!(peers_needed(turn).is_empty());
    }
}

/// A hub has sent an HTLC to an owner whose phone does not answer. Returns its expiry.
fn an_htlc_under_way() -> (Pair, u32) {
    let mut pair = Pair::new();
    let invoice = pair.owner_invoice(1_000_000);
    pair.world.nodes[pair.owner].signer_hangs = true;
    pair.pay(pair.hub, &invoice);
    let channel = pair.world.turn(pair.hub).channels().remove(0);
    let [htlc] = &channel.pending_outbound_htlcs[..] else {
        panic!("one HTLC: {channel:?}");
    };
    let expiry = htlc.cltv_expiry;
    (pair, expiry)
}

#[test]
fn an_htlc_has_a_deadline_in_the_channel_and_another_on_chain() {
    let (mut pair, expiry) = an_htlc_under_way();
    let (claims, payments) = (Claims::default(), Payments::default());
    let turn = pair.world.turn(pair.hub);
    let in_channel = fail_back_height(expiry);
    assert_eq!(earliest(turn, &claims, &payments), Some(in_channel));
    turn.height = in_channel;
    assert_eq!(earliest(turn, &claims, &payments), Some(expiry));
    turn.height = expiry;
    assert_eq!(earliest(turn, &claims, &payments), None);
}

#[test]
fn a_peer_that_was_sent_an_htlc_is_needed_once_it_is_away() {
    let (mut pair, expiry) = an_htlc_under_way();
    assert!(peers_needed(pair.world.turn(pair.hub)).is_empty());
    pair.phone_leaves();
    let owner = pair.world.nodes[pair.owner].machine.node_id();
    let needed = PeerNeeded {
        node_id: owner,
        deadline_height: fail_back_height(expiry),
    };
    assert_eq!(peers_needed(pair.world.turn(pair.hub)), [needed]);
}
