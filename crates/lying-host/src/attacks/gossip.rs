//! Gossip of another network, and what the owner did not want to be public (BOLT 7).

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use lightning::ln::msgs::{UnsignedChannelUpdate, UnsignedNodeAnnouncement};
use lightning::types::features::NodeFeatures;
use lightning::util::ser::Writeable;
use longhand_proto::signer::SignChannelAnnouncement;
use longhand_proto::signer::sign_gossip::Message;
use longhand_proto::signer::signer_op::Op;
use longhand_signer::Rule;

use super::commitment::thiefs_key;
use crate::gossip::{
    channel_announcement, channel_update, node_announcement, own_chain, sign_gossip,
};
use crate::scene::*;
use crate::{Case, Cases};

pub(super) fn cases() -> Vec<Case> {
    let mut all = networks();
    all.extend(unasked());
    all
}

fn networks() -> Vec<Case> {
    let mut cases = Cases::of(Rule::GossipNetwork);
    let of = |chain_hash| {
        let update = UnsignedChannelUpdate {
            chain_hash,
            ..channel_update()
        };
        sign_gossip(Message::ChannelUpdate(update.encode()))
    };
    cases.honest("a channel_update of the network", move |_| of(own_chain()));
    for network in [Network::Bitcoin, Network::Testnet, Network::Signet] {
        let other = ChainHash::using_genesis_block(network);
        cases.attack(format!("a channel_update of {network}"), move |_| of(other));
    }
    let statement = ChainHash::from(*b"Lightning Signed Message:I owe 1");
    cases.attack("a channel_update that reads as a statement", move |_| {
        of(statement)
    });
    for bytes in [256, 1_000, 19_561] {
        cases.attack(
            format!("a node_announcement with {bytes} bytes of features"),
            move |phone| {
                Channel::open(phone);
                let message = UnsignedNodeAnnouncement {
                    features: NodeFeatures::from_be_bytes(vec![1; bytes]),
                    ..node_announcement(&phone.signer.keys().node_id())
                };
                sign_gossip(Message::NodeAnnouncement(message.encode()))
            },
        );
    }
    cases.all
}

/// A channel that the owner opens.
fn opened(phone: &mut Phone, announced: bool) -> Channel {
    let mut channel = Channel::new(phone);
    channel.fund();
    phone.intend_opening_as(&channel, announced);
    phone.ask(channel.setup()).expect("an honest step");
    channel
}

/// The announcement of a channel, by the key of its funding.
fn by_funding(phone: &Phone, channel: &Channel) -> Op {
    let funding = channel.parameters.holder_pubkeys.funding_pubkey;
    let message = channel_announcement(&phone.signer.keys().node_id(), &funding);
    Op::SignChannelAnnouncement(SignChannelAnnouncement {
        message: message.encode(),
    })
}

/// The same by the node's key.
fn by_node(phone: &Phone, funding: &bitcoin::secp256k1::PublicKey) -> Op {
    let message = channel_announcement(&phone.signer.keys().node_id(), funding);
    sign_gossip(Message::ChannelAnnouncement(message.encode()))
}

fn announced_node(phone: &Phone) -> Op {
    let message = node_announcement(&phone.signer.keys().node_id());
    sign_gossip(Message::NodeAnnouncement(message.encode()))
}

fn unasked() -> Vec<Case> {
    let mut cases = Cases::of(Rule::GossipUnasked);
    type Announce = fn(&Phone, &Channel) -> Op;
    let all: [(&str, Announce); 2] = [
        ("the channel, by the key of its funding", by_funding),
        ("the channel, by the node's key", |phone, channel| {
            by_node(phone, &channel.parameters.holder_pubkeys.funding_pubkey)
        }),
    ];
    for (what, announce) in all {
        cases.honest(
            format!("{what}, which the owner wanted to be announced"),
            move |phone| {
                let channel = opened(phone, true);
                announce(phone, &channel)
            },
        );
        cases.honest(
            format!("{what}, as the peer who opened the channel wants it"),
            move |phone| {
                let channel = Channel::open(phone);
                announce(phone, &channel)
            },
        );
        cases.attack(
            format!("{what}, which the owner wanted to stay unannounced"),
            move |phone| {
                let channel = opened(phone, false);
                announce(phone, &channel)
            },
        );
    }
    cases.attack("a node without any channel", |phone| announced_node(phone));
    cases.attack("a node with an announced channel", |phone| {
        opened(phone, true);
        announced_node(phone)
    });
    cases.attack("a channel that is none of the owner's", |phone| {
        Channel::open(phone);
        by_node(phone, &thiefs_key())
    });
    cases.all
}
