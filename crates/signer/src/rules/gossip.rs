//! Gossip of the node (BOLT 7).

use bitcoin::constants::ChainHash;
use lightning::routing::gossip::NodeId;
use lightning::util::ser::Writeable;

use super::{Refused, Rule, refuse_unless};
use crate::ledger::Channel;
use crate::proposal::{Announcement, Gossip};
use crate::view::View;

/// Many times the features that are assigned (BOLT 9). A message of Lightning's `signmessage` begins with `Li`, which would be the length
/// of the features here.
const MOST_FEATURE_BYTES: usize = 255;

/// Gossip is signed as it is read, and so are messages by which a node proves to people who it is: they must not be mistaken for each
/// other. The chain hash, which is the phone's, stands where such a message has text.
pub(super) fn is_of_the_network(view: &View<'_>, it: &Gossip) -> Result<(), Refused> {
    match it {
        Gossip::ChannelUpdate(it) => has_our_chain(view, it.chain_hash),
        Gossip::ChannelAnnouncement(it) => {
            has_few_features(&it.features)?;
            has_our_chain(view, it.chain_hash)
        }
        Gossip::NodeAnnouncement(it) => has_few_features(&it.features),
    }
}

/// The same for the key of a channel's funding.
pub(super) fn announces_on_the_network(
    view: &View<'_>,
    it: &Announcement<'_>,
) -> Result<(), Refused> {
    has_few_features(&it.message.features)?;
    has_our_chain(view, it.message.chain_hash)
}

/// Nothing is made public that the owner did not want to be. An update says nothing of the owner beyond the announcement of the channel
/// that it is for.
pub(super) fn is_asked_for(view: &View<'_>, it: &Gossip) -> Result<(), Refused> {
    let mut channels = view.state.channels.values();
    match it {
        Gossip::ChannelUpdate(_) => Ok(()),
        Gossip::ChannelAnnouncement(it) => {
            let keys = [it.bitcoin_key_1, it.bitcoin_key_2];
            let channel = channels.find(|channel| {
                let ours = &channel.parameters.holder_pubkeys.funding_pubkey;
                keys.contains(&NodeId::from_pubkey(ours))
            });
            let channel = channel.ok_or_else(|| {
                unasked("the channel that would be announced is none of the owner's")
            })?;
            announces_what_the_owner_would(channel)
        }
        Gossip::NodeAnnouncement(_) => Err(unasked(
            "the node would be announced, which no command of the owner's asks for",
        )),
    }
}

/// Whether a channel is announced is said by who opens it (BOLT 2, `announce_channel`).
pub(super) fn announces_what_the_owner_would(channel: &Channel) -> Result<(), Refused> {
    match channel.is_unannounced {
        true => Err(unasked(
            "the owner opened the channel, and did not ask for its announcement",
        )),
        false => Ok(()),
    }
}

fn unasked(why: &str) -> Refused {
    Refused::new(Rule::GossipUnasked, why)
}

fn has_our_chain(view: &View<'_>, chain_hash: ChainHash) -> Result<(), Refused> {
    refuse_unless(
        chain_hash == ChainHash::using_genesis_block(view.own.network()),
        Rule::GossipNetwork,
        "the gossip message is of another network",
    )
}

/// `features` with its length of two bytes.
fn has_few_features(features: &impl Writeable) -> Result<(), Refused> {
    refuse_unless(
        features.encode().len() <= 2 + MOST_FEATURE_BYTES,
        Rule::GossipNetwork,
        "the gossip message has more features than there are",
    )
}
