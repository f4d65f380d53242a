//! Channels that were closed: kept so that an owner sees that, and why, and can ask for a close twice.

use bitcoin::Transaction;
use lightning::ln::types::ChannelId;
use longhand_proto::command::ClosedChannel;
use prost::Message;

use crate::NodeError;
use crate::core::Core;
use crate::keys::remote::hex;

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

    /// What is to be broadcast may close channels.
    pub fn see_closings(&mut self, package: &[Transaction]) {
        package.iter().for_each(|tx| self.see_closing(tx));
    }

    /// A transaction that is broadcast or confirmed: does it close a channel? The last one that is seen is the one.
    pub fn see_closing(&mut self, tx: &Transaction) {
        let spends = |outpoint: &str| {
            let mut inputs = tx.input.iter();
            inputs.any(|input| input.previous_output.to_string() == outpoint)
        };
        let txid = tx.compute_txid();
        let found = self
            .closed
            .iter()
            .find(|(_, closed)| spends(&closed.funding_outpoint))
            .map(|(id, closed)| (*id, closed.clone()));
        if let Some((id, mut closed)) = found {
            if closed.closing_txid != txid.to_string() {
                closed.closing_txid = txid.to_string();
                self.write_closed(id, closed);
            }
            return;
        }
        for channel in self.manager.list_channels() {
            let funding = channel.funding_txo.map(|txo| txo.into_bitcoin_outpoint());
            if funding.is_some_and(|funding| spends(&funding.to_string())) {
                self.closings.insert(channel.channel_id, txid);
            }
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
