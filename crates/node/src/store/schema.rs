//! Every key of a node's namespace in the store, its value, and its version.
//!
//! | key | value | written by |
//! |---|---|---|
//! | `version` | [`VERSION`], 4 bytes, big endian | `machine/load.rs` |
//! | `ldk/<primary>/<secondary>/<key>` | LDK's own records: channel manager, monitors, sweeper | `store/journal.rs` |
//! | `wallet/<key>` | the on-chain wallet's own records | `wallet/records.rs` |
//! | `keys/<channel keys id>` | a channel's public keys and points | `keys/` |
//! | `op/<hash>` | an operation that the phone has not answered yet and must get | `keys/` |
//! | `peel/<hash>` | the phone's answer for one onion | `keys/` |
//! | `proven/<channel keys id>` | of a channel whose funding was proven to the phone: its block, 32 bytes, and the funding output, 36 bytes; then the block of its spend and the txid, 64 bytes, until that is proven; for a commitment, which stays, also the spend's height, 4 bytes, whether it is proven, and of each output that is spent its number, 4 bytes, the block and the txid of the spend, 64 bytes, and whether that is proven | `parts/funding_proofs.rs` |
//! | `incoming/<channel keys id>` | incoming HTLCs of our own commitment | `keys/incoming.rs` |
//! | `gossip/<short channel id>` | signature (64 bytes) and content of our last `channel_update` | `ldk/gate.rs` |
//! | `pay/<payment hash>` | `command.proto`'s `Payment`: pending, or with a claim; before version 3 all | `parts/payments.rs` |
//! | `invoice/<payment hash>` | `command.proto`'s `OpenInvoice` | `parts/open_invoices.rs` |
//! | `claim/<payment hash>` | [`Claim`] | `parts/claims.rs` |
//! | `closed/<channel id>` | `command.proto`'s `ClosedChannel` | `parts/closed_channels.rs` |
//! | `open/<id>` | [`Open`] | `parts/openings.rs` |
//! | `send/<id>` | [`Send`] | `parts/onchain_sends.rs` |
//! | `hold/<intercept id>` | [`Held`] | `parts/held_forwards.rs` |
//! | `agreed/<channel id>` | [`CoopClose`] | `parts/coop_closes.rs` |
//! | `fees` | [`Fees`] | `parts/forwarding.rs` |
//! | `forward/<number, 16 hex digits>` | [`Forwarded`] | `parts/forwarding.rs` |
//! | `forwards` | [`ForwardTotals`] | `parts/forwarding.rs` |
//! | `peer/<node id>` | addresses of a peer, UTF-8, one a line, newest first | `parts/dialing.rs` |
//! | `scan` | [`WalletScan`] | `parts/wallet_scan.rs` |
//! | `~time/<unix time><payment hash>` | `command.proto`'s `Payment` that has ended, by the time when it began | `store/history.rs` |
//! | `~hash/<payment hash>` | the position of that record, [`Position::to_bytes`](super::history::Position) | `store/history.rs` |
//! | `probe` | written and deleted at once, to see whether the store takes writes | `driver/recovery.rs` |
//!
//! Versions: 1 is the first, and has no key `version`. Version 2 added that key; [`Open::safe_height`] and
//! [`Claim::claim_deadline`] were added while version 1 was written, and are 0 in older records. Version 3 moved payments
//! that have ended out of `pay/` into the history (`~`), which is not read when the node is loaded: an older program would not
//! know that an invoice is paid, and would pay it again. Fields are added, never
//! changed. A program reads its own version and older ones, and refuses newer ones: the version is raised only when an older
//! program that ignores the new keys and fields would lose money.

use bitcoin::secp256k1::PublicKey;
use bitcoin::{Psbt, Txid};
use lightning::ln::channelmanager::InterceptId;
use lightning::ln::types::ChannelId;
use lightning::types::payment::PaymentHash;
use longhand_proto::command::OpenChannel;
use longhand_proto::signer::ClaimableHtlc;
use prost::Message;

