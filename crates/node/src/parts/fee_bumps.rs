//! More fees for forced closes: LDK's requests, and the transactions that were broadcast for them.
//!
//! LDK asks every half minute for a bump of each claim that is in no block yet, at a fee rate that rises with the blocks
//! or stays as it is. Built anew each time, a bump would be another transaction with change at another address: thousands
//! for a commitment that waits for a day, none of which pays enough to replace the one that is known already.
//!
//! Two claims may have to share the wallet's only coin. The bump of one then replaces the bump of the other, which waits
//! for a block before it is made again: with a change address that it has had before.

use std::collections::HashMap;

use bitcoin::{OutPoint, Transaction};
use lightning::chain::ClaimId;
use lightning::events::bump_transaction::BumpTransactionEvent;

use crate::machine::turn::Turn;
use crate::wallet::OnchainWallet;

/// By the claims that they are for.
#[derive(Default)]
pub(crate) struct FeeBumps {
    /// The newest request of each claim, until it is signed.
    requested: HashMap<ClaimId, BumpTransactionEvent>,
    sent: HashMap<ClaimId, Sent>,
}

/// The last bump of a claim.
struct Sent {
    claimed: Vec<OutPoint>,
    feerate_sat_per_kw: u32,
    packages: Vec<Vec<Transaction>>,
}

impl FeeBumps {
    /// LDK's `BumpTransaction`.
    pub fn request(&mut self, event: BumpTransactionEvent) {
        let (BumpTransactionEvent::ChannelClose { claim_id, .. }
        | BumpTransactionEvent::HTLCResolution { claim_id, .. }) = event;
        self.requested.insert(claim_id, event);
    }

    /// After a block LDK asks again for bumps that are still needed. Bumps that are in the block, or have lost their coins
    /// to another transaction, are forgotten.
    pub fn block_connected(&mut self, wallet: &dyn OnchainWallet) {
        self.requested.clear();
        self.sent.retain(|_, sent| sent.is_pending(wallet));
    }

    /// Broadcasts the requested bumps, as far as they are signed.
    pub fn advance(&mut self, turn: &Turn) {
        for (claim_id, mut event) in std::mem::take(&mut self.requested) {
            if is_closed_in_chain(turn, &event) || !retain_unspent(turn, &mut event) {
                continue;
            }
            let again = self.again(&claim_id, &event, &**turn.wallet());
            if let Some(packages) = again {
                let broadcaster = &turn.ldk.broadcaster;
                packages.into_iter().for_each(|it| broadcaster.push(it));
                continue;
            }
            match bump(turn, &event) {
                Some(sent) => drop(self.sent.insert(claim_id, sent)),
                None => drop(self.requested.insert(claim_id, event)),
            }
        }
    }

    /// The packages to broadcast again for this claim, if its last bump still serves. None of them, until the next block,
    /// if another claim has replaced the bump: it would be replaced in turn.
    fn again(
        &self,
        claim_id: &ClaimId,
        event: &BumpTransactionEvent,
        wallet: &dyn OnchainWallet,
    ) -> Option<Vec<Vec<Transaction>>> {
        let sent = self.sent.get(claim_id)?;
        let is_enough = sent.feerate_sat_per_kw >= feerate_sat_per_kw(event);
        let is_same = sent.claimed == claimed(event);
        if !is_enough || !is_same {
            return None;
        }
        if sent.is_displaced(wallet) {
            return Some(Vec::new());
        }
        sent.is_pending(wallet).then(|| sent.packages.clone())
    }
}

impl Sent {
    fn is_pending(&self, wallet: &dyn OnchainWallet) -> bool {
        let mut last = self.packages.iter().filter_map(|package| package.last());
        last.all(|tx| wallet.is_pending(tx.compute_txid()))
    }

    fn is_displaced(&self, wallet: &dyn OnchainWallet) -> bool {
        let mut last = self.packages.iter().filter_map(|package| package.last());
        last.any(|tx| wallet.is_displaced(tx.compute_txid()))
    }
}

/// Has LDK build and broadcast a bump; `None` while it waits for its signature.
fn bump(turn: &Turn, event: &BumpTransactionEvent) -> Option<Sent> {
    let before = turn.ldk.broadcaster.len();
    turn.ldk.onchain.claims(claimed(event));
    turn.ldk.bumper.handle_event(event);
    let packages = turn.ldk.broadcaster.since(before);
    (!packages.is_empty()).then(|| Sent {
        claimed: claimed(event),
        feerate_sat_per_kw: feerate_sat_per_kw(event),
        packages,
    })
}

