//! The message gate: between LDK's peers and its channel manager.
//!
//! A peer's messages for a channel that is closed cooperatively stop here (see `parts/coop_closes.rs`): LDK answers
//! messages for a channel that it has forgotten with an error, on which the peer closes by force.
//!
//! For a node whose keys are on a phone the gate does three things to the messages that pass:
//! - an incoming `update_add_htlc` has its onion sent to the phone at once, long before LDK reads it;
//! - an outgoing `channel_update` carries LDK's placeholder signature and is held until the phone has given the real one;
//! - `update_fulfill_htlc` is sent as soon as the preimage is claimed and durable, ahead of the `commitment_signed` with
//!   which LDK would send it. The payer then knows a round trip sooner.
//!
//! BOLT 2 allows a fulfil without a `commitment_signed`. It is sent only while the phone is being asked to sign a
//! commitment that leaves the HTLC out, and the channel has no other HTLC of the payment, so that the next
//! `commitment_signed` is certain to be that one. A disconnect makes both sides forget it, as BOLT 2 wants of uncommitted
//! updates.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::ecdsa::Signature;
use lightning::ln::channel_state::{ChannelDetails, InboundHTLCDetails, InboundHTLCStateDetails};
use lightning::ln::msgs::{self, BaseMessageHandler, ChannelMessageHandler, MessageSendEvent};
use lightning::ln::types::ChannelId;
use lightning::types::features::{InitFeatures, NodeFeatures};
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use lightning::util::ser::Writeable;
use longhand_proto::signer::SignGossip;
use longhand_proto::signer::sign_gossip::Message as Gossip;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;

use crate::keys::remote::Remote;
use crate::keys::verify;
use crate::keys::{IncomingOnion, OpenHtlcs};
use crate::ldk::types::ChannelManager;
use crate::store::journal::{Journal, lock};
use crate::store::schema::key;

/// Of a channel and side (BOLT 2, `max_accepted_htlcs`).
const MAX_HTLCS: usize = 483;
/// LDK fails HTLCs that expire later than in two weeks.
const FAR_AWAY_BLOCKS: u32 = 14 * 144;

/// See the module.
pub(crate) struct Gate {
    manager: Arc<ChannelManager>,
    /// `None` with local keys: everything passes.
    remote: Option<Arc<Remote>>,
    journal: Arc<Journal>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Messages that wait for a signature, oldest first.
    held: Vec<MessageSendEvent>,
    /// The last `channel_update` signed for each channel: an idle channel that reconnects asks for none.
    signed_updates: HashMap<u64, (Vec<u8>, Signature)>,
    /// Claimed, and not yet sent to the peer.
    claimed: Vec<Claimed>,
    /// Fulfils that were sent ahead of LDK's, with the peer.
    ahead: HashMap<(ChannelId, u64), PublicKey>,
    /// Dust limits of peers that have accepted a channel which is not funded.
    dust_limits_sat: HashMap<(PublicKey, ChannelId), u64>,
    /// Channels whose cooperative close is not yet deep in the chain.
    coop_closes: HashSet<(PublicKey, ChannelId)>,
    /// Nodes of the same host that have dialled this one. No more than the host has.
    hosted: HashSet<PublicKey>,
}

struct Claimed {
    channel_id: ChannelId,
    keys_id: [u8; 32],
    payment_hash: PaymentHash,
    preimage: PaymentPreimage,
}

impl Gate {
    pub fn new(
        manager: Arc<ChannelManager>,
        remote: Option<Arc<Remote>>,
        journal: Arc<Journal>,
    ) -> Gate {
        let mut state = State::default();
        for (scid, bytes) in journal.loaded(key::GOSSIP) {
            if let (Ok(scid), Some((message, signature))) = (scid.parse(), split_signed(&bytes)) {
                state.signed_updates.insert(scid, (message, signature));
            }
        }
        Gate {
            manager,
            remote,
            journal,
            state: Mutex::new(state),
        }
    }

