//! What commands are given, and what they answer.

use bitcoin::OutPoint;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::types::ChannelId;
use lightning::types::payment::{PaymentHash, PaymentPreimage};
use lightning_invoice::Bolt11Invoice;
use longhand_proto::command as proto;

use super::error::CommandError;

/// A node's money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Balance {
    /// On chain.
    pub onchain_confirmed_sat: u64,
    /// On chain, in no block yet.
    pub onchain_pending_sat: u64,
    /// In channels.
    pub lightning_msat: u64,
    /// In closed channels, not swept yet.
    pub closing_sat: u64,
    /// The amount that can be received in channels.
    pub inbound_capacity_msat: u64,
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Channel {
    /// Its id (BOLT 2).
    pub id: ChannelId,
    /// The node at the other end.
    pub peer: PublicKey,
    /// The output that funds it; `None` before its funding is made.
    pub funding: Option<OutPoint>,
    /// Both sides together.
    pub capacity_sat: u64,
    /// Can be sent now.
    pub outbound_msat: u64,
    /// Can be received now.
    pub inbound_msat: u64,
    /// This node's.
    pub balance_msat: u64,
    /// Its funding is confirmed.
    pub is_ready: bool,
    /// It can carry a payment now.
    pub is_usable: bool,
    /// This node has opened it.
    pub is_outbound: bool,
    /// The network may know of it (BOLT 7).
    pub is_announced: bool,
    /// HTLCs that are not removed from both commitments yet.
    pub pending_htlcs: u32,
}

/// A channel to be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenChannel {
    /// The node at the other end.
    pub peer: PublicKey,
    /// Its `host:port`; empty when it is connected, or is a node of the same host.
    pub address: String,
    /// The capacity.
    pub amount_sat: u64,
    /// Given to the peer at once. Of hubs alone.
    pub push_msat: u64,
    /// Whether it is announced to the network (BOLT 7).
    pub is_announced: bool,
    /// Of its funding, in satoshis per 1,000 weight units; the estimate of the chain source without one.
    pub feerate_sat_per_kw: Option<u32>,
}

/// A channel whose funding is broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenedChannel {
    /// Its id (BOLT 2).
    pub channel_id: ChannelId,
    /// The output that funds it.
    pub funding: OutPoint,
    /// The opener's id for it.
    pub(super) id: [u8; 16],
}

/// An invoice of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Invoice {
    /// For the payer (BOLT 11).
    pub bolt11: String,
    /// By which the payment is found again.
    pub payment_hash: PaymentHash,
    /// `None`: any amount.
    pub amount_msat: Option<u64>,
    /// Its expiry, in seconds since 1970.
    pub expires_unix_s: u64,
}

/// A payment that succeeded.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Payment {
    /// As in the invoice.
    pub payment_hash: PaymentHash,
    /// The proof that it was paid.
    pub preimage: PaymentPreimage,
    /// The payee got it.
    pub amount_msat: u64,
    /// Routing cost it.
    pub fee_msat: u64,
}

impl From<proto::Balance> for Balance {
    fn from(balance: proto::Balance) -> Balance {
        Balance {
            onchain_confirmed_sat: balance.onchain_confirmed_sat,
            onchain_pending_sat: balance.onchain_pending_sat,
            lightning_msat: balance.lightning_msat,
            closing_sat: balance.closing_sat,
            inbound_capacity_msat: balance.inbound_capacity_msat,
        }
    }
}

impl TryFrom<proto::Channel> for Channel {
    type Error = CommandError;

    fn try_from(channel: proto::Channel) -> Result<Channel, CommandError> {
        let peer = PublicKey::from_slice(&channel.counterparty_node_id);
        Ok(Channel {
            id: ChannelId(array(channel.channel_id)?),
            peer: peer.map_err(|_| unreadable())?,
            funding: channel.funding_outpoint.parse().ok(),
            capacity_sat: channel.capacity_sat,
            outbound_msat: channel.outbound_msat,
            inbound_msat: channel.inbound_msat,
            balance_msat: channel.balance_msat,
            is_ready: channel.ready,
            is_usable: channel.usable,
            is_outbound: channel.outbound,
            is_announced: channel.announced,
            pending_htlcs: channel.pending_htlcs,
        })
    }
}

impl OpenChannel {
    /// One of `amount_sat` to a peer, not announced. Change the fields for anything else.
    pub fn to(peer: PublicKey, amount_sat: u64) -> OpenChannel {
        OpenChannel {
            peer,
            address: String::new(),
            amount_sat,
            push_msat: 0,
            is_announced: false,
            feerate_sat_per_kw: None,
        }
    }

    /// Gives the peer so much of it at once.
    pub fn push(mut self, push_msat: u64) -> OpenChannel {
        self.push_msat = push_msat;
        self
    }

    pub(super) fn into_command(self, id: [u8; 16]) -> proto::OpenChannel {
        proto::OpenChannel {
            id: id.to_vec(),
            counterparty_node_id: self.peer.serialize().to_vec(),
            address: self.address,
            amount_sat: self.amount_sat,
            announced: self.is_announced,
            push_msat: self.push_msat,
            feerate_sat_per_kw: self.feerate_sat_per_kw.unwrap_or(0),
        }
    }
}

impl OpenedChannel {
    pub(super) fn read(
        id: [u8; 16],
        opened: proto::OpenedChannel,
    ) -> Result<OpenedChannel, CommandError> {
        Ok(OpenedChannel {
            channel_id: ChannelId(array(opened.channel_id)?),
            funding: opened.funding_outpoint.parse().map_err(|_| unreadable())?,
            id,
        })
    }
}

impl Invoice {
    pub(super) fn new(bolt11: String, signed: &Bolt11Invoice) -> Invoice {
        let expires = signed
            .duration_since_epoch()
            .saturating_add(signed.expiry_time());
        Invoice {
            bolt11,
            payment_hash: signed.payment_hash(),
            amount_msat: signed.amount_milli_satoshis(),
            expires_unix_s: expires.as_secs(),
        }
    }
}

impl TryFrom<proto::Payment> for Payment {
    type Error = CommandError;

    fn try_from(payment: proto::Payment) -> Result<Payment, CommandError> {
        Ok(Payment {
            payment_hash: PaymentHash(array(payment.payment_hash)?),
            preimage: PaymentPreimage(array(payment.preimage)?),
            amount_msat: payment.amount_msat,
            fee_msat: payment.fee_msat,
        })
    }
}

fn array(bytes: Vec<u8>) -> Result<[u8; 32], CommandError> {
    bytes.try_into().map_err(|_| unreadable())
}

fn unreadable() -> CommandError {
    CommandError::unexpected("the node's answer cannot be read: report this")
}
