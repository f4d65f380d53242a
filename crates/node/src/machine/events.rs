//! LDK's events: which part gets one. Records go into the journal, and so are committed together with LDK's own record that the
//! event was handled.

use lightning::events::Event;
use longhand_proto::Code;

use crate::machine::turn::Turn;
use crate::parts::acceptance::{Acceptance, Request};
use crate::parts::claims::Claims;
use crate::parts::closed_channels::ClosedChannels;
use crate::parts::fee_bumps::FeeBumps;
use crate::parts::forwarding::Forwarding;
use crate::parts::held_forwards::HeldForwards;
use crate::parts::openings::Openings;
use crate::parts::payments::Payments;
use crate::parts::sweeps::Sweeps;

/// The turn, and the parts that LDK's events reach.
pub(super) struct LdkEvents<'a> {
    pub turn: &'a mut Turn,
    pub acceptance: &'a mut Acceptance,
    pub claims: &'a mut Claims,
    pub closed_channels: &'a mut ClosedChannels,
    pub fee_bumps: &'a mut FeeBumps,
    pub forwarding: &'a mut Forwarding,
    pub held_forwards: &'a mut HeldForwards,
    pub openings: &'a mut Openings,
    pub payments: &'a mut Payments,
    pub sweeps: &'a mut Sweeps,
}

impl LdkEvents<'_> {
    /// Gives an event to its part.
    pub fn handle(self, event: Event) {
        let (turn, payments) = (self.turn, self.payments);
        match event {
            Event::FundingGenerationReady { .. }
            | Event::FundingTxBroadcastSafe { .. }
            | Event::ChannelReady { .. } => {
                self.openings.on_event(turn, event);
                self.forwarding.apply(turn);
            }
            Event::ChannelClosed {
                user_channel_id,
                ref reason,
                ..
            } => {
                let reason = reason.to_string();
                self.closed_channels.closed(turn, event);
                self.openings
                    .fail(turn, user_channel_id, Code::ChannelClosed, &reason);
            }
            Event::OpenChannelRequest {
                temporary_channel_id,
                counterparty_node_id,
                params,
                funding_satoshis,
                ..
            } => {
                self.acceptance.request(Request {
                    temporary_channel_id,
                    counterparty: counterparty_node_id,
                    dust_limit_sat: params.dust_limit_satoshis,
                    funding_sat: funding_satoshis,
                });
                self.acceptance.advance(turn);
            }
            Event::PaymentClaimable { .. } => self.claims.claimable(turn, payments, event),
            Event::PaymentClaimed { .. } => self.claims.claimed(turn, payments, event),
            Event::SpendableOutputs { .. } => self.sweeps.track(turn, event),
            Event::BumpTransaction(event) => self.fee_bumps.request(event),
            Event::HTLCIntercepted { .. } => self.held_forwards.hold(turn, event),
            Event::PaymentForwarded { .. } => self.forwarding.record(turn, event),
            event => payments.on_event(turn, event),
        }
    }
}
