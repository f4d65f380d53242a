//! Answers `query_short_channel_ids` for the hub (BOLT 7).
//!
//! LDK answers `query_channel_range` and leaves the `query_short_channel_ids` that follows it without an answer. An lnd that
//! sent it waits for the answer for ever, and accepts no gossip from this peer in that time. LDK has no event that carries
//! the answer, so it is sent as LDK's custom messages, with the types of BOLT 7.
//!
//! A peer cannot make the waiting answers grow without bound: one query names at most 8,000 channels, and LDK stops reading
//! from a peer whose send buffer is full.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use bitcoin::secp256k1::PublicKey;
use lightning::io;
use lightning::ln::msgs::{
    BaseMessageHandler, ChannelAnnouncement, ChannelUpdate, DecodeError, Init, LightningError,
    MessageSendEvent, NodeAnnouncement, QueryChannelRange, QueryShortChannelIds, ReplyChannelRange,
    ReplyShortChannelIdsEnd, RoutingMessageHandler,
};
use lightning::ln::peer_handler::CustomMessageHandler;
use lightning::ln::wire::{CustomMessageReader, Type};
use lightning::routing::gossip::{NodeAnnouncementInfo, NodeId};
use lightning::types::features::{InitFeatures, NodeFeatures};
use lightning::util::ser::{LengthLimitedRead, Writeable, Writer};

use super::GossipSync;
use crate::store::journal::lock;

/// Message types of BOLT 7.
const CHANNEL_ANNOUNCEMENT: u16 = 256;
const NODE_ANNOUNCEMENT: u16 = 257;
const CHANNEL_UPDATE: u16 = 258;
const REPLY_SHORT_CHANNEL_IDS_END: u16 = 262;

/// A BOLT 7 message, encoded, for LDK to send as a custom message.
#[derive(Debug)]
pub(crate) struct Answer {
    type_id: u16,
    message: Vec<u8>,
}

impl Writeable for Answer {
    fn write<W: Writer>(&self, writer: &mut W) -> Result<(), io::Error> {
        writer.write_all(&self.message)
    }
}

impl Type for Answer {
    fn type_id(&self) -> u16 {
        self.type_id
    }
}

/// Answers that LDK has not fetched yet. Always empty in an owner's node.
#[derive(Default)]
pub(crate) struct Answers {
    waiting: Mutex<Vec<(PublicKey, Answer)>>,
}

impl CustomMessageReader for Answers {
    type CustomMessage = Answer;

    fn read<R: LengthLimitedRead>(&self, _: u16, _: &mut R) -> Result<Option<Answer>, DecodeError> {
        Ok(None)
    }
}

impl CustomMessageHandler for Answers {
    fn handle_custom_message(&self, _: Answer, _: PublicKey) -> Result<(), LightningError> {
        Ok(())
    }

    fn get_and_clear_pending_msg(&self) -> Vec<(PublicKey, Answer)> {
        std::mem::take(&mut *lock(&self.waiting))
    }

    fn peer_disconnected(&self, their_node_id: PublicKey) {
        lock(&self.waiting).retain(|(node_id, _)| *node_id != their_node_id);
    }

    fn peer_connected(&self, _: PublicKey, _: &Init, _: bool) -> Result<(), ()> {
        Ok(())
    }

    fn provided_node_features(&self) -> NodeFeatures {
        NodeFeatures::empty()
    }

    fn provided_init_features(&self, _: PublicKey) -> InitFeatures {
        InitFeatures::empty()
    }
}

/// LDK's gossip handler, with answers to `query_short_channel_ids`.
pub(crate) struct Queries {
    sync: Arc<GossipSync>,
    answers: Arc<Answers>,
}

impl Queries {
    pub fn new(sync: Arc<GossipSync>, answers: Arc<Answers>) -> Queries {
        Queries { sync, answers }
    }

