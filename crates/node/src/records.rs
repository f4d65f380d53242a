//! Records a node keeps beside LDK's own, each under its own key in the store.
//!
//! - `pay/<hash>`: payments (the protocol's own `Payment` message),
//! - `claim/<hash>`: incoming payments whose HTLCs are not settled yet,
//! - `closed/<channel>`: channels that were closed (the protocol's own `ClosedChannel` message),
//! - `open/<id>`: channels this node opens, until they are usable,
//! - `send/<id>`: on-chain payments.

use bitcoin::Psbt;
use lightning::ln::types::ChannelId;
use lightning::types::payment::PaymentHash;
use longhand_proto::command::{Channel, OpenChannel};
use longhand_proto::signer::ClaimableHtlc;
use prost::Message;

use crate::hex::hex;

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
    /// The height from which on LDK takes its preimage no more; 0 in records of before.
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
        format!("claim/{}", hex(&self.payment_hash))
    }

    /// Channels with the ids of their keys.
    pub fn channels(&self) -> Vec<(ChannelId, [u8; 32])> {
        let ids = self.channel_ids.iter().zip(&self.htlcs);
        ids.filter_map(|(channel_id, htlc)| {
            let channel_id = ChannelId(<[u8; 32]>::try_from(&channel_id[..]).ok()?);
            Some((
                channel_id,
                <[u8; 32]>::try_from(&htlc.channel_keys_id[..]).ok()?,
            ))
        })
        .collect()
    }
}

/// A channel that this node opens.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Open {
    #[prost(message, optional, tag = "1")]
    pub request: Option<OpenChannel>,
    /// LDK was told to open it.
    #[prost(bool, tag = "2")]
    pub created: bool,
    /// Serialized funding PSBT, unsigned.
    #[prost(bytes = "vec", tag = "3")]
    pub psbt: Vec<u8>,
    /// Our first commitment is signed by the peer: the funding may be signed.
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
    /// Code and line for a person; empty while all is well.
    #[prost(string, tag = "8")]
    pub failure_code: String,
    #[prost(string, tag = "9")]
    pub failure: String,
    #[prost(bool, tag = "10")]
    pub ready: bool,
    /// The height at which the funding became safe to sign; 0 in records of before, which have waited too long then.
    #[prost(uint32, tag = "11")]
    pub safe_height: u32,
}

impl Open {
    pub fn user_channel_id(&self) -> Option<u128> {
        user_channel_id(&self.request.as_ref()?.id)
    }

    pub fn key(&self) -> String {
        format!(
            "open/{}",
            hex(self.request.as_ref().map_or(&[][..], |request| &request.id))
        )
    }

    pub fn has_failed(&self) -> bool {
        !self.failure_code.is_empty()
    }

    pub fn psbt(&self) -> Option<Psbt> {
        Psbt::deserialize(&self.psbt).ok()
    }

    /// What the owner is shown of it before LDK lists it.
    pub fn channel(&self) -> Channel {
        let request = self.request.clone().unwrap_or_default();
        Channel {
            channel_id: self.channel_id.clone(),
            user_channel_id: request.id,
            counterparty_node_id: request.counterparty_node_id,
            funding_outpoint: self.funding_outpoint.clone(),
            capacity_sat: request.amount_sat,
            outbound: true,
            announced: request.announced,
            state: "opening".into(),
            ..Channel::default()
        }
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
    #[prost(string, tag = "5")]
    pub failure: String,
}

impl Send {
    pub fn key(&self) -> String {
        format!("send/{}", hex(&self.id))
    }
}
