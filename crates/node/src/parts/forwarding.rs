//! The fees of a hub for forwarding payments, and the payments that it has forwarded.
//!
//! LDK keeps the fees with each channel (`ChannelConfig`). The operator sets them for the hub as a whole: they are a
//! record, given to all channels at once, and to a new channel when it is ready. Of forwarded payments the newest are
//! kept one by one ([`KEPT`]), all others in the totals only.

use std::collections::VecDeque;

use lightning::events::Event;
use lightning::ln::channel_state::ChannelDetails;
use lightning::util::config::{ChannelConfig, ChannelConfigUpdate};
use longhand_proto::Code;
use longhand_proto::command::Error;
use prost::Message;

use crate::api::{Forward, ForwardingFees, Forwards};
use crate::machine::turn::Turn;
use crate::store::journal::Journal;
use crate::store::schema::{Fees, ForwardTotals, Forwarded, forwarded_key, key};

/// Forwarded payments that are kept one by one.
pub(crate) const KEPT: usize = 1_000;
/// The highest fees that can be set: 1,000 sat, and 10 %. Higher ones are a mistake in the unit.
const MAX_BASE_MSAT: u32 = 1_000_000;
const MAX_PROPORTIONAL_MILLIONTHS: u32 = 100_000;

/// See the module.
#[derive(Default)]
pub(crate) struct Forwarding {
    /// As the operator has set them; LDK's default until then.
    fees: Option<ForwardingFees>,
    totals: ForwardTotals,
    /// The newest, the oldest first.
    recent: VecDeque<Forwarded>,
}

impl Forwarding {
    /// Reads the records back. One that cannot be read is left out: no money depends on it, and the operator can set the
    /// fees again.
    pub fn load(journal: &Journal) -> Forwarding {
        let fees = journal.loaded_one(key::FEES);
        let fees = fees.and_then(|bytes| Fees::decode(&bytes[..]).ok());
        let totals = journal.loaded_one(key::FORWARD_TOTALS);
        let totals = totals.and_then(|bytes| ForwardTotals::decode(&bytes[..]).ok());
        let recent = journal.loaded(key::FORWARD).into_iter();
        let recent = recent.filter_map(|(_, bytes)| Forwarded::decode(&bytes[..]).ok());
        let mut recent: Vec<_> = recent.collect();
        recent.sort_by_key(|forwarded| forwarded.number);
        Forwarding {
            fees: fees.map(|fees| ForwardingFees {
                base_msat: fees.base_msat,
                proportional_millionths: fees.proportional_millionths,
            }),
            totals: totals.unwrap_or_default(),
            recent: recent.into(),
        }
    }

    // -- Fees.

    /// The fees that new channels get.
    pub fn fees(&self) -> ForwardingFees {
        self.fees
            .unwrap_or_else(|| fees_of(&ChannelConfig::default()))
    }

    /// Sets the fees of all channels, and of those to come.
    ///
    /// # Errors
    /// `BAD_FEES`; nothing is changed then.
    pub fn set_fees(&mut self, turn: &Turn, fees: ForwardingFees) -> Result<(), Error> {
        if fees.base_msat > MAX_BASE_MSAT
            || fees.proportional_millionths > MAX_PROPORTIONAL_MILLIONTHS
        {
            return Err(Error::new(
                Code::BadFees,
                format!(
                    "a fee may be up to {MAX_BASE_MSAT} msat and {MAX_PROPORTIONAL_MILLIONTHS} millionths of the \
                     amount: look at the units"
                ),
            ));
        }
        let record = Fees {
            base_msat: fees.base_msat,
            proportional_millionths: fees.proportional_millionths,
        };
        turn.journal.put(key::FEES, record.encode_to_vec());
        self.fees = Some(fees);
        self.apply(turn);
        Ok(())
    }

