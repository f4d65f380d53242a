//! Channels, and the balance in them.

use std::sync::Arc;

use longhand_base::text;
use tonic::Status;

use super::{hex, int, refuse, sat};
use crate::node::{self, ChannelState, Closure, Node};
use crate::proto::lnrpc::channel_close_summary::ClosureType;
use crate::proto::lnrpc::pending_channels_response::{
    ForceClosedChannel, PendingChannel, PendingOpenChannel, WaitingCloseChannel,
};
use crate::proto::lnrpc::{
    Amount, Channel, ChannelBalanceRequest, ChannelBalanceResponse, ChannelCloseSummary,
    ChannelConstraints, ClosedChannelsRequest, ClosedChannelsResponse, CommitmentType, Htlc,
    Initiator, ListChannelsRequest, ListChannelsResponse, PendingChannelsRequest,
    PendingChannelsResponse,
};

pub(super) async fn balance(
    node: Arc<dyn Node>,
    _: ChannelBalanceRequest,
) -> Result<ChannelBalanceResponse, Status> {
    let balance = node.balance().await?;
    let amount = |msat: u64| {
        let sat = msat / 1_000;
        Some(Amount { sat, msat })
    };
    Ok(ChannelBalanceResponse {
        balance: sat(balance.local_msat),
        pending_open_balance: sat(balance.pending_local_msat),
        local_balance: amount(balance.local_msat),
        remote_balance: amount(balance.remote_msat),
        unsettled_local_balance: amount(balance.unsettled_local_msat),
        unsettled_remote_balance: amount(balance.unsettled_remote_msat),
        pending_open_local_balance: amount(balance.pending_local_msat),
        pending_open_remote_balance: amount(balance.pending_remote_msat),
    })
}

pub(super) async fn list(
    node: Arc<dyn Node>,
    asked: ListChannelsRequest,
) -> Result<ListChannelsResponse, Status> {
    refuse(
        asked.active_only && asked.inactive_only,
        "active_only with inactive_only",
    )?;
    refuse(
        asked.public_only && asked.private_only,
        "public_only with private_only",
    )?;
    let is_wanted = |channel: &node::Channel| {
        channel.state == ChannelState::Open
            && (channel.is_usable || !asked.active_only)
            && !(channel.is_usable && asked.inactive_only)
            && !(channel.is_private && asked.public_only)
            && (channel.is_private || !asked.private_only)
            && (asked.peer.is_empty() || asked.peer == channel.peer_node_id)
    };
    let channels = node.channels().await?.into_iter().filter(is_wanted);
    Ok(ListChannelsResponse {
        channels: channels.map(open).collect(),
    })
}

fn open(channel: node::Channel) -> Channel {
    let htlc = |htlc: &node::Htlc| Htlc {
        incoming: htlc.is_incoming,
        amount: sat(htlc.amount_msat),
        hash_lock: htlc.payment_hash.to_vec(),
        expiration_height: htlc.expiry_height,
    };
    let constraints = |chan_reserve_sat| Some(ChannelConstraints { chan_reserve_sat });
    Channel {
        active: channel.is_usable,
        remote_pubkey: hex(&channel.peer_node_id),
        channel_point: channel.funding_outpoint,
        chan_id: channel.short_channel_id,
        capacity: int(channel.capacity_sat),
        local_balance: sat(channel.local_msat),
        remote_balance: sat(channel.remote_msat),
        unsettled_balance: sat(channel.unsettled_msat),
        pending_htlcs: channel.htlcs.iter().map(htlc).collect(),
        private: channel.is_private,
        initiator: channel.is_outbound,
        local_chan_reserve_sat: int(channel.local_reserve_sat),
        remote_chan_reserve_sat: int(channel.remote_reserve_sat),
        commitment_type: CommitmentType::Anchors as i32,
        local_constraints: constraints(channel.local_reserve_sat),
        remote_constraints: constraints(channel.remote_reserve_sat),
        peer_alias: text::plain(&channel.peer_alias),
        ..Channel::default()
    }
}

