//! The node, and what its owner has.

use bitcoin::hex::DisplayHex;
use longhand_base::text::plain;
use longhand_proto::command as proto;
use serde::{Deserialize, Serialize};

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
