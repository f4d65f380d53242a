//! The gossip of the node (BOLT 7).

use lightning::ln::msgs::{
    UnsignedChannelAnnouncement, UnsignedChannelUpdate, UnsignedNodeAnnouncement,
};
use lightning::routing::gossip::NodeId;
use lightning::util::ser::{LengthReadable, Writeable};
use longhand_proto::signer as proto;

use crate::engine::Signer;
use crate::rules::Refused;

/// A gossip message of this node, without its signatures.
pub(crate) enum Gossip {
    ChannelUpdate(UnsignedChannelUpdate),
    NodeAnnouncement(UnsignedNodeAnnouncement),
    ChannelAnnouncement(UnsignedChannelAnnouncement),
}

impl Signer {
    pub(super) fn read_gossip(&self, op: &proto::SignGossip) -> Result<Gossip, Refused> {
        use proto::sign_gossip::Message;
        let ours = NodeId::from_pubkey(&self.keys.node_id());
        let of_node = |is_ours: bool, gossip: Gossip| match is_ours {
            true => Ok(gossip),
            false => Err(Refused::malformed("the gossip message is not of this node")),
        };
        let message = op
            .message
            .as_ref()
            .ok_or_else(|| Refused::malformed("there is no gossip message"))?;
        match message {
            Message::ChannelUpdate(bytes) => Ok(Gossip::ChannelUpdate(gossip(bytes)?)),
            Message::NodeAnnouncement(bytes) => {
                let message: UnsignedNodeAnnouncement = gossip(bytes)?;
                of_node(message.node_id == ours, Gossip::NodeAnnouncement(message))
            }
            Message::ChannelAnnouncement(bytes) => {
                let message: UnsignedChannelAnnouncement = gossip(bytes)?;
                let is_ours = message.node_id_1 == ours || message.node_id_2 == ours;
                of_node(is_ours, Gossip::ChannelAnnouncement(message))
            }
        }
    }
}

/// Parses a gossip message whose encoding is exactly `bytes`, so that nothing is signed that was not parsed.
pub(super) fn gossip<T: LengthReadable + Writeable>(bytes: &[u8]) -> Result<T, Refused> {
    let message = T::read_from_fixed_length_buffer(&mut &bytes[..]);
    let message = message.map_err(|_| Refused::malformed("the gossip message cannot be read"))?;
    if message.encode() == bytes {
        Ok(message)
    } else {
        Err(Refused::malformed("the gossip message is not canonical"))
    }
}
