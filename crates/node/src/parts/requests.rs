//! Requests of the node's owner and host, until they are answered.
//!
//! Commands that read are answered at the end of the turn, whatever the node's state. Those that need the signer are
//! refused with `SIGNER_AWAY` at once while it is away. Those that lack a channel wait for a moment after an attach, until
//! one is usable. Those that take longer than a turn are stored by the part that carries them out, and the
//! reply waits ([`Wait`]).

use bitcoin::secp256k1::PublicKey;
use lightning::ln::channel_state::ChannelDetails;
use lightning::types::payment::PaymentHash;
use longhand_proto::Code;
use longhand_proto::command::Command;
use longhand_proto::command::Error;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;

use crate::errors::OTHER_PHONE_REASON;
use crate::machine::output::RequestId;
use crate::machine::turn::Turn;
use crate::parts::payments;
use crate::parts::replacements::Attempt;
use crate::store::history::Read;

/// The event that a reply waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// A payment succeeds or fails.
    Payment(PaymentHash),
    /// The funding of a channel is broadcast.
    Opened(u128),
    /// A channel can be used.
    Usable(u128),
    /// An on-chain payment is broadcast.
    Sent(Vec<u8>),
    /// The transaction in the place of another is broadcast, or was not signed.
    Replaced(Attempt),
    /// A peer is connected.
    Peer(PublicKey),
}

/// The result of a command in its own turn.
pub(crate) enum Outcome {
    Now(Reply),
    Later(Wait),
    /// The reply is in the store, once the turn is committed.
    Stored(Read),
}

/// See the module.
#[derive(Default)]
pub(crate) struct Requests {
    waiting: Vec<(Wait, RequestId)>,
    /// Commands that wait for a channel to be usable.
    deferred: Vec<(RequestId, Command)>,
    /// Commands that read; answered at the end of the turn, never in its middle.
    reading: Vec<(RequestId, Command)>,
    overviews: Vec<RequestId>,
}

impl Requests {
    pub fn wait(&mut self, wait: Wait, id: RequestId) {
        self.waiting.push((wait, id));
    }

    pub fn defer(&mut self, id: RequestId, command: Command) {
        self.deferred.push((id, command));
    }

    pub fn read(&mut self, id: RequestId, command: Command) {
        self.reading.push((id, command));
    }

    pub fn overview(&mut self, id: RequestId) {
        self.overviews.push(id);
    }

    /// Nobody waits for this reply any more. A deferred command is carried out all the same, as one that was sent is.
    pub fn dropped(&mut self, id: RequestId) {
        self.waiting.retain(|(_, waiting)| *waiting != id);
        self.overviews.retain(|waiting| *waiting != id);
    }

    pub fn has_deferred(&self) -> bool {
        !self.deferred.is_empty()
    }

    /// The commands that wait for channels.
    pub fn deferred(&self) -> impl Iterator<Item = &Command> {
        self.deferred.iter().map(|(_, command)| command)
    }

    pub fn take_deferred(&mut self) -> Vec<(RequestId, Command)> {
        std::mem::take(&mut self.deferred)
    }

    /// Another signer is attached: it carries out nothing that it was not asked for.
    pub fn fail_deferred(&mut self, turn: &mut Turn) {
        for (id, _) in self.take_deferred() {
            let failure = Error::new(Code::PairingRenewed, OTHER_PHONE_REASON);
            turn.output.reply(id, Err(failure));
        }
    }

    pub fn take_reading(&mut self) -> Vec<(RequestId, Command)> {
        std::mem::take(&mut self.reading)
    }

    pub fn take_overviews(&mut self) -> Vec<RequestId> {
        std::mem::take(&mut self.overviews)
    }

    /// Takes the requests whose event `result` has, with their results.
    pub fn take_results<T>(
        &mut self,
        mut result: impl FnMut(&Wait) -> Option<T>,
    ) -> Vec<(RequestId, T)> {
        let mut results = Vec::new();
        self.waiting.retain(|(wait, id)| match result(wait) {
            Some(result) => {
                results.push((*id, result));
                false
            }
            None => true,
        });
        results
    }

    /// Peers that requests wait for.
    pub fn peers(&self) -> impl Iterator<Item = PublicKey> {
        self.waiting.iter().filter_map(|(wait, _)| match wait {
            Wait::Peer(node_id) => Some(*node_id),
            _ => None,
        })
    }
}