use crate::hex::{hex, unhex};

/// The newest version of the records, and the one that is written.
pub(crate) const VERSION: u32 = 3;

/// The keys and key prefixes; the table above has their values.
pub(crate) mod key {
    pub(crate) const VERSION: &str = "version";
    pub(crate) const PROBE: &str = "probe";
    pub(crate) const LDK: &str = "ldk/";
    pub(crate) const WALLET: &str = "wallet/";
    pub(crate) const KEYS: &str = "keys/";
    pub(crate) const OP: &str = "op/";
    pub(crate) const PEEL: &str = "peel/";
    pub(crate) const PROVEN: &str = "proven/";
    pub(crate) const INCOMING: &str = "incoming/";
    pub(crate) const GOSSIP: &str = "gossip/";
    pub(crate) const PAYMENT: &str = "pay/";
    pub(crate) const INVOICE: &str = "invoice/";
    /// Begins every key that is not read when the node is loaded, and sorts after all others.
    pub(crate) const HISTORY: &str = "~";
    pub(crate) const HISTORY_BY_TIME: &str = "~time/";
    pub(crate) const HISTORY_BY_HASH: &str = "~hash/";
    pub(crate) const CLAIM: &str = "claim/";
    pub(crate) const CLOSED: &str = "closed/";
    pub(crate) const OPEN: &str = "open/";
    pub(crate) const SEND: &str = "send/";
    pub(crate) const HELD: &str = "hold/";
    pub(crate) const COOP_CLOSE: &str = "agreed/";
    pub(crate) const PEER: &str = "peer/";
    pub(crate) const WALLET_SCAN: &str = "scan";
    pub(crate) const FEES: &str = "fees";
    pub(crate) const FORWARD: &str = "forward/";
    pub(crate) const FORWARD_TOTALS: &str = "forwards";
}

/// The key of a payment's record.
pub(crate) fn payment_key(hash: &PaymentHash) -> String {
    format!("{}{}", key::PAYMENT, hex(&hash.0))
}

/// The key of the record of an invoice that nobody has paid yet.
pub(crate) fn invoice_key(payment_hash: &[u8]) -> String {
    format!("{}{}", key::INVOICE, hex(payment_hash))
}

/// The key of a closed channel's record.
pub(crate) fn closed_key(channel_id: &ChannelId) -> String {
    format!("{}{}", key::CLOSED, hex(&channel_id.0))
}

/// The key of the record of a channel's proofs.
pub(crate) fn proven_key(keys_id: &[u8; 32]) -> String {
    format!("{}{}", key::PROVEN, hex(keys_id))
}

/// The channel keys id in the part of such a key after its prefix.
pub(crate) fn proven_keys_id(name: &str) -> Option<[u8; 32]> {
    unhex(name)
}

/// The key of a peer's address.
pub(crate) fn peer_key(node_id: &PublicKey) -> String {
    format!("{}{node_id}", key::PEER)
}

/// The key of a forwarded payment.
pub(crate) fn forwarded_key(number: u64) -> String {
    format!("{}{number:016x}", key::FORWARD)
}

/// The id of a channel from its 32 bytes.
pub(crate) fn channel_id(bytes: &[u8]) -> Option<ChannelId> {
    Some(ChannelId(<[u8; 32]>::try_from(bytes).ok()?))
}

/// An incoming payment, from when it can be claimed until none of its HTLCs is in a channel or an output of one.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Claim {
    #[prost(bytes = "vec", tag = "1")]
    pub payment_hash: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub amount_msat: u64,
    #[prost(message, repeated, tag = "3")]
    pub htlcs: Vec<ClaimableHtlc>,
    /// Channel ids, in the order of `htlcs`.
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub channel_ids: Vec<Vec<u8>>,
    /// LDK has the preimage, and has taken the payment.
    #[prost(bool, tag = "5")]
    pub claimed: bool,
    /// HTLCs that the peer has taken back on chain all the same.
    #[prost(message, repeated, tag = "6")]
    pub lost: Vec<Lost>,
    /// Height from which on LDK takes the preimage no more; 0 in older records.
    #[prost(uint32, tag = "7")]
    pub claim_deadline: u32,
}

