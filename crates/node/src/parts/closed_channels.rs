//! Channels that were closed: kept so that an owner sees them with the reason, and can ask for a close twice.

use std::collections::HashMap;

use bitcoin::{OutPoint, Transaction, Txid};
use lightning::events::Event;
use lightning::ln::channel_state::{ChannelDetails, ChannelShutdownState};
use lightning::ln::script::ShutdownScript;
use lightning::ln::types::ChannelId;
use longhand_proto::Code;
use longhand_proto::command::{CloseChannel, ClosedChannel, ClosingChannel, Error};
use prost::Message;

use crate::api::NodeError;
use crate::machine::turn::Turn;
use crate::parts::feerates;
use crate::parts::onchain_sends::address;
use crate::store::journal::Journal;
use crate::store::schema::{channel_id, closed_key, key};

/// See the module.
#[derive(Default)]
pub(crate) struct ClosedChannels {
    closed: HashMap<ChannelId, ClosedChannel>,
    /// Transactions that have spent the fundings of channels for which LDK has not reported `ChannelClosed` yet.
    closings: HashMap<ChannelId, Txid>,
}

impl ClosedChannels {
    /// Reads the records back.
    pub fn load(journal: &Journal) -> Result<ClosedChannels, NodeError> {
        let bad = || NodeError::Load("a record of a closed channel".into());
        let mut closed = HashMap::new();
        for (_, bytes) in journal.loaded(key::CLOSED) {
            let record = ClosedChannel::decode(&bytes[..]).map_err(|_| bad())?;
            let id = channel_id(&record.channel_id).ok_or_else(bad)?;
            closed.insert(id, record);
        }
        Ok(ClosedChannels {
            closed,
            closings: HashMap::new(),
        })
    }

    /// The owner's command: closes a channel, cooperatively or by force. Asked again, since the answer was lost, it
    /// answers that the channel is closed or closing.
    ///
    /// # Errors
    /// `NO_SUCH_CHANNEL`, `ADDRESS_MALFORMED`, `WRONG_NETWORK`, `FEERATE_OUT_OF_RANGE`, `FORCED_CLOSE`, or `CLOSE_REFUSED` when LDK cannot
    /// close it now.
    pub fn close(&self, turn: &Turn, request: &CloseChannel) -> Result<ClosingChannel, Error> {
        let unknown = || {
            Error::new(
                Code::NoSuchChannel,
                "there is no open channel with this id: list them",
            )
        };
        let id = channel_id(&request.channel_id).ok_or_else(unknown)?;
        if let Some(closed) = self.closed.get(&id) {
            let txid = closed.closing_txid.clone();
            if request.force && txid.is_empty() {
                ask_again(turn);
            }
            return Ok(ClosingChannel { txid });
        }
        let channels = turn.channels();
        let mut channels = channels.iter();
        let channel = channels
            .find(|channel| channel.channel_id == id)
            .ok_or_else(unknown)?;
        if !request.force && is_closing(channel) {
            return Ok(ClosingChannel::default());
        }
        let peer = channel.counterparty.node_id;
        let to = closing_script(turn, request)?;
        let feerate = feerates::checked(request.feerate_sat_per_kw)?;
        let closed = if request.force {
            let reason = "closed by its owner".to_owned();
            turn.ldk
                .manager
                .force_close_broadcasting_latest_txn(&id, &peer, reason)
        } else {
            let manager = &turn.ldk.manager;
            manager.close_channel_with_feerate_and_script(&id, &peer, feerate, to)
        };
        closed.map_err(|error| {
            let message = format!("the channel cannot be closed now ({error:?}): try again later");
            Error::new(Code::CloseRefused, message)
        })?;
        Ok(ClosingChannel::default())
    }

    /// LDK's `ChannelClosed`: stores the channel, and has gate and keys forget it. A channel that never had a funding is not
    /// stored.
    pub fn closed(&mut self, turn: &Turn, event: Event) {
        let Event::ChannelClosed {
            channel_id,
            user_channel_id,
            reason,
            counterparty_node_id,
            channel_capacity_sats,
            channel_funding_txo,
            ..
        } = event
        else {
            return;
        };
        tracing::info!("a channel was closed: {reason}");
        turn.ldk.gate.forget_channel(&channel_id);
        if let Some(remote) = turn.remote() {
            remote.forget_channel(user_channel_id);
        }
        let Some(funding) = channel_funding_txo else {
            return;
        };
        if self.closed.contains_key(&channel_id) {
            return;
        }
        let closing = self.closings.remove(&channel_id);
        let peer = counterparty_node_id.map(|id| id.serialize().to_vec());
        let closed = ClosedChannel {
            channel_id: channel_id.0.to_vec(),
            counterparty_node_id: peer.unwrap_or_default(),
            funding_outpoint: funding.into_bitcoin_outpoint().to_string(),
            capacity_sat: channel_capacity_sats.unwrap_or_default(),
            reason: reason.to_string(),
            closed_unix_s: turn.now.unix_s(),
            closing_txid: closing.map(|txid| txid.to_string()).unwrap_or_default(),
        };
        self.write(turn, channel_id, closed);
    }

