//! Sweeping what closed channels have left for their owner.
//!
//! LDK makes another transaction of all that is in no block yet with each block, and sends it in place of the one before.

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
}
