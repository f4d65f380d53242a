//! Mempool policy: the rules of Bitcoin Core, with its reject reasons.
//!
//! [`accept`] checks one transaction, [`accept_package`] parents with their child. Not implemented, so that devnet is
//! more lenient than Bitcoin Core: script flags of policy alone (low S, minimal data), eviction from a full mempool,
//! and the old carve-out for one more child. Limits are those of versions 28 to 30: chains of 25 transactions and
//! 101,000 virtual bytes, and 1 sat/vB for relay.

use std::collections::BTreeSet;
use std::sync::Arc;

use bitcoin::{Transaction, TxOut, Txid};

use super::chain::{ChainState, Coin};
use super::kernel;
use super::locks;
use super::mempool::{Entry, Mempool};
use super::replacement;
use super::standard;
use super::truc;

/// Minimum fee rate for relay, and for the additional fee of a replacement, in satoshis per 1,000 virtual bytes.
pub(super) const MIN_RELAY_FEE_SAT_PER_KVB: u64 = 1_000;
const MAX_CHAIN_COUNT: usize = 25;
const MAX_CHAIN_VSIZE: u64 = 101_000;
const MAX_STANDARD_SIGOP_COST: u64 = 16_000;
const COINBASE_MATURITY: u32 = 100;

/// Why a transaction is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reject {
    /// Bitcoin Core's reject reason.
    pub(super) reason: String,
    /// Bitcoin Core's debug message; may be empty.
    pub(super) details: String,
    pub(super) kind: RejectKind,
}

/// Whether a package can change a rejection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RejectKind {
    /// Rejected in any package.
    Unfixable,
    /// With a child that pays it may be accepted.
    Fee,
    /// With its parents it may be accepted.
    MissingInputs,
}

impl Reject {
    pub(super) fn new(reason: impl Into<String>, details: impl Into<String>) -> Reject {
        Reject {
            reason: reason.into(),
            details: details.into(),
            kind: RejectKind::Unfixable,
        }
    }

    pub(super) fn fee(reason: impl Into<String>, details: impl Into<String>) -> Reject {
        Reject {
            kind: RejectKind::Fee,
            ..Reject::new(reason, details)
        }
    }

    /// As `sendrawtransaction` prints it.
    pub(super) fn message(&self) -> String {
        if self.details.is_empty() {
            self.reason.clone()
        } else {
            format!("{}, {}", self.reason, self.details)
        }
    }
}

/// Which rules apply to a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// All of them.
    Single,
    /// All but those on fees and replacements, which are checked for the whole package.
    Package,
    /// It was in a block that was disconnected: rules on fees and limits do not apply.
    Reorg,
}

/// An accepted transaction: the entry to add and the ones to remove.
#[derive(Clone, Debug)]
pub(super) struct Accepted {
    pub(super) entry: Entry,
    /// Conflicting transactions, to be removed with their descendants.
    pub(super) replaces: BTreeSet<Txid>,
}

