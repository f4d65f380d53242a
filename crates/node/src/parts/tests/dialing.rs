//! Which peers are dialled, when, and where.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use bitcoin::secp256k1::{Secp256k1, SecretKey};
use longhand_proto::Code;
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

fn dialled(dialing: &mut Dialing, turn: &Turn, commands: &[PublicKey]) -> Vec<(PublicKey, String)> {
    let (openings, commands) = (std::iter::empty(), commands.iter().copied());
    let requests = dialing.advance(turn, &Connections::default(), openings, commands);
    let requests = requests.into_iter();
    requests.map(|it| (it.node_id, it.address)).collect()
}

fn no_openings() -> Openings {
    Openings::default()
}

/// A part that knows these addresses of a peer.
fn knowing(peer: PublicKey, addresses: &[&str]) -> Dialing {
    let lines = addresses.join("\n").into_bytes();
    let journal = Journal::loading(vec![(peer_key(&peer), lines)]);
    Dialing::load(&journal, &no_openings())
}

fn code(refused: Result<(), Error>) -> String {
    refused.expect_err("it is refused").code
}

#[test]
fn the_address_at_which_a_peer_with_a_channel_answers_is_stored_and_read_back() {
    let (mut world, hub, owner) = world_with_channel();
    let hub_id = world.nodes[hub].machine.node_id();
    let turn = world.turn(owner);
    turn.journal.take();
    let mut dialing = Dialing::default();
    dialing.given.insert(hub_id, "hub:9735".into());
    assert!(dialled(&mut dialing, turn, &[]).is_empty());
    let writes = turn.journal.take();
    let [Write::Put(key, value)] = &writes[..] else {
        panic!("not one record: {writes:?}");
    };
    let unreadable = [
        ("peer/no-key".to_owned(), b"host:1".to_vec()),
        (peer_key(&turn.node_id()), vec![0xff]),
    ];
    let entries = [(key.clone(), value.clone())].into_iter().chain(unreadable);
    let loaded = Dialing::load(&Journal::loading(entries.collect()), &no_openings());
    assert_eq!(
        loaded.known,
        HashMap::from([(hub_id, vec!["hub:9735".into()])])
    );
}

#[test]
fn the_newest_addresses_of_a_peer_are_kept_newest_first() {
    let (mut world, hub, owner) = world_with_channel();
    let hub_id = world.nodes[hub].machine.node_id();
    let turn = world.turn(owner);
    let mut dialing = knowing(hub_id, &["a:1", "b:1", "c:1", "d:1"]);
    for address in ["c:1", "e:1", "e:1"] {
        dialing.given.insert(hub_id, address.into());
        dialled(&mut dialing, turn, &[]);
    }
    assert_eq!(dialing.known[&hub_id], ["e:1", "c:1", "a:1", "b:1"]);
}

#[test]
fn an_address_that_a_command_gives_is_not_stored() {
    let (mut world, peer, node) = strangers();
    let turn = world.turn(node);
    let mut dialing = Dialing::default();
    dialing.give(turn, peer, "host:9735");
    let dials = dialled(&mut dialing, turn, &[peer]);
    assert_eq!(dials, [(peer, "host:9735".to_owned())]);
    assert!(turn.journal.is_empty());
    // The command has ended.
    dialing.dial_failed(turn, peer, "refused");
    dialled(&mut dialing, turn, &[]);
    assert!(dialing.given.is_empty());
}

#[test]
fn an_address_that_a_command_gives_for_a_connected_peer_replaces_none() {
    let (mut world, hub, owner) = world_with_channel();
    let hub_id = world.nodes[hub].machine.node_id();
    let turn = world.turn(owner);
    let mut dialing = knowing(hub_id, &["hub:9735"]);
    turn.journal.take();
    dialing.check(turn, &hub_id, "127.0.0.1:1").unwrap();
    dialing.give(turn, hub_id, "127.0.0.1:1");
    dialled(&mut dialing, turn, &[hub_id]);
    assert_eq!(dialing.known[&hub_id], ["hub:9735"]);
    assert!(turn.journal.is_empty() && dialing.given.is_empty());
}

#[test]
fn the_addresses_of_a_peer_without_a_channel_are_forgotten() {
    let (mut world, peer, node) = strangers();
    let turn = world.turn(node);
    let mut dialing = knowing(peer, &["host:9735"]);
    assert!(dialled(&mut dialing, turn, &[]).is_empty());
    assert_eq!(turn.journal.take(), [Write::Delete(peer_key(&peer))]);
    assert!(dialing.known.is_empty());
}