    /// The node with this id is of the same host: LDK's limits on incoming peers without channels do not count for it.
    pub fn add_hosted(&self, node_id: PublicKey) {
        lock(&self.state).hosted.insert(node_id);
    }

    /// Whether the node is of the same host.
    pub fn is_hosted(&self, node_id: &PublicKey) -> bool {
        lock(&self.state).hosted.contains(node_id)
    }

    /// LDK has the preimage of a payment: its fulfils may be sent ahead.
    pub fn claimed(
        &self,
        preimage: PaymentPreimage,
        payment_hash: PaymentHash,
        channels: impl IntoIterator<Item = (ChannelId, [u8; 32])>,
    ) {
        let mut state = lock(&self.state);
        state
            .claimed
            .extend(channels.into_iter().map(|(channel_id, keys_id)| Claimed {
                channel_id,
                keys_id,
                payment_hash,
                preimage,
            }));
    }

    /// Forgets the fulfils of a closed channel.
    pub fn forget_channel(&self, channel_id: &ChannelId) {
        let mut state = lock(&self.state);
        state.ahead.retain(|(id, _), _| id != channel_id);
        state
            .claimed
            .retain(|claimed| claimed.channel_id != *channel_id);
    }

    /// From now on the peer's messages for this channel stop here: it is closed cooperatively.
    pub fn begin_coop_close(&self, node_id: PublicKey, channel_id: ChannelId) {
        lock(&self.state).coop_closes.insert((node_id, channel_id));
    }

    /// Lets messages for the channel pass again: its close is deep in the chain, or another transaction has closed it.
    pub fn end_coop_close(&self, node_id: &PublicKey, channel_id: &ChannelId) {
        lock(&self.state)
            .coop_closes
            .remove(&(*node_id, *channel_id));
    }

    fn is_closing(&self, node_id: PublicKey, channel_id: ChannelId) -> bool {
        lock(&self.state)
            .coop_closes
            .contains(&(node_id, channel_id))
    }

    /// All messages that may be sent now.
    fn pass(&self, remote: &Remote, fresh: Vec<MessageSendEvent>) -> Vec<MessageSendEvent> {
        let mut state = lock(&self.state);
        let mut out = Vec::new();
        let held = std::mem::take(&mut state.held);
        for mut event in held.into_iter().chain(fresh) {
            if self.sign_update(&mut state, remote, &mut event) {
                out.push(state.without_fulfils_sent_ahead(event));
            } else {
                state.held.push(event);
            }
        }
        out.extend(self.fulfils_to_send_ahead(&mut state, remote));
        out
    }

    fn fulfils_to_send_ahead(&self, state: &mut State, remote: &Remote) -> Vec<MessageSendEvent> {
        let mut out = Vec::new();
        for claimed in std::mem::take(&mut state.claimed) {
            if !remote.is_signing_without(&claimed.keys_id, &claimed.payment_hash) {
                continue;
            }
            let channels = self.manager.list_channels();
            let Some(channel) = channels
                .iter()
                .find(|channel| channel.channel_id == claimed.channel_id)
            else {
                continue;
            };
            if let Some(htlc_id) =
                the_only_htlc(&channel.pending_inbound_htlcs, &claimed.payment_hash)
            {
                let node_id = channel.counterparty.node_id;
                state.ahead.insert((claimed.channel_id, htlc_id), node_id);
                out.push(fulfil(
                    node_id,
                    claimed.channel_id,
                    htlc_id,
                    claimed.preimage,
                ));
            }
        }
        out
    }

