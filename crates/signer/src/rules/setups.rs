//! Setups of channels.

use bitcoin::Amount;
use bitcoin::hashes::cmp::fixed_time_eq;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::chan_utils::ChannelPublicKeys;

use super::{Refused, Rule, refuse_unless};
use crate::limits::Inbound;
use crate::proposal::Setup;
use crate::view::View;

pub(super) fn is_the_same(_: &View<'_>, it: &Setup<'_>) -> Result<(), Refused> {
    let is_same = it.on_record.is_none_or(|channel| {
        channel.parameters == it.parameters
            && channel.counterparty_node_id == it.counterparty_node_id
    });
    refuse_unless(
        is_same,
        Rule::SetupChanged,
        "the channel was set up with other parameters before",
    )
}

/// A channel that is not in this ledger must be new. The node proposes the ids: without a part that is derived from the
/// ledger's key, a phone that lost its ledger would begin an old channel again, and sign revoked states.
pub(super) fn is_of_this_ledger(view: &View<'_>, it: &Setup<'_>) -> Result<(), Refused> {
    refuse_unless(
        fixed_time_eq(&view.own.given_keys_id(&it.keys_id), &it.keys_id),
        Rule::SetupLedger,
        "the channel's keys were not given with this ledger: the channel may be an older one",
    )
}

pub(super) fn is_whole(_: &View<'_>, it: &Setup<'_>) -> Result<(), Refused> {
    refuse_unless(
        it.parameters.is_populated(),
        Rule::Malformed,
        "the channel parameters lack the peer's part or the funding outpoint",
    )
}

pub(super) fn has_a_known_type(_: &View<'_>, it: &Setup<'_>) -> Result<(), Refused> {
    refuse_unless(
        it.parameters.splice_parent_funding_txid.is_none(),
        Rule::SetupType,
        "spliced channels are not supported",
    )?;
    let features = &it.parameters.channel_type_features;
    // In other types a higher fee rate makes outputs of HTLCs disappear.
    let has_anchors = features.supports_anchors_zero_fee_htlc_tx()
        || features.supports_anchor_zero_fee_commitments();
    refuse_unless(
        has_anchors
            && !features.supports_any_optional_bits()
            && !features.supports_anchors_nonzero_fee_htlc_tx(),
        Rule::SetupType,
        "this channel type is not supported",
    )
}

pub(super) fn has_our_keys(view: &View<'_>, it: &Setup<'_>) -> Result<(), Refused> {
    refuse_unless(
        it.parameters.holder_pubkeys == view.own.channel_keys(&it.keys_id),
        Rule::SetupKeys,
        "the owner's keys in the parameters are not this phone's",
    )
}

pub(super) fn has_foreign_counterparty_keys(_: &View<'_>, it: &Setup<'_>) -> Result<(), Refused> {
    let theirs = it
        .parameters
        .counterparty_pubkeys()
        .map_or([None; 5], every_key);
    let ours = every_key(&it.parameters.holder_pubkeys);
    refuse_unless(
        !ours.iter().any(|key| theirs.contains(key)),
        Rule::SetupKeys,
        "a key of the peer's in the parameters is this phone's",
    )
}

pub(super) fn has_a_value(_: &View<'_>, it: &Setup<'_>) -> Result<(), Refused> {
    let value = Amount::from_sat(it.parameters.channel_value_satoshis);
    refuse_unless(
        value > Amount::ZERO && value <= Amount::MAX_MONEY,
        Rule::Malformed,
        "the channel's value is out of range",
    )
}

/// An opening by the owner carries out a command of the owner's; one by a peer is allowed by the limits.
pub(super) fn is_asked_for(view: &View<'_>, it: &Setup<'_>) -> Result<(), Refused> {
    match it.parameters.is_outbound_from_holder {
        true => refuse_unless(
            is_opening(view, it),
            Rule::SetupUnasked,
            "this phone was not asked to open this channel",
        ),
        false => refuse_unless(
            may_open(view, &it.counterparty_node_id),
            Rule::SetupUnasked,
            "the owner's limits do not allow this peer to open a channel (`inbound`)",
        ),
    }
}

