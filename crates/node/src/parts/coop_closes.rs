//! Cooperative closes, until they are deep in the chain.
//!
//! The turn that ends the negotiation takes the channel out of LDK's manager, and LDK broadcasts the transaction once. A
//! process that ends between that turn's commit and its broadcast would never broadcast it; loaded again, LDK takes the
//! monitor without a channel for one to be closed by force, and so does a peer that asks for the channel and is answered
//! that there is none. So the transaction is stored with the turn that ends the channel:
//! - it is broadcast again whenever the node has caught up with the chain, until it is in a block;
//! - LDK's monitor is updated, before the manager is read, to have ended without a commitment to broadcast. It goes on
//!   watching for commitments that the peer may broadcast;
//! - the gate keeps the peer's messages for the channel from the manager: the peer then waits for the chain.

use std::collections::HashMap;

use bitcoin::secp256k1::PublicKey;
use bitcoin::{OutPoint, Transaction, consensus};
use lightning::chain::channelmonitor::{ANTI_REORG_DELAY, ChannelMonitor, ChannelMonitorUpdate};
use lightning::ln::types::ChannelId;
use lightning::util::ser::Readable;
use prost::Message;

use crate::api::NodeError;
use crate::keys::ChannelSigner;
use crate::ldk::gate::Gate;
use crate::ldk::objects::Monitors;
use crate::machine::turn::Turn;
use crate::store::journal::Journal;
use crate::store::schema::{CoopClose as Record, channel_id, key};

/// One cooperative close.
struct CoopClose {
    channel_id: ChannelId,
    node_id: PublicKey,
    tx: Transaction,
    confirmed_height: Option<u32>,
    monitor_ended: bool,
}

impl CoopClose {
    fn read(bytes: &[u8]) -> Option<CoopClose> {
        let record = Record::decode(bytes).ok()?;
        Some(CoopClose {
            channel_id: channel_id(&record.channel_id)?,
            node_id: PublicKey::from_slice(&record.node_id).ok()?,
            tx: consensus::deserialize(&record.tx).ok()?,
            confirmed_height: Some(record.confirmed_height).filter(|height| *height > 0),
            monitor_ended: record.monitor_ended,
        })
    }

    fn record(&self) -> Record {
        Record {
            channel_id: self.channel_id.0.to_vec(),
            node_id: self.node_id.serialize().to_vec(),
            tx: consensus::serialize(&self.tx),
            confirmed_height: self.confirmed_height.unwrap_or(0),
            monitor_ended: self.monitor_ended,
        }
    }

