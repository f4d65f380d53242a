//! A node's channels and balances, as its owner sees them. Nothing here changes anything.

use lightning::chain::channelmonitor::{Balance as Claimable, BalanceSource};
use lightning::ln::channel_state::{
    ChannelDetails, ChannelShutdownState, InboundHTLCStateDetails, OutboundHTLCStateDetails,
};
use lightning::ln::types::ChannelId;
use lightning::sign::SpendableOutputDescriptor;
use lightning::util::sweep::{OutputSpendStatus, TrackedSpendableOutput};
use longhand_proto::command::{Balance, Channel, Info, SignerStats};

use crate::api::{Overview, State};
use crate::machine::turn::Turn;
use crate::parts::openings::Openings;
use crate::parts::reserve;
use crate::parts::signer_session::SignerSession;

/// The reply to `GetInfo`.
pub(crate) fn info(turn: &Turn, state: State, signer_stats: SignerStats) -> Info {
    let channels = turn.channels();
    let usable = channels.iter().filter(|channel| turn.is_usable(channel));
    let hub = turn.config.hub.map(|id| id.serialize().to_vec());
    Info {
        node_id: turn.node_id().serialize().to_vec(),
        network: turn.config.network.to_string(),
        block_height: turn.height,
        hub_node_id: hub.unwrap_or_default(),
        channels: count(channels.len()),
        usable_channels: count(usable.count()),
        peers: count(turn.ldk.peer_manager.list_peers().len()),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        signer_stats: Some(signer_stats),
        state: state.to_string(),
        ..Info::default()
    }
}

/// The reply to `GetBalance`.
pub(crate) fn balance(turn: &Turn, openings: &Openings) -> Balance {
    let (confirmed, pending) = turn.wallet().balance();
    let channels = turn.channels();
    let mut balance = Balance {
        onchain_confirmed_sat: confirmed,
        onchain_pending_sat: pending,
        ..Balance::default()
    };
    for channel in &channels {
        let inbound = channel.inbound_capacity_msat;
        let ours = channel_balance_msat(turn, channel);
        balance.inbound_capacity_msat = balance.inbound_capacity_msat.saturating_add(inbound);
        balance.lightning_msat = balance.lightning_msat.saturating_add(ours);
    }
    balance.closing_sat = closing_sat(turn, openings, &channels);
    balance
}

/// The open channels of the reply to `ListChannels`.
pub(crate) fn channels(turn: &Turn, openings: &Openings) -> Vec<Channel> {
    let mut channels: Vec<Channel> = Vec::new();
    for details in turn.channels() {
        let mut channel = describe(&details, turn.is_usable(&details));
        channel.balance_msat = channel_balance_msat(turn, &details);
        channels.push(channel);
    }
    for opening in openings.under_way() {
        let id = &opening.user_channel_id;
        if channels.iter().all(|it| it.user_channel_id != *id) {
            channels.push(opening);
        }
    }
    channels
}

/// A snapshot for the node's host.
pub(crate) fn overview(
    turn: &Turn,
    state: State,
    session: &SignerSession,
    openings: &Openings,
    earliest_deadline: Option<u32>,
    restarts: u32,
) -> Overview {
    let balance = balance(turn, openings);
    let info = info(turn, state, session.stats());
    Overview {
        node_id: turn.node_id(),
        state,
        channels: info.channels,
        usable_channels: info.usable_channels,
        peers: info.peers,
        lightning_msat: balance.lightning_msat,
        onchain_sat: balance.onchain_confirmed_sat,
        onchain_pending_sat: balance.onchain_pending_sat,
        reserve_sat: reserve::wanted_sat(turn, 0),
        reserve_for_next_sat: reserve::wanted_sat(turn, 1),
        closing_sat: balance.closing_sat,
        pending_htlcs: pending_htlcs(turn),
        earliest_deadline,
        restarts,
        signer_batches: session.stats().batches,
        signer_chain: session.longest_chain(),
    }
}

/// HTLCs that both sides are committed to (BOLT 2), and that are not being removed.
fn pending_htlcs(turn: &Turn) -> u32 {
    use InboundHTLCStateDetails::Committed as InboundCommitted;
    use OutboundHTLCStateDetails::Committed as OutboundCommitted;
    let in_channel = |channel: &ChannelDetails| {
        let inbound = channel.pending_inbound_htlcs.iter();
        let inbound = inbound.filter(|htlc| htlc.state == Some(InboundCommitted));
        let outbound = channel.pending_outbound_htlcs.iter();
        let outbound = outbound.filter(|htlc| htlc.state == Some(OutboundCommitted));
        inbound.count() + outbound.count()
    };
    count(turn.channels().iter().map(in_channel).sum())
}

