//! Inputs of transactions of the on-chain wallet.

use bitcoin::psbt::Input;
use bitcoin::{EcdsaSighashType, TapSighashType};

use super::{Refused, Rule, refuse_unless};
use crate::keys::Account;
use crate::proposal::{OnChain, OwnInput, Spent};
use crate::view::View;

pub(super) fn are_consistent(_: &View<'_>, it: &OnChain<'_>) -> Result<(), Refused> {
    let is_lie = |spent: &Spent| matches!(spent, Spent::Contradicted);
    refuse_unless(
        !it.spent.iter().any(is_lie),
        Rule::NotOurInput,
        "the PSBT contradicts itself about what an input spends",
    )
}

/// Those that the PSBT says are the phone's.
pub(super) fn are_signable(_: &View<'_>, it: &OnChain<'_>) -> Result<(), Refused> {
    it.own.iter().try_for_each(|input| {
        has_our_script(it, input)?;
        covers_everything(it, input)?;
        knows_all_that_it_covers(it, input)
    })
}

pub(super) fn are_any(_: &View<'_>, it: &OnChain<'_>) -> Result<(), Refused> {
    refuse_unless(
        !it.own.is_empty(),
        Rule::NotOurInput,
        "no input of the PSBT is this phone's to sign",
    )
}

/// Whether all inputs are the phone's, and none can change the transaction's txid after the phone has signed it.
pub(super) fn fix_the_txid(it: &OnChain<'_>) -> bool {
    it.own.len() == it.psbt.inputs.len() && it.psbt.inputs.iter().all(takes_no_script_sig)
}

/// Whether what the phone's inputs spend is proved.
pub(super) fn are_proved(it: &OnChain<'_>) -> bool {
    let mut inputs = it.own.iter().map(|input| it.psbt.inputs.get(input.index));
    inputs.all(|input| input.is_some_and(takes_no_script_sig))
}

fn has_our_script(it: &OnChain<'_>, input: &OwnInput) -> Result<(), Refused> {
    let spent = it.spent.get(input.index).and_then(Spent::known);
    refuse_unless(
        spent.is_some_and(|spent| spent.script_pubkey == input.address.script),
        Rule::NotOurInput,
        "an input is said to be the phone's and is not",
    )
}

fn covers_everything(it: &OnChain<'_>, input: &OwnInput) -> Result<(), Refused> {
    let asked = it.psbt.inputs.get(input.index);
    let asked = asked.and_then(|input| input.sighash_type);
    let all = match input.address.account {
        Account::Bip84 => EcdsaSighashType::All.into(),
        Account::Bip86 => TapSighashType::Default.into(),
    };
    refuse_unless(
        asked.is_none_or(|asked| asked == all),
        Rule::NotOurInput,
        "an input asks for a signature that does not cover everything",
    )
}

/// A taproot signature commits to the outputs that all inputs spend (BIP 341).
fn knows_all_that_it_covers(it: &OnChain<'_>, input: &OwnInput) -> Result<(), Refused> {
    let is_known = |spent: &Spent| spent.known().is_some();
    refuse_unless(
        input.address.account == Account::Bip84 || it.spent.iter().all(is_known),
        Rule::Malformed,
        "the PSBT does not say what its inputs spend",
    )
}

/// Whether an input that the phone has signed cannot change the transaction's txid, on which a channel's commitments depend.
///
/// A P2WPKH signature is valid for P2SH around the same key too, which has a scriptSig, so that the output must be given. A taproot
/// signature commits to the outputs that all inputs spend.
fn takes_no_script_sig(input: &Input) -> bool {
    let spent = input.witness_utxo.as_ref();
    input.non_witness_utxo.is_some() || spent.is_some_and(|out| out.script_pubkey.is_p2tr())
}
