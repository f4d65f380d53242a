//! Channels that this node opens, from the command until the channel is usable.
//!
//! Each is a record ([`Open`]) with a state. [`Openings::advance`] does with each turn what can be done now; an opening
//! that was interrupted goes on after a restart, or when the phone is back.

use std::collections::HashMap;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{ScriptBuf, Txid};
use lightning::chain::transaction::OutPoint;
use lightning::events::Event;
use lightning::ln::types::ChannelId;
use longhand_base::text::excerpt;
use longhand_chain::BroadcastAnswer;
use longhand_proto::Code;
use longhand_proto::MIN_CHANNEL_SAT;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{Channel, Error, OpenChannel, OpenedChannel};
use longhand_proto::signer::sign_psbt::Purpose;
use prost::Message;

use crate::api::NodeError;
use crate::errors::{OTHER_PHONE_REASON, recorded};
use crate::ldk::adapters::user_config;
use crate::machine::turn::Turn;
use crate::parts::balances::describe;
use crate::parts::wallet_signing::{Signed, sign};
use crate::parts::{feerates, reserve, terms};
use crate::store::journal::Journal;
use crate::store::schema::{Open, is_of, key, user_channel_id};

/// A peer forgets a channel whose funding is in no block 2,016 blocks after it has accepted it (BOLT 2). The phone has
/// half of that to sign the funding, and the miners the rest.
const FUNDING_BLOCKS: u32 = 1_008;
/// Openings at one time.
const MOST_UNDER_WAY: usize = 64;

/// The parameters of LDK's `FundingGenerationReady`.
struct Funding {
    temporary_channel_id: ChannelId,
    counterparty: PublicKey,
    amount_sat: u64,
    script: ScriptBuf,
    user_channel_id: u128,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Openings {
    opens: HashMap<u128, Open>,
}

impl Openings {
    /// Reads the records back.
    pub fn load(journal: &Journal) -> Result<Openings, NodeError> {
        let bad = || NodeError::Load("a record of a channel opening".into());
        let mut opens = HashMap::new();
        for (_, bytes) in journal.loaded(key::OPEN) {
            let open = Open::decode(&bytes[..]).map_err(|_| bad())?;
            opens.insert(open.user_channel_id().ok_or_else(bad)?, open);
        }
        Ok(Openings { opens })
    }

    // -- The owner's command.

    /// Begins an opening with `peer`; the rest happens in [`Openings::advance`]. Asked again with the same id, it is the
    /// same opening. Returns its id.
    ///
    /// # Errors
    /// `BAD_ID`, `CHANNEL_TOO_SMALL`, `PUSH_REFUSED`, `FEERATE_OUT_OF_RANGE`, `NO_FEE_ESTIMATE`, `INSUFFICIENT_FUNDS` or
    /// `TOO_MANY_OPENINGS`; nothing is changed then.
    pub fn request(
        &mut self,
        turn: &Turn,
        peer: PublicKey,
        mut request: OpenChannel,
        signer: &[u8],
    ) -> Result<u128, Error> {
        let id = user_channel_id(&request.id)
            .ok_or_else(|| Error::new(Code::BadId, "the channel's id must be 16 bytes"))?;
        if self.opens.contains_key(&id) {
            return Ok(id);
        }
        check(turn, &request)?;
        if self.peers().count() >= MOST_UNDER_WAY {
            let message =
                "too many channels are being opened: wait until some are open or have failed";
            return Err(Error::new(Code::TooManyOpenings, message));
        }
        request.counterparty_node_id = peer.serialize().to_vec();
        let open = Open {
            request: Some(request),
            asked_by: signer.to_vec(),
            ..Open::default()
        };
        turn.journal.put(open.key(), open.encode_to_vec());
        self.opens.insert(id, open);
        Ok(id)
    }

    /// The id of an opening from its bytes.
    ///
    /// # Errors
    /// `NO_SUCH_CHANNEL` when there is none.
    pub fn find(&self, id: &[u8]) -> Result<u128, Error> {
        user_channel_id(id)
            .filter(|id| self.opens.contains_key(id))
            .ok_or_else(|| Error::new(Code::NoSuchChannel, "no channel was opened with this id"))
    }

