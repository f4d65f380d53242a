//! Transactions that pay a fee: a child of an anchor output or HTLC transactions with inputs of the wallet (BOLT 3), and a child of a
//! transaction that the owner wants to confirm sooner (CPFP).

use bitcoin::{TxOut, Txid};
use lightning::ln::chan_utils::{
    HTLCOutputInCommitment, HolderCommitmentTransaction, get_keyed_anchor_redeemscript,
    shared_anchor_script_pubkey,
};

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
        "a transaction that is to pay a fee pays somebody else",
    )
}

/// The fee is paid for an output of the owner's commitment, or for a transaction that the owner named, by an output of it that is the owner's.
/// However often the host asks, transactions that spend the same output exclude each other.
pub(super) fn are_asked_for(view: &View<'_>, it: &OnChain<'_>) -> Result<(), Refused> {
    refuse_unless(
        !it.is_bump || limit_sat(view, it).is_some(),
        Rule::BumpUnasked,
        "a fee would be paid for no close, and for no transaction that the owner wants to confirm sooner: to raise the fee of a child \
         again, name its parent",
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
    let is_bearable = |fee_sat| limit_sat(view, it).is_none_or(|limit_sat| fee_sat <= limit_sat);
    refuse_unless(
        !it.is_bump || it.fee_sat().is_some_and(is_bearable),
        Rule::CloseFee,
        "paying this fee would cost more than the limit for closes, or than the owner allowed",
    )
}

/// The most that it may cost; `None` when it is for nothing that there is a fee for.
fn limit_sat(view: &View<'_>, it: &OnChain<'_>) -> Option<u64> {
    let at_stake_sat = view
        .state
        .channels
        .values()
        .filter(|channel| spends_holder_output(channel, it))
        .map(|channel| channel.parameters.channel_value_satoshis)
        .reduce(u64::saturating_add);
    let for_close = at_stake_sat.map(|sat| close_fee_limit_sat(view, sat));
    let named = view.state.accelerations.iter();
    let named = named.filter(|named| spends_own_output(named.txid, it));
    for_close.max(named.map(|named| named.max_fee_sat).max())
}

/// Whether it spends an output of a transaction that is the owner's.
fn spends_own_output(txid: Txid, it: &OnChain<'_>) -> bool {
    it.own.iter().any(|own| {
        let input = it.psbt.unsigned_tx.input.get(own.index);
        input.is_some_and(|input| input.previous_output.txid == txid)
    })
}

/// Whether it spends an anchor or an HTLC of one of the owner's commitments in force, which the owner alone can.
fn spends_holder_output(channel: &Channel, it: &OnChain<'_>) -> bool {
    channel.holder.iter().any(|holder| {
        let trusted = holder.commitment.trust();
        let mut inputs = it.psbt.unsigned_tx.input.iter();
        inputs.any(|input| {
            input.previous_output.txid == trusted.txid()
                && is_holders(channel, &holder.commitment, input.previous_output.vout)
        })
    })
}

fn is_holders(channel: &Channel, commitment: &HolderCommitmentTransaction, vout: u32) -> bool {
    let mut htlcs = commitment.nondust_htlcs().iter();
    if htlcs.any(|htlc| htlc.transaction_output_index == Some(vout)) {
        return true;
    }
    let key = &channel.parameters.holder_pubkeys.funding_pubkey;
    let anchors = [
        get_keyed_anchor_redeemscript(key).to_p2wsh(),
        shared_anchor_script_pubkey(),
    ];
    let trusted = commitment.trust();
    let mut outputs = trusted.built_transaction().transaction.output.iter();
    let output = usize::try_from(vout)
        .ok()
        .and_then(|vout| outputs.nth(vout));
    output.is_some_and(|output| anchors.contains(&output.script_pubkey))
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
