//! Commands of the owner and their replies, as values. The command line prints them with `--json`, and the control socket carries them.
//!
//! Bytes are lower-case hex.

use bitcoin::hex::DisplayHex;
use longhand_base::text::plain;
use longhand_proto::command as proto;
use serde::{Deserialize, Serialize};

use crate::input::{OnchainAmount, PeerAddress};

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

/// The node's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Info {
    /// The owner's node.
    pub node_id: String,
    /// Its network.
    pub network: String,
    /// `dormant`, `waking` or `active`.
    pub state: String,
    /// The best block that the node has processed.
    pub block_height: u32,
    /// The host's hub; empty when it has none.
    pub hub_node_id: String,
    /// All of them.
    pub channels: u32,
    /// Channels that can carry a payment now.
    pub usable_channels: u32,
    /// Connected ones.
    pub peers: u32,
    /// Of the host's software.
    pub host_version: String,
    /// Batches that the phone has answered since the node started.
    pub signer_batches: u64,
    /// Operations in them.
    pub signer_ops: u64,
    /// The search for the coins of restored words: the last block that was searched. All 0 when there was no search.
    #[serde(default)]
    pub scanned_height: u32,
    /// The last block to be searched; the search is complete when that was.
    #[serde(default)]
    pub scan_target_height: u32,
    /// The first block.
    #[serde(default)]
    pub scan_from_height: u32,
    /// Why the search does not go on, after its code; empty when it does.
    #[serde(default)]
    pub scan_problem: String,
}

impl From<proto::Info> for Info {
    fn from(info: proto::Info) -> Info {
        let stats = info.signer_stats.unwrap_or_default();
        Info {
            node_id: info.node_id.to_lower_hex_string(),
            network: plain(&info.network),
            state: plain(&info.state),
            block_height: info.block_height,
            hub_node_id: info.hub_node_id.to_lower_hex_string(),
            channels: info.channels,
            usable_channels: info.usable_channels,
            peers: info.peers,
            host_version: plain(&info.version),
            signer_batches: stats.batches,
            signer_ops: stats.ops,
            scanned_height: info.scanned_height,
            scan_target_height: info.scan_target_height,
            scan_from_height: info.scan_from_height,
            scan_problem: plain(&info.scan_problem),
        }
    }
}

/// The owner's balance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Balance {
    /// On chain.
    pub onchain_confirmed_sat: u64,
    /// On chain, not in a block yet.
    pub onchain_pending_sat: u64,
    /// In channels.
    pub lightning_msat: u64,
    /// In closed channels, not swept yet.
    pub closing_sat: u64,
    /// The amount that can be received in channels.
    pub inbound_capacity_msat: u64,
    /// As in [`Info`]: until the search is complete, on-chain amounts are those found so far.
    #[serde(default)]
    pub scanned_height: u32,
    /// See `scanned_height`.
    #[serde(default)]
    pub scan_target_height: u32,
    /// See `scanned_height`.
    #[serde(default)]
    pub scan_problem: String,
}

impl From<proto::Balance> for Balance {
    fn from(balance: proto::Balance) -> Balance {
        Balance {
            onchain_confirmed_sat: balance.onchain_confirmed_sat,
            onchain_pending_sat: balance.onchain_pending_sat,
            lightning_msat: balance.lightning_msat,
            closing_sat: balance.closing_sat,
            inbound_capacity_msat: balance.inbound_capacity_msat,
            scanned_height: balance.scanned_height,
            scan_target_height: balance.scan_target_height,
            scan_problem: plain(&balance.scan_problem),
        }
    }
}

/// An address of the wallet, which the phone has derived too and compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnAddress {
    /// The address.
    pub address: String,
    /// Its index in the account's external keychain (BIP 44).
    pub index: u32,
}

/// A channel that is funded, or usable when that was waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenedChannel {
    /// Hex.
    pub channel_id: String,
    /// `txid:vout`; empty before funding.
    pub funding_outpoint: String,
    /// Whether it can carry a payment now.
    pub usable: bool,
}

