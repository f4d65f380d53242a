//! All that devnet knows, and what can be done with it: the chain, the mempool and the wallet, which
//! change together under one lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bitcoin::{
    Amount, Block, BlockHash, OutPoint, Script, ScriptBuf, Transaction, TxOut, Txid, Wtxid,
};

use super::DevnetError;
use super::chain::{ChainState, TipChange};
use super::mempool::{Entry, Mempool};
use super::miner::{self, Template};
use super::policy::{self, Accepted, AcceptedPackage, Mode, Reject, RejectKind};
use super::wallet::MinerWallet;

/// Depth at which a coinbase may be spent in the next block.
const COINBASE_MATURITY: u32 = 100;
/// The faucet mines at most so many blocks to have enough.
const FAUCET_MAX_BLOCKS: u32 = 120;

/// See the module.
pub(super) struct State {
    pub(super) chain: ChainState,
    pub(super) pool: Mempool,
    pub(super) wallet: MinerWallet,
}

/// What became of one transaction of a package.
#[derive(Clone)]
pub(super) enum PackageResult {
    /// It is in the mempool now; its fee rate was that of these transactions together.
    Accepted {
        entry: Entry,
        effective_fee_sat: u64,
        effective_vsize: u64,
        effective_includes: Vec<Wtxid>,
    },
    /// It was there before, maybe with another witness.
    Known(Entry),
    /// It was refused.
    Rejected(Reject),
}

/// What became of a package.
pub(super) struct PackageOutcome {
    /// `None` when all of it is in the mempool.
    pub(super) failure: Option<String>,
    pub(super) results: BTreeMap<Wtxid, (Txid, PackageResult)>,
    pub(super) replaced: Vec<Txid>,
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl State {
    /// Checks one transaction; changes nothing.
    pub(super) fn test(&self, tx: &Arc<Transaction>) -> Result<Accepted, Reject> {
        policy::accept(&self.chain, &self.pool, tx, Mode::Single, now())
    }

    /// Takes one transaction into the mempool.
    pub(super) fn submit(&mut self, tx: &Arc<Transaction>) -> Result<Txid, Reject> {
        let accepted = self.test(tx)?;
        policy::apply(&mut self.pool, accepted);
        Ok(tx.compute_txid())
    }

    /// Takes parents followed by their child into the mempool: each by itself when it can be, the rest together.
    pub(super) fn submit_package(&mut self, txs: &[Arc<Transaction>]) -> PackageOutcome {
        let mut outcome = PackageOutcome {
            failure: None,
            results: BTreeMap::new(),
            replaced: vec![],
        };
        let mut together: Vec<Arc<Transaction>> = vec![];
        let mut is_hopeless = false;
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
                    is_hopeless |= reject.kind == RejectKind::Final;
                    together.push(tx.clone());
                    outcome
                        .results
                        .insert(wtxid, (txid, PackageResult::Rejected(reject)));
                }
            }
        }
        // Without a child that could pay there is nothing to try together.
        let is_alone = together.len() == 1 && txs.len() == 1;
        if is_hopeless || is_alone || !together.is_empty() && together.last() != txs.last() {
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
            let block = self.next_block(self.chain.tip().hash, txs, fees_sat, reward_to);
            self.take(block)
        });
        let hashes = hashes.collect::<Result<Vec<_>, _>>()?;
        self.chain.sync()?;
        Ok(hashes)
    }

    /// Mines one block of just these transactions.
    pub(super) fn mine_these(
        &mut self,
        txs: Vec<Arc<Transaction>>,
        reward_to: &Script,
    ) -> Result<BlockHash, DevnetError> {
        let block = self.next_block(self.chain.tip().hash, txs, 0, reward_to);
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
            let block = self.next_block(parent, std::mem::take(&mut txs), 0, &reward_to);
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
        &self,
        parent: BlockHash,
        txs: Vec<Arc<Transaction>>,
        fees_sat: u64,
        reward_to: &Script,
    ) -> Block {
        let height = self.chain.block(&parent).map_or(0, |stored| stored.height) + 1;
        let earliest = self.chain.median_time_past(&parent).saturating_add(1);
        let time = u32::try_from(now()).unwrap_or(u32::MAX).max(earliest);
        miner::mine(Template {
            parent,
            height,
            time,
            txs,
            fees_sat,
            reward_to: reward_to.to_owned(),
        })
    }

    /// Takes a block from anywhere.
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
        // All that waited, and all that was in the disconnected blocks, in an order in which it can enter again; what
        // is no longer valid on the new tip does not.
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
        let sequence = self.pool.sequence;
        self.pool = Mempool::with_sequence(sequence);
        for tx in candidates {
            match policy::accept(&self.chain, &self.pool, &tx, Mode::Reorg, now()) {
                // What came first stays: nothing is replaced here.
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

    /// What the wallet can spend now: confirmed first, then its own change; what is large first.
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

    /// What the wallet has, mature or not, and could have within the faucet's patience.
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