    /// Puts the phone's signature into a `channel_update`; false while it is not there. Other messages pass as they
    /// are.
    fn sign_update(
        &self,
        state: &mut State,
        remote: &Remote,
        event: &mut MessageSendEvent,
    ) -> bool {
        let update = match event {
            MessageSendEvent::SendChannelUpdate { msg, .. }
            | MessageSendEvent::BroadcastChannelUpdate { msg, .. }
            | MessageSendEvent::SendChannelAnnouncement {
                update_msg: msg, ..
            }
            | MessageSendEvent::BroadcastChannelAnnouncement {
                update_msg: Some(msg),
                ..
            } => msg,
            _ => return true,
        };
        match self.update_signature(state, remote, update) {
            Some(signature) => {
                update.signature = signature;
                true
            }
            None => false,
        }
    }

    fn update_signature(
        &self,
        state: &mut State,
        remote: &Remote,
        update: &msgs::ChannelUpdate,
    ) -> Option<Signature> {
        let scid = update.contents.short_channel_id;
        let message = update.contents.encode();
        if let Some((signed, signature)) = state.signed_updates.get(&scid)
            && *signed == message
        {
            return Some(*signature);
        }
        let op = SignGossip {
            message: Some(Gossip::ChannelUpdate(message.clone())),
        };
        let Some(Answer::Signature(bytes)) = remote.ask_node(Op::SignGossip(op)) else {
            return None;
        };
        let signature = Signature::from_compact(&bytes).ok()?;
        verify::gossip(&message, &signature, &remote.node_id)?;
        self.journal.put(
            format!("{}{scid}", key::GOSSIP),
            [&bytes[..], &message[..]].concat(),
        );
        state.signed_updates.insert(scid, (message, signature));
        Some(signature)
    }

    fn saw_add(&self, node_id: PublicKey, msg: &msgs::UpdateAddHTLC) {
        let Some(remote) = &self.remote else { return };
        // LDK answers an HTLC of another channel, and one above the limit, with an error: nothing of it may be kept, or asked
        // of the phone.
        let channels = self.manager.list_channels_with_counterparty(&node_id);
        let has_room = |channel: &ChannelDetails| {
            channel.channel_id == msg.channel_id && channel.pending_inbound_htlcs.len() < MAX_HTLCS
        };
        let Some(channel) = channels.iter().find(|channel| has_room(channel)) else {
            return;
        };
        let Some(keys_id) = remote.keys_id_of(channel.user_channel_id) else {
            return;
        };
        if let Ok(onion) = &msg.onion_routing_packet.public_key {
            let height = self.manager.current_best_block().height;
            let latest = height.saturating_add(FAR_AWAY_BLOCKS);
            let cltv_expiry = msg.cltv_expiry.min(latest);
            remote.peel(&IncomingOnion {
                htlc: (msg.channel_id.0, msg.htlc_id),
                keys_id,
                onion,
                cltv_expiry,
                update_add_htlc: msg.encode(),
            });
        }
    }

    /// Keeps the dust limit of a peer that accepts a channel: LDK does not tell it. The first `accept_channel` counts, as for LDK.
    fn saw_accept(&self, peer: PublicKey, msg: &msgs::AcceptChannel) {
        let id = msg.common_fields.temporary_channel_id;
        let channels = self.manager.list_channels_with_counterparty(&peer);
        let is_opening = |it: &ChannelDetails| it.channel_id == id && it.is_outbound;
        if channels.iter().any(is_opening) {
            let limits = &mut lock(&self.state).dust_limits_sat;
            let limit_sat = msg.common_fields.dust_limit_satoshis;
            limits.entry((peer, id)).or_insert(limit_sat);
        }
    }

    /// The dust limit of a peer that has accepted the channel with this temporary id.
    pub fn take_dust_limit_sat(&self, peer: PublicKey, temporary: ChannelId) -> Option<u64> {
        let limits = &mut lock(&self.state).dust_limits_sat;
        limits.remove(&(peer, temporary))
    }