/// True for commands that need the signer, or peers, which there are only with it.
pub(crate) fn needs_signer(command: &Command) -> bool {
    matches!(
        command.command,
        Some(
            Kind::OpenChannel(_)
                | Kind::CreateInvoice(_)
                | Kind::Pay(_)
                | Kind::SendOnchain(_)
                | Kind::BumpTransaction(_)
                | Kind::AbandonTransaction(_)
                | Kind::CloseChannel(_)
                | Kind::ConnectPeer(_)
        )
    )
}

/// True for commands that name channels to others, which the phone has to have seen in the chain: an invoice with its route hints.
pub(crate) fn lists_channels(command: &Command) -> bool {
    matches!(command.command, Some(Kind::CreateInvoice(_)))
}

/// True for commands that would fail for no good reason now, while the channels' peers are being connected: a payment for
/// want of a channel that can carry it, an invoice for want of a route hint, which needs no connection, and a cooperative
/// close for want of its peer.
pub(crate) fn lacks_channels(turn: &Turn, command: &Command) -> bool {
    let mut channels = turn.channels();
    channels.retain(|channel| channel.is_channel_ready);
    match &command.command {
        Some(Kind::CreateInvoice(_)) => {
            let has_terms = |it: &ChannelDetails| it.counterparty.forwarding_info.is_some();
            !channels.is_empty() && !channels.iter().any(has_terms)
        }
        Some(Kind::Pay(pay)) => {
            let Some(amount_msat) = payments::amount_msat(pay) else {
                return false;
            };
            let capacities = channels.iter().map(|it| it.outbound_capacity_msat);
            let usable = channels.iter().filter(|it| turn.is_usable(it));
            let usable = usable.map(|it| it.outbound_capacity_msat);
            let total = |sum: u64, msat| sum.saturating_add(msat);
            usable.fold(0, total) < amount_msat && amount_msat <= capacities.fold(0, total)
        }
        Some(Kind::CloseChannel(close)) if !close.force => channels
            .iter()
            .any(|it| it.channel_id.0[..] == close.channel_id[..] && !it.is_usable),
        _ => false,
    }
}

/// True for commands that change nothing.
pub(crate) fn only_reads(command: &Command) -> bool {
    matches!(
        command.command,
        Some(
            Kind::GetInfo(_)
                | Kind::GetBalance(_)
                | Kind::ListChannels(_)
                | Kind::ListPayments(_)
                | Kind::GetPayment(_)
                | Kind::ListInvoices(_)
                | Kind::ListSends(_)
        )
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::secp256k1::constants;
    use longhand_proto::command::{CloseChannel, GetInfo, Pay};

    use super::*;

    fn command(kind: Kind) -> Command {
        Command {
            command: Some(kind),
        }
    }

    #[test]
    fn a_request_is_answered_once_its_event_has_come() {
        let mut requests = Requests::default();
        requests.wait(Wait::Opened(1), 10);
        requests.wait(Wait::Opened(2), 11);
        let opened = |wait: &Wait| (*wait == Wait::Opened(2)).then_some("opened");
        assert_eq!(requests.take_results(opened), [(11, "opened")]);
        assert!(requests.take_results(opened).is_empty());
    }

    #[test]
    fn a_peer_is_needed_while_a_request_waits_for_it() {
        let generator = [&[4][..], &constants::GENERATOR_X, &constants::GENERATOR_Y].concat();
        let peer = PublicKey::from_slice(&generator).unwrap();
        let mut requests = Requests::default();
        requests.wait(Wait::Opened(1), 10);
        requests.wait(Wait::Peer(peer), 11);
        assert_eq!(requests.peers().collect::<Vec<_>>(), [peer]);
        requests.dropped(11);
        assert_eq!(requests.peers().count(), 0);
    }

    #[test]
    fn a_reply_that_nobody_waits_for_is_dropped_and_a_deferred_command_is_not() {
        let mut requests = Requests::default();
        requests.wait(Wait::Opened(1), 10);
        requests.defer(11, command(Kind::Pay(Pay::default())));
        requests.overview(12);
        for id in [10, 11, 12] {
            requests.dropped(id);
        }
        assert!(requests.take_overviews().is_empty());
        assert!(requests.take_results(|_| Some(())).is_empty());
        assert_eq!(requests.take_deferred().len(), 1);
        assert!(!requests.has_deferred());
    }

    #[test]
    fn a_close_needs_the_signer_and_a_read_does_not() {
        let close = command(Kind::CloseChannel(CloseChannel::default()));
        assert!(needs_signer(&close) && !only_reads(&close));
        let read = command(Kind::GetInfo(GetInfo {}));
        assert!(only_reads(&read) && !needs_signer(&read));
    }
}
