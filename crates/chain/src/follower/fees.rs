//! The fee rates that the nodes of a host get, from the answers of the source.
//!
//! An answer without an estimate (a Core that has just started has none) does not replace one with: the last estimate
//! is used for a while, and then the fallback of the configuration.

use std::time::Duration;

use tokio::time::Instant;

use crate::FeeRates;

/// How long an estimate is used when the source has no newer one. Fee rates of an hour ago are nearer to those of now
/// than any fixed one.
pub(super) const KEPT_FOR: Duration = Duration::from_secs(3_600);

/// See the module.
pub(super) struct Fees {
    /// In satoshis per 1,000 weight units.
    fallback_sat_per_kw: u32,
    /// The last answer with an estimate, and when it came.
    estimate: Option<(FeeRates, Instant)>,
    /// The mempool's minimum in the last answer.
    minimum: u32,
}

impl Fees {
    pub fn new(fallback_sat_per_kw: u32) -> Fees {
        Fees {
            fallback_sat_per_kw,
            estimate: None,
            minimum: FeeRates::FLOOR.minimum,
        }
    }

    /// The source has answered.
    pub fn answered(&mut self, rates: FeeRates, now: Instant) {
        self.minimum = rates.minimum;
        if rates.is_estimate {
            self.estimate = Some((rates, now));
        }
    }

    /// The rates to use now.
    pub fn rates(&self, now: Instant) -> FeeRates {
        let is_fresh = |at: Instant| now.saturating_duration_since(at) < KEPT_FOR;
        match self.estimate {
            Some((rates, at)) if is_fresh(at) => FeeRates::estimated(
                Some(rates.urgent),
                Some(rates.normal),
                Some(rates.background),
                self.minimum,
            ),
            _ => FeeRates::fallback(self.fallback_sat_per_kw, self.minimum),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(sat_per_kw: u32) -> FeeRates {
        FeeRates::estimated(Some(sat_per_kw), Some(sat_per_kw), Some(sat_per_kw), 253)
    }

    /// The answer of a source that knows only the mempool's minimum.
    fn without_estimate(minimum: u32) -> FeeRates {
        FeeRates::estimated(None, None, None, minimum)
    }

    #[test]
    fn an_estimate_is_kept_for_a_while_when_the_source_has_none() {
        let start = Instant::now();
        let mut fees = Fees::new(2_500);
        fees.answered(estimate(8_000), start);
        fees.answered(without_estimate(253), start + Duration::from_secs(60));
        let later = start + KEPT_FOR - Duration::from_secs(1);
        assert_eq!(fees.rates(later), estimate(8_000));
        let fallback = fees.rates(start + KEPT_FOR);
        assert_eq!((fallback.normal, fallback.is_estimate), (2_500, false));
    }

    #[test]
    fn without_any_estimate_all_rates_are_the_fallback_and_are_marked() {
        let rates = Fees::new(5_000).rates(Instant::now());
        let all = [rates.urgent, rates.normal, rates.background];
        assert_eq!((all, rates.minimum), ([5_000; 3], 253));
        assert!(!rates.is_estimate);
    }

    #[test]
    fn no_rate_is_below_the_minimum_of_a_full_mempool() {
        let now = Instant::now();
        let mut fees = Fees::new(2_500);
        fees.answered(estimate(3_000), now);
        fees.answered(without_estimate(4_000), now);
        assert_eq!(fees.rates(now).background, 4_000);
        assert_eq!(fees.rates(now + KEPT_FOR).background, 4_000);
    }

    #[test]
    fn an_absurd_estimate_is_bounded() {
        let rates = FeeRates::estimated(Some(u32::MAX), Some(u32::MAX), Some(300), u32::MAX);
        let all = [rates.urgent, rates.normal, rates.background, rates.minimum];
        assert_eq!(all, [FeeRates::MAX_SAT_PER_KW; 4]);
    }

    #[test]
    fn one_estimate_of_several_is_an_estimate() {
        assert!(FeeRates::estimated(None, None, Some(300), 253).is_estimate);
        assert!(!without_estimate(253).is_estimate);
    }
}