    fn write(&self, journal: &Journal) {
        let record = self.record();
        journal.put(record.key(), record.encode_to_vec());
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

    /// No reorganisation is expected to undo it.
    fn is_deep(&self, tip_height: u32) -> bool {
        let height = self.confirmed_height;
        height.is_some_and(|height| tip_height >= height.saturating_add(ANTI_REORG_DELAY - 1))
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct CoopCloses {
    closes: HashMap<ChannelId, CoopClose>,
}

impl CoopCloses {
    /// Reads the records back.
    pub fn load(journal: &Journal) -> Result<CoopCloses, NodeError> {
        let stored = journal.loaded(key::COOP_CLOSE).into_iter();
        let closes = stored.map(|(_, bytes)| {
            let close = CoopClose::read(&bytes);
            let close = close.ok_or_else(|| NodeError::Load("a record of a close".into()))?;
            Ok((close.channel_id, close))
        });
        let closes = closes.collect::<Result<_, NodeError>>()?;
        Ok(CoopCloses { closes })
    }

    /// Updates the monitors of the channels to have ended without a commitment to broadcast. The channel manager must not
    /// have been read yet: it would queue forced closes for them, and it counts their updates from here.
    pub fn end_monitors(&mut self, monitors: &Monitors) -> Result<(), NodeError> {
        for monitor in monitors.all() {
            let close = self.closes.get_mut(&monitor.channel_id());
            if let Some(close) = close.filter(|close| !close.monitor_ended) {
                end_monitor(monitors, monitor)?;
                close.monitor_ended = true;
                close.write(&monitors.journal);
            }
        }
        Ok(())
    }

    /// After a start: the gate keeps back messages for these channels.
    pub fn close_gate(&self, gate: &Gate) {
        for close in self.closes.values() {
            gate.begin_coop_close(close.node_id, close.channel_id);
        }
    }

    /// Stores the closes that LDK has broadcast in this turn. Before the turn is written: it is the one that ends the
    /// channels.
    pub fn collect(&mut self, turn: &Turn) {
        for closing in turn.ldk.broadcaster.take_coop_closes() {
            if self.closes.contains_key(&closing.channel_id) {
                continue;
            }
            let close = CoopClose {
                channel_id: closing.channel_id,
                node_id: closing.node_id,
                tx: closing.tx,
                confirmed_height: None,
                monitor_ended: false,
            };
            close.write(&turn.journal);
            turn.ldk
                .gate
                .begin_coop_close(close.node_id, close.channel_id);
            self.closes.insert(close.channel_id, close);
        }
    }

    /// Transactions that are in no block.
    pub fn unconfirmed(&self) -> impl Iterator<Item = &Transaction> {
        let closes = self.closes.values();
        let unconfirmed = closes.filter(|close| close.confirmed_height.is_none());
        unconfirmed.map(|close| &close.tx)
    }

    /// A block spends the funding of such a channel. Another transaction than the close ends it too: LDK's monitor deals
    /// with that. The monitors must have got the block.
    pub fn block_connected<'a>(
        &mut self,
        turn: &Turn,
        height: u32,
        txs: impl Iterator<Item = &'a Transaction>,
    ) {
        if self.closes.is_empty() {
            return;
        }
        for tx in txs {
            let mut closes = self.closes.values_mut();
            let Some(close) = closes.find(|close| close.is_spent_by(tx)) else {
                continue;
            };
            if close.confirmed_height == Some(height) {
                continue;
            }
            close.confirmed_height = Some(height);
            close.write(&turn.journal);
            let channel_id = close.channel_id;
            let is_another = tx.compute_txid() != close.tx.compute_txid();
            // LDK writes a monitor up to 50 blocks after the block that changed it. Without the spend of its funding the
            // channel would be closed by force once the close is forgotten here and the node is loaded.
            turn.ldk.persister.note(channel_id);
            if is_another {
                self.forget(turn, &channel_id);
            }
        }
    }

    /// Blocks above `fork_height` have left the chain.
    pub fn blocks_disconnected(&mut self, turn: &Turn, fork_height: u32) {
        for close in self.closes.values_mut() {
            if close.confirmed_height > Some(fork_height) {
                close.confirmed_height = None;
                close.write(&turn.journal);
            }
        }
    }

    /// Forgets those that are deep in the chain.
    pub fn forget_deep(&mut self, turn: &Turn, tip_height: u32) {
        let closes = self.closes.values();
        let deep = closes.filter(|close| close.is_deep(tip_height));
        let deep: Vec<ChannelId> = deep.map(|close| close.channel_id).collect();
        deep.iter().for_each(|id| self.forget(turn, id));
    }

    fn forget(&mut self, turn: &Turn, channel_id: &ChannelId) {
        if let Some(close) = self.closes.remove(channel_id) {
            turn.journal.delete(close.record().key());
            turn.ldk.gate.end_coop_close(&close.node_id, channel_id);
        }
    }
}

fn end_monitor(
    monitors: &Monitors,
    monitor: &ChannelMonitor<ChannelSigner>,
) -> Result<(), NodeError> {
    let bad = || NodeError::Load("the monitor of a channel that was closed".into());
    let next = monitor.get_latest_update_id().checked_add(1);
    let update = next
        .and_then(|id| ended(id, monitor.channel_id()))
        .ok_or_else(bad)?;
    let (broadcaster, fees, logger) = (&*monitors.broadcaster, &*monitors.fees, &*monitors.logger);
    monitor
        .update_monitor(&update, &broadcaster, &fees, &logger)
        .map_err(|()| bad())?;
    monitors.persister.write(monitor);
    Ok(())
}

/// LDK's `ChannelForceClosed` with `should_broadcast` false: the update that its manager gives a monitor when a channel
/// was closed by a transaction in the chain. LDK has no constructor for it, but a stable encoding.
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::testing::World;
    use bitcoin::absolute::LockTime;
    use bitcoin::{TxIn, transaction};
    use lightning::util::ser::Writeable;

    const ID: ChannelId = ChannelId([7; 32]);

    /// A transaction that spends the channel's funding; `lock_time` tells several of them apart.
    fn spend(lock_time: u32) -> Transaction {
        Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::from_consensus(lock_time),
            input: vec![TxIn::default()],
            output: Vec::new(),
        }
    }

