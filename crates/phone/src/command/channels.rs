//! Channels.

use bitcoin::hex::DisplayHex;
use longhand_base::text::plain;
use longhand_proto::command as proto;
use serde::{Deserialize, Serialize};

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
