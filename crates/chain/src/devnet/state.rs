//! The state of a devnet: chain, mempool and wallet, which change together under one lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::{
    Amount, Block, BlockHash, OutPoint, Script, ScriptBuf, Transaction, TxOut, Txid, Wtxid,
};

use super::DevnetError;
use super::chain::{ChainState, TipChange};
use super::filters::Filters;
use super::mempool::{Entry, Mempool};
use super::miner::{self, Template};
use super::policy::{self, Accepted, AcceptedPackage, Mode, Reject, RejectKind};
use super::wallet::MinerWallet;
use crate::FeeRates;

/// Depth at which a coinbase may be spent in the next block.
const COINBASE_MATURITY: u32 = 100;
/// Limit of blocks that the faucet mines to have enough.
const FAUCET_MAX_BLOCKS: u32 = 120;

/// The consensus library rejects a block whose time is further ahead of the clock.
const MAX_FUTURE_S: u64 = 2 * 60 * 60;
/// Fee rate until [`State::set_fee_rates`]: the minimum for relay.
const RELAY_FEE_SAT_PER_KW: u32 = (policy::MIN_RELAY_FEE_SAT_PER_KVB / 4) as u32;

/// See the module.
pub(super) struct State {
    pub(super) chain: ChainState,
    pub(super) filters: Filters,
    pub(super) pool: Mempool,
    pub(super) wallet: MinerWallet,
    /// See [`State::set_fee_rates`].
    fee_rates: FeeRates,
    /// Blocks mined, also those that were rejected.
    made: u64,
}

/// The result for one transaction of a package.
#[derive(Clone)]
pub(super) enum PackageResult {
    /// It is in the mempool now; its fee rate was that of these transactions together.
    Accepted {
        entry: Entry,
        effective_fee_sat: u64,
        effective_vsize: u64,
        effective_includes: Vec<Wtxid>,
    },
    /// It was in the mempool before, maybe with another witness.
    Known(Entry),
    /// It was rejected.
    Rejected(Reject),
}

/// The result for a package.
pub(super) struct PackageOutcome {
    /// `None` when all of it is in the mempool.
    pub(super) failure: Option<String>,
    pub(super) results: BTreeMap<Wtxid, (Txid, PackageResult)>,
    pub(super) replaced: Vec<Txid>,
}