/// Takes HTLCs out that a block has spent, and is false when none is left. LDK may ask for those for ever: it forgets a
/// claim that waits for its timeout when the HTLC is spent, and begins it anew when it learns a preimage of another
/// in the same commitment.
fn retain_unspent(turn: &Turn, event: &mut BumpTransactionEvent) -> bool {
    let BumpTransactionEvent::HTLCResolution {
        htlc_descriptors, ..
    } = event
    else {
        return true;
    };
    let wallet = turn.wallet();
    htlc_descriptors.retain(|htlc| !wallet.is_spent_in_chain(htlc.outpoint()));
    !htlc_descriptors.is_empty()
}

/// LDK gets many blocks in one turn, and may ask for more fees for a commitment when the last of them has spent its
/// channel's funding already.
fn is_closed_in_chain(turn: &Turn, event: &BumpTransactionEvent) -> bool {
    let BumpTransactionEvent::ChannelClose { channel_id, .. } = event else {
        return false;
    };
    let Ok(monitor) = turn.ldk.chain_monitor.get_monitor(*channel_id) else {
        return false;
    };
    let funding = monitor.get_funding_txo().txid;
    let mut confirmed = monitor.get_relevant_txids().into_iter();
    confirmed.any(|(txid, ..)| txid != funding)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use bitcoin::absolute::LockTime;
    use bitcoin::hashes::Hash;
    use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
    use bitcoin::{Amount, Sequence, TxIn, TxOut, Txid, Witness, transaction};
    use lightning::ln::types::ChannelId;

    use crate::wallet::new_wallet;

    fn output(byte: u8) -> OutPoint {
        OutPoint::new(Txid::from_byte_array([byte; 32]), 0)
    }

    /// A bump of a claim, paid with a coin.
    fn paying(
        claimed: OutPoint,
        coin: OutPoint,
        wallet: &mut dyn OnchainWallet,
    ) -> Vec<Transaction> {
        let input = |previous_output| TxIn {
            previous_output,
            sequence: Sequence::ENABLE_RBF_NO_LOCKTIME,
            script_sig: Default::default(),
            witness: Witness::new(),
        };
        vec![Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: vec![input(claimed), input(coin)],
            output: vec![TxOut {
                value: Amount::from_sat(10_000),
                script_pubkey: wallet.claim_change_script(&[claimed]),
            }],
        }]
    }

    fn event(claim_id: ClaimId) -> BumpTransactionEvent {
        let secret = SecretKey::from_slice(&[1; 32]).unwrap();
        BumpTransactionEvent::HTLCResolution {
            channel_id: ChannelId([1; 32]),
            counterparty_node_id: PublicKey::from_secret_key(&Secp256k1::new(), &secret),
            claim_id,
            target_feerate_sat_per_1000_weight: 253,
            htlc_descriptors: Vec::new(),
            tx_lock_time: LockTime::ZERO,
        }
    }

    #[test]
    fn of_two_claims_with_one_coin_the_displaced_one_waits_for_a_block_and_keeps_its_change_address()
     {
        let (mut wallet, mut bumps) = (new_wallet(), FeeBumps::default());
        let (first, second) = (ClaimId([1; 32]), ClaimId([2; 32]));
        let coin = output(9);
        let send = |claim_id: ClaimId, wallet: &mut dyn OnchainWallet, bumps: &mut FeeBumps| {
            let package = paying(output(claim_id.0[0]), coin, wallet);
            let sent = Sent {
                claimed: claimed(&event(claim_id)),
                feerate_sat_per_kw: 253,
                packages: vec![package.clone()],
            };
            bumps.sent.insert(claim_id, sent);
            wallet.insert_package(package.clone(), 1);
            package
        };
        let again = |bumps: &FeeBumps, wallet: &dyn OnchainWallet, claim_id| {
            bumps.again(&claim_id, &event(claim_id), wallet)
        };

        let of_first = send(first, &mut *wallet, &mut bumps);
        let found = again(&bumps, &*wallet, first);
        assert_eq!(found, Some(vec![of_first.clone()]));
        let of_second = send(second, &mut *wallet, &mut bumps);
        assert_ne!(of_first[0].output, of_second[0].output);

        // However often LDK asks.
        assert_eq!(again(&bumps, &*wallet, first), Some(vec![]));
        assert_eq!(again(&bumps, &*wallet, second), Some(vec![of_second]));

        bumps.block_connected(&*wallet);
        assert_eq!(again(&bumps, &*wallet, first), None, "it is made anew");
        assert_eq!(send(first, &mut *wallet, &mut bumps), of_first);
        assert_eq!(again(&bumps, &*wallet, second), Some(vec![]));
    }
}
