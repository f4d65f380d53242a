//! Gossip messages (BOLT 7) for a phone to sign.

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use lightning::ln::msgs::{
    UnsignedChannelAnnouncement, UnsignedChannelUpdate, UnsignedNodeAnnouncement,
};
use lightning::routing::gossip::{NodeAlias, NodeId};
use lightning::types::features::{ChannelFeatures, NodeFeatures};
use longhand_proto::signer::SignGossip;
use longhand_proto::signer::sign_gossip::Message;
use longhand_proto::signer::signer_op::Op;

/// The operation that signs it with the node's key.
pub fn sign_gossip(message: Message) -> Op {
    Op::SignGossip(SignGossip {
        message: Some(message),
    })
}

/// The chain of the scene.
pub fn own_chain() -> ChainHash {
    ChainHash::using_genesis_block(Network::Regtest)
}

/// Of a node with this id and this funding key, with a peer that has one key for all.
pub fn channel_announcement(
    node_id: &PublicKey,
    funding: &PublicKey,
) -> UnsignedChannelAnnouncement {
    let peer = SecretKey::from_slice(&[9; 32]).expect("a key");
    let peer = NodeId::from_pubkey(&peer.public_key(&Secp256k1::new()));
    UnsignedChannelAnnouncement {
        features: ChannelFeatures::empty(),
        chain_hash: own_chain(),
        short_channel_id: 42,
        node_id_1: peer,
        node_id_2: NodeId::from_pubkey(node_id),
        bitcoin_key_1: peer,
        bitcoin_key_2: NodeId::from_pubkey(funding),
        excess_data: vec![],
    }
}

/// Of any channel.
pub fn channel_update() -> UnsignedChannelUpdate {
    UnsignedChannelUpdate {
        chain_hash: own_chain(),
        short_channel_id: 42,
        timestamp: 1,
        message_flags: 1,
        channel_flags: 0,
        cltv_expiry_delta: 40,
        htlc_minimum_msat: 1,
        htlc_maximum_msat: 2,
        fee_base_msat: 3,
        fee_proportional_millionths: 4,
        excess_data: vec![],
    }
}

/// Of a node with this id.
pub fn node_announcement(node_id: &PublicKey) -> UnsignedNodeAnnouncement {
    UnsignedNodeAnnouncement {
        features: NodeFeatures::empty(),
        timestamp: 1,
        node_id: NodeId::from_pubkey(node_id),
        rgb: [0; 3],
        alias: NodeAlias([0; 32]),
        addresses: vec![],
        excess_address_data: vec![],
        excess_data: vec![],
    }
}