/// The time of a block after blocks with this median time: the clock's, unless the clock stands still or went back.
fn next_time(median_time_past: u32, now: u64) -> Result<u32, DevnetError> {
    let earliest = u64::from(median_time_past) + 1;
    let time = earliest.max(now);
    if time > now + MAX_FUTURE_S {
        let behind_s = earliest - now;
        return Err(DevnetError::Clock { behind_s });
    }
    u32::try_from(time)
        .map_err(|_| DevnetError::Invalid("no block can have a time after the year 2106".into()))
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl State {
    /// A chain and a wallet, with an empty mempool.
    pub(super) fn new(chain: ChainState, wallet: MinerWallet) -> State {
        State {
            chain,
            filters: Filters::default(),
            pool: Mempool::default(),
            wallet,
            fee_rates: FeeRates {
                urgent: RELAY_FEE_SAT_PER_KW,
                normal: RELAY_FEE_SAT_PER_KW,
                background: RELAY_FEE_SAT_PER_KW,
                minimum: RELAY_FEE_SAT_PER_KW,
                is_estimate: true,
            },
            made: 0,
        }
    }

    pub(super) fn fee_rates(&self) -> FeeRates {
        self.fee_rates
    }

    /// Sets the fee estimates, and the mempool's minimum.
    pub(super) fn set_fee_rates(&mut self, fee_rates: FeeRates) {
        self.fee_rates = fee_rates;
        // Lightning nodes round 1 sat/vB up to 253 sat/kw: at that floor the minimum is that for relay.
        self.pool.min_fee_sat_per_kvb = if fee_rates.minimum > FeeRates::FLOOR.minimum {
            policy::sat_per_kvb(fee_rates.minimum)
        } else {
            0
        };
    }

    /// Checks one transaction; changes nothing.
    pub(super) fn test(&self, tx: &Arc<Transaction>) -> Result<Accepted, Reject> {
        policy::accept(&self.chain, &self.pool, tx, Mode::Single, now())
    }

    /// Adds one transaction to the mempool.
    pub(super) fn submit(&mut self, tx: &Arc<Transaction>) -> Result<Txid, Reject> {
        let accepted = self.test(tx)?;
        policy::apply(&mut self.pool, accepted);
        Ok(tx.compute_txid())
    }

    /// Adds parents followed by their child to the mempool: each by itself when possible, the rest together.
    pub(super) fn submit_package(&mut self, txs: &[Arc<Transaction>]) -> PackageOutcome {
        let mut outcome = PackageOutcome {
            failure: None,
            results: BTreeMap::new(),
            replaced: vec![],
        };
        let mut together: Vec<Arc<Transaction>> = vec![];
        let mut is_unfixable = false;
        for tx in txs {
            let (txid, wtxid) = (tx.compute_txid(), tx.compute_wtxid());
            if let Some(entry) = self.pool.get(&txid) {
                outcome
                    .results
                    .insert(wtxid, (txid, PackageResult::Known(entry.clone())));
                continue;
            }
            match self.test(tx) {
                Ok(accepted) => {
                    let entry = accepted.entry.clone();
                    let replaced = policy::apply(&mut self.pool, accepted);
                    outcome
                        .replaced
                        .extend(replaced.iter().map(|tx| tx.compute_txid()));
                    let result = PackageResult::Accepted {
                        effective_fee_sat: entry.fee_sat,
                        effective_vsize: entry.vsize,
                        effective_includes: vec![wtxid],
                        entry,
                    };
                    outcome.results.insert(wtxid, (txid, result));
                }
                Err(reject) => {
                    is_unfixable |= reject.kind == RejectKind::Unfixable;
                    together.push(tx.clone());
                    outcome
                        .results
                        .insert(wtxid, (txid, PackageResult::Rejected(reject)));
                }
            }
        }
        // Only a package with its child, which could pay, is tried together.
        let is_alone = together.len() == 1 && txs.len() == 1;
        if is_unfixable || is_alone || !together.is_empty() && together.last() != txs.last() {
            outcome.failure = Some("transaction failed".into());
        } else if !together.is_empty() {
            self.submit_together(&together, &mut outcome);
        }
        outcome
    }

    fn submit_together(&mut self, txs: &[Arc<Transaction>], outcome: &mut PackageOutcome) {
        match policy::accept_package(&self.chain, &self.pool, txs, now()) {
            Ok(AcceptedPackage {
                pool,
                added,
                replaced,
            }) => {
                self.pool = pool;
                outcome
                    .replaced
                    .extend(replaced.iter().map(|tx| tx.compute_txid()));
                let effective_fee_sat = added.iter().map(|entry| entry.fee_sat).sum();
                let effective_vsize = added.iter().map(|entry| entry.vsize).sum();
                let effective_includes: Vec<Wtxid> =
                    added.iter().map(|entry| entry.wtxid).collect();
                for entry in added {
                    let (txid, wtxid) = (entry.txid, entry.wtxid);
                    let effective_includes = effective_includes.clone();
                    let result = PackageResult::Accepted {
                        entry,
                        effective_fee_sat,
                        effective_vsize,
                        effective_includes,
                    };
                    outcome.results.insert(wtxid, (txid, result));
                }
            }
            Err(reject) => {
                let is_package =
                    reject.reason.starts_with("package") || reject.reason == "conflict-in-package";
                outcome.failure = Some(if is_package {
                    reject.message()
                } else {
                    "transaction failed".to_string()
                });
                for tx in txs {
                    let result = PackageResult::Rejected(reject.clone());
                    outcome
                        .results
                        .insert(tx.compute_wtxid(), (tx.compute_txid(), result));
                }
            }
        }
    }

    /// Mines blocks from the mempool.
    pub(super) fn mine(
        &mut self,
        n: u32,
        reward_to: &Script,
    ) -> Result<Vec<BlockHash>, DevnetError> {
        let hashes = (0..n).map(|_| {
            let txs = self.pool.select_for_block();
            let fees_sat = self
                .pool
                .totals(&txs.iter().map(|tx| tx.compute_txid()).collect::<Vec<_>>())
                .fee_sat;
            let block = self.next_block(self.chain.tip().hash, txs, fees_sat, reward_to)?;
            let hash = block.block_hash();
            let change = self.chain.extend(block)?;
            self.update_pool(change);
            Ok(hash)
        });
        let hashes = hashes.collect::<Result<Vec<_>, DevnetError>>()?;
        self.chain.sync()?;
        Ok(hashes)
    }

    /// Mines one block of just these transactions.
    pub(super) fn mine_these(
        &mut self,
        txs: Vec<Arc<Transaction>>,
        reward_to: &Script,
    ) -> Result<BlockHash, DevnetError> {
        let block = self.next_block(self.chain.tip().hash, txs, 0, reward_to)?;
        let hash = self.take(block)?;
        self.chain.sync()?;
        Ok(hash)
    }

    /// Disconnects `depth` blocks and mines one more than that: the first with `txs`, the others empty.
    pub(super) fn reorg(
        &mut self,
        depth: u32,
        txs: Vec<Transaction>,
    ) -> Result<Vec<BlockHash>, DevnetError> {
        let tip = self.chain.tip().height;
        let fork = tip
            .checked_sub(depth)
            .filter(|_| depth > 0)
            .and_then(|height| self.chain.hash_at(height));
        let mut parent = fork.ok_or_else(|| {
            DevnetError::Invalid(format!(
                "a reorg of {depth} blocks needs a depth from 1 to {tip}"
            ))
        })?;
        let reward_to = self.wallet.script();
        let mut txs: Vec<Arc<Transaction>> = txs.into_iter().map(Arc::new).collect();
        let mut hashes = vec![];
        for _ in 0..=depth {
            let block = self.next_block(parent, std::mem::take(&mut txs), 0, &reward_to)?;
            parent = self.take(block)?;
            hashes.push(parent);
        }
        self.chain.sync()?;
        if self.chain.tip().hash != parent {
            return Err(DevnetError::Block(
                "the new blocks did not become the best chain: see their transactions".into(),
            ));
        }
        Ok(hashes)
    }

    fn next_block(
        &mut self,
        parent: BlockHash,
        txs: Vec<Arc<Transaction>>,
        fees_sat: u64,
        reward_to: &Script,
    ) -> Result<Block, DevnetError> {
        let height = self.chain.block(&parent).map_or(0, |stored| stored.height) + 1;
        let time = next_time(self.chain.median_time_past(&parent), now())?;
        self.made += 1;
        // Unique in this process and, by the number of blocks in the log, among earlier ones.
        let extra_nonce = (self.chain.known() as u64) << 32 | self.made & u64::from(u32::MAX);
        Ok(miner::mine(Template {
            parent,
            height,
            time,
            txs,
            fees_sat,
            reward_to: reward_to.to_owned(),
            extra_nonce,
        }))
    }

    /// Validates a block from outside.
    pub(super) fn take(&mut self, block: Block) -> Result<BlockHash, DevnetError> {
        let hash = block.block_hash();
        let change = self.chain.process(block)?;
        self.update_pool(change);
        Ok(hash)
    }

    /// `invalidateblock`.
    pub(super) fn invalidate(&mut self, hash: &BlockHash) -> Result<(), DevnetError> {
        let change = self.chain.invalidate(hash)?;
        self.update_pool(change);
        Ok(())
    }

    /// `reconsiderblock`.
    pub(super) fn reconsider(&mut self, hash: &BlockHash) -> Result<(), DevnetError> {
        let change = self.chain.reconsider(hash)?;
        self.update_pool(change);
        Ok(())
    }

    fn update_pool(&mut self, change: TipChange) {
        if change.disconnected.is_empty() {
            change
                .connected
                .iter()
                .for_each(|block| self.pool.remove_mined(block));
            return;
        }
        // The transactions of the disconnected blocks, then those of the mempool, parents first; all that are still
        // valid on the new tip are added again.
        let waited: Vec<Arc<Transaction>> = self
            .pool
            .in_order()
            .into_iter()
            .map(|entry| entry.tx.clone())
            .collect();
        let returned = change
            .disconnected
            .iter()
            .flat_map(|block| block.txdata.iter().skip(1).cloned().map(Arc::new));
        let candidates: Vec<Arc<Transaction>> = returned.chain(waited).collect();
        self.pool = self.pool.emptied();
        for tx in candidates {
            match policy::accept(&self.chain, &self.pool, &tx, Mode::Reorg, now()) {
                // An earlier transaction stays: nothing is replaced here.
                Ok(accepted) if accepted.replaces.is_empty() => {
                    policy::apply(&mut self.pool, accepted);
                }
                Ok(_) => {}
                Err(reject) => {
                    tracing::debug!(txid = %tx.compute_txid(), reason = reject.reason, "left the mempool")
                }
            }
        }
    }

    /// Pays from the wallet into the mempool; mines when the wallet has too little.
    pub(super) fn faucet(
        &mut self,
        script: &ScriptBuf,
        amount: Amount,
    ) -> Result<Txid, DevnetError> {
        let mut mined = 0;
        loop {
            match self.wallet.pay(&self.wallet_coins(), script, amount) {
                Ok(tx) => {
                    let submitted = self.submit(&Arc::new(tx));
                    return submitted.map_err(|reject| DevnetError::Rejected(reject.message()));
                }
                Err(_) if mined < FAUCET_MAX_BLOCKS && amount <= self.wallet_total() => {
                    self.mine(1, &self.wallet.script())?;
                    mined += 1;
                }
                Err(have) => return Err(DevnetError::Faucet { have, want: amount }),
            }
        }
    }

    /// The coins that the wallet can spend now: confirmed ones first, then its own change; large ones first.
    fn wallet_coins(&self) -> Vec<(OutPoint, TxOut)> {
        let script = self.wallet.script();
        let next = self.chain.tip().height + 1;
        let is_free = |outpoint: &OutPoint| self.pool.spender(outpoint).is_none();
        let mut confirmed: Vec<(OutPoint, TxOut)> = self
            .chain
            .coins()
            .iter()
            .filter(|(outpoint, coin)| {
                let is_mature = !coin.is_coinbase || next - coin.height >= COINBASE_MATURITY;
                coin.output.script_pubkey == script && is_mature && is_free(outpoint)
            })
            .map(|(outpoint, coin)| (*outpoint, coin.output.clone()))
            .collect();
        confirmed.sort_by_key(|(outpoint, output)| (std::cmp::Reverse(output.value), *outpoint));
        let pending = self.pool.in_order().into_iter().flat_map(|entry| {
            let outputs = (0u32..).zip(&entry.tx.output);
            outputs.map(|(vout, output)| (OutPoint::new(entry.txid, vout), output.clone()))
        });
        confirmed.extend(
            pending
                .filter(|(outpoint, output)| output.script_pubkey == script && is_free(outpoint)),
        );
        confirmed
    }

    /// The sum of the wallet's coins, mature or not, and of the blocks that the faucet may mine.
    fn wallet_total(&self) -> Amount {
        let script = self.wallet.script();
        let coins = self
            .chain
            .coins()
            .values()
            .filter(|coin| coin.output.script_pubkey == script);
        let have: Amount = coins.map(|coin| coin.output.value).sum();
        let height = self.chain.tip().height;
        let to_come = (1..=FAUCET_MAX_BLOCKS - COINBASE_MATURITY)
            .map(|n| miner::subsidy(height + n))
            .sum::<Amount>();
        have + to_come
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const NOW: u64 = 1_700_000_000;

    #[test]
    fn a_block_has_the_time_of_the_clock() {
        assert_eq!(next_time(NOW as u32 - 600, NOW).unwrap(), NOW as u32);
        // Also when that has jumped ahead by a year.
        assert_eq!(
            next_time(NOW as u32, NOW + 31_536_000).unwrap(),
            NOW as u32 + 31_536_000
        );
    }

    #[test]
    fn a_clock_that_stands_still_or_goes_back_gives_the_earliest_time_there_is() {
        assert_eq!(next_time(NOW as u32, NOW).unwrap(), NOW as u32 + 1);
        let median = (NOW + MAX_FUTURE_S - 1) as u32;
        assert_eq!(next_time(median, NOW).unwrap(), median + 1);
    }

    #[test]
    fn a_clock_that_is_too_far_behind_makes_no_block() {
        let median = (NOW + MAX_FUTURE_S) as u32;
        let error = next_time(median, NOW).unwrap_err();
        assert!(matches!(error, DevnetError::Clock { behind_s: 7_201 }));
    }
}
