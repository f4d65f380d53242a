//! Handshakes as a host asks a phone for their secrets (BOLT 8).

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use longhand_bolt8::ActOne;
use longhand_proto::signer::Ecdh;
use longhand_proto::signer::signer_op::Op;

/// A peer dials this node, with the ephemeral key of this number.
pub fn act_one(node_id: &PublicKey, number: u64) -> Op {
    handshake(ActOne::new(node_id, &secret(number)).as_bytes(), None)
}

/// The node dials this peer, which answers with this ephemeral key.
pub fn dialed(peer: &PublicKey, ephemeral: &PublicKey) -> Op {
    handshake(&act_two(ephemeral), Some(peer))
}

/// Act Two with this ephemeral key. Nobody can verify its tag but the node that dials.
pub fn act_two(ephemeral: &PublicKey) -> Vec<u8> {
    [&[0][..], &ephemeral.serialize(), &[7; 16]].concat()
}

/// The operation for an act; of the peer that the node dials, with its node id.
pub fn handshake(act: &[u8], dialed: Option<&PublicKey>) -> Op {
    Op::Ecdh(Ecdh {
        act: act.to_vec(),
        dialed_node_id: dialed.map_or_else(Vec::new, |peer| peer.serialize().to_vec()),
    })
}

/// An ephemeral key.
pub fn secret(number: u64) -> SecretKey {
    let mut bytes = [1; 32];
    bytes[24..].copy_from_slice(&number.to_be_bytes());
    SecretKey::from_slice(&bytes).expect("a number below the order")
}

/// The point of that key.
pub fn point(number: u64) -> PublicKey {
    secret(number).public_key(&Secp256k1::new())
}
