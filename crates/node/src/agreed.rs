//! Closes on which both sides have agreed, until they are deep in the chain.
//!
//! The turn that ends the negotiation takes the channel out of LDK's manager, and LDK sends the transaction once. A
//! process that ends between that turn's commit and its broadcast would never send it; loaded again, LDK takes the
//! monitor without a channel for one to be closed by force, and so does a peer that asks for the channel and is told
//! that there is none. So the transaction is kept with the turn that ends the channel:
//! - it is sent again whenever the node has caught up with the chain, until it is in a block;
//! - LDK's monitor is told, before the manager is read, that its channel has ended without a commitment to broadcast.
//!   It goes on watching for what the peer may broadcast;
//! - the gate keeps from the manager what the peer says of the channel: the peer then waits for the chain.

use std::collections::HashMap;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, Transaction, consensus};
use lightning::chain::chainmonitor::Persist;
use lightning::chain::channelmonitor::{ANTI_REORG_DELAY, ChannelMonitor, ChannelMonitorUpdate};
use lightning::ln::types::ChannelId;
use lightning::util::ser::Readable;
use prost::Message;

use crate::NodeError;
use crate::core::Core;
use crate::hex::hex;
use crate::journal::Journal;
use crate::keys::ChannelSigner;
use crate::ldk::{Broadcaster, Fees};
use crate::logger::Logger;
use crate::persister::AtOnce;

const PREFIX: &str = "agreed/";

/// As it is stored.
#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(bytes = "vec", tag = "1")]
    channel_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    node_id: Vec<u8>,
    /// With all signatures.
    #[prost(bytes = "vec", tag = "3")]
    tx: Vec<u8>,
    /// Height of the block that has it; 0 while none has.
    #[prost(uint32, tag = "4")]
    confirmed_height: u32,
    /// The monitor knows, see [`Monitors::end`].
    #[prost(bool, tag = "5")]
    monitor_ended: bool,
}

/// One agreed close.
pub(crate) struct Agreed {
    pub channel_id: ChannelId,
    pub node_id: PublicKey,
    tx: Transaction,
    confirmed_height: Option<u32>,
    monitor_ended: bool,
}

/// By the channels' ids.
pub(crate) type AgreedCloses = HashMap<ChannelId, Agreed>;

impl Agreed {
    /// A close that has just been agreed on with `node_id`.
    pub fn new(node_id: PublicKey, channel_id: ChannelId, tx: Transaction) -> Agreed {
        Agreed {
            channel_id,
            node_id,
            tx,
            confirmed_height: None,
            monitor_ended: false,
        }
    }

    fn read(bytes: &[u8]) -> Option<Agreed> {
        let record = Record::decode(bytes).ok()?;
        Some(Agreed {
            channel_id: ChannelId(record.channel_id.try_into().ok()?),
            node_id: PublicKey::from_slice(&record.node_id).ok()?,
            tx: consensus::deserialize(&record.tx).ok()?,
            confirmed_height: Some(record.confirmed_height).filter(|height| *height > 0),
            monitor_ended: record.monitor_ended,
        })
    }

    fn write(&self, journal: &Journal) {
        let record = Record {
            channel_id: self.channel_id.0.to_vec(),
            node_id: self.node_id.serialize().to_vec(),
            tx: consensus::serialize(&self.tx),
            confirmed_height: self.confirmed_height.unwrap_or(0),
            monitor_ended: self.monitor_ended,
        };
        journal.put(self.key(), record.encode_to_vec());
    }

    fn key(&self) -> String {
        format!("{PREFIX}{}", hex(&self.channel_id.0))
    }

    /// It has one input: the funding (BOLT 3).
    fn funding(&self) -> Option<OutPoint> {
        self.tx.input.first().map(|input| input.previous_output)
    }

    fn is_spent_by(&self, tx: &Transaction) -> bool {
        let funding = self.funding();
        let mut inputs = tx.input.iter();
        inputs.any(|input| Some(input.previous_output) == funding)
    }
}

/// Reads back what had been agreed when the process ended.
pub(crate) fn load(journal: &Journal) -> Result<AgreedCloses, NodeError> {
    let stored = journal.loaded(PREFIX).into_iter();
    stored
        .map(|(_, bytes)| {
            let agreed = Agreed::read(&bytes);
            let agreed = agreed.ok_or_else(|| NodeError::Load("a record of a close".into()))?;
            Ok((agreed.channel_id, agreed))
        })
        .collect()
}

/// What LDK needs to change a monitor.
pub(crate) struct Monitors<'a> {
    pub journal: &'a Journal,
    pub persister: &'a AtOnce,
    pub broadcaster: &'a Broadcaster,
    pub fees: &'a Fees,
    pub logger: &'a Logger,
}

