//! The problems of the host that its operator should know, one line each: in `admin status`, and in the log when one begins.

use bitcoin::Network;
use longhand_chain::FeeRates;

/// Satoshis per 1,000 weight units in one satoshi per virtual byte.
const SAT_PER_KW_OF_SAT_PER_VB: u32 = 250;

/// What the problems are judged by.
pub(crate) struct Observed {
    pub network: Network,
    /// Whether the chain source answered the last poll.
    pub is_reachable: bool,
    pub fee_rates: FeeRates,
}

/// The problems now. A source that does not answer is one by itself; nothing else about the chain is reported then.
pub(crate) fn problems(observed: &Observed) -> Vec<String> {
    // On regtest nobody mines but the operator, and nothing has a value.
    if observed.network == Network::Regtest {
        return vec![];
    }
    if !observed.is_reachable {
        let text = "the chain source cannot be reached: nodes see no blocks until it answers; check that it runs";
        return vec![text.into()];
    }
    fee_problem(observed).into_iter().collect()
}

fn fee_problem(observed: &Observed) -> Option<String> {
    let rates = observed.fee_rates;
    let sat_per_vb = rates.normal.div_ceil(SAT_PER_KW_OF_SAT_PER_VB);
    let text = || {
        format!(
            "the chain source has had no fee estimate for an hour: closes and claims pay about {sat_per_vb} sat/vB \
             (chain.fallback_feerate_sat_per_vb), and `open` and `send-onchain` need --feerate; wait until the source \
             has seen some blocks, or set a fallback that fits"
        )
    };
    (!rates.is_estimate).then(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(network: Network) -> Observed {
        Observed {
            network,
            is_reachable: true,
            fee_rates: FeeRates::FLOOR,
        }
    }

    fn fallback() -> FeeRates {
        FeeRates {
            normal: 5_000,
            is_estimate: false,
            ..FeeRates::FLOOR
        }
    }

    #[test]
    fn a_host_whose_chain_is_well_has_no_problem() {
        assert!(problems(&observed(Network::Bitcoin)).is_empty());
    }

    #[test]
    fn a_fallback_in_place_of_an_estimate_is_a_problem() {
        let seen = Observed {
            fee_rates: fallback(),
            ..observed(Network::Bitcoin)
        };
        let lines = problems(&seen);
        assert!(lines[0].contains("no fee estimate") && lines[0].contains("20 sat/vB"));
        assert_eq!(lines.len(), 1);
    }

    #[test]
    fn regtest_has_no_problem_with_the_chain() {
        let seen = Observed {
            fee_rates: fallback(),
            is_reachable: false,
            ..observed(Network::Regtest)
        };
        assert!(problems(&seen).is_empty());
    }
}