    /// A hub with a close that is in no block, and nothing to commit.
    fn world_with_close() -> (World, CoopCloses) {
        let mut world = World::new();
        let hub = world.add_hub(1);
        let turn = world.turn(hub);
        turn.journal.take();
        let close = CoopClose {
            channel_id: ID,
            node_id: turn.node_id(),
            tx: spend(0),
            confirmed_height: None,
            monitor_ended: false,
        };
        let closes = HashMap::from([(ID, close)]);
        (world, CoopCloses { closes })
    }

    /// The height in the record that is to be committed.
    fn written_height(turn: &Turn) -> u32 {
        match &turn.journal.take()[..] {
            [longhand_store::Write::Put(_, bytes)] => {
                Record::decode(&bytes[..]).unwrap().confirmed_height
            }
            other => panic!("not one record: {other:?}"),
        }
    }

    #[test]
    fn a_close_is_broadcast_until_it_is_in_a_block_and_again_after_a_reorganisation() {
        let (mut world, mut closes) = world_with_close();
        let turn = world.turn(0);
        assert_eq!(closes.unconfirmed().count(), 1);
        closes.block_connected(turn, 10, [spend(0)].iter());
        assert_eq!(written_height(turn), 10);
        assert_eq!(closes.unconfirmed().count(), 0);

        closes.blocks_disconnected(turn, 10);
        assert!(turn.journal.is_empty(), "its block is still there");
        closes.blocks_disconnected(turn, 9);
        assert_eq!(written_height(turn), 0);
        assert_eq!(closes.unconfirmed().count(), 1);
    }

    #[test]
    fn a_close_is_forgotten_once_it_is_deep_in_the_chain() {
        let (mut world, mut closes) = world_with_close();
        let turn = world.turn(0);
        closes.forget_deep(turn, 1_000);
        assert_eq!(closes.closes.len(), 1, "it is in no block");
        closes.block_connected(turn, 10, [spend(0)].iter());
        closes.forget_deep(turn, 10 + ANTI_REORG_DELAY - 2);
        assert_eq!(closes.closes.len(), 1);
        turn.journal.take();

        closes.forget_deep(turn, 10 + ANTI_REORG_DELAY - 1);
        assert!(closes.closes.is_empty());
        let deleted = matches!(turn.journal.take()[..], [longhand_store::Write::Delete(_)]);
        assert!(deleted, "its record stays");
    }

    #[test]
    fn another_transaction_that_spends_the_funding_ends_a_close() {
        let (mut world, mut closes) = world_with_close();
        closes.block_connected(world.turn(0), 10, [spend(1)].iter());
        assert!(closes.closes.is_empty());
    }

    #[test]
    fn a_close_is_read_back_as_it_was_and_an_unreadable_one_keeps_the_node_from_loading() {
        let (mut world, mut closes) = world_with_close();
        let turn = world.turn(0);
        closes.block_connected(turn, 10, [spend(0)].iter());
        let record = closes.closes[&ID].record();
        let entry = |bytes| Journal::loading(vec![(record.key(), bytes)]);
        let loaded = CoopCloses::load(&entry(record.encode_to_vec())).unwrap();
        assert_eq!(loaded.closes[&ID].record(), record);

        let cut = Record {
            tx: vec![1],
            ..record.clone()
        };
        let loaded = CoopCloses::load(&entry(cut.encode_to_vec())).map(|_| ());
        assert!(matches!(loaded, Err(NodeError::Load(_))), "{loaded:?}");
    }

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