#[test]
fn an_address_that_is_none_or_is_missing_is_refused() {
    let (mut world, peer, node) = strangers();
    let turn = world.turn(node);
    let dialing = Dialing::default();
    let long = format!("{}:9735", "a".repeat(251));
    for address in [
        "host",
        ":9735",
        "host:0",
        "host:65536",
        "a b:1",
        "a\n:1",
        &long,
    ] {
        let refused = dialing.check(turn, &peer, address);
        assert_eq!(code(refused), Code::PeerMalformed, "{address}");
    }
    assert_eq!(code(dialing.check(turn, &peer, "")), Code::NoPeerAddress);
    let longest = format!("{}:9735", "a".repeat(250));
    for address in ["host:9735", "[::1]:9735", &longest] {
        dialing.check(turn, &peer, address).unwrap();
    }
}

#[test]
fn only_so_many_addresses_are_kept_for_commands() {
    let (mut world, peer, node) = strangers();
    let turn = world.turn(node);
    let mut dialing = Dialing::default();
    for number in 1..=GIVEN {
        let secret = SecretKey::from_slice(&[u8::try_from(number).unwrap(); 32]).unwrap();
        let other = secret.public_key(&Secp256k1::new());
        dialing.check(turn, &other, "host:9735").unwrap();
        dialing.give(turn, other, "host:9735");
    }
    let refused = dialing.check(turn, &peer, "host:9735");
    assert_eq!(code(refused), Code::TooManyPeers);
}

#[test]
fn every_address_is_tried_before_a_peer_counts_as_unreachable() {
    let (mut world, hub, owner) = world_with_channel();
    let hub_id = world.nodes[hub].machine.node_id();
    let turn = world.turn(owner);
    turn.ldk.peer_manager.disconnect_all_peers();
    let mut dialing = knowing(hub_id, &["a:1", "b:1"]);
    let mut tried = Vec::new();
    for _ in 0..3 {
        assert_eq!(dialing.take_unreachable(), []);
        tried.extend(dialled(&mut dialing, turn, &[]));
        dialing.dial_failed(turn, hub_id, "refused");
        turn.now.instant += PAUSE_MOST;
    }
    // The dialer knows the hub without an address.
    let tried: Vec<&str> = tried.iter().map(|(_, address)| address.as_str()).collect();
    assert_eq!(tried, ["", "a:1", "b:1"]);
    let unreachable = dialing.take_unreachable();
    assert_eq!(unreachable.len(), 1);
    assert!(unreachable[0].message.contains("(refused)"));
}

/// A peer that the owner has asked for was dialled; the handshake of connection 7 goes on.
fn in_handshake(turn: &Turn, peer: PublicKey) -> Dialing {
    let mut dialing = Dialing::default();
    dialing.give(turn, peer, "host:9735");
    dialled(&mut dialing, turn, &[peer]);
    dialing.dialed(&peer, 7, turn.now.instant);
    dialing
}

#[test]
fn a_connection_that_ends_in_its_handshake_is_a_failed_attempt() {
    let (mut world, peer, node) = strangers();
    let turn = world.turn(node);
    let mut dialing = in_handshake(turn, peer);
    // The connection is closed again: no connection has this id.
    dialled(&mut dialing, turn, &[peer]);
    let unreachable = dialing.take_unreachable();
    assert_eq!(unreachable.len(), 1);
    let message = &unreachable[0].message;
    assert!(
        message.contains("host:9735, but not as this node"),
        "{message}"
    );
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
    dialing.give(turn, peer, "host:9735");
    let mut pauses = Vec::new();
    for _ in 0..9 {
        let dials = dialled(&mut dialing, turn, &[peer]);
        assert_eq!(dials, [(peer, "host:9735".to_owned())]);
        assert!(dialled(&mut dialing, turn, &[peer]).is_empty());

        let now = turn.now.instant;
        dialing.dial_failed(turn, peer, "refused");
        assert!(dialled(&mut dialing, turn, &[peer]).is_empty());
        let next = dialing.next(&Connections::default()).unwrap();
        pauses.push((next - now).as_millis());
        turn.now.instant = next;
    }
    let expected = [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000];
    assert_eq!(pauses, expected);
}

#[test]
fn an_address_that_is_given_anew_is_tried_at_once() {
    let (mut world, peer, node) = strangers();
    let turn = world.turn(node);
    let mut dialing = Dialing::default();
    dialing.give(turn, peer, "wrong:9735");
    dialled(&mut dialing, turn, &[peer]);
    dialing.dial_failed(turn, peer, "refused");
    dialing.give(turn, peer, "right:9735");
    let dials = dialled(&mut dialing, turn, &[peer]);
    assert_eq!(dials, [(peer, "right:9735".to_owned())]);
}