fn is_opening(view: &View<'_>, it: &Setup<'_>) -> bool {
    let known = view.state.channel_intents.get(&it.opening_id);
    let value_sat = it.parameters.channel_value_satoshis;
    known.is_some_and(|known| {
        // One whose funding was signed has its channel.
        let is_open = known.awaits_delivery && known.spends.is_none();
        is_open && known.is_opening(&it.counterparty_node_id, value_sat)
    })
}

fn may_open(view: &View<'_>, peer: &PublicKey) -> bool {
    match &view.limits().inbound {
        Inbound::Anybody => true,
        Inbound::Hub => view.hub == Some(*peer),
        Inbound::Listed(peers) => peers.contains(&peer.serialize()),
    }
}

pub(super) fn has_a_bearable_size(view: &View<'_>, it: &Setup<'_>) -> Result<(), Refused> {
    refuse_unless(
        it.parameters.channel_value_satoshis <= view.limits().numbers.channel_sat,
        Rule::SetupSize,
        "the channel is larger than the owner's limit (`channel_sat`)",
    )
}

/// The owner's own outputs are delayed by the peer's choice, and the peer's by the owner's.
pub(super) fn has_safe_delays(view: &View<'_>, it: &Setup<'_>) -> Result<(), Refused> {
    let peers_choice = it
        .parameters
        .counterparty_parameters
        .as_ref()
        .map_or(0, |theirs| theirs.selected_contest_delay);
    refuse_unless(
        u64::from(peers_choice) <= view.limits().numbers.longest_own_delay_blocks,
        Rule::SetupDelay,
        "the owner would wait too long for the outputs of its own close",
    )?;
    let numbers = &view.limits().numbers;
    let shortest_blocks = match view.hub == Some(it.counterparty_node_id) {
        true => numbers.shortest_hub_delay_blocks,
        false => numbers.shortest_peer_delay_blocks,
    };
    refuse_unless(
        u64::from(it.parameters.holder_selected_contest_delay) >= shortest_blocks,
        Rule::SetupDelay,
        "the time to punish the peer for an old commitment would be too short",
    )
}

/// What a peer may have the owner keep in any channel, in satoshis: the least that LDK asks for itself.
const SMALL_RESERVE_SAT: u64 = 1_000;

/// HTLCs below the peer's dust limit are lost to the miners when its commitment is published, and the owner's reserve cannot be spent.
pub(super) fn has_bearable_terms(view: &View<'_>, it: &Setup<'_>) -> Result<(), Refused> {
    let terms = it.terms.as_ref();
    let terms = terms.ok_or_else(|| Refused::malformed("the setup lacks the peer's terms"))?;
    let numbers = &view.limits().numbers;
    refuse_unless(
        terms.peer_dust_limit_sat <= numbers.peer_dust_limit_sat,
        Rule::SetupTerms,
        "the peer's dust limit is above the owner's limit (`peer_dust_limit_sat`)",
    )?;
    let value_sat = u128::from(it.parameters.channel_value_satoshis);
    let percent_sat = value_sat * u128::from(numbers.own_reserve_percent) / 100;
    refuse_unless(
        u128::from(terms.owner_reserve_sat) <= percent_sat.max(SMALL_RESERVE_SAT.into()),
        Rule::SetupTerms,
        "the reserve that the peer asks for is above the owner's limit (`own_reserve_percent`)",
    )
}

/// Two channels in one output would be signed by two sets of rules, of which each sees a half.
pub(super) fn has_its_own_funding(view: &View<'_>, it: &Setup<'_>) -> Result<(), Refused> {
    let outpoint = &it.parameters.funding_outpoint;
    let mut others = view.state.channels.values();
    refuse_unless(
        !others.any(|other| other.parameters.funding_outpoint == *outpoint),
        Rule::SetupOutpoint,
        "another channel has the same funding output",
    )
}

/// Every key of one side of a channel.
fn every_key(keys: &ChannelPublicKeys) -> [Option<PublicKey>; 5] {
    [
        keys.funding_pubkey,
        keys.revocation_basepoint.0,
        keys.payment_point,
        keys.delayed_payment_basepoint.0,
        keys.htlc_basepoint.0,
    ]
    .map(Some)
}