/// Checks `tx` against the chain's tip and the mempool, scripts included; changes nothing.
pub(super) fn accept(
    chain: &ChainState,
    pool: &Mempool,
    tx: &Arc<Transaction>,
    mode: Mode,
    now: u64,
) -> Result<Accepted, Reject> {
    check_alone(tx)?;
    locks::check_final(chain, tx)?;
    check_unknown(pool, tx)?;
    let coins = find_coins(chain, pool, tx)?;
    locks::check_sequence_locks(chain, tx, &coins)?;
    let fee_sat = check_amounts(chain, tx, &coins)?;
    let spent: Vec<TxOut> = coins.into_iter().map(|coin| coin.output).collect();
    standard::check_inputs(tx, &spent).map_err(|reason| Reject::new(reason, ""))?;
    let entry = entry(chain, pool, tx, fee_sat, &spent, now)?;
    check_dust_pays_nothing(tx, fee_sat)?;
    if mode == Mode::Single {
        check_fee(pool, entry.fee_sat, entry.vsize)?;
    }
    let mut replaces: BTreeSet<Txid> = tx
        .input
        .iter()
        .filter_map(|input| pool.spender(&input.previous_output))
        .map(|entry| entry.txid)
        .collect();
    if mode != Mode::Reorg {
        match truc::check(pool, &entry, &replaces) {
            Ok(()) => {}
            Err(truc::Violation {
                sibling: Some(sibling),
                ..
            }) if mode == Mode::Single => {
                replaces.insert(sibling);
            }
            Err(violation) => return Err(Reject::new("TRUC-violation", violation.details)),
        }
    }
    if mode == Mode::Single && !replaces.is_empty() {
        replacement::check_replacement(pool, &entry, &replaces)?;
    }
    let replaced = pool.descendants(replaces.iter().copied());
    if let Some(parent) = pool.ancestors_of(&entry).intersection(&replaced).next() {
        let details = format!("{} spends conflicting transaction {parent}", entry.txid);
        return Err(Reject::new("bad-txns-spends-conflicting-tx", details));
    }
    if mode != Mode::Reorg {
        check_chain_limits(pool, &entry, &replaced)?;
        check_dust_is_spent(pool, &entry)?;
    }
    kernel::verify_scripts(tx, &spent).map_err(|index| {
        let details = format!(
            "input {index} of {} (wtxid {}), spending {}",
            entry.txid, entry.wtxid, tx.input[index].previous_output
        );
        Reject::new(
            "mandatory-script-verify-flag-failed (the script failed)",
            details,
        )
    })?;
    Ok(Accepted { entry, replaces })
}

/// Adds an accepted transaction; returns the transactions that it replaced.
pub(super) fn apply(pool: &mut Mempool, accepted: Accepted) -> Vec<Arc<Transaction>> {
    let replaced = pool.remove_with_descendants(accepted.replaces);
    pool.insert(accepted.entry);
    replaced
}

/// An accepted package.
pub(super) struct AcceptedPackage {
    /// The mempool with it.
    pub(super) pool: Mempool,
    /// The entries that were added.
    pub(super) added: Vec<Entry>,
    /// The transactions that were replaced.
    pub(super) replaced: Vec<Arc<Transaction>>,
}

/// Checks parents and their child, whose fees count together; changes nothing.
pub(super) fn accept_package(
    chain: &ChainState,
    pool: &Mempool,
    txs: &[Arc<Transaction>],
    now: u64,
) -> Result<AcceptedPackage, Reject> {
    let mut next = pool.clone();
    let mut added: Vec<Entry> = vec![];
    let mut direct_conflicts = BTreeSet::new();
    for tx in txs {
        let accepted = accept(chain, &next, tx, Mode::Package, now)?;
        if accepted
            .replaces
            .iter()
            .any(|txid| added.iter().any(|entry| entry.txid == *txid))
        {
            return Err(Reject::new("conflict-in-package", ""));
        }
        direct_conflicts.extend(accepted.replaces.iter().copied());
        added.push(accepted.entry.clone());
        apply(&mut next, accepted);
    }
    let fee_sat = added.iter().map(|entry| entry.fee_sat).sum();
    let vsize = added.iter().map(|entry| entry.vsize).sum();
    check_fee(pool, fee_sat, vsize)?;
    let doomed = pool.descendants(direct_conflicts.iter().copied());
    if !doomed.is_empty() {
        replacement::check_package_replacement(pool, &added, &doomed, &direct_conflicts)?;
    }
    let replaced = doomed
        .iter()
        .filter_map(|txid| pool.get(txid))
        .map(|entry| entry.tx.clone())
        .collect();
    Ok(AcceptedPackage {
        pool: next,
        added,
        replaced,
    })
}

fn check_alone(tx: &Transaction) -> Result<(), Reject> {
    kernel::check_transaction(tx).map_err(|_| Reject::new(consensus_reason(tx), ""))?;
    if tx.is_coinbase() {
        return Err(Reject::new("coinbase", ""));
    }
    standard::check_form(tx).map_err(|reason| Reject::new(reason, ""))
}

/// Bitcoin Core's reject reason for a transaction that the library finds invalid: the library gives none.
fn consensus_reason(tx: &Transaction) -> &'static str {
    let inputs: BTreeSet<_> = tx.input.iter().map(|input| input.previous_output).collect();
    if tx.input.is_empty() {
        "bad-txns-vin-empty"
    } else if tx.output.is_empty() {
        "bad-txns-vout-empty"
    } else if inputs.len() < tx.input.len() {
        "bad-txns-inputs-duplicate"
    } else if tx
        .output
        .iter()
        .any(|output| output.value > bitcoin::Amount::MAX_MONEY)
    {
        "bad-txns-vout-toolarge"
    } else if inputs.iter().any(|outpoint| outpoint.is_null()) {
        "bad-txns-prevout-null"
    } else {
        "bad-txns-txouttotal-toolarge"
    }
}

