//! How a node is run, and on which services.

use std::sync::Arc;

use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use longhand_chain::{Chain, ChainSource, Follower, FollowerConfig};
use longhand_store::Store;

use super::dialer::{Dialer, TcpDialer};
use crate::graph::Graph;
use crate::wallet::{BdkWallets, WalletFactory};

/// An owner's keys at the host: public ones, and those that cannot spend.
pub type Registration = longhand_proto::command::Register;

/// Where a node's keys are.
pub enum Keys {
    /// On the owner's phone.
    Remote(Box<Registration>),
    /// Here: 32 bytes from which LDK's `KeysManager` and the on-chain wallet derive. For hubs.
    Local(zeroize::Zeroizing<[u8; 32]>),
}

/// How one node is run.
pub struct NodeConfig {
    /// The node's namespace in the store; never shared.
    pub namespace: String,
    /// The chain's network.
    pub network: Network,
    /// Where the keys are.
    pub keys: Keys,
    /// The host's hub, which owners' nodes use by default; `None` for the hub itself.
    pub hub: Option<PublicKey>,
    /// Takes in gossip, forwards payments and announces channels.
    pub is_hub: bool,
    /// Announced as the alias of a hub.
    pub alias: String,
    /// Addresses announced by a hub, `host:port`.
    pub announce: Vec<String>,
    /// Takes payments that no invoice asks for (keysend). Each is a record for good, also one of 1 msat.
    pub accepts_keysend: bool,
    /// Kept on chain for each channel, to pay for its forced close, in satoshis; channels that peers ask for are refused
    /// beyond that. 0 = no reserve for each, and every channel is taken.
    pub reserve_sat_per_channel: u64,
    /// Makes the on-chain wallet; [`BdkWallets`] by default.
    pub wallets: Arc<dyn WalletFactory>,
}

impl NodeConfig {
    /// An owner's node, without a hub and not announced. Change the fields for anything else.
    pub fn new(namespace: impl Into<String>, network: Network, keys: Keys) -> NodeConfig {
        NodeConfig {
            namespace: namespace.into(),
            network,
            keys,
            hub: None,
            is_hub: false,
            alias: String::new(),
            announce: Vec::new(),
            accepts_keysend: false,
            reserve_sat_per_channel: 0,
            wallets: Arc::new(BdkWallets),
        }
    }
}

/// The services that a node is built on.
#[derive(Clone)]
pub struct Services {
    /// Keeps everything that must outlive the process.
    pub store: Arc<dyn Store>,
    /// The chain.
    pub chain: Arc<dyn Chain>,
    /// The network graph and scores, shared by all nodes of the host.
    pub graph: Arc<Graph>,
    /// Reaches peers.
    pub dialer: Arc<dyn Dialer>,
}

impl Services {
    /// Services of a node that is alone in its program: a follower of this chain source, an empty graph, and peers over TCP.
    /// Returns as soon as the source has answered.
    pub async fn alone(
        store: Arc<dyn Store>,
        source: impl Into<ChainSource>,
        network: Network,
    ) -> Services {
        let chain = Follower::start(source, FollowerConfig::default());
        // Fails never: the follower lives as long as this.
        let _ = chain.tips().wait_for(Option::is_some).await;
        Services {
            store,
            chain: Arc::new(chain),
            graph: Arc::new(Graph::new(network)),
            dialer: Arc::new(TcpDialer),
        }
    }
}