    /// The announcement and the updates of each known channel in `query`, the announcements of their nodes, and the end.
    fn answer(&self, query: &QueryShortChannelIds) -> Vec<Answer> {
        let mut answers = Vec::new();
        let mut add = |type_id, message: &dyn Fn() -> Vec<u8>| {
            answers.push(Answer {
                type_id,
                message: message(),
            });
        };
        let is_known_chain = query.chain_hash == self.sync.network_graph().get_chain_hash();
        let asked: &[u64] = if is_known_chain {
            &query.short_channel_ids
        } else {
            &[]
        };
        let mut nodes = HashSet::new();
        for scid in asked {
            let found = self.sync.get_next_channel_announcement(*scid);
            let Some((channel, one, two)) =
                found.filter(|(channel, ..)| channel.contents.short_channel_id == *scid)
            else {
                continue;
            };
            nodes.extend([channel.contents.node_id_1, channel.contents.node_id_2]);
            add(CHANNEL_ANNOUNCEMENT, &|| channel.encode());
            for update in [one, two].into_iter().flatten() {
                add(CHANNEL_UPDATE, &|| update.encode());
            }
        }
        let graph = self.sync.network_graph().read_only();
        for node in nodes.iter().filter_map(|node_id| graph.node(node_id)) {
            if let Some(NodeAnnouncementInfo::Relayed(announcement)) = &node.announcement_info {
                add(NODE_ANNOUNCEMENT, &|| announcement.encode());
            }
        }
        let end = ReplyShortChannelIdsEnd {
            chain_hash: query.chain_hash,
            full_information: is_known_chain,
        };
        add(REPLY_SHORT_CHANNEL_IDS_END, &|| end.encode());
        answers
    }
}

impl BaseMessageHandler for Queries {
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        self.sync.get_and_clear_pending_msg_events()
    }

    fn peer_disconnected(&self, their_node_id: PublicKey) {
        self.sync.peer_disconnected(their_node_id);
    }

    fn provided_node_features(&self) -> NodeFeatures {
        self.sync.provided_node_features()
    }

    fn provided_init_features(&self, their_node_id: PublicKey) -> InitFeatures {
        self.sync.provided_init_features(their_node_id)
    }

    fn peer_connected(&self, node_id: PublicKey, init: &Init, inbound: bool) -> Result<(), ()> {
        self.sync.peer_connected(node_id, init, inbound)
    }
}

impl RoutingMessageHandler for Queries {
    fn handle_query_short_channel_ids(
        &self,
        their_node_id: PublicKey,
        query: QueryShortChannelIds,
    ) -> Result<(), LightningError> {
        let answers = self
            .answer(&query)
            .into_iter()
            .map(|answer| (their_node_id, answer));
        lock(&self.answers.waiting).extend(answers);
        Ok(())
    }

    fn handle_node_announcement(
        &self,
        their_node_id: Option<PublicKey>,
        msg: &NodeAnnouncement,
    ) -> Result<bool, LightningError> {
        self.sync.handle_node_announcement(their_node_id, msg)
    }

    fn handle_channel_announcement(
        &self,
        their_node_id: Option<PublicKey>,
        msg: &ChannelAnnouncement,
    ) -> Result<bool, LightningError> {
        self.sync.handle_channel_announcement(their_node_id, msg)
    }

    fn handle_channel_update(
        &self,
        their_node_id: Option<PublicKey>,
        msg: &ChannelUpdate,
    ) -> Result<Option<(NodeId, NodeId)>, LightningError> {
        self.sync.handle_channel_update(their_node_id, msg)
    }

    fn get_next_channel_announcement(
        &self,
        starting_point: u64,
    ) -> Option<(
        ChannelAnnouncement,
        Option<ChannelUpdate>,
        Option<ChannelUpdate>,
    )> {
        self.sync.get_next_channel_announcement(starting_point)
    }

    fn get_next_node_announcement(
        &self,
        starting_point: Option<&NodeId>,
    ) -> Option<NodeAnnouncement> {
        self.sync.get_next_node_announcement(starting_point)
    }

    fn handle_reply_channel_range(
        &self,
        their_node_id: PublicKey,
        msg: ReplyChannelRange,
    ) -> Result<(), LightningError> {
        self.sync.handle_reply_channel_range(their_node_id, msg)
    }

    fn handle_reply_short_channel_ids_end(
        &self,
        their_node_id: PublicKey,
        msg: ReplyShortChannelIdsEnd,
    ) -> Result<(), LightningError> {
        self.sync
            .handle_reply_short_channel_ids_end(their_node_id, msg)
    }

    fn handle_query_channel_range(
        &self,
        their_node_id: PublicKey,
        msg: QueryChannelRange,
    ) -> Result<(), LightningError> {
        self.sync.handle_query_channel_range(their_node_id, msg)
    }

    fn processing_queue_high(&self) -> bool {
        self.sync.processing_queue_high()
    }
}
