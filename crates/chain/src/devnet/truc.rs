//! Topologically restricted transactions (TRUC, BIP 431), which have version 3: at most one parent and one child, both
//! small, all of one version; a child may replace its sibling.

use std::collections::BTreeSet;

use bitcoin::Txid;

use super::mempool::{Entry, Mempool};

const VERSION: i32 = 3;
const MAX_VSIZE: u64 = 10_000;
const MAX_CHILD_VSIZE: u64 = 1_000;

/// A violation of the rules.
pub(super) struct Violation {
    pub(super) details: String,
    /// The child that this one may replace, when the fee rules for replacements allow it.
    pub(super) sibling: Option<Txid>,
}

fn violation(details: String) -> Result<(), Violation> {
    Err(Violation {
        details,
        sibling: None,
    })
}

/// Checks an entry that is not in the mempool yet and conflicts with `replaces`.
pub(super) fn check(
    pool: &Mempool,
    entry: &Entry,
    replaces: &BTreeSet<Txid>,
) -> Result<(), Violation> {
    let is_truc = entry.tx.version.0 == VERSION;
    for parent in entry.parents.iter().filter_map(|txid| pool.get(txid)) {
        match (is_truc, parent.tx.version.0 == VERSION) {
            (true, false) => {
                return violation(format!(
                    "version=3 tx {} cannot spend from non-version=3 tx {}",
                    entry.txid, parent.txid
                ));
            }
            (false, true) => {
                return violation(format!(
                    "non-version=3 tx {} cannot spend from version=3 tx {}",
                    entry.txid, parent.txid
                ));
            }
            _ => {}
        }
    }
    if !is_truc {
        return Ok(());
    }
    if entry.vsize > MAX_VSIZE {
        return violation(format!(
            "version=3 tx {} is too big: {} > {MAX_VSIZE} virtual bytes",
            entry.txid, entry.vsize
        ));
    }
    let Some(parent) = entry.parents.first().and_then(|txid| pool.get(txid)) else {
        return Ok(());
    };
    if entry.parents.len() > 1 || !parent.parents.is_empty() {
        return violation(format!("tx {} would have too many ancestors", entry.txid));
    }
    if entry.vsize > MAX_CHILD_VSIZE {
        let (txid, vsize) = (entry.txid, entry.vsize);
        return violation(format!(
            "version=3 child tx {txid} is too big: {vsize} > {MAX_CHILD_VSIZE} virtual bytes"
        ));
    }
    let mut siblings = parent.children.iter();
    match (siblings.next(), siblings.next()) {
        (None, _) => Ok(()),
        (Some(sibling), _) if replaces.contains(sibling) => Ok(()),
        (Some(sibling), second) => {
            let alone = second.is_none()
                && pool
                    .get(sibling)
                    .is_some_and(|sibling| sibling.children.is_empty());
            Err(Violation {
                details: format!("tx {} would exceed descendant count limit", parent.txid),
                sibling: alone.then_some(*sibling),
            })
        }
    }
}
