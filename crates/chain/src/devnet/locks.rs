//! Absolute and relative time locks: the mempool accepts a transaction only when the next block could contain it.

use bitcoin::{Sequence, Transaction};

use super::chain::{ChainState, Coin};
use super::policy::Reject;

/// Lock times below this are heights.
const LOCKTIME_THRESHOLD: u32 = 500_000_000;
/// Seconds per unit of a time-based relative lock, as a power of two (BIP 68).
const SEQUENCE_TIME_SHIFT: u32 = 9;

/// A transaction must be final in the next block (BIP 113: by the median time past).
pub(super) fn check_final(chain: &ChainState, tx: &Transaction) -> Result<(), Reject> {
    let tip = chain.tip();
    let lock_time = tx.lock_time.to_consensus_u32();
    let cutoff = if lock_time < LOCKTIME_THRESHOLD {
        tip.height + 1
    } else {
        chain.median_time_past(&tip.hash)
    };
    let is_final = lock_time == 0
        || lock_time < cutoff
        || tx.input.iter().all(|input| input.sequence == Sequence::MAX);
    if is_final {
        Ok(())
    } else {
        Err(Reject::new("non-final", ""))
    }
}

/// Relative locks (BIP 68) must have expired in the next block.
pub(super) fn check_sequence_locks(
    chain: &ChainState,
    tx: &Transaction,
    coins: &[Coin],
) -> Result<(), Reject> {
    if tx.version.0 < 2 {
        return Ok(());
    }
    let tip = chain.tip();
    for (input, coin) in tx.input.iter().zip(coins) {
        let Some(lock) = input.sequence.to_relative_lock_time() else {
            continue;
        };
        let passed = match lock {
            bitcoin::relative::LockTime::Blocks(blocks) => {
                u64::from(tip.height) + 1 >= u64::from(coin.height) + u64::from(blocks.value())
            }
            bitcoin::relative::LockTime::Time(time) => {
                let before = chain
                    .hash_at(coin.height.saturating_sub(1))
                    .unwrap_or(tip.hash);
                let start = u64::from(chain.median_time_past(&before));
                let unlocked = start + (u64::from(time.value()) << SEQUENCE_TIME_SHIFT);
                u64::from(chain.median_time_past(&tip.hash)) >= unlocked
            }
        };
        if !passed {
            return Err(Reject::new("non-BIP68-final", ""));
        }
    }
    Ok(())
}
