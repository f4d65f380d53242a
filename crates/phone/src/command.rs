//! Commands of the owner and their replies, as values. The command line prints them with `--json`, and the control socket carries them.
//!
//! Bytes are lower-case hex.

mod apps;
mod chain;
mod channels;
mod node;
mod onchain;
mod payments;
mod rules;

use serde::{Deserialize, Serialize};

use crate::input::{OnchainAmount, PeerAddress};

pub use apps::{App, AppRights, Apps, ConnectedApp};
pub use chain::{ChainView, ChannelInChain, Deadline, HtlcInChain, SourceView};
pub use channels::{Channel, Channels, ClosedChannel, ClosingChannel, OpenedChannel};
pub use node::{Balance, Info, OwnAddress, WakeUrls};
pub use onchain::{OnchainSend, Sends, SentOnchain};
pub use payments::{Invoice, OpenInvoice, OpenInvoices, Payment, PaymentState, Payments};
pub use rules::{Limit, LimitList, Refusal, RefusalList};

/// One command of the owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "snake_case", deny_unknown_fields)]
pub enum OwnerCommand {
    /// The node's state.
    Info,
    /// The owner's balance.
    Balance,
    /// A new address of the phone's own.
    Address,
    /// Opens a channel.
    Open {
        /// Its capacity.
        amount_sat: u64,
        /// The peer; the host's hub without one.
        to: Option<PeerAddress>,
        /// Whether the channel is announced (BOLT 7).
        announced: bool,
        /// Reply when it is usable, not when it is funded.
        wait: bool,
        /// The fee rate of its funding, in satoshis per 1,000 weight units; the host's estimate without one.
        // A running phone may be of an older version, which does not know the field.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        feerate_sat_per_kw: Option<u32>,
    },
    /// Makes an invoice.
    Invoice {
        /// In millisatoshis; any amount without one, where the limits allow it (`any_amount_sat`).
        amount_msat: Option<u64>,
        /// The description in the invoice.
        description: String,
        /// Seconds from now until it expires.
        expiry_s: u32,
    },
    /// Pays an invoice; the reply comes when the payment has ended.
    Pay {
        /// The invoice.
        bolt11: String,
        /// In millisatoshis, for an invoice without an amount.
        amount_msat: Option<u64>,
        /// The most that routing may cost; [`crate::input::default_max_fee_msat`] without it.
        max_fee_msat: Option<u64>,
    },
    /// Sends from the on-chain wallet.
    SendOnchain {
        /// The address of the payee.
        address: String,
        /// The amount.
        amount: OnchainAmount,
        /// In satoshis per 1,000 weight units; the host's estimate without one.
        feerate_sat_per_kw: Option<u32>,
    },
    /// All channels.
    Channels,
    /// A page of the payments, newest first.
    Payments {
        /// The most payments on it; the host's default without one.
        #[serde(default)]
        limit: Option<u32>,
        /// [`Payments::next`] of the page before, hex; the first page without it.
        #[serde(default)]
        before: Option<String>,
    },
    /// One payment.
    Payment {
        /// Its hash, hex.
        payment_hash: String,
    },
    /// The owner's invoices that nobody has paid yet.
    Invoices,
    /// On-chain payments.
    Sends,
    /// Raises the fee of an unconfirmed transaction.
    Bump {
        /// Its id, hex.
        txid: String,
        /// In satoshis per 1,000 weight units; chosen by the node without one.
        feerate_sat_per_kw: Option<u32>,
    },
    /// Gives up an unconfirmed on-chain payment.
    Abandon {
        /// The id of its transaction, hex.
        txid: String,
        /// In satoshis per 1,000 weight units; chosen by the node without one.
        feerate_sat_per_kw: Option<u32>,
    },
    /// Closes a channel.
    Close {
        /// The channel's id, hex.
        channel_id: String,
        /// How.
        #[serde(flatten)]
        how: CloseHow,
    },
    /// Connects the node to a peer.
    Connect {
        /// The peer; the host's hub without one.
        to: Option<PeerAddress>,
    },
    /// The URLs that the host calls when it needs this phone.
    WakeUrls,
    /// Gives the host other ones in their place.
    SetWakeUrls {
        /// At most [`longhand_proto::MAX_WAKE_URLS`]; without any the host calls none of this phone.
        urls: Vec<String>,
    },
    /// Connects an app over Lightning Node Connect.
    ConnectApp {
        /// For people, unique among the owner's apps.
        name: String,
        /// What it may do.
        rights: AppRights,
        /// When its rights end, seconds since 1970; 0 = never.
        expires_unix_s: u64,
    },
    /// The apps that are connected.
    Apps,
    /// Disconnects one.
    DisconnectApp {
        /// Its name.
        name: String,
    },
    /// The limits of the phone's rules. Needs no host.
    Limits,
    /// Sets one of them. Needs no host.
    SetLimit {
        /// Its name, or a rule's.
        name: String,
        /// Its value; for a rule `refuse` or `warn`.
        value: String,
    },
    /// What the phone has refused. Needs no host.
    Refusals,
    /// What the phone sees of the chain. Needs no host.
    Chain,
}