/// The state of a node whose signer is there. A hub waits for nobody: its peers come and go as they like.
pub(crate) fn state_with_signer(turn: &Turn) -> State {
    // First, because a hub has many channels and asks in nearly every turn.
    if turn.config.is_hub {
        return State::Active;
    }
    let channels = turn.channels();
    let mut ready = channels.iter().filter(|channel| channel.is_channel_ready);
    match ready.all(|channel| turn.is_usable(channel)) {
        true => State::Active,
        false => State::Waking,
    }
}

/// The owner's part of an open channel, with the reserve that has to stay.
fn channel_balance_msat(turn: &Turn, channel: &ChannelDetails) -> u64 {
    let Ok(monitor) = turn.ldk.chain_monitor.get_monitor(channel.channel_id) else {
        return 0;
    };
    let balances = monitor.get_claimable_balances();
    let ours = balances.iter().map(Claimable::claimable_amount_satoshis);
    ours.sum::<u64>().saturating_mul(1000)
}

/// The owner's part of closed channels that is not in the wallet yet.
fn closing_sat(turn: &Turn, openings: &Openings, open: &[ChannelDetails]) -> u64 {
    let is_open = |id: &ChannelId| open.iter().any(|channel| channel.channel_id == *id);
    let mut closed = turn.ldk.chain_monitor.list_monitors();
    // LDK waits for a funding that was never broadcast: its coins are in the wallet.
    closed.retain(|id| !is_open(id) && !openings.was_never_funded(id));
    let monitors = closed.into_iter();
    let monitors = monitors.filter_map(|id| turn.ldk.chain_monitor.get_monitor(id).ok());
    let claimable: u64 = monitors
        .flat_map(|monitor| monitor.get_claimable_balances())
        .filter(|balance| !is_in_the_wallet(balance))
        .map(|balance| balance.claimable_amount_satoshis())
        .sum();
    let tracked = turn.ldk.sweeper.tracked_spendable_outputs();
    let unswept = tracked.iter().filter(|output| !is_swept(turn, output));
    let unswept: u64 = unswept.map(|output| value_sat(&output.descriptor)).sum();
    claimable.saturating_add(unswept)
}

/// Whether the output is in the wallet: from a sweep's broadcast on, unless a block takes an earlier sweep, of fewer
/// outputs.
fn is_swept(turn: &Turn, output: &TrackedSpendableOutput) -> bool {
    let outpoint = output.descriptor.spendable_outpoint();
    match output.status {
        OutputSpendStatus::PendingInitialBroadcast { .. } => false,
        OutputSpendStatus::PendingFirstConfirmation { .. } => {
            turn.wallet().is_spent(outpoint.into_bitcoin_outpoint())
        }
        OutputSpendStatus::PendingThresholdConfirmations { .. } => true,
    }
}

/// A cooperative close pays to an address of the wallet, which counts it from the first block on.
fn is_in_the_wallet(balance: &Claimable) -> bool {
    matches!(
        balance,
        Claimable::ClaimableAwaitingConfirmations { source, .. }
            if *source == BalanceSource::CoopClose
    )
}

fn value_sat(descriptor: &SpendableOutputDescriptor) -> u64 {
    let output = match descriptor {
        SpendableOutputDescriptor::StaticOutput { output, .. } => output,
        SpendableOutputDescriptor::DelayedPaymentOutput(delayed) => &delayed.output,
        SpendableOutputDescriptor::StaticPaymentOutput(payment) => &payment.output,
    };
    output.value.to_sat()
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A channel as its owner sees it.
pub(crate) fn describe(channel: &ChannelDetails, usable: bool) -> Channel {
    let outpoint = channel
        .funding_txo
        .map(|outpoint| outpoint.into_bitcoin_outpoint().to_string());
    let htlcs = channel.pending_inbound_htlcs.len() + channel.pending_outbound_htlcs.len();
    Channel {
        channel_id: channel.channel_id.0.to_vec(),
        user_channel_id: channel.user_channel_id.to_be_bytes().to_vec(),
        counterparty_node_id: channel.counterparty.node_id.serialize().to_vec(),
        funding_outpoint: outpoint.unwrap_or_default(),
        capacity_sat: channel.channel_value_satoshis,
        outbound_msat: channel.outbound_capacity_msat,
        inbound_msat: channel.inbound_capacity_msat,
        balance_msat: channel.outbound_capacity_msat,
        ready: channel.is_channel_ready,
        usable,
        outbound: channel.is_outbound,
        announced: channel.is_announced,
        state: state(channel, usable).to_owned(),
        pending_htlcs: count(htlcs),
    }
}

fn state(channel: &ChannelDetails, usable: bool) -> &'static str {
    match channel.channel_shutdown_state {
        Some(ChannelShutdownState::NotShuttingDown) | None => {}
        Some(_) => return "closing",
    }
    match (usable, channel.is_channel_ready) {
        (true, _) => "usable",
        (false, true) => "peer away",
        (false, false) => "confirming",
    }
}

#[cfg(test)]
#[path = "tests/balances.rs"]
mod tests;
