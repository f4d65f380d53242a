//! Closes of channels, and the transactions that follow on chain (BOLT 5).

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Amount, OutPoint, ScriptBuf};
use lightning::ln::chan_utils::CommitmentTransaction;

use super::{Refused, Rule, refuse_unless};
use crate::balance::Balance;
use crate::commitment::{Side, holder_htlc_transaction, same};
use crate::htlcs::{Htlc, Htlcs};
use crate::intents::ChannelIntent;
use crate::ledger::Channel;
use crate::proposal::{Broadcast, Claim, Closing, CounterpartyHtlc, HolderHtlc, Justice, Sweep};
use crate::view::View;

/// The highest dust limit for a script: an output below it is left out of a cooperative close (BOLT 2, `closing_signed`).
const CLOSING_DUST_SAT: u64 = 546;
/// A payment whose preimage was released may be claimed on chain so many blocks before it expires. The phone may attach only once in them, and
/// two transactions have to confirm.
const CLAIM_BLOCKS: u32 = 144;

/// The owner's part of a cooperative close goes to the wallet, or where the owner asked.
pub(super) fn pays_the_owner(view: &View<'_>, it: &Closing<'_>) -> Result<(), Refused> {
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
    // One of two: a host that lost the answer to the latest one has the other.
    let mut holder = it.channel.holder.iter();
    let is_known = holder.any(|known| same(&known.commitment, &it.commitment));
    is_known.then_some(()).ok_or_else(not_on_record)
}

/// The host cannot prove that a peer has failed: it has the keys of the node's connections, and could make up any message. So the owner
/// says when a channel is closed by force, unless an HTLC cannot wait.
pub(super) fn may_end_now(view: &View<'_>, channel: &Channel) -> Result<(), Refused> {
    let Some(channel_id) = channel.id() else {
        return Err(Refused::malformed("the channel's funding is missing"));
    };
    let is_allowed = channel.broadcast.is_some()
        || is_asked_to_force(view, &channel_id.0)
        || has_to_claim(view, channel);
    match is_allowed {
        true => Ok(()),
        false => Err(Refused::new(
            Rule::CloseUnasked,
            format!(
                "the node wants to close channel {channel_id} by force, and this phone cannot see why: if its peer has failed, or does not settle \
                 a small payment, allow it with `longhand phone close {channel_id} --force`",
            ),
        )),
    }
}