/// A signed invoice, durable on the phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invoice {
    /// The invoice for the payer.
    pub bolt11: String,
    /// Hex.
    pub payment_hash: String,
    /// 0 = any amount.
    pub amount_msat: u64,
    /// Its expiry, in seconds since 1970.
    pub expires_unix_s: u64,
}

/// A transaction that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentOnchain {
    /// The transaction id in display form.
    pub txid: String,
    /// Its fee.
    pub fee_sat: u64,
}

/// A channel that is being closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosingChannel {
    /// Hex.
    pub channel_id: String,
    /// Empty when the host does not know it yet.
    pub txid: String,
    /// Whether the close goes on without the phone.
    pub agreed: bool,
}

/// All channels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channels {
    /// In the host's order.
    pub channels: Vec<Channel>,
    /// Those that were closed, oldest first.
    #[serde(default)]
    pub closed: Vec<ClosedChannel>,
}

/// One channel that was closed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedChannel {
    /// Hex.
    pub channel_id: String,
    /// The peer.
    pub counterparty_node_id: String,
    /// `txid:vout`.
    pub funding_outpoint: String,
    /// Both sides together.
    pub capacity_sat: u64,
    /// The reason of the close and its side, as the host reports it.
    pub reason: String,
    /// Seconds since 1970.
    pub closed_unix_s: u64,
    /// The transaction that closed it; empty until that is broadcast.
    pub closing_txid: String,
}

/// One channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// Hex.
    pub channel_id: String,
    /// The peer.
    pub counterparty_node_id: String,
    /// `txid:vout`; empty before funding.
    pub funding_outpoint: String,
    /// Both sides together.
    pub capacity_sat: u64,
    /// Can be sent now.
    pub outbound_msat: u64,
    /// Can be received now.
    pub inbound_msat: u64,
    /// The owner's.
    pub balance_msat: u64,
    /// Its funding is confirmed.
    pub ready: bool,
    /// It can carry a payment now.
    pub usable: bool,
    /// The owner opened it.
    pub outbound: bool,
    /// The network may know of it.
    pub announced: bool,
    /// The state as a word.
    pub state: String,
    /// In flight.
    pub pending_htlcs: u32,
}

impl From<proto::ClosedChannel> for ClosedChannel {
    fn from(closed: proto::ClosedChannel) -> ClosedChannel {
        ClosedChannel {
            channel_id: closed.channel_id.to_lower_hex_string(),
            counterparty_node_id: closed.counterparty_node_id.to_lower_hex_string(),
            funding_outpoint: plain(&closed.funding_outpoint),
            capacity_sat: closed.capacity_sat,
            reason: plain(&closed.reason),
            closed_unix_s: closed.closed_unix_s,
            closing_txid: plain(&closed.closing_txid),
        }
    }
}

impl From<proto::Channel> for Channel {
    fn from(channel: proto::Channel) -> Channel {
        Channel {
            channel_id: channel.channel_id.to_lower_hex_string(),
            counterparty_node_id: channel.counterparty_node_id.to_lower_hex_string(),
            funding_outpoint: plain(&channel.funding_outpoint),
            capacity_sat: channel.capacity_sat,
            outbound_msat: channel.outbound_msat,
            inbound_msat: channel.inbound_msat,
            balance_msat: channel.balance_msat,
            ready: channel.ready,
            usable: channel.usable,
            outbound: channel.outbound,
            announced: channel.announced,
            state: plain(&channel.state),
            pending_htlcs: channel.pending_htlcs,
        }
    }
}

/// A page of the payments: those over Lightning. Nothing that was sent on chain is one of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payments {
    /// Newest first.
    pub payments: Vec<Payment>,
    /// For the page after it, hex; empty when there is none.
    #[serde(default)]
    pub next: String,
}

impl From<proto::Payments> for Payments {
    fn from(page: proto::Payments) -> Payments {
        Payments {
            payments: page.payments.into_iter().map(Payment::from).collect(),
            next: page.next.to_lower_hex_string(),
        }
    }
}

