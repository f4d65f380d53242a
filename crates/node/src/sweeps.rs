//! Sweeping what closed channels have left for their owner.
//!
//! LDK makes another transaction of all that is in no block yet with each block, and sends it in place of the one before.
//! It keeps what has become of one only when it sweeps, for which the signer has to be there.

use lightning::chain::Confirm;
use lightning::util::sweep::OutputSpendStatus;

use crate::core::Core;

impl Core {
    /// Sweeps what there is to be swept, once in a block. Without its signer a node has nobody to ask.
    pub fn sweep(&self) {
        let mut swept = self.sweeper.tracked_spendable_outputs();
        swept.retain(|output| {
            !matches!(
                output.status,
                OutputSpendStatus::PendingThresholdConfirmations { .. }
            )
        });
        let outpoints = swept
            .iter()
            .map(|output| output.descriptor.spendable_outpoint());
        self.onchain
            .claims(outpoints.map(|it| it.into_bitcoin_outpoint()).collect());
        // What fails waits for its signature, or for the next block.
        let _ = self.sweeper.regenerate_and_broadcast_spend_if_necessary();
    }

    /// Has what blocks have done to sweeps written with this turn. The stream of blocks begins anew after what the other
    /// parts of the node know, and LDK would wait for a sweep for ever, and sweep again, that it was told of only once.
    pub fn write_sweeps(&mut self) {
        let in_blocks = self.sweeper.get_relevant_txids();
        if in_blocks == self.swept {
            return;
        }
        self.swept = in_blocks;
        // LDK writes all of its state when it is told of an output, also of one that it knows, and asks nobody then.
        if let Some(known) = self.sweeper.tracked_spendable_outputs().pop() {
            let (channel_id, peer) = (known.channel_id, known.counterparty_node_id);
            let outputs = vec![known.descriptor];
            // The journal never fails.
            let _ = self
                .sweeper
                .track_spendable_outputs(outputs, channel_id, peer, false, None);
        }
    }
}
