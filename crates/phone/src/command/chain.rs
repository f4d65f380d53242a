//! What the phone sees of the chain.

use serde::{Deserialize, Serialize};

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
