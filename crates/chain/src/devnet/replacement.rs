//! Replacement of transactions in the mempool: the fee rules of BIP 125. Signalling is not required ("full RBF").

use std::collections::BTreeSet;

use bitcoin::Txid;

use super::mempool::{Entry, Mempool};
use super::policy::{Reject, relay_fee};

/// The limit of transactions that one replacement may remove (rule 5).
const MAX_REPLACED: usize = 100;

/// The fee rules of BIP 125 for a transaction that replaces `direct`.
pub(super) fn check_replacement(
    pool: &Mempool,
    entry: &Entry,
    direct: &BTreeSet<Txid>,
) -> Result<(), Reject> {
    let replaced = pool.descendants(direct.iter().copied());
    check_replaced_count(&replaced, "too many potential replacements")?;
    let reject = |details: String| {
        Err(Reject::fee(
            "insufficient fee",
            format!("rejecting replacement {}, {details}", entry.txid),
        ))
    };
    // A higher fee rate than that of every direct conflict.
    for conflict in direct.iter().filter_map(|txid| pool.get(txid)) {
        let new_rate = u128::from(entry.fee_sat) * u128::from(conflict.vsize);
        let old_rate = u128::from(conflict.fee_sat) * u128::from(entry.vsize);
        if new_rate <= old_rate {
            return reject(format!(
                "new feerate {} sat/kvB <= old feerate {} sat/kvB",
                entry.fee_sat * 1_000 / entry.vsize,
                conflict.fee_sat * 1_000 / conflict.vsize
            ));
        }
    }
    // Rule 2: no unconfirmed parents that the replaced transactions do not have.
    let known: BTreeSet<Txid> = direct
        .iter()
        .filter_map(|txid| pool.get(txid))
        .flat_map(|conflict| conflict.parents.iter().copied())
        .collect();
    if let Some(parent) = entry.parents.difference(&known).next() {
        let details = format!(
            "replacement {} adds unconfirmed input of {parent}",
            entry.txid
        );
        return Err(Reject::new("replacement-adds-unconfirmed", details));
    }
    // Rules 3 and 4: its fee pays the fees of the removed transactions, and its own relay.
    let old_fee = pool.totals(&replaced).fee_sat;
    match entry.fee_sat.checked_sub(old_fee) {
        None => reject(format!(
            "less fees than conflicting txs; {} < {old_fee}",
            entry.fee_sat
        )),
        Some(more) if more < relay_fee(entry.vsize) => reject(format!(
            "not enough additional fees to relay; {more} < {}",
            relay_fee(entry.vsize)
        )),
        Some(_) => Ok(()),
    }
}

/// The fee rules for a parent and its child that replace others together (package RBF).
pub(super) fn check_package_replacement(
    pool: &Mempool,
    added: &[Entry],
    replaced: &BTreeSet<Txid>,
    direct: &BTreeSet<Txid>,
) -> Result<(), Reject> {
    let [parent, child] = added else {
        return Err(Reject::new(
            "package RBF failed: package must be 1-parent-1-child",
            "",
        ));
    };
    if !parent.parents.is_empty() || child.parents.iter().any(|txid| *txid != parent.txid) {
        return Err(Reject::new(
            "package RBF failed: new transaction cannot have mempool ancestors",
            "",
        ));
    }
    check_replaced_count(
        replaced,
        "package RBF failed: too many potential replacements",
    )?;
    let (fee, vsize) = (parent.fee_sat + child.fee_sat, parent.vsize + child.vsize);
    let old_fee = pool.totals(replaced).fee_sat;
    if fee < old_fee + relay_fee(vsize) {
        let details = format!("{fee} < {old_fee} + {}", relay_fee(vsize));
        return Err(Reject::new(
            "package RBF failed: insufficient anti-DoS fees",
            details,
        ));
    }
    let exceeds = |entry: &Entry| {
        u128::from(fee) * u128::from(entry.vsize) > u128::from(entry.fee_sat) * u128::from(vsize)
    };
    if !exceeds(parent) {
        let reason = "package RBF failed: package feerate is less than or equal to parent feerate";
        return Err(Reject::new(reason, ""));
    }
    if !direct.iter().filter_map(|txid| pool.get(txid)).all(exceeds) {
        return Err(Reject::new(
            "package RBF failed: insufficient feerate: does not improve feerate diagram",
            "",
        ));
    }
    Ok(())
}

fn check_replaced_count(replaced: &BTreeSet<Txid>, reason: &str) -> Result<(), Reject> {
    if replaced.len() > MAX_REPLACED {
        return Err(Reject::new(
            reason,
            format!("{} > {MAX_REPLACED}", replaced.len()),
        ));
    }
    Ok(())
}
