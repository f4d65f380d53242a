//! The fee rates of transactions that the owner asks for: the owner's own, or the estimate.
//!
//! LDK's transactions, such as closes and claims, cannot wait: they use the host's fallback when there is no estimate
//! (`ldk/adapters.rs`).

use longhand_proto::Code;
use longhand_proto::command::Error;
use longhand_proto::{MAX_FEERATE_SAT_PER_KW, MIN_FEERATE_SAT_PER_KW};

use crate::machine::turn::Turn;

/// The fee rate for a new transaction, in satoshis per 1,000 weight units; `given` is the owner's, 0 for none.
///
/// # Errors
/// `FEERATE_OUT_OF_RANGE`, `NO_FEE_ESTIMATE` when none is given and there is no estimate, or `BELOW_MINIMUM_FEE` when the chain source
/// would not relay the transaction.
pub(crate) fn chosen(turn: &Turn, given: u32) -> Result<u32, Error> {
    let rates = turn.ldk.fees.rates();
    let feerate = match checked(given)? {
        Some(given) => given,
        None if rates.is_estimate => rates.normal,
        None => {
            return Err(Error::new(
                Code::NoFeeEstimate,
                "the host's chain source has no fee estimate now: give --feerate, in satoshis per 1,000 weight units \
                 (250 = 1 sat/vB)",
            ));
        }
    };
    let least = rates.minimum;
    if feerate < least {
        let message = format!(
            "the chain source relays nothing below {least} satoshis per 1,000 weight units now: give a higher fee rate"
        );
        return Err(Error::new(Code::BelowMinimumFee, message));
    }
    Ok(feerate)
}

/// The owner's fee rate; `None` for 0, when it is not given.
///
/// # Errors
/// `FEERATE_OUT_OF_RANGE`.
pub(crate) fn checked(given: u32) -> Result<Option<u32>, Error> {
    match given {
        0 => Ok(None),
        MIN_FEERATE_SAT_PER_KW..=MAX_FEERATE_SAT_PER_KW => Ok(Some(given)),
        _ => Err(Error::new(
            Code::FeerateOutOfRange,
            format!(
                "the fee rate must be {MIN_FEERATE_SAT_PER_KW} to {MAX_FEERATE_SAT_PER_KW} satoshis per 1,000 weight \
                 units (250 = 1 sat/vB): look at the unit"
            ),
        )),
    }
}