    /// Whether the chain source's answer to this transaction is of interest: to a funding that is in no block.
    pub fn awaits_answer(&self, turn: &Turn, txid: Txid) -> bool {
        self.with_funding(txid).is_some() && turn.wallet().is_pending(txid)
    }

    /// The chain source's answer to a broadcast.
    pub fn broadcast_answered(&mut self, turn: &Turn, txid: Txid, answer: &BroadcastAnswer) {
        let Some(id) = self.with_funding(txid) else {
            return;
        };
        let (is_accepted, refusal) = match answer {
            BroadcastAnswer::Accepted => (true, String::new()),
            BroadcastAnswer::Refused(reason) => (false, excerpt(reason)),
        };
        let is_new = |open: &&Open| (is_accepted, &refusal) != (open.is_accepted, &open.refusal);
        if self.opens.get(&id).filter(is_new).is_some() {
            self.update(turn, id, |open| {
                open.is_accepted = is_accepted;
                open.refusal = refusal;
            });
        }
    }

    fn with_funding(&self, txid: Txid) -> Option<u128> {
        let mut opens = self.opens.iter();
        let is_it =
            |open: &Open| open.broadcast && !open.ready && open.funding_txid() == Some(txid);
        opens.find(|(_, open)| is_it(open)).map(|(id, _)| *id)
    }

    /// The reply to an opening, once the chain source has answered to its funding or it has failed.
    pub fn opened(&self, turn: &Turn, id: u128) -> Option<Result<Reply, Error>> {
        let open = self.opens.get(&id)?;
        if let Some(failure) = failure(open) {
            return Some(Err(failure));
        }
        if !open.broadcast {
            return None;
        }
        let wallet = turn.wallet();
        let is_displaced = |txid: Txid| wallet.is_displaced(txid);
        if open.funding_txid().is_some_and(is_displaced) {
            let message = "another transaction has spent the coins of the funding: the channel cannot open any more; open another";
            return Some(Err(Error::new(Code::FundingConflicted, message)));
        }
        let is_in_a_block = |txid: Txid| wallet.is_confirmed(txid);
        let is_confirmed = open.ready || open.funding_txid().is_some_and(is_in_a_block);
        if !is_confirmed && !open.refusal.is_empty() {
            let message = format!(
                "the chain source refuses the funding {} ({}): it is sent again with each block; `bump` its transaction",
                open.funding_outpoint, open.refusal
            );
            return Some(Err(Error::new(Code::RefusedByNetwork, message)));
        }
        let opened = || OpenedChannel {
            id: open
                .request
                .as_ref()
                .map_or_else(Vec::new, |it| it.id.clone()),
            channel_id: open.channel_id.clone(),
            funding_outpoint: open.funding_outpoint.clone(),
        };
        (open.is_accepted || is_confirmed).then(|| Ok(Reply::OpenedChannel(opened())))
    }

    /// The reply once the channel can be used, or can never be.
    pub fn usable(&self, turn: &Turn, id: u128) -> Option<Result<Reply, Error>> {
        let open = self.opens.get(&id)?;
        if let Some(failure) = failure(open) {
            return Some(Err(failure));
        }
        let channels = turn.channels();
        let channel = channels.iter().find(|it| it.user_channel_id == id);
        let Some(channel) = channel else {
            let closed = "the channel was closed before it could be used";
            let closed = Error::new(Code::ChannelGone, closed);
            return open.broadcast.then_some(Err(closed));
        };
        if !turn.is_usable(channel) {
            return None;
        }
        Some(Ok(Reply::Channel(describe(channel, true))))
    }

    /// Openings that LDK may not list yet, for the list of channels.
    pub fn under_way(&self) -> impl Iterator<Item = Channel> {
        let opens = self.opens.values().filter(|open| open.is_under_way());
        opens.map(channel_of)
    }

