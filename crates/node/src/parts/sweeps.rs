//! Sweeping the outputs that closed channels have left for their owner.
//!
//! With each block LDK makes a new transaction of all outputs that are in no block yet, and broadcasts it in place of the
//! last one. It stores the state of a sweep only when it sweeps, for which the signer has to be there.

use bitcoin::{BlockHash, Txid};
use lightning::chain::Confirm;
use lightning::events::Event;
use lightning::util::sweep::OutputSpendStatus;

use crate::machine::turn::Turn;

/// See the module.
pub(crate) struct Sweeps {
    /// The sweeps in blocks, as they are stored.
    stored: Vec<(Txid, u32, Option<BlockHash>)>,
}

impl Sweeps {
    /// Begins with LDK's sweeper as it was loaded.
    pub fn load(turn: &Turn) -> Sweeps {
        Sweeps {
            stored: turn.ldk.sweeper.get_relevant_txids(),
        }
    }

    /// LDK's `SpendableOutputs`. Static outputs pay to the on-chain wallet, which finds them by itself.
    pub fn track(&self, turn: &Turn, event: Event) {
        let Event::SpendableOutputs {
            outputs,
            channel_id,
            counterparty_node_id,
        } = event
        else {
            return;
        };
        let tracked = turn.ldk.sweeper.track_spendable_outputs(
            outputs,
            channel_id,
            counterparty_node_id,
            true,
            None,
        );
        if tracked.is_err() {
            tracing::error!("outputs of a closed channel could not be kept for sweeping");
        }
    }

    /// Sweeps what there is to be swept, once in a block. Only while the signer is there.
    pub fn sweep(&self, turn: &Turn) {
        let mut tracked = turn.ldk.sweeper.tracked_spendable_outputs();
        tracked.retain(|output| {
            !matches!(
                output.status,
                OutputSpendStatus::PendingThresholdConfirmations { .. }
            )
        });
        let outpoints = tracked.iter().map(|it| it.descriptor.spendable_outpoint());
        let outpoints = outpoints.map(|it| it.into_bitcoin_outpoint()).collect();
        turn.ldk.onchain.claims(outpoints);
        // An error waits for the signature, or for the next block.
        let sweeper = &turn.ldk.sweeper;
        let _ = sweeper.regenerate_and_broadcast_spend_if_necessary();
    }

    /// Writes the confirmations of sweeps with this turn. After a restart the stream of blocks begins after the blocks
    /// that all parts of the node know: LDK gets a confirmation once, and without it would sweep again for ever.
    pub fn write(&mut self, turn: &Turn) {
        let sweeper = &turn.ldk.sweeper;
        let in_blocks = sweeper.get_relevant_txids();
        if in_blocks == self.stored {
            return;
        }
        self.stored = in_blocks;
        // LDK writes all of its state when an output is tracked, also one that it knows, and asks no signer then.
        if let Some(known) = sweeper.tracked_spendable_outputs().pop() {
            let (channel_id, peer) = (known.channel_id, known.counterparty_node_id);
            let outputs = vec![known.descriptor];
            // The journal never fails.
            let _ = sweeper.track_spendable_outputs(outputs, channel_id, peer, false, None);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use lightning::util::persist::OUTPUT_SWEEPER_PERSISTENCE_KEY;

    use super::*;
    use crate::parts::testing::Pair;

    /// The sweeper's record as the owner's node has committed it.
    fn stored(pair: &Pair) -> Vec<u8> {
        let mut store = pair.world.nodes[pair.owner].store.iter();
        let sweeper = store.find(|(key, _)| key.ends_with(OUTPUT_SWEEPER_PERSISTENCE_KEY));
        sweeper.unwrap().1.clone()
    }

    #[test]
    fn the_confirmation_of_a_sweep_is_stored_though_the_phone_is_away() {
        let mut pair = Pair::new();
        pair.phone_leaves();
        pair.force_close();
        pair.world.mine(10);
        pair.world.attach(pair.owner);
        pair.phone_leaves();
        let [sweep] = &pair.world.mempool[..] else {
            panic!("one sweep: {:?}", pair.world.mempool);
        };
        let txid = sweep.compute_txid();
        let before = stored(&pair);
        pair.world.mine(1);
        // Nothing has left the node: its turn is committed a little later.
        pair.world.pass(Duration::from_secs(1));
        assert!(stored(&pair) != before);
        let in_blocks = Sweeps::load(pair.world.turn(pair.owner)).stored;
        assert!(in_blocks.iter().any(|(swept, ..)| *swept == txid));

        // Only a change is written.
        let turn = pair.world.turn(pair.owner);
        turn.journal.take();
        Sweeps::load(turn).write(turn);
        assert!(turn.journal.is_empty());
    }
}
