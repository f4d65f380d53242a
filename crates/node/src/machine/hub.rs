//! Requests of a hub's operator, other than the commands that every owner has.

use longhand_proto::Code;
use longhand_proto::command::Error;

use crate::machine::input::HubRequest;
use crate::machine::output::HubAnswer;
use crate::machine::turn::Turn;
use crate::parts::forwarding::Forwarding;

/// Carries out a request.
///
/// # Errors
/// `NOT_A_HUB`, or the part's; nothing is changed then.
pub(super) fn carry_out(
    turn: &Turn,
    forwarding: &mut Forwarding,
    request: HubRequest,
) -> Result<HubAnswer, Error> {
    if !turn.config.is_hub {
        let message = "this node forwards no payments: ask the hub";
        return Err(Error::new(Code::NotAHub, message));
    }
    match request {
        HubRequest::Fees => {}
        HubRequest::SetFees(fees) => forwarding.set_fees(turn, fees)?,
        HubRequest::Forwards(limit) => {
            return Ok(HubAnswer::Forwards(forwarding.report(limit)));
        }
    }
    Ok(HubAnswer::Fees(forwarding.fees()))
}
