//! What may be spent in a time without that a limit is raised: a program that asks to pay is stopped, whoever has taken it over.
//!
//! These limits are asked when the owner asks to pay, and not when an HTLC is offered: a channel cannot go on without an HTLC that its node
//! has offered.

use super::{Refused, Rule};
use crate::hidden::OWN_DUST_LIMIT_SAT;
use crate::intents::PaymentIntent;
use crate::ledger::State;

const HOUR_S: u64 = 3_600;
const DAY_S: u64 = 24 * HOUR_S;
/// A smaller payment has no output in the owner's commitments.
const SMALL_MSAT: u64 = OWN_DUST_LIMIT_SAT * 1000;

/// Sums over payments, in millisatoshis.
#[derive(Default)]
struct Sums {
    hour: u64,
    day: u64,
    fees_of_day: u64,
    in_flight: u64,
    trimmed_of_day: u64,
}

impl Sums {
    /// Adds a payment, which may leave for `late_s` after its invoice has expired.
    fn add(&mut self, it: &PaymentIntent, late_s: u64, now_unix_s: u64) {
        let add = |sum: &mut u64, msat: u64| *sum = sum.saturating_add(msat);
        let is_since = |age_s| it.created_unix_s >= now_unix_s.saturating_sub(age_s);
        let may_leave = now_unix_s <= it.expires_unix_s.saturating_add(late_s);
        if !it.is_over && may_leave {
            add(&mut self.in_flight, taken(it));
        }
        if !is_since(DAY_S) {
            return;
        }
        add(&mut self.day, taken(it));
        add(&mut self.fees_of_day, fees(it));
        if it.amount_msat < SMALL_MSAT {
            add(&mut self.trimmed_of_day, taken(it));
        }
        if is_since(HOUR_S) {
            add(&mut self.hour, taken(it));
        }
    }
}

/// Refuses `new` if a limit does not allow it beside the other payments.
pub(crate) fn check(state: &State, new: &PaymentIntent, now_unix_s: u64) -> Result<(), Refused> {
    let limits = &state.limits.numbers;
    let mut sums = Sums::default();
    let others = state.payment_intents.values();
    others
        .filter(|other| other.payment_hash != new.payment_hash)
        .chain([new])
        .for_each(|it| sums.add(it, limits.late_payment_s, now_unix_s));
    let checks = [
        ("spend_per_hour_sat", limits.spend_per_hour_sat, sums.hour),
        ("spend_per_day_sat", limits.spend_per_day_sat, sums.day),
        (
            "fees_per_day_sat",
            limits.fees_per_day_sat,
            sums.fees_of_day,
        ),
        ("in_flight_sat", limits.in_flight_sat, sums.in_flight),
        (
            "trimmed_per_day_sat",
            limits.trimmed_per_day_sat,
            sums.trimmed_of_day,
        ),
    ];
    let reached = checks
        .into_iter()
        .find(|(_, limit_sat, sum_msat)| *sum_msat > limit_sat.saturating_mul(1000));
    let Some((name, limit_sat, sum_msat)) = reached else {
        return Ok(());
    };
    let sum_sat = sum_msat.div_ceil(1000);
    Err(Refused::new(
        Rule::SpendLimit,
        format!(
            "with this payment {sum_sat} sat count towards {name}, which is {limit_sat}: wait, or set it with `longhand phone limits`"
        ),
    ))
}

/// What a payment takes of a limit: all that may leave for it, or what has left once it is over.
fn taken(intent: &PaymentIntent) -> u64 {
    match intent.is_over {
        true => intent.spent_msat.saturating_add(intent.trimmed_msat),
        false => intent.limit_msat(),
    }
}

/// The same for its fee.
fn fees(intent: &PaymentIntent) -> u64 {
    match intent.is_over {
        true => taken(intent).saturating_sub(intent.amount_msat),
        false => intent.max_fee_msat,
    }
}
