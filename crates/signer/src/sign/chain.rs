//! What was proven of the chain is put on record.

use super::{Fault, Signed, done, unrecorded};
use crate::engine::Change;
use crate::ledger::in_block;
use crate::proposal::{ChainProof, Role};

pub(super) fn keep_proof(it: &ChainProof<'_>) -> Signed {
    let proven = it.in_block().ok_or(Fault("nothing was proven"))?;
    let (known, change): (_, fn(_) -> Change) = match it.role.ok_or(Fault("of no channel"))? {
        Role::Funding => (it.channel.funding, Change::FundingProven),
        Role::Spend => (it.channel.spend, Change::SpendProven),
    };
    match known == Some(proven) {
        true => unrecorded(done()),
        false => Ok((done(), vec![change(in_block(&it.keys_id, &proven))])),
    }
}