fn check_unknown(pool: &Mempool, tx: &Transaction) -> Result<(), Reject> {
    match pool.get(&tx.compute_txid()) {
        None => Ok(()),
        Some(entry) if entry.wtxid == tx.compute_wtxid() => {
            Err(Reject::new("txn-already-in-mempool", ""))
        }
        Some(_) => Err(Reject::new("txn-same-nonwitness-data-in-mempool", "")),
    }
}

/// The outputs that a transaction spends, in the chain or the mempool. Outputs of the mempool count as outputs of the
/// next block.
fn find_coins(chain: &ChainState, pool: &Mempool, tx: &Transaction) -> Result<Vec<Coin>, Reject> {
    let find = |outpoint: &bitcoin::OutPoint| {
        let in_pool = pool
            .get(&outpoint.txid)
            .and_then(|entry| entry.tx.output.get(outpoint.vout as usize));
        let as_next = |output: &TxOut| Coin {
            output: output.clone(),
            height: chain.tip().height + 1,
            is_coinbase: false,
        };
        in_pool
            .map(as_next)
            .or_else(|| chain.coin(outpoint).cloned())
    };
    let coins: Option<Vec<Coin>> = tx
        .input
        .iter()
        .map(|input| find(&input.previous_output))
        .collect();
    coins.ok_or_else(|| {
        if chain.block_of(&tx.compute_txid()).is_some() {
            return Reject::new("txn-already-known", "");
        }
        Reject {
            kind: RejectKind::MissingInputs,
            ..Reject::new("bad-txns-inputs-missingorspent", "")
        }
    })
}

/// Checks that coinbases are mature and that outputs do not exceed inputs; returns the fee in satoshis.
fn check_amounts(chain: &ChainState, tx: &Transaction, coins: &[Coin]) -> Result<u64, Reject> {
    let height = chain.tip().height + 1;
    for coin in coins.iter().filter(|coin| coin.is_coinbase) {
        let depth = height - coin.height;
        if depth < COINBASE_MATURITY {
            let details = format!("tried to spend coinbase at depth {depth}");
            return Err(Reject::new("bad-txns-premature-spend-of-coinbase", details));
        }
    }
    let sum =
        |mut values: Box<dyn Iterator<Item = u64> + '_>| values.try_fold(0u64, u64::checked_add);
    let value_in = sum(Box::new(
        coins.iter().map(|coin| coin.output.value.to_sat()),
    ));
    let value_out = sum(Box::new(
        tx.output.iter().map(|output| output.value.to_sat()),
    ));
    match (value_in, value_out) {
        (Some(value_in), Some(value_out)) => value_in.checked_sub(value_out).ok_or_else(|| {
            Reject::new(
                "bad-txns-in-belowout",
                format!("value in ({value_in}) < value out ({value_out})"),
            )
        }),
        _ => Err(Reject::new("bad-txns-inputvalues-outofrange", "")),
    }
}

fn entry(
    chain: &ChainState,
    pool: &Mempool,
    tx: &Arc<Transaction>,
    fee_sat: u64,
    spent: &[TxOut],
    now: u64,
) -> Result<Entry, Reject> {
    let outputs: std::collections::HashMap<_, _> = tx
        .input
        .iter()
        .map(|input| input.previous_output)
        .zip(spent.iter().cloned())
        .collect();
    let sigop_cost = tx.total_sigop_cost(|outpoint| outputs.get(outpoint).cloned()) as u64;
    if sigop_cost > MAX_STANDARD_SIGOP_COST {
        return Err(Reject::new(
            "bad-txns-too-many-sigops",
            sigop_cost.to_string(),
        ));
    }
    // 20 virtual bytes for each signature operation, in weight units with the operation's cost of 4.
    let vsize = tx.weight().to_wu().max(sigop_cost * 20).div_ceil(4);
    Ok(Entry {
        tx: tx.clone(),
        txid: tx.compute_txid(),
        wtxid: tx.compute_wtxid(),
        fee_sat,
        vsize,
        sigop_cost,
        time: now,
        height: chain.tip().height,
        parents: pool.parents_of(tx),
        children: BTreeSet::new(),
    })
}