    /// Gives the fees to the channels that have others.
    pub fn apply(&self, turn: &Turn) {
        let Some(fees) = self.fees else { return };
        let update = ChannelConfigUpdate {
            forwarding_fee_base_msat: Some(fees.base_msat),
            forwarding_fee_proportional_millionths: Some(fees.proportional_millionths),
            ..ChannelConfigUpdate::default()
        };
        let has_others =
            |channel: &ChannelDetails| channel.config.is_none_or(|config| fees_of(&config) != fees);
        for channel in turn.channels().into_iter().filter(has_others) {
            let (peer, id) = (channel.counterparty.node_id, [channel.channel_id]);
            let updated = turn
                .ldk
                .manager
                .update_partial_channel_config(&peer, &id, &update);
            if let Err(error) = updated {
                tracing::warn!(channel = %channel.channel_id, "forwarding fees were not set: {error:?}");
            }
        }
    }

    // -- Forwarded payments.

    /// Records a payment that was forwarded and paid.
    pub fn record(&mut self, turn: &Turn, event: Event) {
        let Event::PaymentForwarded {
            prev_htlcs,
            next_htlcs,
            total_fee_earned_msat,
            claim_from_onchain_tx,
            outbound_amount_forwarded_msat,
            ..
        } = event
        else {
            return;
        };
        let (from, to) = (prev_htlcs.first(), next_htlcs.first());
        let bytes = |node_id: &bitcoin::secp256k1::PublicKey| node_id.serialize().to_vec();
        let forwarded = Forwarded {
            number: self.totals.next_number,
            unix_s: turn.now.unix_s(),
            from_channel_id: from.map_or_else(Vec::new, |it| it.channel_id.0.to_vec()),
            from_htlc_id: from.and_then(|it| it.htlc_id),
            from_node_id: from
                .and_then(|it| it.node_id.as_ref())
                .map_or_else(Vec::new, bytes),
            to_channel_id: to.map_or_else(Vec::new, |it| it.channel_id.0.to_vec()),
            to_node_id: to
                .and_then(|it| it.node_id.as_ref())
                .map_or_else(Vec::new, bytes),
            amount_msat: outbound_amount_forwarded_msat,
            fee_msat: total_fee_earned_msat,
            claimed_on_chain: claim_from_onchain_tx,
        };
        // LDK may report a payment whose fee it does not know again.
        let is_known = || {
            self.recent
                .iter()
                .any(|known| known.is_same_htlc(&forwarded))
        };
        if forwarded.fee_msat.is_some() || !is_known() {
            self.add(turn, forwarded);
        }
    }

    fn add(&mut self, turn: &Turn, forwarded: Forwarded) {
        let totals = &mut self.totals;
        totals.next_number = totals.next_number.saturating_add(1);
        totals.count = totals.count.saturating_add(1);
        totals.amount_msat = totals.amount_msat.saturating_add(forwarded.amount_msat);
        let fee_msat = forwarded.fee_msat.unwrap_or(0);
        totals.fee_msat = totals.fee_msat.saturating_add(fee_msat);
        turn.journal
            .put(key::FORWARD_TOTALS, totals.encode_to_vec());
        turn.journal
            .put(forwarded_key(forwarded.number), forwarded.encode_to_vec());
        self.recent.push_back(forwarded);
        while self.recent.len() > KEPT {
            if let Some(oldest) = self.recent.pop_front() {
                turn.journal.delete(forwarded_key(oldest.number));
            }
        }
    }

    /// The totals, and up to `limit` of the newest payments, the newest first.
    pub fn report(&self, limit: usize) -> Forwards {
        let newest = self.recent.iter().rev().take(limit);
        Forwards {
            count: self.totals.count,
            amount_msat: self.totals.amount_msat,
            fee_msat: self.totals.fee_msat,
            newest: newest.map(Forward::from).collect(),
        }
    }
}

impl From<&Forwarded> for Forward {
    fn from(record: &Forwarded) -> Forward {
        Forward {
            unix_s: record.unix_s,
            from_channel_id: record.from_channel_id.clone(),
            from_node_id: record.from_node_id.clone(),
            to_channel_id: record.to_channel_id.clone(),
            to_node_id: record.to_node_id.clone(),
            amount_msat: record.amount_msat,
            fee_msat: record.fee_msat,
            claimed_on_chain: record.claimed_on_chain,
        }
    }
}

fn fees_of(config: &ChannelConfig) -> ForwardingFees {
    ForwardingFees {
        base_msat: config.forwarding_fee_base_msat,
        proportional_millionths: config.forwarding_fee_proportional_millionths,
    }
}

#[cfg(test)]
#[path = "tests/forwarding.rs"]
mod tests;
