//! More fees for forced closes: what LDK asks for, and what was sent for it.
//!
//! LDK asks every half minute for what is in no block yet, at a fee rate that rises with the blocks or stays as it is.
//! Built anew each time, it would be another transaction with change at another address: thousands for a commitment that
//! waits for a day, none of which pays enough to take the place of the one that is known already.

use std::collections::HashMap;

use bitcoin::{OutPoint, Transaction};
use lightning::chain::ClaimId;
use lightning::events::bump_transaction::BumpTransactionEvent;

use crate::core::Core;
use crate::journal::lock;
use crate::wallet::Wallet;

/// By the claims that they are for.
#[derive(Default)]
pub(crate) struct Bumps {
    /// The newest of each claim, until it is signed.
    asked: HashMap<ClaimId, BumpTransactionEvent>,
    sent: HashMap<ClaimId, Sent>,
}

/// What was sent last.
struct Sent {
    claimed: Vec<OutPoint>,
    feerate_sat_per_kw: u32,
    packages: Vec<Vec<Transaction>>,
}

impl Bumps {
    /// LDK asks for more fees.
    pub fn ask(&mut self, event: BumpTransactionEvent) {
        let (BumpTransactionEvent::ChannelClose { claim_id, .. }
        | BumpTransactionEvent::HTLCResolution { claim_id, .. }) = event;
        self.asked.insert(claim_id, event);
    }

    /// After a block LDK asks again for what is still needed, and what is in the block, or has lost its coins to another
    /// transaction, is of no use any more.
    pub fn block_connected(&mut self, wallet: &Wallet) {
        self.asked.clear();
        self.sent.retain(|_, sent| sent.is_pending(wallet));
    }

    /// What was sent for this claim already, if it does as well.
    fn sent(
        &self,
        claim_id: &ClaimId,
        event: &BumpTransactionEvent,
        wallet: &Wallet,
    ) -> Option<Vec<Vec<Transaction>>> {
        let sent = self.sent.get(claim_id)?;
        let is_enough = sent.feerate_sat_per_kw >= feerate_sat_per_kw(event);
        let is_same = sent.claimed == claimed(event);
        (is_enough && is_same && sent.is_pending(wallet)).then(|| sent.packages.clone())
    }
}

impl Sent {
    fn is_pending(&self, wallet: &Wallet) -> bool {
        let mut last = self.packages.iter().filter_map(|package| package.last());
        last.all(|tx| wallet.is_pending(tx.compute_txid()))
    }
}

impl Core {
    /// Sends what LDK has asked for, as far as it is signed.
    pub fn retry_bumps(&mut self) {
        for (claim_id, mut event) in std::mem::take(&mut self.bumps.asked) {
            if self.is_closed_in_chain(&event) || !self.leave_unspent(&mut event) {
                continue;
            }
            let sent = self.bumps.sent(&claim_id, &event, &lock(&self.wallet));
            if let Some(packages) = sent {
                packages
                    .into_iter()
                    .for_each(|package| self.broadcaster.push(package));
                continue;
            }
            let before = self.broadcaster.len();
            self.bumper.handle_event(&event);
            let packages = self.broadcaster.since(before);
            if packages.is_empty() {
                self.bumps.asked.insert(claim_id, event);
                continue;
            }
            let sent = Sent {
                claimed: claimed(&event),
                feerate_sat_per_kw: feerate_sat_per_kw(&event),
                packages,
            };
            self.bumps.sent.insert(claim_id, sent);
        }
    }

    /// Takes HTLCs out that a block has spent, and is false when none is left. LDK may ask for those for ever: it forgets a
    /// claim that waits for its timeout when the HTLC is spent, and begins it anew when it learns a preimage of another
    /// in the same commitment.
    fn leave_unspent(&self, event: &mut BumpTransactionEvent) -> bool {
        let BumpTransactionEvent::HTLCResolution {
            htlc_descriptors, ..
        } = event
        else {
            return true;
        };
        let wallet = lock(&self.wallet);
        htlc_descriptors.retain(|htlc| !wallet.is_spent_in_chain(htlc.outpoint()));
        !htlc_descriptors.is_empty()
    }

    /// LDK is told of many blocks in one turn, and may ask for more fees for a commitment when the last of them has spent
    /// its channel's funding already.
    fn is_closed_in_chain(&self, event: &BumpTransactionEvent) -> bool {
        let BumpTransactionEvent::ChannelClose { channel_id, .. } = event else {
            return false;
        };
        let Ok(monitor) = self.chain_monitor.get_monitor(*channel_id) else {
            return false;
        };
        let funding = monitor.get_funding_txo().txid;
        let mut confirmed = monitor.get_relevant_txids().into_iter();
        confirmed.any(|(txid, ..)| txid != funding)
    }
}

fn feerate_sat_per_kw(event: &BumpTransactionEvent) -> u32 {
    match event {
        BumpTransactionEvent::ChannelClose {
            package_target_feerate_sat_per_1000_weight,
            ..
        } => *package_target_feerate_sat_per_1000_weight,
        BumpTransactionEvent::HTLCResolution {
            target_feerate_sat_per_1000_weight,
            ..
        } => *target_feerate_sat_per_1000_weight,
    }
}

fn claimed(event: &BumpTransactionEvent) -> Vec<OutPoint> {
    match event {
        BumpTransactionEvent::ChannelClose {
            anchor_descriptor, ..
        } => vec![anchor_descriptor.outpoint],
        BumpTransactionEvent::HTLCResolution {
            htlc_descriptors, ..
        } => htlc_descriptors
            .iter()
            .map(|htlc| htlc.outpoint())
            .collect(),
    }
}
