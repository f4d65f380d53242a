//! Which peers are dialled, when, and where.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use longhand_store::Write;

use super::*;
use crate::machine::testing::{Id, World, world_with_channel};

/// Two nodes that are not connected: the second has no hub, and dials the first when asked to.
fn strangers() -> (World, PublicKey, Id) {
    let mut world = World::new();
    let peer = world.add_hub(1);
    let node = world.add_owner(2, None);
    world.turn(node).journal.take();
    let peer = world.nodes[peer].machine.node_id();
    (world, peer, node)
}

fn dialled(dialing: &mut Dialing, turn: &Turn, more: &[PublicKey]) -> Vec<(PublicKey, String)> {
    let requests = dialing.advance(turn, &Connections::default(), more.iter().copied());
    let requests = requests.into_iter();
    requests.map(|it| (it.node_id, it.address)).collect()
}

#[test]
fn an_address_is_stored_and_read_back() {
    let (mut world, peer, node) = strangers();
    let turn = world.turn(node);
    let mut dialing = Dialing::default();
    dialing.remember(turn, peer, "host:9735");
    let writes = turn.journal.take();
    let [Write::Put(key, value)] = &writes[..] else {
        panic!("not one record: {writes:?}");
    };
    let unreadable = [
        ("peer/no-key".to_owned(), b"host:1".to_vec()),
        (peer_key(&turn.node_id()), vec![0xff]),
    ];
    let entries = [(key.clone(), value.clone())].into_iter().chain(unreadable);
    let loaded = Dialing::load(&Journal::loading(entries.collect()));
    assert_eq!(loaded.addresses, dialing.addresses);
}

#[test]
fn an_empty_address_is_not_stored_and_does_not_replace_one() {
    let (mut world, peer, node) = strangers();
    let turn = world.turn(node);
    let mut dialing = Dialing::default();
    dialing.remember(turn, peer, "host:9735");
    turn.journal.take();
    dialing.remember(turn, peer, "");
    assert!(turn.journal.is_empty());
    assert_eq!(dialing.addresses[&peer], "host:9735");
}

#[test]
fn a_peer_without_an_address_cannot_be_dialled_and_the_hub_can() {
    let (mut world, peer, node) = strangers();
    let mut dialing = Dialing::default();
    assert!(dialled(&mut dialing, world.turn(node), &[peer]).is_empty());

    let hub = world.add_hub(3);
    let hub_id = world.nodes[hub].machine.node_id();
    let owner = world.add_owner(4, Some(hub));
    let dials = dialled(&mut Dialing::default(), world.turn(owner), &[]);
    assert_eq!(dials, [(hub_id, String::new())]);
}

#[test]
fn a_peer_is_dialled_once_at_a_time_and_with_doubled_pauses_up_to_half_a_minute() {
    let (mut world, peer, node) = strangers();
    let turn = world.turn(node);
    let mut dialing = Dialing::default();
    dialing.remember(turn, peer, "host:9735");
    let mut pauses = Vec::new();
    for _ in 0..9 {
        let dials = dialled(&mut dialing, turn, &[peer]);
        assert_eq!(dials, [(peer, "host:9735".to_owned())]);
        assert!(dialing.is_dialing(&peer));
        assert!(dialled(&mut dialing, turn, &[peer]).is_empty());

        let now = turn.now.instant;
        dialing.dialed(&peer, None, now);
        assert!(!dialing.is_dialing(&peer));
        assert!(dialled(&mut dialing, turn, &[peer]).is_empty());
        let next = dialing.next(&Connections::default()).unwrap();
        pauses.push((next - now).as_millis());
        turn.now.instant = next;
    }
    let expected = [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000];
    assert_eq!(pauses, expected);
}

#[test]
fn a_peer_that_nobody_wants_any_more_is_not_dialled_again() {
    let (mut world, peer, node) = strangers();
    let turn = world.turn(node);
    let mut dialing = Dialing::default();
    dialing.remember(turn, peer, "host:9735");
    assert_eq!(dialled(&mut dialing, turn, &[peer]).len(), 1);
    dialing.dialed(&peer, None, turn.now.instant);
    assert!(dialled(&mut dialing, turn, &[]).is_empty());
    assert_eq!(dialing.next(&Connections::default()), None);
}

#[test]
fn a_connected_peer_is_not_dialled_and_one_with_a_channel_is_once_it_is_lost() {
    let (mut world, hub, owner) = world_with_channel();
    let hub_id = world.nodes[hub].machine.node_id();
    let turn = world.turn(owner);
    let mut dialing = Dialing::default();
    dialing.remember(turn, hub_id, "hub:9735");
    assert!(dialled(&mut dialing, turn, &[]).is_empty());
    turn.ldk.peer_manager.disconnect_all_peers();
    let dials = dialled(&mut dialing, turn, &[]);
    assert_eq!(dials, [(hub_id, "hub:9735".to_owned())]);
}

#[test]
fn a_new_phone_has_every_peer_dialled_anew() {
    let (mut world, peer, node) = strangers();
    let turn = world.turn(node);
    let mut dialing = Dialing::default();
    dialing.remember(turn, peer, "host:9735");
    assert_eq!(dialled(&mut dialing, turn, &[peer]).len(), 1);
    dialing.clear();
    assert!(!dialing.is_dialing(&peer), "the old attempt is void");
    assert_eq!(dialled(&mut dialing, turn, &[peer]).len(), 1);
}