fn check_fee(pool: &Mempool, fee_sat: u64, vsize: u64) -> Result<(), Reject> {
    let to_enter = (vsize * pool.min_fee_sat_per_kvb).div_ceil(1_000);
    let to_relay = relay_fee(vsize);
    if fee_sat < to_enter {
        return Err(Reject::fee(
            "mempool min fee not met",
            format!("{fee_sat} < {to_enter}"),
        ));
    }
    if fee_sat < to_relay {
        return Err(Reject::fee(
            "min relay fee not met",
            format!("{fee_sat} < {to_relay}"),
        ));
    }
    Ok(())
}

/// 1,000 virtual bytes are 4,000 weight units.
pub(super) fn sat_per_kvb(sat_per_kw: u32) -> u64 {
    u64::from(sat_per_kw) * 4
}

/// Minimum fee in satoshis for relay of so many virtual bytes.
pub(super) fn relay_fee(vsize: u64) -> u64 {
    (vsize * MIN_RELAY_FEE_SAT_PER_KVB).div_ceil(1_000)
}

/// A transaction with a dust output pays no fee, so that it is not mined without its child.
fn check_dust_pays_nothing(tx: &Transaction, fee_sat: u64) -> Result<(), Reject> {
    if fee_sat > 0 && standard::dust_outputs(tx).next().is_some() {
        return Err(Reject::new("dust", "tx with dust output must be 0-fee"));
    }
    Ok(())
}

/// A child of an unconfirmed transaction with dust must spend that dust.
fn check_dust_is_spent(pool: &Mempool, entry: &Entry) -> Result<(), Reject> {
    for parent in entry.parents.iter().filter_map(|txid| pool.get(txid)) {
        let mut dust = standard::dust_outputs(&parent.tx)
            .map(|vout| bitcoin::OutPoint::new(parent.txid, vout));
        if dust.any(|dust| {
            !entry
                .tx
                .input
                .iter()
                .any(|input| input.previous_output == dust)
        }) {
            let details = format!("tx {} did not spend parent's ephemeral dust", entry.txid);
            return Err(Reject::new("missing-ephemeral-spends", details));
        }
    }
    Ok(())
}

fn check_chain_limits(
    pool: &Mempool,
    entry: &Entry,
    replaced: &BTreeSet<Txid>,
) -> Result<(), Reject> {
    let reject = |details: String| Err(Reject::new("too-long-mempool-chain", details));
    let ancestors = pool.ancestors_of(entry);
    let totals = pool.totals(&ancestors);
    if totals.count + 1 > MAX_CHAIN_COUNT {
        return reject(format!(
            "too many unconfirmed ancestors [limit: {MAX_CHAIN_COUNT}]"
        ));
    }
    if totals.vsize + entry.vsize > MAX_CHAIN_VSIZE {
        return reject(format!(
            "exceeds ancestor size limit [limit: {MAX_CHAIN_VSIZE}]"
        ));
    }
    for ancestor in &ancestors {
        let mut descendants = pool.descendants([*ancestor]);
        descendants.retain(|txid| !replaced.contains(txid));
        let totals = pool.totals(&descendants);
        if totals.count + 1 > MAX_CHAIN_COUNT {
            return reject(format!(
                "too many descendants for tx {ancestor} [limit: {MAX_CHAIN_COUNT}]"
            ));
        }
        if totals.vsize + entry.vsize > MAX_CHAIN_VSIZE {
            return reject(format!(
                "exceeds descendant size limit for tx {ancestor} [limit: {MAX_CHAIN_VSIZE}]"
            ));
        }
    }
    Ok(())
}

impl Mempool {
    /// The ancestors of an entry that is not in the mempool.
    pub(super) fn ancestors_of(&self, entry: &Entry) -> BTreeSet<Txid> {
        entry
            .parents
            .iter()
            .flat_map(|parent| self.ancestors(parent))
            .collect()
    }
}
