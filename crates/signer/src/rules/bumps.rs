//! Transactions that pay the fee of a close: a child of an anchor output, or HTLC transactions with inputs of the wallet (BOLT 3).

use bitcoin::TxOut;
use lightning::ln::chan_utils::{HTLCOutputInCommitment, HolderCommitmentTransaction};

use super::closes::close_fee_limit_sat;
use super::{Refused, Rule, inputs, refuse_unless};
use crate::commitment::holder_htlc_transaction;
use crate::ledger::Channel;
use crate::proposal::OnChain;
use crate::view::View;

/// Every output is the owner's, or the second stage of an HTLC of the owner's commitment, which pays the owner later.
pub(super) fn pay_the_owner(view: &View<'_>, it: &OnChain<'_>) -> Result<(), Refused> {
    let is_good = |index: &usize| is_second_stage(view, it, *index);
    refuse_unless(
        !it.is_bump || it.foreign.iter().all(is_good),
        Rule::BumpOutput,
        "a transaction that is to pay the fee of a close pays somebody else",
    )
}

/// A signature of segwit version 0 commits to the value of its own input alone (BIP 143): two with different values said for the others,
/// combined, would make a fee of what the owner did not see.
pub(super) fn prove_their_inputs(_: &View<'_>, it: &OnChain<'_>) -> Result<(), Refused> {
    refuse_unless(
        !it.is_bump || inputs::are_proved(it),
        Rule::NotOurInput,
        "an input of the transaction that is to pay a fee is not proved by its previous transaction",
    )
}

pub(super) fn cost_no_more_than_allowed(view: &View<'_>, it: &OnChain<'_>) -> Result<(), Refused> {
    if !it.is_bump {
        return Ok(());
    }
    let limit_sat = close_fee_limit_sat(view, at_stake_sat(view, it));
    refuse_unless(
        it.fee_sat().is_some_and(|fee_sat| fee_sat <= limit_sat),
        Rule::CloseFee,
        "paying the fee of the close would cost more than the limit for closes",
    )
}

/// The value of the channels whose commitments it spends outputs of.
fn at_stake_sat(view: &View<'_>, it: &OnChain<'_>) -> u64 {
    let spends = |channel: &&Channel| {
        let holder = channel.holder.iter().map(|it| it.commitment.trust().txid());
        let peer = channel.peer.iter().map(|it| it.commitment.trust().txid());
        let txids: Vec<_> = holder.chain(peer).collect();
        let mut inputs = it.psbt.unsigned_tx.input.iter();
        inputs.any(|input| txids.contains(&input.previous_output.txid))
    };
    let channels = view.state.channels.values().filter(spends);
    channels.fold(0, |sum: u64, channel| {
        sum.saturating_add(channel.parameters.channel_value_satoshis)
    })
}

/// Whether the output at `index` is what LDK makes of the HTLC that the input at the same index spends.
fn is_second_stage(view: &View<'_>, it: &OnChain<'_>, index: usize) -> bool {
    let transaction = &it.psbt.unsigned_tx;
    let (Some(input), Some(output)) = (transaction.input.get(index), transaction.output.get(index))
    else {
        return false;
    };
    let spent = input.previous_output;
    let mut channels = view.state.channels.values();
    channels.any(|channel| {
        let mut holder = channel.holder.iter().map(|holder| &holder.commitment);
        holder.any(|commitment| {
            let mut htlcs = commitment.nondust_htlcs().iter();
            commitment.trust().txid() == spent.txid
                && htlcs.any(|htlc| {
                    htlc.transaction_output_index == Some(spent.vout)
                        && pays_second_stage(channel, commitment, htlc, output)
                })
        })
    })
}

fn pays_second_stage(
    channel: &Channel,
    commitment: &HolderCommitmentTransaction,
    htlc: &HTLCOutputInCommitment,
    output: &TxOut,
) -> bool {
    let expected = holder_htlc_transaction(&channel.parameters, commitment, htlc);
    expected.output.first() == Some(output)
}