/// An HTLC that was the owner's, and that the peer has timed out on chain.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Lost {
    /// The commitment's output, "txid:vout".
    #[prost(string, tag = "1")]
    pub outpoint: String,
    #[prost(uint64, tag = "2")]
    pub amount_msat: u64,
    #[prost(uint32, tag = "3")]
    pub cltv_expiry: u32,
}

impl Claim {
    pub fn hash(&self) -> Option<PaymentHash> {
        Some(PaymentHash(
            <[u8; 32]>::try_from(&self.payment_hash[..]).ok()?,
        ))
    }

    pub fn key(&self) -> String {
        format!("{}{}", key::CLAIM, hex(&self.payment_hash))
    }

    /// The channels of its HTLCs.
    pub fn channel_ids(&self) -> impl Iterator<Item = ChannelId> {
        self.channel_ids.iter().filter_map(|id| channel_id(id))
    }

    /// Channels with the ids of their keys.
    pub fn channels(&self) -> Vec<(ChannelId, [u8; 32])> {
        let ids = self.channel_ids.iter().zip(&self.htlcs);
        ids.filter_map(|(id, htlc)| {
            let keys_id = <[u8; 32]>::try_from(&htlc.channel_keys_id[..]).ok()?;
            Some((channel_id(id)?, keys_id))
        })
        .collect()
    }
}

/// A channel that this node opens.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Open {
    #[prost(message, optional, tag = "1")]
    pub request: Option<OpenChannel>,
    /// LDK has sent `open_channel`.
    #[prost(bool, tag = "2")]
    pub created: bool,
    /// Serialized funding PSBT, unsigned.
    #[prost(bytes = "vec", tag = "3")]
    pub psbt: Vec<u8>,
    /// The peer has signed our first commitment: the funding may be signed.
    #[prost(bool, tag = "4")]
    pub safe: bool,
    #[prost(bytes = "vec", tag = "5")]
    pub channel_id: Vec<u8>,
    /// The funding is signed and was broadcast.
    #[prost(bool, tag = "6")]
    pub broadcast: bool,
    /// "txid:vout".
    #[prost(string, tag = "7")]
    pub funding_outpoint: String,
    /// The code of the failure; empty while there is none.
    #[prost(string, tag = "8")]
    pub failure_code: String,
    /// One line for a person.
    #[prost(string, tag = "9")]
    pub failure: String,
    #[prost(bool, tag = "10")]
    pub ready: bool,
    /// Height at which the funding became safe to sign; 0 in older records, whose time to sign is over.
    #[prost(uint32, tag = "11")]
    pub safe_height: u32,
    /// The identity of the signer that was attached when it was asked for; empty in older records.
    #[prost(bytes = "vec", tag = "12")]
    pub asked_by: Vec<u8>,
    /// The chain source has the funding.
    #[prost(bool, tag = "13")]
    pub is_accepted: bool,
    /// Why the chain source refuses the funding; empty while it does not.
    #[prost(string, tag = "14")]
    pub refusal: String,
}

impl Open {
    /// Of the funding, once LDK has reported it.
    pub fn funding_txid(&self) -> Option<Txid> {
        let (txid, _) = self.funding_outpoint.split_once(':')?;
        txid.parse().ok()
    }

    pub fn user_channel_id(&self) -> Option<u128> {
        user_channel_id(&self.request.as_ref()?.id)
    }

    pub fn key(&self) -> String {
        let id = self.request.as_ref().map_or(&[][..], |request| &request.id);
        format!("{}{}", key::OPEN, hex(id))
    }

    pub fn peer(&self) -> Option<PublicKey> {
        PublicKey::from_slice(&self.request.as_ref()?.counterparty_node_id).ok()
    }

