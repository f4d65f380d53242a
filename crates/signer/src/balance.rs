//! The owner's balance in a commitment, and the least that it may be in the next one (BOLT 3).
//!
//! A commitment shows the balance in whole satoshis, after HTLCs, and after the fee and the anchors if the owner has funded the channel.
//! HTLCs without an output ("Trimmed Outputs") are not visible in it.

use lightning::ln::chan_utils::{ChannelTransactionParameters, CommitmentTransaction};
use lightning::types::features::ChannelTypeFeatures;

use crate::commitment::Side;

/// Two keyed anchors (BOLT 3).
const ANCHORS_SAT: u64 = 2 * 330;
/// Of a commitment transaction without HTLCs, in weight units (BOLT 3).
const BASE_WEIGHT: u64 = 724;
const BASE_WEIGHT_WITH_ANCHORS: u64 = 1124;
/// Of each HTLC output.
const HTLC_WEIGHT: u64 = 172;

/// The owner's balance in one commitment, in satoshis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Balance {
    /// The output; 0 when it would be dust.
    shown_sat: u64,
    /// What the owner pays of the transaction's fee and anchors.
    cost_sat: u64,
}

impl Balance {
    /// In a commitment of `side`.
    pub fn of(
        parameters: &ChannelTransactionParameters,
        commitment: &CommitmentTransaction,
        side: Side,
    ) -> Balance {
        let (own_sat, other_sat) = match side {
            Side::Holder => (
                commitment.to_broadcaster_value_sat(),
                commitment.to_countersignatory_value_sat(),
            ),
            Side::Counterparty => (
                commitment.to_countersignatory_value_sat(),
                commitment.to_broadcaster_value_sat(),
            ),
        };
        let htlcs = commitment.nondust_htlcs().iter();
        let paid_sat = htlcs
            .map(|htlc| htlc.amount_msat / 1000)
            .fold(own_sat.saturating_add(other_sat), u64::saturating_add);
        // A fee rate that is named and not paid is no cost: the difference would be the peer's.
        let left_sat = parameters.channel_value_satoshis.saturating_sub(paid_sat);
        let cost_sat = match parameters.is_outbound_from_holder {
            true => cost_sat(commitment).min(left_sat),
            false => 0,
        };
        Balance {
            shown_sat: own_sat,
            cost_sat,
        }
    }

    /// Before fee and anchors: the least that it may be. `carried_msat`: the balance that has no output.
    pub fn before_cost_msat(&self, carried_msat: u64) -> u64 {
        match self.shown_sat {
            0 => carried_msat,
            shown => shown.saturating_add(self.cost_sat).saturating_mul(1000),
        }
    }

    /// Whether the balance has an output.
    pub fn is_shown(&self) -> bool {
        self.shown_sat > 0
    }

    /// What the owner pays of the transaction's fee and anchors.
    pub fn cost_sat(&self) -> u64 {
        self.cost_sat
    }

    /// The part of `expected_msat`, a balance before fee and anchors, that is missing here. 0 when the rest would be dust below
    /// `dust_limit_sat`, and has no output.
    pub fn missing_msat(&self, expected_msat: u64, dust_limit_sat: u64) -> u64 {
        let expected_sat = (expected_msat / 1000).saturating_sub(self.cost_sat);
        if self.shown_sat == 0 && expected_sat < dust_limit_sat {
            return 0;
        }
        let shown_msat = self.shown_sat.saturating_add(self.cost_sat);
        // What it shows may be rounded down.
        let most_msat = shown_msat.saturating_mul(1000).saturating_add(999);
        expected_msat.saturating_sub(most_msat)
    }

    /// What it has above `expected_msat`, in whole satoshis.
    pub fn gained_msat(&self, expected_msat: u64) -> u64 {
        let here_msat = self.before_cost_msat(0);
        here_msat.saturating_sub(expected_msat) / 1000 * 1000
    }
}

/// The fee and the anchors of a commitment transaction, which the funder of the channel pays.
fn cost_sat(commitment: &CommitmentTransaction) -> u64 {
    let features = commitment.trust().channel_type_features().clone();
    let htlcs = commitment.nondust_htlcs().len() as u64;
    let weight = base_weight(&features) + HTLC_WEIGHT * htlcs;
    let fee_sat = u64::from(commitment.negotiated_feerate_per_kw()) * weight / 1000;
    let anchors_sat = match features.supports_anchors_zero_fee_htlc_tx() {
        true => ANCHORS_SAT,
        false => 0,
    };
    fee_sat + anchors_sat
}

fn base_weight(features: &ChannelTypeFeatures) -> u64 {
    match features.supports_anchors_zero_fee_htlc_tx() {
        true => BASE_WEIGHT_WITH_ANCHORS,
        false => BASE_WEIGHT,
    }
}
