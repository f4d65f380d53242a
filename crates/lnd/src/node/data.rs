//! A node's data, as it is asked for it.

/// For `GetInfo`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Info {
    /// 33 bytes, compressed.
    pub node_id: Vec<u8>,
    /// As announced, or the owner's name for it.
    pub alias: String,
    /// As [`bitcoin::Network`] prints it, such as `bitcoin` or `regtest`.
    pub network: String,
    /// Of the last block that the node has seen.
    pub block_height: u32,
    /// Display form; empty = not known.
    pub block_hash: String,
    /// The time in the header of that block; 0 = not known.
    pub block_unix_s: u64,
    /// Whether the node has seen the chain source's last block.
    pub synced_to_chain: bool,
    /// Whether the graph is as new as it gets.
    pub synced_to_graph: bool,
    /// Connected peers.
    pub peers: u32,
    /// Channels that can carry a payment now.
    pub active_channels: u32,
    /// Channels that are open, and cannot carry a payment now.
    pub inactive_channels: u32,
    /// Channels that are being opened or closed.
    pub pending_channels: u32,
    /// `ID@HOST:PORT`, where others reach the node.
    pub uris: Vec<String>,
}

/// For `ChannelBalance` and `WalletBalance`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// In the on-chain wallet, confirmed.
    pub onchain_confirmed_sat: u64,
    /// In the on-chain wallet, not confirmed.
    pub onchain_unconfirmed_sat: u64,
    /// Of the on-chain wallet, kept to defend the channels.
    pub onchain_reserved_sat: u64,
    /// The owner's part of open channels.
    pub local_msat: u64,
    /// The peers' part of open channels.
    pub remote_msat: u64,
    /// In HTLCs that the owner has sent, and in those that come in.
    pub unsettled_local_msat: u64,
    /// See `unsettled_local_msat`.
    pub unsettled_remote_msat: u64,
    /// The owner's part of channels that are being opened.
    pub pending_local_msat: u64,
    /// The peers' part of channels that are being opened.
    pub pending_remote_msat: u64,
    /// Claimable on chain from closed channels, not in the wallet yet.
    pub closing_sat: u64,
}

/// Where a channel is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChannelState {
    /// Its funding is not confirmed deep enough, or not broadcast.
    Opening,
    /// It is open, and can carry payments when `is_usable`.
    #[default]
    Open,
    /// It is being closed, with the peer.
    Closing,
    /// It was closed by force, and its outputs are not in the wallet yet.
    ForceClosing,
}

/// A channel that is not closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Channel {
    /// See the type.
    pub state: ChannelState,
    /// Whether it can carry a payment now.
    pub is_usable: bool,
    /// 33 bytes.
    pub peer_node_id: Vec<u8>,
    /// The peer's alias; empty = not known.
    pub peer_alias: String,
    /// `TXID:VOUT`; empty before the funding.
    pub funding_outpoint: String,
    /// BOLT 7's short channel id; 0 = not known.
    pub short_channel_id: u64,
    /// Of the funding output.
    pub capacity_sat: u64,
    /// The owner's part, with the reserve.
    pub local_msat: u64,
    /// The peer's part, with the reserve.
    pub remote_msat: u64,
    /// In HTLCs of either direction.
    pub unsettled_msat: u64,
    /// The reserve that the owner keeps; 0 = not known.
    pub local_reserve_sat: u64,
    /// The reserve that the peer keeps; 0 = not known.
    pub remote_reserve_sat: u64,
    /// Whether it is not announced.
    pub is_private: bool,
    /// Whether the owner opened it.
    pub is_outbound: bool,
    /// HTLCs in flight.
    pub htlcs: Vec<Htlc>,
    /// Blocks until it can be used; 0 = not known, or none.
    pub confirmations_missing: u32,
    /// The transaction that closes it; empty = none yet.
    pub closing_txid: String,
}

/// An HTLC in flight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Htlc {
    /// Whether it pays the owner.
    pub is_incoming: bool,
    /// Its amount.
    pub amount_msat: u64,
    /// Its payment hash.
    pub payment_hash: [u8; 32],
    /// The height at which it expires.
    pub expiry_height: u32,
}

/// How a channel was closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Closure {
    /// Together.
    #[default]
    Cooperative,
    /// By force, by the owner's node.
    LocalForce,
    /// By force, by the peer.
    RemoteForce,
    /// The peer broadcast a revoked commitment.
    Breach,
    /// Before its funding.
    NeverFunded,
}

/// A closed channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClosedChannel {
    /// 33 bytes.
    pub peer_node_id: Vec<u8>,
    /// `TXID:VOUT`; empty when it was closed before its funding.
    pub funding_outpoint: String,
    /// BOLT 7's short channel id; 0 = not known.
    pub short_channel_id: u64,
    /// Of the funding output.
    pub capacity_sat: u64,
    /// How it was closed.
    pub closure: Closure,
    /// The transaction that spends the funding; empty = not known.
    pub closing_txid: String,
    /// The block of that transaction; 0 = not known.
    pub close_height: u32,
    /// What the owner got of it; 0 = not known.
    pub settled_sat: u64,
    /// Whether the owner opened it; `None` = not known.
    pub is_outbound: Option<bool>,
}