    /// Whether the channel failed before it was funded: its coins are still in the wallet.
    pub fn was_never_funded(&self, channel_id: &ChannelId) -> bool {
        let mut failed = self.opens.values().filter(|open| open.has_failed());
        failed.any(|open| !open.broadcast && open.channel_id == channel_id.0)
    }

    /// Peers that are needed for an opening.
    pub fn peers(&self) -> impl Iterator<Item = PublicKey> {
        let opens = self.opens.values().filter(|open| open.is_under_way());
        opens.filter_map(Open::peer)
    }

    /// The addresses that the owner gave for openings under way.
    pub fn addresses(&self) -> impl Iterator<Item = (PublicKey, String)> {
        let opens = self.opens.values().filter(|open| open.is_under_way());
        opens.filter_map(|open| {
            let address = &open.request.as_ref()?.address;
            (!address.is_empty()).then(|| Some((open.peer()?, address.clone())))?
        })
    }

    // -- Going on.

    /// Does what can be done now.
    pub fn advance(&mut self, turn: &Turn) {
        let opens = self.opens.iter().filter(|(_, open)| open.is_under_way());
        let waiting: Vec<u128> = opens.map(|(id, _)| *id).collect();
        for id in waiting {
            self.advance_one(turn, id);
        }
    }

    fn advance_one(&mut self, turn: &Turn, id: u128) {
        let Some(open) = self.opens.get(&id) else {
            return;
        };
        if !open.created {
            return self.create_channel(turn, id);
        }
        let keys_id = turn.remote().and_then(|remote| remote.keys_id_of(id));
        let refusal = keys_id.and_then(|keys_id| turn.remote()?.setup_refusal(&keys_id));
        if let Some(reason) = refusal {
            return self.abandon(turn, id, Code::SignerRefused, &reason);
        }
        if !open.safe {
            return;
        }
        if turn.height.saturating_sub(open.safe_height) > FUNDING_BLOCKS {
            let reason = format!(
                "the phone did not sign the funding within {FUNDING_BLOCKS} blocks, and the peer may have forgotten the \
                 channel: nothing was spent; open another"
            );
            return self.abandon(turn, id, Code::Expired, &reason);
        }
        let Some(psbt) = open.psbt() else { return };
        match sign(turn, &psbt, Purpose::Funding, keys_id) {
            Signed::Waiting => {}
            Signed::Failed(reason) => self.abandon(turn, id, Code::SignerRefused, &reason),
            Signed::Transaction(tx) => {
                turn.ldk.broadcaster.push(vec![*tx]);
                self.update(turn, id, |open| {
                    open.broadcast = true;
                    open.psbt = Vec::new();
                });
            }
        }
    }

    fn create_channel(&mut self, turn: &Turn, id: u128) {
        let Some(open) = self.opens.get(&id) else {
            return;
        };
        let (Some(request), Some(peer)) = (open.request.as_ref(), open.peer()) else {
            return;
        };
        if !turn.is_connected(&peer) {
            return;
        }
        if let Some(remote) = turn.remote()
            && remote.reserve(id, peer).is_none()
        {
            return;
        }
        let mut config = user_config(turn.config.is_hub);
        config.channel_handshake_config.announce_for_forwarding = request.announced;
        if turn.config.hub == Some(peer) {
            // The side that does not pay picks the highest fee that the other would still pay to avoid a forced
            // close. The hub has the same fee rates as we do: nothing has to be offered on top.
            config.channel_config.force_close_avoidance_max_fee_satoshis = 0;
        }
        let created = turn.ldk.manager.create_channel(
            peer,
            request.amount_sat,
            request.push_msat,
            id,
            None,
            Some(config),
        );
        match created {
            Ok(_) => self.update(turn, id, |open| open.created = true),
            Err(error) => {
                self.fail(turn, id, Code::ChannelRefused, &format!("{error:?}"));
                if let Some(remote) = turn.remote() {
                    remote.forget_channel(id);
                }
            }
        }
    }