    fn write(&mut self, turn: &Turn, id: ChannelId, closed: ClosedChannel) {
        turn.journal.put(closed_key(&id), closed.encode_to_vec());
        self.closed.insert(id, closed);
    }

    /// Oldest first.
    pub fn list(&self) -> Vec<ClosedChannel> {
        let mut closed: Vec<_> = self.closed.values().cloned().collect();
        closed.sort_by(|one, other| {
            let key = |closed: &ClosedChannel| closed.closed_unix_s;
            key(one)
                .cmp(&key(other))
                .then_with(|| one.channel_id.cmp(&other.channel_id))
        });
        closed
    }

    /// Takes LDK's transactions for the output. Own ones are in the wallet from the moment they are sent.
    pub fn collect_broadcasts(&mut self, turn: &mut Turn) {
        for package in turn.ldk.broadcaster.take() {
            let seen_unix_s = turn.now.unix_s();
            turn.wallet().insert_package(package.clone(), seen_unix_s);
            self.find_closings(turn, package.iter());
            turn.output.packages.push(package);
        }
    }

    /// Looks for transactions, broadcast or confirmed, that spend the funding of a channel. The last one is kept as its
    /// closing transaction.
    pub fn find_closings<'a>(&mut self, turn: &Turn, txs: impl Iterator<Item = &'a Transaction>) {
        let spends = txs.flat_map(|tx| {
            let txid = tx.compute_txid();
            let inputs = tx.input.iter();
            inputs.map(move |input| (input.previous_output, txid))
        });
        let spends: HashMap<OutPoint, Txid> = spends.collect();
        if spends.is_empty() {
            return;
        }
        for channel in turn.channels() {
            let funding = channel.funding_txo.map(|txo| txo.into_bitcoin_outpoint());
            if let Some(txid) = funding.and_then(|funding| spends.get(&funding)) {
                self.closings.insert(channel.channel_id, *txid);
            }
        }
        let changed = self.closed.iter().filter_map(|(id, closed)| {
            let funding = closed.funding_outpoint.parse().ok()?;
            let closing_txid = spends.get(&funding)?.to_string();
            let is_new = closed.closing_txid != closing_txid;
            let closed = closed.clone();
            is_new.then_some((
                *id,
                ClosedChannel {
                    closing_txid,
                    ..closed
                },
            ))
        });
        for (id, closed) in changed.collect::<Vec<_>>() {
            self.write(turn, id, closed);
        }
    }
}

/// LDK has closed the channel, and the phone has not signed its commitment: it wants to know from its owner.
fn ask_again(turn: &Turn) {
    if let Some(remote) = turn.remote() {
        remote.clear_retries();
    }
    turn.ldk.chain_monitor.signer_unblocked(None);
}

/// The script of the owner's part that a command gives; `None` for the node's own.
fn closing_script(turn: &Turn, request: &CloseChannel) -> Result<Option<ShutdownScript>, Error> {
    let rate = request.feerate_sat_per_kw;
    if request.force && (rate > 0 || !request.address.is_empty()) {
        let message = "a forced close pays to the node's own wallet at the fee rate that was agreed: leave address and fee rate out";
        return Err(Error::new(Code::ForcedClose, message));
    }
    if request.address.is_empty() {
        return Ok(None);
    }
    let script = address(turn.config.network, &request.address)?.script_pubkey();
    let script = ShutdownScript::try_from(script).map_err(|_| {
        let message =
            "a channel cannot be closed to this kind of address (BOLT 2): give a segwit one";
        Error::new(Code::AddressMalformed, message)
    })?;
    Ok(Some(script))
}

/// Whether this side or both have sent `shutdown`.
pub(crate) fn is_closing(channel: &ChannelDetails) -> bool {
    let state = channel.channel_shutdown_state;
    state.is_some_and(|state| !matches!(state, ChannelShutdownState::NotShuttingDown))
}

/// True while a cooperative close is being negotiated.
pub(crate) fn is_negotiating_a_close(turn: &Turn) -> bool {
    use ChannelShutdownState::{NotShuttingDown, ShutdownComplete};
    let channels = turn.channels();
    let mut states = channels
        .iter()
        .filter_map(|channel| channel.channel_shutdown_state);
    states.any(|state| !matches!(state, NotShuttingDown | ShutdownComplete))
}

#[cfg(test)]
#[path = "tests/closed_channels.rs"]
mod tests;
