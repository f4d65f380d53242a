//! The node itself, other nodes, and the accounts of its wallet.

use std::sync::Arc;

use longhand_base::text;
use tonic::{Code, Status};

use super::{LND_VERSION, check_account, from_hex, hex, int};
use crate::node::{AddressKind, Node};
use crate::proto::lnrpc::{
    Chain, GetInfoRequest, GetInfoResponse, LightningNode, NodeAddress, NodeInfo, NodeInfoRequest,
};
use crate::proto::walletrpc::{Account, AddressType, ListAccountsRequest, ListAccountsResponse};
use crate::status::status;

pub(super) async fn get(node: Arc<dyn Node>, _: GetInfoRequest) -> Result<GetInfoResponse, Status> {
    let info = node.info().await?;
    // bitcoin's own name for its main network is not lnd's.
    let network = match &*info.network {
        "bitcoin" => "mainnet",
        other => other,
    };
    let chain = Chain {
        chain: "bitcoin".into(),
        network: network.into(),
    };
    Ok(GetInfoResponse {
        version: format!(
            "{LND_VERSION} commit=longhand-{}",
            env!("CARGO_PKG_VERSION")
        ),
        commit_hash: String::new(),
        identity_pubkey: hex(&info.node_id),
        alias: text::plain(&info.alias),
        color: "#000000".into(),
        num_pending_channels: info.pending_channels,
        num_active_channels: info.active_channels,
        num_inactive_channels: info.inactive_channels,
        num_peers: info.peers,
        block_height: info.block_height,
        block_hash: info.block_hash,
        best_header_timestamp: int(info.block_unix_s),
        synced_to_chain: info.synced_to_chain,
        synced_to_graph: info.synced_to_graph,
        testnet: info.network.starts_with("testnet"),
        chains: vec![chain],
        uris: info.uris,
        ..GetInfoResponse::default()
    })
}

pub(super) async fn node(node: Arc<dyn Node>, asked: NodeInfoRequest) -> Result<NodeInfo, Status> {
    let id = from_hex::<33>("pub_key", &asked.pub_key)?;
    let found = node.lightning_node(id).await?;
    let found = found.ok_or_else(|| {
        status(
            Code::NotFound,
            "unable to find node: the graph does not have it",
        )
    })?;
    let address = |addr: String| NodeAddress {
        network: "tcp".into(),
        addr: text::plain(&addr),
    };
    Ok(NodeInfo {
        node: Some(LightningNode {
            last_update: found.last_update_unix_s,
            pub_key: hex(&id),
            alias: text::plain(&found.alias),
            addresses: found.addresses.into_iter().map(address).collect(),
            color: text::plain(&found.color),
        }),
        num_channels: found.channels,
        total_capacity: int(found.capacity_sat),
    })
}

pub(super) async fn accounts(
    node: Arc<dyn Node>,
    asked: ListAccountsRequest,
) -> Result<ListAccountsResponse, Status> {
    check_account(&asked.name)?;
    let of_kind = |account: &Account| {
        asked.address_type == AddressType::Unknown as i32
            || asked.address_type == account.address_type
    };
    let accounts = node.accounts().await?.into_iter().map(|account| Account {
        name: account.name,
        address_type: match account.kind {
            AddressKind::Segwit => AddressType::WitnessPubkeyHash,
            AddressKind::Taproot => AddressType::TaprootPubkey,
        } as i32,
        extended_public_key: account.xpub,
        derivation_path: account.derivation_path,
        external_key_count: account.external_keys,
        internal_key_count: account.internal_keys,
        ..Account::default()
    });
    Ok(ListAccountsResponse {
        accounts: accounts.filter(of_kind).collect(),
    })
}
