//! The chain as the phone sees it. Headers show what was worked for, and a merkle branch that a transaction is in one of their blocks; a
//! host can still keep back the newest blocks, so that what could lose money by that waits while the tip is old.

use longhand_proto::utc;
use longhand_spv::ProofError;

use super::{Refused, Rule, refuse_unless};
use crate::proposal::ChainProof;
use crate::view::View;

pub(super) fn is_in_the_chain(_: &View<'_>, it: &ChainProof<'_>) -> Result<(), Refused> {
    match &it.shown {
        Ok(_) => Ok(()),
        // Its header may come yet.
        Err(error @ ProofError::Block(_)) => Err(Refused::for_now(Rule::Proof, error.to_string())),
        Err(error) => Err(Refused::new(Rule::Proof, error.to_string())),
    }
}

pub(super) fn is_of_the_channel(_: &View<'_>, it: &ChainProof<'_>) -> Result<(), Refused> {
    refuse_unless(
        it.role.is_some(),
        Rule::Proof,
        "the proven transaction neither has the channel's funding output, nor spends it or an output of what closed the channel",
    )
}

/// The newest block that the phone knows is not old.
pub(super) fn is_fresh(view: &View<'_>) -> Result<(), Refused> {
    match view.sight.headers.is_stale(view.now_unix_s) {
        false => Ok(()),
        true => Err(Refused::new(
            Rule::StaleChain,
            format!(
                "the newest block that this phone knows is at height {} and of {}: its host has to send later ones",
                view.sight.headers.height(),
                utc(u64::from(view.sight.headers.tip().time)),
            ),
        )),
    }
}
