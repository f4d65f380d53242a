//! The owner's commands: which part carries out which, and the reply to each.
//!
//! Each is checked before anything is changed. `parts/requests.rs` says which of them need the signer or channels.

use bitcoin::secp256k1::PublicKey;
use longhand_proto::Code;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{
    Address as AddressReply, Channels, Command, Error, FoundPayment, Invoices, PeerConnected, Sends,
};

use crate::api::State;
use crate::machine::turn::Turn;
use crate::parts::closed_channels::ClosedChannels;
use crate::parts::dialing::Dialing;
use crate::parts::funding_proofs::FundingProofs;
use crate::parts::onchain_sends::OnchainSends;
use crate::parts::openings::Openings;
use crate::parts::payments::{Payments, payment_hash};
use crate::parts::requests::{Outcome, Wait};
use crate::parts::signer_headers::SignerHeaders;
use crate::parts::signer_session::SignerSession;
use crate::parts::wallet_scan::WalletScan;
use crate::parts::{balances, invoices};
use crate::store::history::Read;

/// The parts that commands reach.
pub(crate) struct Commands<'a> {
    pub turn: &'a Turn,
    pub state: State,
    pub session: &'a SignerSession,
    pub closed_channels: &'a ClosedChannels,
    pub dialing: &'a mut Dialing,
    pub funding_proofs: &'a FundingProofs,
    pub signer_headers: &'a SignerHeaders,
    pub onchain_sends: &'a mut OnchainSends,
    pub openings: &'a mut Openings,
    pub payments: &'a mut Payments,
    pub wallet_scan: &'a WalletScan,
}