    /// Removes the secrets of onions whose HTLCs are over, or have expired long before `height`.
    pub fn prune_onions(&self, height: u32) {
        if let Some(remote) = &self.remote {
            remote.prune(height);
            remote.retain_onions(&htlcs_of(&self.manager.list_channels()), false);
        }
    }

    fn disconnected(&self, node_id: &PublicKey) {
        let state = &mut *lock(&self.state);
        state.ahead.retain(|_, to| to != node_id);
        state.dust_limits_sat.retain(|(peer, _), _| peer != node_id);
        // Sending ahead is an option: a claim stands here for no longer than a turn.
        state.claimed.clear();
        state.held.retain(|event| match event {
            MessageSendEvent::SendChannelUpdate { node_id: to, .. }
            | MessageSendEvent::SendChannelAnnouncement { node_id: to, .. } => to != node_id,
            _ => true,
        });
    }
}

impl State {
    /// Takes out of LDK's update the fulfils that the peer has got already.
    fn without_fulfils_sent_ahead(&mut self, mut event: MessageSendEvent) -> MessageSendEvent {
        if let MessageSendEvent::UpdateHTLCs {
            channel_id,
            updates,
            ..
        } = &mut event
        {
            let ahead = &mut self.ahead;
            updates
                .update_fulfill_htlcs
                .retain(|fulfil| ahead.remove(&(*channel_id, fulfil.htlc_id)).is_none());
        }
        event
    }
}

fn htlcs_of(channels: &[ChannelDetails]) -> OpenHtlcs {
    let htlcs = |channel: &ChannelDetails| {
        let ids = channel
            .pending_inbound_htlcs
            .iter()
            .map(|htlc| htlc.htlc_id);
        (channel.channel_id.0, ids.collect())
    };
    channels.iter().map(htlcs).collect()
}

/// The HTLC of this payment, if the channel has no other of it. LDK removes several one commitment after the other, and
/// one that is too small to stand in a commitment cannot be seen to be missing from it: a fulfil for an HTLC that the
/// next `commitment_signed` still counts would cost the channel.
fn the_only_htlc(htlcs: &[InboundHTLCDetails], payment_hash: &PaymentHash) -> Option<u64> {
    let mut of_payment = htlcs
        .iter()
        .filter(|htlc| htlc.payment_hash == *payment_hash);
    let only = of_payment.next()?;
    let is_claimed =
        only.state == Some(InboundHTLCStateDetails::AwaitingRemoteRevokeToRemoveFulfill);
    (is_claimed && of_payment.next().is_none()).then_some(only.htlc_id)
}

fn fulfil(
    node_id: PublicKey,
    channel_id: ChannelId,
    htlc_id: u64,
    payment_preimage: PaymentPreimage,
) -> MessageSendEvent {
    let fulfil = msgs::UpdateFulfillHTLC {
        channel_id,
        htlc_id,
        payment_preimage,
        attribution_data: None,
    };
    let updates = msgs::CommitmentUpdate {
        update_add_htlcs: Vec::new(),
        update_fulfill_htlcs: vec![fulfil],
        update_fail_htlcs: Vec::new(),
        update_fail_malformed_htlcs: Vec::new(),
        update_fee: None,
        commitment_signed: Vec::new(),
    };
    MessageSendEvent::UpdateHTLCs {
        node_id,
        channel_id,
        updates,
    }
}

/// A stored signed message: 64 bytes of signature, then the message.
fn split_signed(bytes: &[u8]) -> Option<(Vec<u8>, Signature)> {
    let (signature, message) = bytes.split_at_checked(64)?;
    Some((message.to_vec(), Signature::from_compact(signature).ok()?))
}

impl BaseMessageHandler for Gate {
    fn get_and_clear_pending_msg_events(&self) -> Vec<MessageSendEvent> {
        let fresh = self.manager.get_and_clear_pending_msg_events();
        match &self.remote {
            Some(remote) => self.pass(remote, fresh),
            None => fresh,
        }
    }