    pub fn has_failed(&self) -> bool {
        !self.failure_code.is_empty()
    }

    /// Neither failed nor funded.
    pub fn is_under_way(&self) -> bool {
        !self.broadcast && !self.has_failed()
    }

    pub fn psbt(&self) -> Option<Psbt> {
        Psbt::deserialize(&self.psbt).ok()
    }
}

/// The id an opener chose, as LDK takes it.
pub(crate) fn user_channel_id(id: &[u8]) -> Option<u128> {
    Some(u128::from_be_bytes(<[u8; 16]>::try_from(id).ok()?))
}

/// An on-chain payment.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Send {
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// Serialized, unsigned.
    #[prost(bytes = "vec", tag = "2")]
    pub psbt: Vec<u8>,
    #[prost(uint64, tag = "3")]
    pub fee_sat: u64,
    /// Empty until it was broadcast.
    #[prost(string, tag = "4")]
    pub txid: String,
    /// One line for a person; empty while it has not failed.
    #[prost(string, tag = "5")]
    pub failure: String,
    /// The code of the failure; empty in older records, which the phone has refused.
    #[prost(string, tag = "6")]
    pub failure_code: String,
    /// The identity of the signer that was attached when it was asked for; empty in older records.
    #[prost(bytes = "vec", tag = "7")]
    pub asked_by: Vec<u8>,
    /// Height when it was asked for; 0 in older records.
    #[prost(uint32, tag = "8")]
    pub asked_height: u32,
    /// The payee's; empty in older records.
    #[prost(string, tag = "9")]
    pub address: String,
    /// 0 = all.
    #[prost(uint64, tag = "10")]
    pub amount_sat: u64,
    /// In seconds since 1970; 0 in older records.
    #[prost(uint64, tag = "11")]
    pub created_unix_s: u64,
    /// The chain source has the transaction.
    #[prost(bool, tag = "12")]
    pub is_accepted: bool,
    /// Why the chain source refuses the transaction; empty while it does not.
    #[prost(string, tag = "13")]
    pub refusal: String,
    /// Earlier transactions for it, oldest first: the signed one is broadcast in the place of the last of them.
    #[prost(string, repeated, tag = "14")]
    pub replaced: Vec<String>,
    /// The transaction sends everything back to the wallet.
    #[prost(bool, tag = "15")]
    pub is_abandoned: bool,
    /// The transaction is a child of this one, with a higher fee for both; it pays nobody.
    #[prost(string, tag = "16")]
    pub accelerates: String,
    /// The record before a replacement was asked for: it stands again when that is not signed.
    #[prost(bytes = "vec", tag = "17")]
    pub before: Vec<u8>,
    /// Replacements that were asked for, also those that were not signed.
    #[prost(uint32, tag = "18")]
    pub attempts: u32,
    /// The code of the failure of the last of them; empty while it has not failed.
    #[prost(string, tag = "19")]
    pub replacement_failure_code: String,
    /// One line for a person.
    #[prost(string, tag = "20")]
    pub replacement_failure: String,
}

/// Whether a command that was asked for by one signer may be signed by another: older records name none.
pub(crate) fn is_of(asked_by: &[u8], signer: &[u8]) -> bool {
    asked_by.is_empty() || asked_by == signer
}

impl Send {
    pub fn key(&self) -> String {
        format!("{}{}", key::SEND, hex(&self.id))
    }

    /// Neither broadcast nor failed.
    pub fn is_under_way(&self) -> bool {
        self.txid.is_empty() && self.failure.is_empty()
    }
}

/// A payment that a hub holds for a peer that is away.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Held {
    #[prost(bytes = "vec", tag = "1")]
    pub intercept_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub channel_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub node_id: Vec<u8>,
    #[prost(uint64, tag = "4")]
    pub amount_msat: u64,
    /// Height before which the peer has to be there.
    #[prost(uint32, tag = "5")]
    pub deadline_height: u32,
}