    /// LDK's events of a channel up to `ChannelReady`.
    pub fn on_event(&mut self, turn: &Turn, event: Event) {
        match event {
            Event::FundingGenerationReady {
                temporary_channel_id,
                counterparty_node_id,
                channel_value_satoshis,
                output_script,
                user_channel_id,
            } => {
                let funding = Funding {
                    temporary_channel_id,
                    counterparty: counterparty_node_id,
                    amount_sat: channel_value_satoshis,
                    script: output_script,
                    user_channel_id,
                };
                self.fund(turn, funding);
            }
            // The peer has signed our first commitment.
            Event::FundingTxBroadcastSafe {
                channel_id,
                user_channel_id,
                funding_txo,
                ..
            } => self.update(turn, user_channel_id, |open| {
                open.safe = true;
                open.safe_height = turn.height;
                open.channel_id = channel_id.0.to_vec();
                open.funding_outpoint = funding_txo.to_string();
            }),
            Event::ChannelReady {
                user_channel_id, ..
            } => self.update(turn, user_channel_id, |open| open.ready = true),
            _ => {}
        }
    }

    /// The peer has accepted the channel: builds the funding.
    fn fund(&mut self, turn: &Turn, funding: Funding) {
        let id = funding.user_channel_id;
        let (peer, temporary) = (funding.counterparty, funding.temporary_channel_id);
        if let Some(limit_sat) = turn.ldk.gate.take_dust_limit_sat(peer, temporary) {
            terms::keep(turn, &peer, id, limit_sat);
        }
        let given = self.opens.get(&id).and_then(|open| open.request.as_ref());
        let feerate = match given.map_or(0, |request| request.feerate_sat_per_kw) {
            // There was an estimate when the owner asked for the channel, a moment ago.
            0 => turn.ldk.fees.rates().normal,
            given => given,
        };
        let script = funding.script.clone();
        let reserve_sat = reserve::wanted_sat(turn, 0);
        let psbt = turn
            .wallet()
            .fund(script, funding.amount_sat, feerate, reserve_sat);
        let psbt = match psbt {
            Ok(psbt) => psbt,
            Err(error) => {
                self.fail(turn, id, error.code(), &error.to_string());
                let _ = turn.ldk.manager.force_close_broadcasting_latest_txn(
                    &funding.temporary_channel_id,
                    &funding.counterparty,
                    error.to_string(),
                );
                return;
            }
        };
        let tx = &psbt.unsigned_tx;
        let mut outputs = tx.output.iter();
        let vout = outputs.position(|output| output.script_pubkey == funding.script);
        let index = vout.and_then(|vout| u16::try_from(vout).ok());
        let outpoint = OutPoint {
            txid: tx.compute_txid(),
            index: index.unwrap_or_default(),
        };
        self.update(turn, id, |open| open.psbt = psbt.serialize());
        let given = turn
            .ldk
            .manager
            .unsafe_manual_funding_transaction_generated(
                funding.temporary_channel_id,
                funding.counterparty,
                outpoint,
            );
        if let Err(error) = given {
            self.fail(turn, id, Code::ChannelClosed, &format!("{error:?}"));
        }
    }

    /// Changes an opening that has not failed.
    fn update(&mut self, turn: &Turn, id: u128, change: impl FnOnce(&mut Open)) {
        let Some(open) = self.opens.get_mut(&id) else {
            return;
        };
        if !open.has_failed() {
            change(open);
            turn.journal.put(open.key(), open.encode_to_vec());
        }
    }

    // -- Failing.

    /// Fails an opening whose funding is not broadcast, and gives its coins back to the wallet.
    pub fn fail(&mut self, turn: &Turn, id: u128, code: Code, reason: &str) {
        let open = self.opens.get(&id).filter(|open| open.is_under_way());
        let Some(open) = open else { return };
        if let Some(psbt) = open.psbt() {
            turn.wallet().release(&psbt.unsigned_tx);
        }
        self.update(turn, id, |open| {
            open.failure_code = code.into();
            open.failure = reason.to_owned();
        });
    }