/// The URLs that the host calls when it needs the phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeUrls {
    /// Those that this phone gave.
    pub urls: Vec<String>,
    /// The operator of the host has one for this owner too.
    pub operator_has_one: bool,
}

impl From<proto::WakeUrls> for WakeUrls {
    fn from(known: proto::WakeUrls) -> WakeUrls {
        WakeUrls {
            urls: known.urls.iter().map(|url| plain(url)).collect(),
            operator_has_one: known.operator_has_one,
        }
    }
}

/// What an app may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppRights {
    /// To see all that the node answers.
    pub read: bool,
    /// To make invoices and addresses.
    pub invoices: bool,
    /// To ask the owner's phone for payments.
    pub pay: bool,
}

impl From<AppRights> for proto::AppRights {
    fn from(rights: AppRights) -> proto::AppRights {
        let AppRights {
            read,
            invoices,
            pay,
        } = rights;
        proto::AppRights {
            read,
            invoices,
            pay,
        }
    }
}

impl From<proto::AppRights> for AppRights {
    fn from(rights: proto::AppRights) -> AppRights {
        AppRights {
            read: rights.read,
            invoices: rights.invoices,
            pay: rights.pay,
        }
    }
}

/// An app that has been connected, and has not come yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectedApp {
    /// Ten words for the app, used once.
    pub words: String,
    /// The mailboxes at which it uses them, `host:port`.
    pub mailboxes: Vec<String>,
    /// The words are of no use after this, seconds since 1970.
    pub words_expire_unix_s: u64,
}

impl From<proto::ConnectedApp> for ConnectedApp {
    fn from(app: proto::ConnectedApp) -> ConnectedApp {
        ConnectedApp {
            words: plain(&app.words),
            mailboxes: app.mailboxes.iter().map(|it| plain(it)).collect(),
            words_expire_unix_s: app.words_expire_unix_s,
        }
    }
}

/// The apps of an owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apps {
    /// By name.
    pub apps: Vec<App>,
}

impl From<proto::Apps> for Apps {
    fn from(apps: proto::Apps) -> Apps {
        let apps = apps.apps.into_iter().map(App::from);
        Apps {
            apps: apps.collect(),
        }
    }
}

/// One app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct App {
    /// For people.
    pub name: String,
    /// What it may do.
    pub rights: AppRights,
    /// When its rights end, seconds since 1970; 0 = never.
    pub expires_unix_s: u64,
    /// Whether an app has used the words.
    pub is_paired: bool,
    /// Whether the operator of the host has connected it.
    pub by_operator: bool,
}

impl From<proto::App> for App {
    fn from(app: proto::App) -> App {
        App {
            name: plain(&app.name),
            rights: app.rights.unwrap_or_default().into(),
            expires_unix_s: app.expires_unix_s,
            is_paired: app.is_paired,
            by_operator: app.by_operator,
        }
    }
}

/// The owner's on-chain payments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sends {
    /// Newest first.
    pub sends: Vec<OnchainSend>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnchainSend {
    /// Its transaction; empty until the phone has signed one.
    pub txid: String,
    /// The payee's.
    pub address: String,
    /// 0 = all that there was.
    pub amount_sat: u64,
    /// Of the transaction.
    pub fee_sat: u64,
    /// `unsigned`, `pending`, `confirmed`, `failed`, `conflicted`, `abandoning` or `abandoned`.
    pub state: String,
    /// When it was asked for, in seconds since 1970.
    pub created_unix_s: u64,
    /// Transactions for it that were replaced, oldest first.
    pub replaced_txids: Vec<String>,
    /// Why the chain source refuses it, or why it failed; empty without a problem.
    pub problem: String,
}