impl Held {
    pub fn intercept(&self) -> Option<InterceptId> {
        Some(InterceptId(
            <[u8; 32]>::try_from(&self.intercept_id[..]).ok()?,
        ))
    }

    pub fn peer(&self) -> Option<PublicKey> {
        PublicKey::from_slice(&self.node_id).ok()
    }

    pub fn channel(&self) -> Option<ChannelId> {
        channel_id(&self.channel_id)
    }

    pub fn key(&self) -> String {
        format!("{}{}", key::HELD, hex(&self.intercept_id))
    }
}

/// A cooperative close, until it is deep in the chain.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CoopClose {
    #[prost(bytes = "vec", tag = "1")]
    pub channel_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub node_id: Vec<u8>,
    /// With all signatures.
    #[prost(bytes = "vec", tag = "3")]
    pub tx: Vec<u8>,
    /// Height of the block that has it; 0 while none has.
    #[prost(uint32, tag = "4")]
    pub confirmed_height: u32,
    /// LDK's monitor of the channel has ended without a forced close.
    #[prost(bool, tag = "5")]
    pub monitor_ended: bool,
}

impl CoopClose {
    pub fn key(&self) -> String {
        format!("{}{}", key::COOP_CLOSE, hex(&self.channel_id))
    }
}

/// The search for a restored wallet's coins.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct WalletScan {
    /// The owner's date in seconds since 1970, until its height was found; else 0.
    #[prost(uint64, tag = "1")]
    pub birthday_unix_s: u64,
    /// The first block that is searched.
    #[prost(uint32, tag = "2")]
    pub from_height: u32,
    /// The next one.
    #[prost(uint32, tag = "3")]
    pub next_height: u32,
    /// The hash of the block before `next_height`, 32 bytes; empty when it is not known.
    #[prost(bytes = "vec", tag = "4")]
    pub parent: Vec<u8>,
    /// Coins that were confirmed up to this height are held while the search goes on: the stream did not bring those blocks.
    #[prost(uint32, tag = "5")]
    pub held_up_to: u32,
    #[prost(bool, tag = "6")]
    pub is_complete: bool,
}

/// The forwarding fees that a hub's operator has set.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Fees {
    #[prost(uint32, tag = "1")]
    pub base_msat: u32,
    #[prost(uint32, tag = "2")]
    pub proportional_millionths: u32,
}

/// All payments that a hub has forwarded, also those whose records are gone.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ForwardTotals {
    /// The number of the next record.
    #[prost(uint64, tag = "1")]
    pub next_number: u64,
    #[prost(uint64, tag = "2")]
    pub count: u64,
    #[prost(uint64, tag = "3")]
    pub amount_msat: u64,
    #[prost(uint64, tag = "4")]
    pub fee_msat: u64,
}

/// A payment that a hub has forwarded.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Forwarded {
    #[prost(uint64, tag = "1")]
    pub number: u64,
    #[prost(uint64, tag = "2")]
    pub unix_s: u64,
    #[prost(bytes = "vec", tag = "3")]
    pub from_channel_id: Vec<u8>,
    #[prost(uint64, optional, tag = "4")]
    pub from_htlc_id: Option<u64>,
    #[prost(bytes = "vec", tag = "5")]
    pub from_node_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    pub to_channel_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "7")]
    pub to_node_id: Vec<u8>,
    /// Sent on.
    #[prost(uint64, tag = "8")]
    pub amount_msat: u64,
    /// Absent when LDK does not know it.
    #[prost(uint64, optional, tag = "9")]
    pub fee_msat: Option<u64>,
    #[prost(bool, tag = "10")]
    pub claimed_on_chain: bool,
}

impl Forwarded {
    /// Whether both are for one incoming HTLC.
    pub fn is_same_htlc(&self, other: &Forwarded) -> bool {
        self.from_htlc_id.is_some()
            && self.from_htlc_id == other.from_htlc_id
            && self.from_channel_id == other.from_channel_id
    }
}
