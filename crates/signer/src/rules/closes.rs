//! Closes of channels, and the transactions that follow on chain (BOLT 5).

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, ScriptBuf};

use super::{Refused, Rule, refuse_unless};
use crate::commitment::{holder_htlc_transaction, same};
use crate::intents::ChannelIntent;
use crate::proposal::{Broadcast, Closing, HolderHtlc, Justice, Sweep};
use crate::view::View;

/// The owner's part of a cooperative close goes to the wallet, or where the owner asked.
pub(super) fn pays_the_owner(view: &View<'_>, it: &Closing) -> Result<(), Refused> {
    let (keychain, index) = it.to_holder_position;
    let script = &it.to_holder_script;
    refuse_unless(
        it.to_holder_sat == 0
            || is_asked_for(view, &it.channel_id.0, script)
            || view.own.is_script(script, keychain, index),
        Rule::NotOurScript,
        "the owner's part of the close would go to a script that is neither the owner's nor asked for",
    )
}

pub(super) fn is_on_record(_: &View<'_>, it: &Broadcast<'_>) -> Result<(), Refused> {
    let mut holder = it.channel.holder.iter();
    let is_known = holder.any(|known| same(&known.commitment, &it.commitment));
    is_known.then_some(()).ok_or_else(not_on_record)
}

pub(super) fn htlc_is_of_channel(_: &View<'_>, it: &HolderHtlc<'_>) -> Result<(), Refused> {
    let said = &it.descriptor.channel_derivation_parameters;
    refuse_unless(
        said.keys_id == it.keys_id && said.transaction_parameters == it.channel.parameters,
        Rule::NotOurOutput,
        "the HTLC is not of this channel",
    )
}

pub(super) fn htlc_is_on_record(_: &View<'_>, it: &HolderHtlc<'_>) -> Result<(), Refused> {
    let asked = &it.descriptor;
    let holder = it.channel.holder_at(asked.per_commitment_number);
    let is_known = holder.is_some_and(|commitment| {
        commitment.trust().txid() == asked.commitment_txid
            && commitment.nondust_htlcs().contains(&asked.htlc)
    });
    is_known.then_some(()).ok_or_else(not_on_record)
}

/// By its second-stage transaction; the wallet may add inputs and outputs after the HTLC's.
pub(super) fn htlc_pays_the_owner(_: &View<'_>, it: &HolderHtlc<'_>) -> Result<(), Refused> {
    let commitment = it.channel.holder_at(it.descriptor.per_commitment_number);
    let commitment = commitment.ok_or_else(not_on_record)?;
    let expected = holder_htlc_transaction(&it.channel.parameters, commitment, &it.descriptor.htlc);
    let (spent, paid) = (
        it.transaction.input.get(it.input),
        it.transaction.output.get(it.input),
    );
    let outpoint = expected.input.first().map(|input| input.previous_output);
    refuse_unless(
        spent.is_some()
            && spent.map(|spent| spent.previous_output) == outpoint
            && paid == expected.output.first(),
        Rule::NotOurOutput,
        "the transaction does not pay the HTLC to the owner's delayed key at the same position",
    )
}

/// A peer that colludes with the host can reveal the secret of a commitment that it has not revoked, and broadcast
/// it: its HTLCs would be theirs.
pub(super) fn is_revoked(_: &View<'_>, it: &Justice<'_>) -> Result<(), Refused> {
    let mut in_force = it.channel.peer.iter();
    refuse_unless(
        !in_force.any(|peer| peer.commitment.per_commitment_point() == it.point),
        Rule::JusticeUnrevoked,
        "the peer has not revoked this commitment",
    )
}

pub(super) fn sweep_pays_the_owner(view: &View<'_>, it: &Sweep) -> Result<(), Refused> {
    let (keychain, index) = it.position;
    refuse_unless(
        view.own.is_script_at(&it.script, keychain, index),
        Rule::NotOurScript,
        "the sweep would go to a script that is not the owner's",
    )
}

pub(super) fn sweep_is_of_the_owner(_: &View<'_>, it: &Sweep) -> Result<(), Refused> {
    refuse_unless(
        it.transaction.is_some(),
        Rule::NotOurOutput,
        "an output is not the owner's, or does not pay its fee",
    )
}

/// Whether the owner asked to close this channel to this script.
fn is_asked_for(view: &View<'_>, channel_id: &[u8], script: &ScriptBuf) -> bool {
    let known = view.state.channel_intents.get(channel_id);
    let Some(ChannelIntent::Close { address, .. }) = known.map(|known| &known.intent) else {
        return false;
    };
    address.split(' ').any(|address| {
        let address = address.parse::<Address<NetworkUnchecked>>();
        address.is_ok_and(|address| address.assume_checked().script_pubkey() == *script)
    })
}

fn not_on_record() -> Refused {
    Refused::new(
        Rule::SignRevoked,
        "the holder commitment is revoked, or was never validated here",
    )
}