/// Whether an HTLC of the channel has to be claimed on chain: an outgoing one that has expired and is still there (BOLT 2, "`cltv_expiry_delta`
/// Selection"), or an incoming one whose preimage was released, from [`CLAIM_BLOCKS`] before it expires.
///
/// An outgoing one has to be in a commitment that the peer has signed: else a host could make one up that has expired.
fn has_to_claim(view: &View<'_>, channel: &Channel) -> bool {
    let height = view.sight.height_by_now();
    let expires_soon = |htlc: &Htlc| htlc.cltv_expiry.saturating_sub(CLAIM_BLOCKS) <= height;
    let is_released = |htlc: &Htlc| {
        let payment = view.state.payments.get(&htlc.payment_hash);
        payment.is_some_and(|it| it.public.released.is_some())
    };
    let is_due = |htlc: &Htlc| match htlc.is_outgoing {
        true => htlc.cltv_expiry <= height,
        false => is_released(htlc) && expires_soon(htlc),
    };
    let mut signed = channel.holder.iter();
    let mut owed = channel.owed.iter();
    signed.any(|it| {
        let htlcs = Htlcs::of(&it.commitment, Side::Holder);
        htlcs.iter().any(|(htlc, _)| is_due(htlc))
    }) || owed.any(|(htlc, _)| expires_soon(htlc))
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

/// A peer that works with the host can reveal the secret of a commitment that it has not revoked, or is yet to get, and broadcast it: its
/// HTLCs would be theirs. So the secret must be one by which it has revoked, and no commitment may have its point a second time.
pub(super) fn is_revoked(_: &View<'_>, it: &Justice<'_>) -> Result<(), Refused> {
    let mut in_force = it.channel.peer.iter();
    refuse_unless(
        it.channel.has_revoked_by(&it.secret)
            && !in_force.any(|peer| peer.commitment.per_commitment_point() == it.point),
        Rule::JusticeUnrevoked,
        "the peer has not revoked this commitment",
    )
}

pub(super) fn justice_pays_the_owner(view: &View<'_>, it: &Justice<'_>) -> Result<(), Refused> {
    claim_pays_the_owner(view, &it.claim)
}

/// With the peer's signature, the owner's signature for an HTLC spends it by the branch of both keys too.
pub(super) fn htlc_is_in_force(_: &View<'_>, it: &CounterpartyHtlc<'_>) -> Result<(), Refused> {
    let spent = it.claim.transaction.input.get(it.claim.input);
    let spent = spent.map(|input| input.previous_output);
    let mut in_force = it.channel.peer.iter().map(|peer| &peer.commitment);
    let is_in = |commitment: &CommitmentTransaction| {
        let trusted = commitment.trust();
        let mut htlcs = commitment.nondust_htlcs().iter();
        commitment.per_commitment_point() == it.point
            && htlcs.any(|htlc| {
                *htlc == it.htlc
                    && it.claim.value == htlc.to_bitcoin_amount()
                    && spent.is_some_and(|spent| {
                        spent.txid == trusted.txid()
                            && Some(spent.vout) == htlc.transaction_output_index
                    })
            })
    };
    refuse_unless(
        in_force.any(is_in),
        Rule::NotOurOutput,
        "the HTLC is in no commitment of the peer that is signed and not revoked",
    )
}

/// The owner takes its own HTLC back when it has expired, and not before: the payment may still succeed.
pub(super) fn htlc_has_expired(_: &View<'_>, it: &CounterpartyHtlc<'_>) -> Result<(), Refused> {
    let locktime = it.claim.transaction.lock_time;
    let is_late = locktime.is_block_height()
        && locktime.to_consensus_u32() >= it.htlc.cltv_expiry
        && it.claim.transaction.is_lock_time_enabled();
    // Offered by the peer: the owner claims it by its preimage.
    refuse_unless(
        it.htlc.offered || is_late,
        Rule::NotOurOutput,
        "the transaction would take an HTLC back before it has expired",
    )
}

pub(super) fn htlc_claim_pays_the_owner(
    view: &View<'_>,
    it: &CounterpartyHtlc<'_>,
) -> Result<(), Refused> {
    claim_pays_the_owner(view, &it.claim)
}

/// Every output is the owner's, and the fee is bearable.
fn claim_pays_the_owner(view: &View<'_>, it: &Claim) -> Result<(), Refused> {
    let (keychain, index) = it.position;
    let outputs = &it.transaction.output;
    refuse_unless(
        !outputs.is_empty()
            && outputs
                .iter()
                .all(|output| view.own.is_script(&output.script_pubkey, keychain, index)),
        Rule::NotOurScript,
        "an output of a closed channel would go to a script that is not the owner's",
    )?;
    let paid = outputs
        .iter()
        .try_fold(Amount::ZERO, |sum, output| sum.checked_add(output.value));
    let claimed = claimed_value(view, it);
    let fee = paid.map_or(Amount::ZERO, |paid| {
        claimed.checked_sub(paid).unwrap_or(Amount::ZERO)
    });
    refuse_unless(
        paid.is_some() && fee.to_sat() <= close_fee_limit_sat(view, claimed.to_sat()),
        Rule::CloseFee,
        "the transaction would cost more than the limit for closes",
    )
}

/// What the transaction claims, as far as the phone knows: each input is signed on its own, and all pay one fee.
fn claimed_value(view: &View<'_>, it: &Claim) -> Amount {
    let others = it.transaction.input.iter().enumerate();
    let others = others.filter(|(index, _)| *index != it.input);
    others
        .filter_map(|(_, input)| value_in_force(view, &input.previous_output))
        .fold(it.value, |sum, value| {
            sum.checked_add(value).unwrap_or(Amount::MAX)
        })
}

/// The value of an output of a commitment that a peer has not revoked.
fn value_in_force(view: &View<'_>, outpoint: &OutPoint) -> Option<Amount> {
    let mut in_force = view.state.channels.values().flat_map(|it| &it.peer);
    let spent = in_force.find_map(|peer| {
        let trusted = peer.commitment.trust();
        (trusted.txid() == outpoint.txid).then(|| trusted.built_transaction())
    })?;
    let vout = usize::try_from(outpoint.vout).ok()?;
    spent.transaction.output.get(vout).map(|it| it.value)
}

/// The most that a transaction may cost which brings `value_sat` to the owner.
pub(super) fn close_fee_limit_sat(view: &View<'_>, value_sat: u64) -> u64 {
    let numbers = &view.limits().numbers;
    let share_sat = u128::from(value_sat) * u128::from(numbers.close_fee_percent) / 100;
    let share_sat = u64::try_from(share_sat).unwrap_or(u64::MAX);
    numbers.close_fee_sat.max(share_sat)
}

/// What the owner has in the channel comes back, less the fee if the owner is the one who pays it (BOLT 2, `closing_signed`).
pub(super) fn pays_the_balance(view: &View<'_>, it: &Closing<'_>) -> Result<(), Refused> {
    let parameters = &it.channel.parameters;
    let (holder, peer) = (it.channel.holder.first(), it.channel.peer.first());
    let hidden = &it.channel.hidden;
    let of_holder = holder.map_or(0, |latest| {
        let balance = Balance::of(parameters, &latest.commitment, Side::Holder);
        balance.before_cost_msat(hidden.holder_carried_msat)
    });
    let of_peer = peer.map_or(0, |latest| {
        let balance = Balance::of(parameters, &latest.commitment, Side::Counterparty);
        balance.before_cost_msat(hidden.peer_carried_msat)
    });
    let balance_sat = of_holder.max(of_peer) / 1000;
    let fee_sat = match parameters.is_outbound_from_holder {
        true => it.fee_sat,
        false => 0,
    };
    refuse_unless(
        fee_sat <= close_fee_limit_sat(view, balance_sat),
        Rule::CloseBalance,
        "the close would cost more than the limit for closes",
    )?;
    let least_sat = balance_sat.saturating_sub(fee_sat);
    let is_dust = it.to_holder_sat == 0 && least_sat < CLOSING_DUST_SAT;
    refuse_unless(
        it.to_holder_sat >= least_sat || is_dust,
        Rule::CloseBalance,
        "the close would pay less to the owner than its balance and the fee",
    )
}

/// An HTLC in the channel would be nobody's.
pub(super) fn leaves_no_htlcs(_: &View<'_>, it: &Closing<'_>) -> Result<(), Refused> {
    let holder = it.channel.holder.first();
    let has_none = holder.is_none_or(|it| it.commitment.nondust_htlcs().is_empty())
        && it.channel.latest_peer_htlcs().is_empty();
    refuse_unless(
        has_none,
        Rule::CloseBalance,
        "HTLCs are still in the channel that would be closed",
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

pub(super) fn sweep_costs_no_more_than_allowed(view: &View<'_>, it: &Sweep) -> Result<(), Refused> {
    let outputs = it.transaction.iter().flat_map(|tx| &tx.output);
    let paid = outputs.fold(0, |sum: u64, output| {
        sum.saturating_add(output.value.to_sat())
    });
    let fee_sat = it.value.to_sat().saturating_sub(paid);
    refuse_unless(
        fee_sat <= close_fee_limit_sat(view, it.value.to_sat()),
        Rule::CloseFee,
        "the sweep would cost more than the limit for closes",
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

/// Whether the owner asked to close this channel by force.
fn is_asked_to_force(view: &View<'_>, channel_id: &[u8]) -> bool {
    let known = view.state.channel_intents.get(channel_id);
    known.is_some_and(|known| matches!(known.intent, ChannelIntent::Close { force: true, .. }))
}

fn not_on_record() -> Refused {
    Refused::new(
        Rule::SignRevoked,
        "the holder commitment is revoked, or was never validated here",
    )
}
