//! Handshakes with peers (BOLT 8): secrets for a stranger, for a peer that does not exist, or for whatever point the host likes.

use bitcoin::secp256k1::PublicKey;
use longhand_bolt8::{ACT_BYTES, ActOne};
use longhand_signer::Rule;

use super::commitment::thiefs_key;
use crate::funded::{mine_and_prove, spend_of};
use crate::handshake::{act_one, act_two, dialed, handshake, point, secret};
use crate::scene::*;
use crate::{Case, Cases};

/// As many as may come at once.
const BURST: u64 = 512;

fn node_id(phone: &Phone) -> PublicKey {
    phone.signer.keys().node_id()
}

pub(super) fn cases() -> Vec<Case> {
    let mut all = acts();
    all.extend(peers());
    all.extend(pace());
    all
}

fn acts() -> Vec<Case> {
    let mut cases = Cases::of(Rule::HandshakeAct);
    cases.honest("of a peer that dials", |phone| act_one(&node_id(phone), 1));
    for at in [34, ACT_BYTES - 1] {
        cases.attack(
            format!(
                "with a point whose secret the host does not have: a tag with byte {at} changed"
            ),
            move |phone| {
                let mut act = *ActOne::new(&node_id(phone), &secret(1)).as_bytes();
                act[at] ^= 1;
                handshake(&act, None)
            },
        );
    }
    cases.attack("with the point of an act for another node", |_| {
        act_one(&thiefs_key(), 1)
    });
    cases.attack("with another point under the tag of an act", |phone| {
        let mut act = *ActOne::new(&node_id(phone), &secret(1)).as_bytes();
        act[1..34].copy_from_slice(&point(2).serialize());
        handshake(&act, None)
    });
    cases.attack(
        "the act of the dialled peer as that of a peer that dials",
        |_| handshake(&act_two(&point(1)), None),
    );
    cases.all
}

/// With a hub that has been named.
fn with_hub(phone: &mut Phone) -> &mut Phone {
    phone.set_hub(point(9));
    phone
}

fn peers() -> Vec<Case> {
    let mut cases = Cases::of(Rule::HandshakePeer);
    cases.honest("with the peer of a channel", |phone| {
        let channel = Channel::open(with_hub(phone));
        dialed(&channel.peer_node_id(), &point(1))
    });
    cases.honest("with the peer of an unconfirmed channel", |phone| {
        let channel = Channel::new(with_hub(phone));
        phone.ask(channel.setup()).expect("an honest step");
        dialed(&channel.peer_node_id(), &point(1))
    });
    cases.honest("with the peer of an opening", |phone| {
        let channel = Channel::new(with_hub(phone));
        phone.intend_opening(&channel);
        dialed(&channel.peer_node_id(), &point(1))
    });
    cases.honest("with a peer to which the owner wants to connect", |phone| {
        with_hub(phone).signer.want_peer(thiefs_key());
        dialed(&thiefs_key(), &point(1))
    });
    cases.honest("with the host's hub", |phone| {
        with_hub(phone);
        dialed(&point(9), &point(1))
    });
    cases.honest("with the hub, before the host has named it", |_| {
        dialed(&thiefs_key(), &point(1))
    });
    cases.attack("with a stranger", |phone| {
        with_hub(phone);
        dialed(&thiefs_key(), &point(1))
    });
    cases.attack("with a stranger, beside a channel", |phone| {
        Channel::open(with_hub(phone));
        dialed(&thiefs_key(), &point(1))
    });
    cases.attack("with the peer of a channel that was closed", |phone| {
        let channel = Channel::open(with_hub(phone));
        mine_and_prove(phone, &spend_of(&channel));
        dialed(&channel.peer_node_id(), &point(1))
    });
    cases.attack("with the peer of an opening that is over", |phone| {
        let channel = Channel::new(with_hub(phone));
        phone.intend_opening(&channel);
        let ended = phone.signer.result_delivered(&OPENING);
        phone.keep(&ended.expect("an opening").records);
        dialed(&channel.peer_node_id(), &point(1))
    });
    cases.all
}

/// The node dials the hub so many times, and the hub answers with another key each time.
fn dial(phone: &mut Phone, count: u64) {
    with_hub(phone);
    for number in 1..=count {
        let op = dialed(&point(9), &point(number));
        phone.ask(op).expect("an honest step");
    }
}

fn pace() -> Vec<Case> {
    let mut cases = Cases::of(Rule::HandshakePace);
    cases.honest("as many as a link has that drops all the time", |phone| {
        dial(phone, BURST - 1);
        dialed(&point(9), &point(BURST))
    });
    cases.honest("one that is asked for again after too many", |phone| {
        dial(phone, BURST);
        dialed(&point(9), &point(1))
    });
    cases.honest("one more a little later", |phone| {
        dial(phone, BURST);
        phone.now_unix_s += 4;
        dialed(&point(9), &point(BURST + 1))
    });
    cases.honest("with a peer that dials, after too many", |phone| {
        dial(phone, BURST);
        act_one(&node_id(phone), 1)
    });
    cases.attack("so many that earlier points are forgotten", |phone| {
        dial(phone, BURST);
        dialed(&point(9), &point(BURST + 1))
    });
    cases.all
}
