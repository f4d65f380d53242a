//! HTLCs that are being added or removed: a step of BOLT 2 that both signers have to finish.

use lightning::ln::channel_state::{
    ChannelDetails, InboundHTLCStateDetails, OutboundHTLCStateDetails,
};

use crate::machine::turn::Turn;

/// The HTLCs of a node's channels, as far as a phone that leaves is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InFlight {
    /// No channel has an HTLC.
    Nothing,
    /// All are committed at both sides. The peer may remove them at any moment.
    Committed,
    /// One is being added or removed, or its channel is not reestablished since the peer was connected.
    Moving,
}

/// The HTLCs of all channels.
pub(crate) fn in_flight(turn: &Turn) -> InFlight {
    let channels = turn.channels();
    let all = channels.iter().map(of_channel);
    all.max_by_key(|it| *it as u8).unwrap_or(InFlight::Nothing)
}

fn of_channel(channel: &ChannelDetails) -> InFlight {
    let outbound = channel.pending_outbound_htlcs.iter().map(|htlc| {
        let state = htlc.state.as_ref();
        state.is_none_or(|it| *it == OutboundHTLCStateDetails::Committed)
    });
    let inbound = channel.pending_inbound_htlcs.iter().map(|htlc| {
        let state = htlc.state.as_ref();
        state.is_none_or(|it| *it == InboundHTLCStateDetails::Committed)
    });
    let committed: Vec<bool> = outbound.chain(inbound).collect();
    match (committed.is_empty(), committed.iter().all(|it| *it)) {
        (true, _) => InFlight::Nothing,
        (false, true) if channel.is_usable => InFlight::Committed,
        (false, _) => InFlight::Moving,
    }
}

#[cfg(test)]
#[path = "tests/in_flight.rs"]
mod tests;