    /// Fails an opening, and has LDK give its channel up.
    fn abandon(&mut self, turn: &Turn, id: u128, code: Code, reason: &str) {
        self.fail(turn, id, code, reason);
        for channel in turn.channels() {
            if channel.user_channel_id == id {
                let _ = turn.ldk.manager.force_close_broadcasting_latest_txn(
                    &channel.channel_id,
                    &channel.counterparty.node_id,
                    reason.to_owned(),
                );
            }
        }
    }

    /// Another signer is attached: it signs nothing that it was not asked for.
    pub fn fail_of_others(&mut self, turn: &Turn, signer: &[u8]) {
        let opens = self.opens.iter();
        let of_others =
            opens.filter(|(_, open)| open.is_under_way() && !is_of(&open.asked_by, signer));
        let of_others: Vec<u128> = of_others.map(|(id, _)| *id).collect();
        for id in of_others {
            self.abandon(turn, id, Code::PairingRenewed, OTHER_PHONE_REASON);
        }
    }

    /// After a start: LDK keeps no channel whose funding was not safe yet.
    pub fn fail_interrupted(&mut self, turn: &Turn) {
        let channels = turn.channels();
        let is_alive = |id: &u128| channels.iter().any(|it| it.user_channel_id == *id);
        let opens = self.opens.iter();
        let interrupted =
            opens.filter(|(id, open)| open.created && !open.broadcast && !is_alive(id));
        let interrupted: Vec<u128> = interrupted.map(|(id, _)| *id).collect();
        for id in interrupted {
            let reason = "the host stopped before the channel was funded";
            self.fail(turn, id, Code::Interrupted, reason);
        }
    }

    /// The peer cannot be reached: openings that LDK has not begun fail.
    pub fn peer_unreachable(&mut self, turn: &Turn, peer: PublicKey, reason: &str) {
        let opens = self.opens.iter();
        let waiting = opens.filter(|(_, open)| !open.created && open.peer() == Some(peer));
        let waiting: Vec<u128> = waiting.map(|(id, _)| *id).collect();
        for id in waiting {
            self.fail(turn, id, Code::PeerUnreachable, reason);
        }
    }
}

/// Refuses an opening that cannot succeed.
fn check(turn: &Turn, request: &OpenChannel) -> Result<(), Error> {
    if request.amount_sat < MIN_CHANNEL_SAT {
        return Err(Error::new(
            Code::ChannelTooSmall,
            format!("a channel needs at least {MIN_CHANNEL_SAT} sat: give more"),
        ));
    }
    if request.push_msat > 0 && !turn.config.is_hub {
        return Err(Error::new(
            Code::PushRefused,
            "only a hub may give funds away with a new channel",
        ));
    }
    feerates::chosen(turn, request.feerate_sat_per_kw)?;
    let (confirmed, _) = turn.wallet().balance();
    let reserve_sat = reserve::wanted_sat(turn, 1);
    let needed = request.amount_sat.saturating_add(reserve_sat);
    if needed > confirmed {
        return Err(Error::new(
            Code::InsufficientFunds,
            format!(
                "the channel needs {needed} sat on chain (with {reserve_sat} kept for fees), \
                 there are {confirmed} sat confirmed: add funds"
            ),
        ));
    }
    Ok(())
}

/// The failure of an opening. It is final: the same command again is answered with it, until the owner has got it and
/// asks for a new opening.
fn failure(open: &Open) -> Option<Error> {
    open.has_failed()
        .then(|| recorded(&open.failure_code, open.failure.clone()))
}

/// An opening as its owner sees it before LDK lists the channel.
fn channel_of(open: &Open) -> Channel {
    let request = open.request.clone().unwrap_or_default();
    Channel {
        channel_id: open.channel_id.clone(),
        user_channel_id: request.id,
        counterparty_node_id: request.counterparty_node_id,
        funding_outpoint: open.funding_outpoint.clone(),
        capacity_sat: request.amount_sat,
        outbound: true,
        announced: request.announced,
        state: "opening".into(),
        ..Channel::default()
    }
}

#[cfg(test)]
#[path = "tests/openings.rs"]
mod tests;