impl From<proto::Send> for OnchainSend {
    fn from(send: proto::Send) -> OnchainSend {
        use proto::send::State;
        let state = match send.state() {
            State::Unknown => "unknown",
            State::Unsigned => "unsigned",
            State::Pending => "pending",
            State::Confirmed => "confirmed",
            State::Failed => "failed",
            State::Conflicted => "conflicted",
            State::Abandoning => "abandoning",
            State::Abandoned => "abandoned",
        };
        OnchainSend {
            txid: plain(&send.txid),
            address: plain(&send.address),
            amount_sat: send.amount_sat,
            fee_sat: send.fee_sat,
            state: state.into(),
            created_unix_s: send.created_unix_s,
            replaced_txids: send.replaced_txids.iter().map(|txid| plain(txid)).collect(),
            problem: plain(&send.problem),
        }
    }
}

/// The owner's invoices that nobody has paid yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenInvoices {
    /// Newest first.
    pub invoices: Vec<OpenInvoice>,
}

/// One of them. It may have expired.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenInvoice {
    /// Hex.
    pub payment_hash: String,
    /// The invoice, as this phone signed it; empty when it did not.
    pub bolt11: String,
    /// 0 = any amount.
    pub amount_msat: u64,
    /// The description in the invoice.
    pub description: String,
    /// When it was made, in seconds since 1970.
    pub created_unix_s: u64,
    /// Its expiry, in seconds since 1970.
    pub expires_unix_s: u64,
}

impl From<proto::OpenInvoice> for OpenInvoice {
    fn from(invoice: proto::OpenInvoice) -> OpenInvoice {
        OpenInvoice {
            payment_hash: invoice.payment_hash.to_lower_hex_string(),
            bolt11: String::new(),
            amount_msat: invoice.amount_msat,
            description: plain(&invoice.description),
            created_unix_s: invoice.created_unix_s,
            expires_unix_s: invoice.expires_unix_s,
        }
    }
}

/// One payment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// Hex.
    pub payment_hash: String,
    /// Sent, not received.
    pub outbound: bool,
    /// Without fees.
    pub amount_msat: u64,
    /// Paid to those who forwarded it.
    pub fee_msat: u64,
    /// Its state.
    pub state: PaymentState,
    /// Hex, once known: the proof of payment.
    pub preimage: String,
    /// When it was begun, in seconds since 1970.
    pub created_unix_s: u64,
    /// The reason of a failure, for a person.
    pub failure: String,
    /// When it ended, in seconds since 1970; 0 when it has not, or the host did not record it.
    #[serde(default)]
    pub ended_unix_s: u64,
    /// The description of its invoice, without characters that steer a terminal.
    #[serde(default)]
    pub description: String,
    /// The payee of an outgoing payment; empty when the host did not record it.
    #[serde(default)]
    pub payee_node_id: String,
    /// Its invoice; empty when neither host nor phone recorded it.
    #[serde(default)]
    pub bolt11: String,
    /// The expiry of the invoice, in seconds since 1970; 0 when it is not known.
    #[serde(default)]
    pub expires_unix_s: u64,
}

/// The state of a payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentState {
    /// A state that this version does not know.
    Unknown,
    /// It has not ended.
    Pending,
    /// The payee has received it.
    Succeeded,
    /// It failed: the payee has not received it, and will not.
    Failed,
}

impl PaymentState {
    /// The state as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            PaymentState::Unknown => "unknown",
            PaymentState::Pending => "pending",
            PaymentState::Succeeded => "succeeded",
            PaymentState::Failed => "failed",
        }
    }
}

impl From<proto::Payment> for Payment {
    fn from(payment: proto::Payment) -> Payment {
        use proto::payment::State;
        let state = match payment.state() {
            State::Unknown => PaymentState::Unknown,
            State::Pending => PaymentState::Pending,
            State::Succeeded => PaymentState::Succeeded,
            State::Failed => PaymentState::Failed,
        };
        Payment {
            payment_hash: payment.payment_hash.to_lower_hex_string(),
            outbound: payment.outbound,
            amount_msat: payment.amount_msat,
            fee_msat: payment.fee_msat,
            state,
            preimage: payment.preimage.to_lower_hex_string(),
            created_unix_s: payment.created_unix_s,
            failure: plain(&payment.failure),
            ended_unix_s: payment.ended_unix_s,
            description: plain(&payment.description),
            payee_node_id: payment.payee_node_id.to_lower_hex_string(),
            bolt11: plain(&payment.bolt11),
            expires_unix_s: payment.expires_unix_s,
        }
    }
}