pub(super) async fn closed(
    node: Arc<dyn Node>,
    asked: ClosedChannelsRequest,
) -> Result<ClosedChannelsResponse, Status> {
    let wanted = [
        (asked.cooperative, ClosureType::CooperativeClose),
        (asked.local_force, ClosureType::LocalForceClose),
        (asked.remote_force, ClosureType::RemoteForceClose),
        (asked.breach, ClosureType::BreachClose),
        (asked.funding_canceled, ClosureType::FundingCanceled),
        (asked.abandoned, ClosureType::Abandoned),
    ];
    let is_any = wanted.iter().all(|(is_wanted, _)| !is_wanted);
    let is_wanted = |channel: &ChannelCloseSummary| {
        let of_kind = |(is_wanted, kind): &(bool, ClosureType)| {
            *is_wanted && *kind as i32 == channel.close_type
        };
        is_any || wanted.iter().any(of_kind)
    };
    let closed = node.closed_channels().await?.into_iter().map(summary);
    Ok(ClosedChannelsResponse {
        channels: closed.filter(is_wanted).collect(),
    })
}

fn summary(channel: node::ClosedChannel) -> ChannelCloseSummary {
    let (kind, closer) = match channel.closure {
        Closure::Cooperative => (ClosureType::CooperativeClose, Initiator::Unknown),
        Closure::LocalForce => (ClosureType::LocalForceClose, Initiator::Local),
        Closure::RemoteForce => (ClosureType::RemoteForceClose, Initiator::Remote),
        Closure::Breach => (ClosureType::BreachClose, Initiator::Remote),
        Closure::NeverFunded => (ClosureType::FundingCanceled, Initiator::Unknown),
    };
    let opener = channel.is_outbound.map_or(Initiator::Unknown, initiator);
    ChannelCloseSummary {
        channel_point: channel.funding_outpoint,
        chan_id: channel.short_channel_id,
        closing_tx_hash: channel.closing_txid,
        remote_pubkey: hex(&channel.peer_node_id),
        capacity: int(channel.capacity_sat),
        close_height: channel.close_height,
        settled_balance: int(channel.settled_sat),
        close_type: kind as i32,
        open_initiator: opener as i32,
        close_initiator: closer as i32,
        ..ChannelCloseSummary::default()
    }
}

fn initiator(is_outbound: bool) -> Initiator {
    match is_outbound {
        true => Initiator::Local,
        false => Initiator::Remote,
    }
}

pub(super) async fn pending(
    node: Arc<dyn Node>,
    _: PendingChannelsRequest,
) -> Result<PendingChannelsResponse, Status> {
    let mut reply = PendingChannelsResponse {
        total_limbo_balance: int(node.balance().await?.closing_sat),
        ..PendingChannelsResponse::default()
    };
    for channel in node.channels().await? {
        let (limbo_balance, closing_txid) = (sat(channel.local_msat), channel.closing_txid.clone());
        let (state, blocks) = (channel.state, channel.confirmations_missing);
        let channel = Some(not_open(channel));
        match state {
            ChannelState::Open => {}
            ChannelState::Opening => reply.pending_open_channels.push(PendingOpenChannel {
                channel,
                confirmations_until_active: blocks,
            }),
            ChannelState::Closing => reply.waiting_close_channels.push(WaitingCloseChannel {
                channel,
                limbo_balance,
                closing_txid,
            }),
            ChannelState::ForceClosing => {
                reply
                    .pending_force_closing_channels
                    .push(ForceClosedChannel {
                        channel,
                        closing_txid,
                        limbo_balance,
                    });
            }
        }
    }
    Ok(reply)
}

fn not_open(channel: node::Channel) -> PendingChannel {
    PendingChannel {
        remote_node_pub: hex(&channel.peer_node_id),
        channel_point: channel.funding_outpoint,
        capacity: int(channel.capacity_sat),
        local_balance: sat(channel.local_msat),
        remote_balance: sat(channel.remote_msat),
        initiator: initiator(channel.is_outbound) as i32,
        commitment_type: CommitmentType::Anchors as i32,
        private: channel.is_private,
    }
}