impl Monitors<'_> {
    /// Tells the monitors that the agreed channels have ended and that there is nothing to broadcast. The manager must
    /// not have been read yet: it would queue forced closes for them, and it counts their updates from here.
    pub fn end<'m>(
        &self,
        agreed: &mut AgreedCloses,
        monitors: impl Iterator<Item = &'m ChannelMonitor<ChannelSigner>>,
    ) -> Result<(), NodeError> {
        for monitor in monitors {
            let close = agreed.get_mut(&monitor.channel_id());
            if let Some(close) = close.filter(|close| !close.monitor_ended) {
                self.end_one(monitor)?;
                close.monitor_ended = true;
                close.write(self.journal);
            }
        }
        Ok(())
    }

    fn end_one(&self, monitor: &ChannelMonitor<ChannelSigner>) -> Result<(), NodeError> {
        let bad = || NodeError::Load("the monitor of a channel that was closed".into());
        let next = monitor.get_latest_update_id().checked_add(1);
        let update = next
            .and_then(|id| ended(id, monitor.channel_id()))
            .ok_or_else(bad)?;
        monitor
            .update_monitor(&update, &self.broadcaster, &self.fees, &self.logger)
            .map_err(|()| bad())?;
        // The journal never fails.
        self.persister
            .update_persisted_channel(monitor.persistence_key(), None, monitor);
        Ok(())
    }
}

/// LDK's `ChannelForceClosed` with `should_broadcast` false: the update that its manager gives a monitor when a channel
/// was closed by a transaction in the chain. LDK has no way to make one from outside, but a stable way to write them.
fn ended(update_id: u64, channel_id: ChannelId) -> Option<ChannelMonitorUpdate> {
    const VERSION: [u8; 2] = [1, 1];
    const STEPS: u64 = 1;
    /// The step's type, the length of its fields, and `should_broadcast` as type, length and value.
    const STEP: [u8; 5] = [4, 3, 0, 1, 0];
    /// The length of the update's fields, and before the channel's id its type and length.
    const FIELDS: [u8; 3] = [34, 3, 32];
    let bytes = [
        &VERSION[..],
        &update_id.to_be_bytes(),
        &STEPS.to_be_bytes(),
        &STEP,
        &FIELDS,
        &channel_id.0,
    ]
    .concat();
    ChannelMonitorUpdate::read(&mut &bytes[..]).ok()
}

impl Core {
    /// Takes in the closes that this turn has agreed on. Before the turn is written: it is the one that ends the channels.
    pub fn keep_agreed(&mut self) {
        for close in self.broadcaster.take_agreed() {
            if self.agreed.contains_key(&close.channel_id) {
                continue;
            }
            close.write(&self.journal);
            self.gate.close_agreed(close.node_id, close.channel_id);
            self.agreed.insert(close.channel_id, close);
        }
    }

    /// Those that wait for a block.
    pub fn waiting_agreed(&self) -> impl Iterator<Item = &Transaction> {
        let waiting = self.agreed.values();
        waiting
            .filter(|close| close.confirmed_height.is_none())
            .map(|close| &close.tx)
    }

    /// What a block has done with the fundings of agreed closes. Another spend than the agreed one ends the matter: LDK's
    /// monitor deals with it. The monitors have been told of the block.
    pub fn agreed_confirmed<'a>(
        &mut self,
        height: u32,
        txs: impl Iterator<Item = &'a Transaction>,
    ) {
        if self.agreed.is_empty() {
            return;
        }
        for tx in txs {
            let mut closes = self.agreed.values_mut();
            let Some(close) = closes.find(|close| close.is_spent_by(tx)) else {
                continue;
            };
            if close.confirmed_height == Some(height) {
                continue;
            }
            close.confirmed_height = Some(height);
            close.write(&self.journal);
            let channel_id = close.channel_id;
            let is_another = tx.compute_txid() != close.tx.compute_txid();
            // LDK writes what a monitor has seen in a block up to 50 blocks later. Without the spend of its funding it would
            // be closed by force once the close is forgotten here and the node is loaded.
            self.persister.note(channel_id);
            if is_another {
                self.forget_agreed(&channel_id);
            }
        }
    }

    /// Blocks above `fork_height` are gone.
    pub fn agreed_disconnected(&mut self, fork_height: u32) {
        for close in self.agreed.values_mut() {
            if close.confirmed_height > Some(fork_height) {
                close.confirmed_height = None;
                close.write(&self.journal);
            }
        }
    }

    /// Forgets those that no reorganisation is expected to undo.
    pub fn forget_deep_agreed(&mut self, tip_height: u32) {
        let is_deep = |close: &Agreed| {
            let height = close.confirmed_height;
            height.is_some_and(|height| tip_height >= height.saturating_add(ANTI_REORG_DELAY - 1))
        };
        let deep = self.agreed.values().filter(|close| is_deep(close));
        let deep: Vec<ChannelId> = deep.map(|close| close.channel_id).collect();
        deep.iter().for_each(|id| self.forget_agreed(id));
    }

    fn forget_agreed(&mut self, channel_id: &ChannelId) {
        if let Some(close) = self.agreed.remove(channel_id) {
            self.journal.delete(close.key());
            self.gate.close_is_over(&close.node_id, channel_id);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use lightning::util::ser::Writeable;

    #[test]
    fn a_monitors_end_is_ldks_own_update_without_a_broadcast() {
        let update = ended(42, ChannelId([7; 32])).unwrap();
        assert_eq!(update.update_id, 42);
        assert_eq!(update.channel_id, Some(ChannelId([7; 32])));
        let said = format!("{update:?}");
        assert!(
            said.contains(
                "[ChannelForceClosed { should_broadcast: false, counterparty_failed_htlcs: [] }]"
            ),
            "{said}"
        );
        // Read as a whole, nothing left out: LDK writes it as it was.
        assert_eq!(
            ChannelMonitorUpdate::read(&mut &update.encode()[..]).unwrap(),
            update
        );
    }
}