#[test]
fn a_peer_that_nobody_wants_any_more_is_not_dialled_again() {
    let (mut world, peer, node) = strangers();
    let turn = world.turn(node);
    let mut dialing = Dialing::default();
    dialing.give(turn, peer, "host:9735");
    assert_eq!(dialled(&mut dialing, turn, &[peer]).len(), 1);
    dialing.dial_failed(turn, peer, "refused");
    assert!(dialled(&mut dialing, turn, &[]).is_empty());
    assert_eq!(dialing.next(&Connections::default()), None);
}

#[test]
fn a_connected_peer_is_not_dialled_and_one_with_a_channel_is_once_it_is_lost() {
    let (mut world, hub, owner) = world_with_channel();
    let hub_id = world.nodes[hub].machine.node_id();
    let turn = world.turn(owner);
    let mut dialing = Dialing::default();
    assert!(dialled(&mut dialing, turn, &[]).is_empty());
    turn.ldk.peer_manager.disconnect_all_peers();
    let dials = dialled(&mut dialing, turn, &[]);
    assert_eq!(dials, [(hub_id, String::new())]);
}

#[test]
fn a_new_phone_has_every_peer_dialled_anew() {
    let (mut world, peer, node) = strangers();
    let turn = world.turn(node);
    let mut dialing = Dialing::default();
    dialing.give(turn, peer, "host:9735");
    assert_eq!(dialled(&mut dialing, turn, &[peer]).len(), 1);
    dialing.clear();
    // An attempt that was begun before has no effect.
    dialing.dial_failed(turn, peer, "refused");
    assert_eq!(dialing.take_unreachable(), []);
    assert_eq!(dialled(&mut dialing, turn, &[peer]).len(), 1);
}

fn refusal(retry: bool) -> Refusal {
    Refusal {
        rule: "a-rule".into(),
        message: "no".into(),
        retry,
    }
}

#[test]
fn a_peer_that_the_phone_refuses_is_not_dialled_again_until_its_owner_asks() {
    let (mut world, peer, node) = strangers();
    let turn = world.turn(node);
    let mut dialing = in_handshake(turn, peer);
    dialing.handshake_refused(7, &refusal(false));
    let unreachable = dialing.take_unreachable();
    assert_eq!(unreachable.len(), 1);
    let message = &unreachable[0].message;
    assert!(message.ends_with(": no"), "{message}");

    turn.now.instant += PAUSE_MOST;
    assert!(dialled(&mut dialing, turn, &[peer]).is_empty());
    assert_eq!(dialing.next(&Connections::default()), None);
    dialing.give(turn, peer, "");
    assert_eq!(dialled(&mut dialing, turn, &[peer]).len(), 1);
}

#[test]
fn a_peer_that_the_phone_refuses_for_now_is_dialled_again() {
    let (mut world, peer, node) = strangers();
    let turn = world.turn(node);
    let mut dialing = in_handshake(turn, peer);
    dialing.handshake_refused(7, &refusal(true));
    assert_eq!(dialing.take_unreachable(), []);
    assert!(dialled(&mut dialing, turn, &[peer]).is_empty());
    turn.now.instant = dialing.next(&Connections::default()).unwrap();
    assert_eq!(dialled(&mut dialing, turn, &[peer]).len(), 1);
}

#[test]
fn a_peer_that_hangs_up_at_once_waits_longer_each_time() {
    let (mut world, hub, owner) = world_with_channel();
    let hub_id = world.nodes[hub].machine.node_id();
    let turn = world.turn(owner);
    let mut dialing = Dialing::default();
    let connection = Connections::default();
    let mut pauses = Vec::new();
    let short = [Duration::ZERO; 5];
    for lasted in [SHORT].into_iter().chain(short).chain([SHORT]) {
        dialing.connected(turn, &connection, hub_id);
        turn.now.instant += lasted;
        turn.ldk.peer_manager.disconnect_all_peers();
        let now = turn.now.instant;
        if dialled(&mut dialing, turn, &[]).is_empty() {
            turn.now.instant = dialing.next(&connection).unwrap();
            assert_eq!(dialled(&mut dialing, turn, &[]).len(), 1);
        }
        pauses.push((turn.now.instant - now).as_millis());
        dialing.dialed(&hub_id, 7, turn.now.instant);
    }
    assert_eq!(pauses, [0, 500, 1_000, 2_000, 4_000, 4_000, 0]);
}
