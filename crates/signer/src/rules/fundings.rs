//! Fundings of channels, whatever the host says that the transaction is for.

use bitcoin::{Amount, TxOut};

use super::{Refused, Rule, inputs, refuse_unless};
use crate::commitment::funding_script;
use crate::ledger::Channel;
use crate::proposal::OnChain;
use crate::view::View;

pub(super) fn have_their_outputs(_: &View<'_>, it: &OnChain<'_>) -> Result<(), Refused> {
    refuse_unless(
        it.funds.iter().all(|channel| has_output(it, channel)),
        Rule::FundingOutput,
        "the transaction has not the channel's funding output",
    )
}

pub(super) fn are_validated(_: &View<'_>, it: &OnChain<'_>) -> Result<(), Refused> {
    refuse_unless(
        it.funds
            .iter()
            .all(|channel| channel.holder_index().is_some()),
        Rule::FundingBeforeValidate,
        "the peer's signatures on the channel's first commitment are not on record yet",
    )
}

/// The channel's commitments depend on the txid.
pub(super) fn have_fixed_txids(_: &View<'_>, it: &OnChain<'_>) -> Result<(), Refused> {
    refuse_unless(
        it.funds.is_empty() || inputs::fix_the_txid(it),
        Rule::NotOurInput,
        "the channel's funding has an input that is not the phone's, or not proved to be",
    )
}

fn has_output(it: &OnChain<'_>, channel: &Channel) -> bool {
    let parameters = &channel.parameters;
    let Some((outpoint, script)) = parameters.funding_outpoint.zip(funding_script(parameters))
    else {
        return false;
    };
    let funding = TxOut {
        value: Amount::from_sat(parameters.channel_value_satoshis),
        script_pubkey: script.to_p2wsh(),
    };
    let tx = &it.psbt.unsigned_tx;
    let output = tx.output.get(usize::from(outpoint.index));
    tx.compute_txid() == outpoint.txid && output == Some(&funding)
}
