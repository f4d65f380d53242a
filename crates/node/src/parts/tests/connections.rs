//! The bytes of a handshake, before and after the phone's ECDH is there.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bitcoin::secp256k1::{Secp256k1, SecretKey};

use super::*;
use crate::machine::testing::World;

fn ephemeral() -> PublicKey {
    let secret = SecretKey::from_slice(&[5; 32]).unwrap();
    PublicKey::from_secret_key(&Secp256k1::new(), &secret)
}

/// Act One with `key` as its ephemeral key.
fn act(key: &[u8; 33]) -> Vec<u8> {
    [&[0][..], key, &[7; 16]].concat()
}

fn peer_act() -> PeerAct {
    PeerAct::read(&act(&ephemeral().serialize()), None).unwrap()
}

fn new_connection(id: ConnectionId) -> NewConnection {
    NewConnection {
        id,
        unwritten: Arc::new(AtomicUsize::new(0)),
        hosted: None,
    }
}

fn reading() -> Connection {
    Connection {
        socket: Socket::new(1, Arc::new(AtomicUsize::new(0))),
        dialed: None,
        handshake: Handshake::Reading(Vec::new()),
        owed_reads: 0,
        withheld_reads: 0,
    }
}

#[test]
fn an_act_in_pieces_is_collected_until_its_ephemeral_key_is_known() {
    let mut connection = reading();
    let act = act(&ephemeral().serialize());
    assert_eq!(connection.incoming(act[..49].to_vec()), Incoming::Wait);
    let fetch = connection.incoming(act[49..].to_vec());
    assert_eq!(fetch, Incoming::Fetch(peer_act()));
    assert_eq!(connection.take_reads(), 2);
}

#[test]
fn bytes_that_come_during_the_ecdh_wait_and_no_more_are_read() {
    let mut connection = reading();
    let act = act(&ephemeral().serialize());
    connection.incoming(act.clone());
    assert_eq!(connection.take_reads(), 1);
    assert_eq!(connection.incoming(vec![1, 2]), Incoming::Wait);
    assert_eq!(connection.take_reads(), 0, "a stranger may go on sending");

    assert_eq!(connection.handshake_ready(), [&act[..], &[1, 2]].concat());
    assert_eq!(connection.take_reads(), 1);
    assert_eq!(connection.incoming(vec![3]), Incoming::Read(vec![3]));
}

#[test]
fn an_act_without_a_public_key_goes_to_ldk_which_refuses_it() {
    let mut connection = reading();
    let act = act(&[0; 33]);
    assert_eq!(connection.incoming(act.clone()), Incoming::Read(act));
}

#[test]
fn the_ecdh_is_not_ready_before_an_act_has_come() {
    let mut connection = reading();
    assert!(connection.handshake_ready().is_empty());
    let act = act(&ephemeral().serialize());
    assert_eq!(connection.incoming(act), Incoming::Fetch(peer_act()));
}

#[test]
fn no_more_is_read_while_ldk_asks_for_a_pause() {
    let mut connection = reading();
    connection.handshake = Handshake::Over;
    connection.incoming(vec![1]);
    connection.socket.send_data(&[], false);
    assert_eq!(connection.take_reads(), 0);
    connection.socket.send_data(&[], true);
    assert_eq!(connection.take_reads(), 1);
}

#[test]
fn the_phone_is_asked_for_the_ecdh_of_a_peers_act() {
    let mut world = World::new();
    let owner = world.add_owner(2, None);
    let turn = world.turn(owner);
    let mut connections = Connections::default();
    connections.accept(turn, new_connection(1));
    let remote = turn.remote().unwrap();
    remote.forget();
    assert!(!remote.has_batch());
    connections.bytes(turn, 1, act(&ephemeral().serialize()));
    assert!(remote.has_batch());
    assert_eq!(connections.waiting(), [(1, peer_act())]);
}

#[test]
fn a_local_nodes_handshake_waits_for_no_phone_and_a_bad_act_closes_the_connection() {
    let mut world = World::new();
    let hub = world.add_hub(1);
    let turn = world.turn(hub);
    let mut connections = Connections::default();
    connections.accept(turn, new_connection(1));
    connections.bytes(turn, 1, act(&[0; 33]));
    assert!(!connections.contains(1));
    assert!(connections.take_lost());
    let outputs = connections.take_output(turn);
    let closed: Vec<_> = outputs.iter().map(|it| (it.id, it.is_closed)).collect();
    assert_eq!(closed, [(1, true)]);
}

#[test]
fn a_dialled_peer_gets_act_one_with_the_commit() {
    let mut world = World::new();
    let hub = world.add_hub(1);
    let turn = world.turn(hub);
    let mut connections = Connections::default();
    connections.dialed(turn, ephemeral(), new_connection(1));
    assert!(connections.have_output());
    let outputs = connections.take_output(turn);
    let [output] = &outputs[..] else {
        panic!("one connection");
    };
    assert_eq!(output.messages.concat().len(), ACT_BYTES);
    assert!(!output.is_closed && !connections.have_output());
}

#[test]
fn a_refused_connection_is_closed_though_ldk_never_had_it() {
    let mut world = World::new();
    let hub = world.add_hub(1);
    let mut connections = Connections::default();
    connections.refuse(4);
    assert!(connections.have_output());
    assert!(!connections.take_lost(), "it was never there");
    let outputs = connections.take_output(world.turn(hub));
    assert!(outputs.len() == 1 && outputs[0].id == 4 && outputs[0].is_closed);
    assert!(!connections.have_output());
}

#[test]
fn bytes_of_a_connection_that_has_ended_are_dropped() {
    let mut world = World::new();
    let hub = world.add_hub(1);
    let turn = world.turn(hub);
    let mut connections = Connections::default();
    connections.accept(turn, new_connection(1));
    connections.closed(turn, 1);
    assert!(connections.is_empty() && connections.take_lost());
    connections.bytes(turn, 1, vec![1; ACT_BYTES]);
    assert!(!connections.have_output());
}
