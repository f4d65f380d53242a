//! Payments that a hub holds for a peer that is away.
//!
//! LDK intercepts them (`HTLCIntercepted`) instead of failing them. They are forwarded when the peer is back, and failed
//! back when the host gives up; LDK itself fails them before their expiry.

use bitcoin::secp256k1::PublicKey;
use lightning::chain::channelmonitor::HTLC_FAIL_BACK_BUFFER;
use lightning::events::Event;
use prost::Message;

use crate::api::{NodeEvent, PeerNeeded};
use crate::machine::turn::Turn;
use crate::store::journal::Journal;
use crate::store::schema::{Held, key};

/// Blocks before the expiry of the outgoing HTLC at which LDK fails an intercepted one: its receiver has to be connected
/// before.
const MARGIN_BLOCKS: u32 = HTLC_FAIL_BACK_BUFFER;

/// See the module.
#[derive(Default)]
pub(crate) struct HeldForwards {
    held: Vec<Held>,
}

impl HeldForwards {
    /// Reads the records back. One that cannot be read is left to LDK, which fails the HTLC before its expiry.
    pub fn load(journal: &Journal) -> HeldForwards {
        let stored = journal.loaded(key::HELD).into_iter();
        let held = stored.filter_map(|(_, bytes)| Held::decode(&bytes[..]).ok());
        HeldForwards {
            held: held.collect(),
        }
    }

    /// LDK's `HTLCIntercepted`: holds the payment for the peer of its channel, and reports that the peer is needed; fails it
    /// when there is no such channel.
    pub fn hold(&mut self, turn: &mut Turn, event: Event) {
        let Event::HTLCIntercepted {
            intercept_id,
            requested_next_hop_scid,
            expected_outbound_amount_msat,
            outgoing_htlc_expiry_block_height,
            ..
        } = event
        else {
            return;
        };
        let channels = turn.channels();
        let channel = channels.iter().find(|channel| {
            let scid = Some(requested_next_hop_scid);
            channel.short_channel_id == scid || channel.outbound_scid_alias == scid
        });
        let Some(channel) = channel else {
            let _ = turn.ldk.manager.fail_intercepted_htlc(intercept_id);
            return;
        };
        let node_id = channel.counterparty.node_id;
        let expiry = outgoing_htlc_expiry_block_height.unwrap_or(turn.height);
        let deadline_height = expiry.saturating_sub(MARGIN_BLOCKS);
        let held = Held {
            intercept_id: intercept_id.0.to_vec(),
            channel_id: channel.channel_id.0.to_vec(),
            node_id: node_id.serialize().to_vec(),
            amount_msat: expected_outbound_amount_msat,
            deadline_height,
        };
        turn.journal.put(held.key(), held.encode_to_vec());
        self.held.push(held);
        turn.output.payments_held.push(PeerNeeded {
            node_id,
            deadline_height,
        });
    }

    /// Forwards those whose peer is back, and reports the peers for which none is held any more. True when there were any.
    pub fn forward_ready(&mut self, turn: &mut Turn) -> bool {
        if self.held.is_empty() {
            return false;
        }
        let held = std::mem::take(&mut self.held).into_iter();
        let (ready, waiting): (Vec<_>, Vec<_>) = held.partition(|held| is_peer_back(turn, held));
        self.held = waiting;
        for held in &ready {
            turn.journal.delete(held.key());
            forward(turn, held);
        }
        let mut peers: Vec<PublicKey> = ready.iter().filter_map(Held::peer).collect();
        peers.sort_unstable();
        peers.dedup();
        peers.retain(|peer| !self.holds_for(peer));
        if !peers.is_empty() {
            turn.output.events.push(NodeEvent::HeldForwarded(peers));
        }
        !ready.is_empty()
    }

    fn holds_for(&self, peer: &PublicKey) -> bool {
        let mut held = self.held.iter();
        held.any(|held| held.peer().as_ref() == Some(peer))
    }

    /// Reports all that are still held, with each block: after a restart nobody else remembers them. Fails those whose
    /// deadline has passed.
    pub fn report(&mut self, turn: &mut Turn) {
        let height = turn.height;
        let held = self.held.iter();
        let late = held.filter(|held| held.deadline_height <= height);
        let late: Vec<PublicKey> = late.filter_map(Held::peer).collect();
        for node_id in late {
            self.fail(turn, &node_id);
        }
        let held = self.held.iter().filter_map(|held| {
            Some(PeerNeeded {
                node_id: held.peer()?,
                deadline_height: held.deadline_height,
            })
        });
        turn.output.payments_held.extend(held);
    }

    /// Fails back all that are held for `node_id`, and reports it if there were any.
    pub fn fail(&mut self, turn: &mut Turn, node_id: &PublicKey) {
        let held = std::mem::take(&mut self.held).into_iter();
        let (failed, kept): (Vec<_>, Vec<_>) =
            held.partition(|held| held.peer().as_ref() == Some(node_id));
        self.held = kept;
        if !failed.is_empty() {
            turn.output.events.push(NodeEvent::HeldFailed(*node_id));
        }
        for held in failed {
            turn.journal.delete(held.key());
            if let Some(id) = held.intercept() {
                let _ = turn.ldk.manager.fail_intercepted_htlc(id);
            }
        }
    }
}

/// True when the payment can be sent to the peer.
fn is_peer_back(turn: &Turn, held: &Held) -> bool {
    let Some(peer) = held.peer() else {
        return false;
    };
    let channels = turn.ldk.manager.list_channels_with_counterparty(&peer);
    channels
        .iter()
        .any(|channel| Some(channel.channel_id) == held.channel() && channel.is_usable)
}

fn forward(turn: &Turn, held: &Held) {
    let (Some(id), Some(channel), Some(peer)) = (held.intercept(), held.channel(), held.peer())
    else {
        return;
    };
    let manager = &turn.ldk.manager;
    if let Err(error) = manager.forward_intercepted_htlc(id, &channel, peer, held.amount_msat) {
        tracing::info!("a held payment could not be forwarded: {error:?}");
        let _ = manager.fail_intercepted_htlc(id);
    }
}

#[cfg(test)]
#[path = "tests/held_forwards.rs"]
mod tests;