/// A node in the network's graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LightningNode {
    /// As announced. Text from others: it is cleaned here.
    pub alias: String,
    /// `#rrggbb`; empty = not known.
    pub color: String,
    /// `HOST:PORT`.
    pub addresses: Vec<String>,
    /// When it was announced; 0 = not known.
    pub last_update_unix_s: u32,
    /// Its public channels.
    pub channels: u32,
    /// Of these channels.
    pub capacity_sat: u64,
}

/// The state of an invoice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InvoiceState {
    /// It can be paid.
    #[default]
    Open,
    /// An HTLC for it has come, and waits for its preimage.
    Accepted,
    /// It is paid.
    Paid,
    /// It has expired, or was given up.
    Canceled,
}

/// An invoice of the owner's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invoice {
    /// Its payment hash.
    pub payment_hash: [u8; 32],
    /// Once it is paid.
    pub preimage: Option<[u8; 32]>,
    /// The invoice; empty when the host does not keep it.
    pub bolt11: String,
    /// BOLT 11's `d`.
    pub description: String,
    /// 0 = any amount.
    pub amount_msat: u64,
    /// See the type.
    pub state: InvoiceState,
    /// Received; 0 unless it is paid.
    pub paid_msat: u64,
    /// When it was made.
    pub created_unix_s: u64,
    /// When it expires.
    pub expires_unix_s: u64,
    /// When it was paid; 0 = not paid.
    pub paid_unix_s: u64,
    /// BOLT 11's `s`; `None` = not known.
    pub payment_secret: Option<[u8; 32]>,
    /// Whether it has route hints.
    pub is_private: bool,
}

/// An invoice to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewInvoice {
    /// 0 = any amount.
    pub amount_msat: u64,
    /// At most [`crate::MOST_MEMO_BYTES`].
    pub description: String,
    /// Above 0.
    pub expiry_s: u32,
}

/// The state of a payment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PaymentState {
    /// It is under way.
    #[default]
    InFlight,
    /// The payee has it.
    Succeeded,
    /// The payee has not got it, and will not.
    Failed(PaymentFailure),
}

/// Why a payment failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PaymentFailure {
    /// It took too long.
    Timeout,
    /// No route can carry it, within the limit of its fee.
    NoRoute,
    /// The payee does not take it.
    RefusedByPayee,
    /// The channels have less.
    InsufficientBalance,
    /// The owner ended it.
    Canceled,
    /// Something else.
    Other,
}

/// An outgoing payment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payment {
    /// Its hash.
    pub payment_hash: [u8; 32],
    /// Once it has succeeded.
    pub preimage: Option<[u8; 32]>,
    /// Without the fee.
    pub amount_msat: u64,
    /// Paid for routing.
    pub fee_msat: u64,
    /// See the type.
    pub state: PaymentState,
    /// When it began.
    pub created_unix_s: u64,
    /// The invoice; empty = not known.
    pub bolt11: String,
}

/// A payment to be made. Those limits that a node cannot keep were refused before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pay {
    /// The invoice. It was parsed, is of the node's network and has not expired.
    pub bolt11: String,
    /// Its payment hash.
    pub payment_hash: [u8; 32],
    /// For an invoice without an amount; else `None`.
    pub amount_msat: Option<u64>,
    /// The most for routing.
    pub max_fee_msat: u64,
    /// How long the owner's answer and the search for a route may take.
    pub timeout_s: u32,
}

/// A transaction of the on-chain wallet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Display form.
    pub txid: String,
    /// What it changes in the wallet, with the fee: below 0 when it was sent.
    pub amount_sat: i64,
    /// Paid by this wallet.
    pub fee_sat: u64,
    /// 0 = not confirmed.
    pub block_height: u32,
    /// Empty = not confirmed, or not known.
    pub block_hash: String,
    /// 0 = not confirmed.
    pub confirmations: u32,
    /// Of its block, or when it was seen first.
    pub unix_s: u64,
    /// Where it pays to.
    pub outputs: Vec<Output>,
    /// The owner's text; empty = none.
    pub label: String,
}

/// An output of a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// Empty when its script has none.
    pub address: String,
    /// Its amount.
    pub amount_sat: u64,
    /// Whether it is of this wallet.
    pub is_own: bool,
}

/// The kind of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// P2WPKH (BIP 141).
    Segwit,
    /// P2TR (BIP 341).
    Taproot,
}

/// An on-chain payment to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendCoins {
    /// Not checked.
    pub address: String,
    /// `None` = all that there is.
    pub amount_sat: Option<u64>,
    /// `None` = the node's estimate.
    pub sat_per_vbyte: Option<u64>,
    /// Blocks within which it should confirm; `None` = not said. Not with `sat_per_vbyte`.
    pub confirmation_target: Option<u32>,
}

/// An account of the on-chain wallet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// lnd's own is `default`.
    pub name: String,
    /// The kind of its addresses.
    pub kind: AddressKind,
    /// BIP 32, public.
    pub xpub: String,
    /// Such as `m/84'/0'/0'`.
    pub derivation_path: String,
    /// Addresses given out; 0 = not known.
    pub external_keys: u32,
    /// Addresses for change; 0 = not known.
    pub internal_keys: u32,
}

/// A change that apps subscribe to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An invoice was made, or its state changed.
    Invoice(Box<Invoice>),
    /// A transaction was seen, or confirmed.
    Transaction(Box<Transaction>),
}
