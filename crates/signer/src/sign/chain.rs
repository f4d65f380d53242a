//! What was proven of the chain is put on record.

use super::{Fault, Signed, done};
use crate::engine::Change;
use crate::ledger::{htlc_spend, in_block};
use crate::proposal::{ChainProof, Role};

pub(super) fn keep_proof(it: &ChainProof<'_>) -> Signed {
    let proven = it.in_block().ok_or(Fault("nothing was proven"))?;
    let (channel, keys_id) = (it.channel, &it.keys_id);
    let changes = match it.role.as_ref().ok_or(Fault("of no channel"))? {
        Role::Funding if channel.funding == Some(proven) => Vec::new(),
        Role::Funding => vec![Change::FundingProven(in_block(keys_id, &proven))],
        Role::Spend if channel.spend == Some(proven) => Vec::new(),
        Role::Spend => vec![Change::SpendProven(in_block(keys_id, &proven))],
        Role::OfClose(htlcs) => {
            let new = htlcs.iter();
            let new = new.filter(|output| channel.htlc_spends.get(output) != Some(&proven));
            new.map(|output| Change::HtlcSpendProven(htlc_spend(keys_id, output, &proven)))
                .collect()
        }
    };
    Ok((done(), changes))
}