    fn peer_disconnected(&self, their_node_id: PublicKey) {
        self.disconnected(&their_node_id);
        self.manager.peer_disconnected(their_node_id);
        // LDK has now forgotten the HTLCs that the peer added and did not commit to.
        if let Some(remote) = &self.remote {
            let channels = self.manager.list_channels_with_counterparty(&their_node_id);
            remote.retain_onions(&htlcs_of(&channels), true);
            remote.interrupt_closes(&channels);
        }
    }

    fn provided_node_features(&self) -> NodeFeatures {
        self.manager.provided_node_features()
    }

    fn provided_init_features(&self, their_node_id: PublicKey) -> InitFeatures {
        self.manager.provided_init_features(their_node_id)
    }

    fn peer_connected(
        &self,
        node_id: PublicKey,
        msg: &msgs::Init,
        inbound: bool,
    ) -> Result<(), ()> {
        // LDK uses `inbound` for its limit of 250 peers without channels alone.
        let inbound = inbound && !self.is_hosted(&node_id);
        self.manager.peer_connected(node_id, msg, inbound)
    }
}

/// Messages that pass to the channel manager untouched.
macro_rules! pass {
    ($($name:ident($message:ty);)*) => {
        $(fn $name(&self, their_node_id: PublicKey, msg: $message) {
            self.manager.$name(their_node_id, msg)
        })*
    };
}

/// Messages that stop here once the channel is closed cooperatively.
macro_rules! pass_until_closing {
    ($($name:ident($message:ty);)*) => {
        $(fn $name(&self, their_node_id: PublicKey, msg: $message) {
            if !self.is_closing(their_node_id, msg.channel_id) {
                self.manager.$name(their_node_id, msg)
            }
        })*
    };
}

impl ChannelMessageHandler for Gate {
    fn handle_update_add_htlc(&self, their_node_id: PublicKey, msg: &msgs::UpdateAddHTLC) {
        self.saw_add(their_node_id, msg);
        self.manager.handle_update_add_htlc(their_node_id, msg);
    }

    fn handle_accept_channel(&self, their_node_id: PublicKey, msg: &msgs::AcceptChannel) {
        self.saw_accept(their_node_id, msg);
        self.manager.handle_accept_channel(their_node_id, msg);
    }

    pass! {
        handle_open_channel(&msgs::OpenChannel);
        handle_open_channel_v2(&msgs::OpenChannelV2);
        handle_accept_channel_v2(&msgs::AcceptChannelV2);
        handle_funding_created(&msgs::FundingCreated);
        handle_funding_signed(&msgs::FundingSigned);
        handle_channel_ready(&msgs::ChannelReady);
        handle_peer_storage(msgs::PeerStorage);
        handle_peer_storage_retrieval(msgs::PeerStorageRetrieval);
        handle_stfu(&msgs::Stfu);
        handle_splice_init(&msgs::SpliceInit);
        handle_splice_ack(&msgs::SpliceAck);
        handle_splice_locked(&msgs::SpliceLocked);
        handle_tx_add_input(&msgs::TxAddInput);
        handle_tx_add_output(&msgs::TxAddOutput);
        handle_tx_remove_input(&msgs::TxRemoveInput);
        handle_tx_remove_output(&msgs::TxRemoveOutput);
        handle_tx_complete(&msgs::TxComplete);
        handle_tx_signatures(&msgs::TxSignatures);
        handle_tx_init_rbf(&msgs::TxInitRbf);
        handle_tx_ack_rbf(&msgs::TxAckRbf);
        handle_tx_abort(&msgs::TxAbort);
        handle_update_fulfill_htlc(msgs::UpdateFulfillHTLC);
        handle_update_fail_htlc(&msgs::UpdateFailHTLC);
        handle_update_fail_malformed_htlc(&msgs::UpdateFailMalformedHTLC);
        handle_commitment_signed(&msgs::CommitmentSigned);
        handle_revoke_and_ack(&msgs::RevokeAndACK);
        handle_update_fee(&msgs::UpdateFee);
        handle_announcement_signatures(&msgs::AnnouncementSignatures);
        handle_channel_update(&msgs::ChannelUpdate);
        handle_error(&msgs::ErrorMessage);
    }