impl Commands<'_> {
    /// Carries out `command`: the reply, or the event that the reply waits for.
    ///
    /// # Errors
    /// A refusal with its code; nothing is changed then.
    pub fn carry_out(&mut self, command: Command) -> Result<Outcome, Error> {
        let turn = self.turn;
        let now = |reply| Ok(Outcome::Now(reply));
        let later = |wait| Ok(Outcome::Later(wait));
        match command.command {
            Some(Kind::GetInfo(_)) => {
                let stats = self.session.stats();
                let info = balances::info(turn, self.state, stats);
                now(Reply::Info(self.wallet_scan.add_to_info(turn, info)))
            }
            Some(Kind::GetBalance(_)) => {
                let balance = balances::balance(turn, self.openings);
                now(Reply::Balance(
                    self.wallet_scan.add_to_balance(turn, balance),
                ))
            }
            Some(Kind::ListChannels(_)) => now(Reply::Channels(Channels {
                channels: balances::channels(turn, self.openings),
                closed: self.closed_channels.list(),
            })),
            Some(Kind::ListPayments(list)) => {
                let page = self.payments.page(&list)?;
                Ok(Outcome::Stored(Read::Page(page)))
            }
            Some(Kind::GetPayment(get)) => {
                let hash = payment_hash(&get.payment_hash)?;
                Ok(match self.payments.live(&hash).cloned() {
                    None => Outcome::Stored(Read::Payment(hash)),
                    payment => Outcome::Now(Reply::FoundPayment(FoundPayment { payment })),
                })
            }
            Some(Kind::ListInvoices(_)) => now(Reply::Invoices(Invoices {
                invoices: self.payments.open_invoices(turn),
            })),
            Some(Kind::NewAddress(_)) => {
                let (address, keychain, index) = turn.wallet().new_address();
                now(Reply::Address(AddressReply {
                    address: address.to_string(),
                    keychain,
                    index,
                }))
            }
            Some(Kind::OpenChannel(open)) => {
                if let Ok(known) = self.openings.find(&open.id) {
                    return later(Wait::Opened(known));
                }
                let peer = peer_id(turn, &open.counterparty_node_id)?;
                let address = open.address.clone();
                self.dialing.check(turn, &peer, &address)?;
                let id = self
                    .openings
                    .request(turn, peer, open, self.session.identity())?;
                self.dialing.give(turn, peer, &address);
                later(Wait::Opened(id))
            }
            Some(Kind::CreateInvoice(invoice)) => {
                let unsigned = invoices::unsigned(turn, &invoice, |channel| {
                    !self.signer_headers.follows() || self.funding_proofs.is_shown(turn, channel)
                })?;
                self.payments.invoice_made(turn, &invoice);
                now(Reply::UnsignedInvoice(unsigned))
            }
            Some(Kind::Pay(pay)) => later(Wait::Payment(self.payments.pay(turn, &pay)?)),
            Some(Kind::SendOnchain(send)) => {
                let signer = self.session.identity();
                later(Wait::Sent(self.onchain_sends.request(turn, send, signer)?))
            }
            Some(Kind::ListSends(_)) => now(Reply::Sends(Sends {
                sends: self.onchain_sends.list(turn),
            })),
            Some(Kind::BumpTransaction(bump)) => {
                let signer = self.session.identity();
                later(Wait::Replaced(
                    self.onchain_sends.bump(turn, &bump, signer)?,
                ))
            }
            Some(Kind::AbandonTransaction(abandon)) => {
                let signer = self.session.identity();
                let attempt = self.onchain_sends.abandon(turn, &abandon, signer)?;
                later(Wait::Replaced(attempt))
            }
            Some(Kind::CloseChannel(close)) => now(Reply::ClosingChannel(
                self.closed_channels.close(turn, &close)?,
            )),
            Some(Kind::ConnectPeer(peer)) => {
                let node_id = peer_id(turn, &peer.node_id)?;
                self.dialing.check(turn, &node_id, &peer.address)?;
                self.dialing.give(turn, node_id, &peer.address);
                later(Wait::Peer(node_id))
            }
            Some(Kind::AwaitPayment(wait)) => {
                later(Wait::Payment(payment_hash(&wait.payment_hash)?))
            }
            Some(Kind::AwaitChannel(wait)) => later(Wait::Usable(self.openings.find(&wait.id)?)),
            Some(Kind::Register(_)) => Err(Error::new(
                Code::AlreadyRegistered,
                "this node runs already: nothing is to be done",
            )),
            Some(
                Kind::SetWakeUrls(_)
                | Kind::ListWakeUrls(_)
                | Kind::ConnectApp(_)
                | Kind::ListApps(_)
                | Kind::DisconnectApp(_),
            ) => Err(Error::new(
                Code::HostCommand,
                "the host answers this command, and not its node: ask the host",
            )),
            None => Err(Error::new(
                Code::UnknownCommand,
                "this host does not know the command: use a host of the phone's version or newer",
            )),
        }
    }

    /// The reply that waits for an event, once the event has come.
    pub fn result(&self, wait: &Wait) -> Option<Result<Reply, Error>> {
        match wait {
            Wait::Payment(hash) => self.payments.result(hash),
            Wait::Opened(id) => self.openings.opened(self.turn, *id),
            Wait::Usable(id) => self.openings.usable(self.turn, *id),
            Wait::Sent(id) => self.onchain_sends.sent(self.turn, id),
            Wait::Replaced(attempt) => self.onchain_sends.replaced(self.turn, attempt),
            Wait::Peer(node_id) => {
                let connected = || Ok(Reply::PeerConnected(PeerConnected {}));
                self.turn.is_connected(node_id).then(connected)
            }
        }
    }
}

/// The peer of a command: the hub when none is named.
fn peer_id(turn: &Turn, bytes: &[u8]) -> Result<PublicKey, Error> {
    let bad = |message| Error::new(Code::PeerMalformed, message);
    if bytes.is_empty() {
        let no_hub = "a peer's node id is needed: this node has no hub";
        return turn.config.hub.ok_or_else(|| bad(no_hub));
    }
    let not_a_key = "the node id is not a public key: check it";
    let node_id = PublicKey::from_slice(bytes).map_err(|_| bad(not_a_key))?;
    if node_id == turn.node_id() {
        return Err(bad("the node id is this node's own: give the peer's"));
    }
    Ok(node_id)
}