/// The limits of the phone's rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitList {
    /// Each limit, then each rule that can be set to warn.
    pub limits: Vec<Limit>,
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Its name, with its unit at the end.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The value of a new phone.
    pub default: String,
    /// What it limits.
    pub about: String,
}

/// What the phone has refused, the latest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalList {
    /// At most [`crate::refusals::KEPT`].
    pub refusals: Vec<Refusal>,
}

/// An operation of the host that a rule has refused, or would have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The rule's stable name.
    pub rule: String,
    /// The reason.
    pub message: String,
    /// It was carried out: the rule is set to warn.
    pub is_warning: bool,
    /// When it was refused last, in seconds since 1970; when it was refused first, if it waits for the owner.
    pub last_unix_s: u64,
    /// How often, for the same reason. What waits for the owner is counted once: the node asks again and again.
    pub count: u64,
}

/// What the phone sees of the chain by itself, without the host's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainView {
    /// The height of the newest block that the phone knows.
    pub height: u32,
    /// Its hash.
    pub block_hash: String,
    /// Its time, in seconds since 1970.
    pub time_unix_s: u64,
    /// It is more than two hours old: nothing that could lose money is signed until the host shows a later one. Never on regtest.
    pub is_stale: bool,
    /// The channels that the phone has set up.
    pub channels: Vec<ChannelInChain>,
    /// Before when the phone has to attach for a payment.
    pub next_deadline: Option<Deadline>,
    /// The owner's second source, when one is set and was asked. Without one, that a channel is open rests on the host's word, or on its
    /// filters.
    pub second_source: Option<SourceView>,
}

/// What came of the last question to the second source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceView {
    /// Where it is.
    pub place: String,
    /// When it was asked, in seconds since 1970.
    pub asked_unix_s: u64,
    /// Why it was not compared; empty when it was.
    pub error: String,
}

/// A channel in the chain, as far as it was proven to the phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelInChain {
    /// The funding output, "txid:vout".
    pub funding_outpoint: String,
    /// Its value.
    pub amount_sat: u64,
    /// How many blocks confirm it; 0 when it is not proven.
    pub confirmations: u32,
    /// From so many on payments over it count.
    pub confirmations_needed: u32,
    /// Up to the block of this height the host's filters show that it is open; 0 when they were not asked for yet. A host that forges
    /// filters can hide a close.
    #[serde(default)]
    pub filtered_up_to: u32,
    /// The host has proven that it is closed, or the second source has said so.
    pub is_closed: bool,
    /// By which transaction; empty when that is not known.
    pub closed_by: String,
    /// The HTLCs of the commitment that closed it, once that was proven.
    #[serde(default)]
    pub htlcs: Vec<HtlcInChain>,
}

/// An HTLC of a channel that was closed by force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HtlcInChain {
    /// Whether the owner has offered it.
    pub outbound: bool,
    /// Of its payment.
    pub payment_hash: String,
    /// Its amount.
    pub amount_msat: u64,
    /// From the block after this height on who has offered it can take it back.
    pub expiry_height: u32,
    /// The transaction that was proven to spend it; empty when there was none yet.
    pub spent_by: String,
    /// The height of its block; 0 when there was none yet.
    pub spent_height: u32,
    /// Whether it was spent with the payment's preimage, as far as the block shows: nobody can spend it otherwise before it expires.
    pub claimed: bool,
}

/// A block before which an incoming payment needs the phone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// Of the payment.
    pub payment_hash: String,
    /// Of its HTLC.
    pub amount_msat: u64,
    /// The phone has to attach before this block.
    pub height: u32,
    /// About when it comes, in seconds since 1970.
    pub at_unix_s: u64,
}