    // A peer that missed the last message of the negotiation begins with the first of these after it reconnects.
    pass_until_closing! {
        handle_channel_reestablish(&msgs::ChannelReestablish);
        handle_shutdown(&msgs::Shutdown);
        handle_closing_signed(&msgs::ClosingSigned);
    }

    fn handle_commitment_signed_batch(
        &self,
        their_node_id: PublicKey,
        channel_id: ChannelId,
        batch: Vec<msgs::CommitmentSigned>,
    ) {
        self.manager
            .handle_commitment_signed_batch(their_node_id, channel_id, batch)
    }

    fn get_chain_hashes(&self) -> Option<Vec<ChainHash>> {
        self.manager.get_chain_hashes()
    }

    fn message_received(&self) {
        self.manager.message_received()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::testing::World;
    use InboundHTLCStateDetails::{AwaitingRemoteRevokeToRemoveFulfill as Claimed, Committed};

    const PAYMENT: PaymentHash = PaymentHash([1; 32]);

    fn htlc(
        htlc_id: u64,
        payment_hash: PaymentHash,
        amount_msat: u64,
        state: InboundHTLCStateDetails,
    ) -> InboundHTLCDetails {
        InboundHTLCDetails {
            htlc_id,
            amount_msat,
            cltv_expiry: 100,
            payment_hash,
            state: Some(state),
            is_dust: amount_msat < 354_000,
        }
    }

    fn stranger(n: u16) -> PublicKey {
        let mut secret = [1; 32];
        secret[..2].copy_from_slice(&n.to_be_bytes());
        let secret = bitcoin::secp256k1::SecretKey::from_slice(&secret).unwrap();
        secret.public_key(&bitcoin::secp256k1::Secp256k1::new())
    }

    #[test]
    fn strangers_without_channels_do_not_keep_a_node_of_the_same_host_away() {
        let mut world = World::new();
        let hub = world.add_hub(1);
        let gate = world.turn(hub).ldk.gate.clone();
        let init = |node_id| msgs::Init {
            features: gate.provided_init_features(node_id),
            networks: None,
            remote_network_address: None,
        };
        let connect = |n| gate.peer_connected(stranger(n), &init(stranger(n)), true);
        let connected = (0..).take_while(|n| connect(*n).is_ok()).count();
        assert_eq!(connected, 250, "LDK's limit");
        assert!(connect(1_000).is_err());
        gate.add_hosted(stranger(1_000));
        assert!(connect(1_000).is_ok());
        assert!(connect(1_001).is_err());
    }

    #[test]
    fn the_one_htlc_of_a_payment_may_be_fulfilled_ahead_once_it_is_claimed() {
        let other = htlc(0, PaymentHash([2; 32]), 5_000_000, Claimed);
        let claimed = [other.clone(), htlc(1, PAYMENT, 5_000_000, Claimed)];
        assert_eq!(the_only_htlc(&claimed, &PAYMENT), Some(1));
        let committed = [other, htlc(1, PAYMENT, 5_000_000, Committed)];
        assert_eq!(the_only_htlc(&committed, &PAYMENT), None);
    }

    #[test]
    fn a_part_too_small_for_a_commitment_is_not_fulfilled_ahead_with_the_other_part() {
        // Both are claimed; LDK has the second in its holding cell, and the commitment that is being signed counts it.
        let parts = [
            htlc(1, PAYMENT, 5_000_000, Claimed),
            htlc(2, PAYMENT, 200_000, Claimed),
        ];
        assert_eq!(the_only_htlc(&parts, &PAYMENT), None);
    }
}