impl OwnerCommand {
    /// Whether the phone carries it out alone.
    pub fn needs_no_host(&self) -> bool {
        use OwnerCommand::{Chain, Limits, Refusals, SetLimit};
        matches!(self, Limits | SetLimit { .. } | Refusals | Chain)
    }
}

/// How a channel is closed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseHow {
    /// Broadcasts the latest commitment, without the peer's agreement.
    pub force: bool,
    /// Where the owner's part goes; the on-chain wallet without one. Not with `force`.
    #[serde(default)]
    pub address: Option<String>,
    /// In satoshis per 1,000 weight units; the host's estimate without one. Not with `force`.
    #[serde(default)]
    pub feerate_sat_per_kw: Option<u32>,
}

/// The reply to a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum OwnerReply {
    /// For [`OwnerCommand::Info`].
    Info(Info),
    /// For [`OwnerCommand::Balance`].
    Balance(Balance),
    /// For [`OwnerCommand::Address`].
    Address(OwnAddress),
    /// For [`OwnerCommand::Open`].
    Opened(OpenedChannel),
    /// For [`OwnerCommand::Invoice`].
    Invoice(Invoice),
    /// For [`OwnerCommand::Pay`].
    Paid(Payment),
    /// For [`OwnerCommand::SendOnchain`], [`OwnerCommand::Bump`] and [`OwnerCommand::Abandon`].
    Sent(SentOnchain),
    /// For [`OwnerCommand::Channels`].
    Channels(Channels),
    /// For [`OwnerCommand::Payments`].
    Payments(Payments),
    /// For [`OwnerCommand::Payment`].
    Payment(Payment),
    /// For [`OwnerCommand::Invoices`].
    Invoices(OpenInvoices),
    /// For [`OwnerCommand::Sends`].
    Sends(Sends),
    /// For [`OwnerCommand::Close`].
    Closing(ClosingChannel),
    /// For [`OwnerCommand::Connect`].
    Connected {},
    /// For [`OwnerCommand::WakeUrls`] and [`OwnerCommand::SetWakeUrls`].
    WakeUrls(WakeUrls),
    /// For [`OwnerCommand::ConnectApp`].
    ConnectedApp(ConnectedApp),
    /// For [`OwnerCommand::Apps`] and [`OwnerCommand::DisconnectApp`].
    Apps(Apps),
    /// For [`OwnerCommand::Limits`] and [`OwnerCommand::SetLimit`].
    Limits(LimitList),
    /// For [`OwnerCommand::Refusals`].
    Refusals(RefusalList),
    /// For [`OwnerCommand::Chain`].
    Chain(ChainView),
}
