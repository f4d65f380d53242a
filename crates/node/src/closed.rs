//! Channels that were closed: kept so that an owner sees that, and why, and can ask for a close twice.

use std::collections::HashMap;

use bitcoin::{OutPoint, Transaction, Txid};
use lightning::ln::types::ChannelId;
use longhand_proto::command::ClosedChannel;
use prost::Message;

use crate::NodeError;
use crate::core::Core;
use crate::hex::hex;

impl Core {
    /// Keeps that a channel was closed. What never had a funding was none.
    pub fn put_closed(&mut self, mut closed: ClosedChannel) {
        let Some(id) = id_of(&closed) else { return };
        if closed.funding_outpoint.is_empty() || self.closed.contains_key(&id) {
            return;
        }
        if let Some(txid) = self.closings.remove(&id) {
            closed.closing_txid = txid.to_string();
        }
        self.write_closed(id, closed);
    }

    fn write_closed(&mut self, id: ChannelId, closed: ClosedChannel) {
        let key = format!("closed/{}", hex(&id.0));
        self.journal.put(key, closed.encode_to_vec());
        self.closed.insert(id, closed);
    }

    /// Oldest first.
    pub fn closed_channels(&self) -> Vec<ClosedChannel> {
        let mut closed: Vec<_> = self.closed.values().cloned().collect();
        closed.sort_by(|one, other| {
            let key = |closed: &ClosedChannel| closed.closed_unix_s;
            key(one)
                .cmp(&key(other))
                .then_with(|| one.channel_id.cmp(&other.channel_id))
        });
        closed
    }

    /// Transactions that are broadcast or confirmed: do they close channels? The last one that is seen is the one.
    pub fn see_closings<'a>(&mut self, txs: impl Iterator<Item = &'a Transaction>) {
        let spends = txs.flat_map(|tx| {
            let txid = tx.compute_txid();
            let inputs = tx.input.iter();
            inputs.map(move |input| (input.previous_output, txid))
        });
        let spends: HashMap<OutPoint, Txid> = spends.collect();
        if spends.is_empty() {
            return;
        }
        for channel in self.manager.list_channels() {
            let funding = channel.funding_txo.map(|txo| txo.into_bitcoin_outpoint());
            if let Some(txid) = funding.and_then(|funding| spends.get(&funding)) {
                self.closings.insert(channel.channel_id, *txid);
            }
        }
        let seen = self.closed.iter().filter_map(|(id, closed)| {
            let funding = closed.funding_outpoint.parse().ok()?;
            let closing_txid = spends.get(&funding)?.to_string();
            let is_news = closed.closing_txid != closing_txid;
            let closed = closed.clone();
            is_news.then_some((
                *id,
                ClosedChannel {
                    closing_txid,
                    ..closed
                },
            ))
        });
        for (id, closed) in seen.collect::<Vec<_>>() {
            self.write_closed(id, closed);
        }
    }

    pub fn load_closed(&mut self) -> Result<(), NodeError> {
        for (_, bytes) in self.journal.loaded("closed/") {
            let closed = ClosedChannel::decode(&bytes[..]).ok();
            let bad = || NodeError::Load("a record of a closed channel".into());
            let (id, closed) = closed
                .and_then(|closed| Some((id_of(&closed)?, closed)))
                .ok_or_else(bad)?;
            self.closed.insert(id, closed);
        }
        Ok(())
    }
}

fn id_of(closed: &ClosedChannel) -> Option<ChannelId> {
    Some(ChannelId(
        <[u8; 32]>::try_from(&closed.channel_id[..]).ok()?,
    ))
}
