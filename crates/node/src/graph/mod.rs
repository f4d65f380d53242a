//! The network graph and the scores, one of each for all nodes of a host.
//!
//! Only the hub writes the graph, from gossip: see [`Graph::gossip_sync`]. Every node reads it through a [`Router`] of
//! its own, and updates the shared scores with the results of its payments. Both are caches: they are stored from time to
//! time, and begin empty when they cannot be read back.
//!
//! - `funding.rs`: looks up the funding output of an announced channel.
//! - `queries.rs`: answers a peer's `query_short_channel_ids`.
//! - `scores.rs`: the lock around the scores.
//! - `sealed.rs`: the stored form of both caches.

mod funding;
mod queries;
mod scores;
mod sealed;
#[cfg(test)]
mod tests;

use std::io::Cursor;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use bitcoin::constants::ChainHash;
use bitcoin::secp256k1::PublicKey;
use lightning::ln::channel_state::ChannelDetails;
use lightning::ln::msgs::SocketAddress;
use lightning::routing::gossip::{NetworkGraph, NodeId, P2PGossipSync};
use lightning::routing::router::{
    DefaultRouter, InFlightHtlcs, RouteParameters, Router as FindRoute,
};
use lightning::routing::scoring::{
    LockableScore, ProbabilisticScorer, ProbabilisticScoringDecayParameters,
    ProbabilisticScoringFeeParameters, ScoreUpdate,
};
use lightning::sign::EntropySource;
use lightning::util::ser::ReadableArgs;
use longhand_chain::Chain;

use crate::ldk::logger::Logger;
use funding::FundingLookup;
pub(crate) use queries::{Answers, Queries};
use scores::Scores;
use sealed::{seal, unseal};

/// LDK's graph of public channels and nodes.
pub(crate) type NetGraph = NetworkGraph<Arc<Logger>>;
/// Estimates of channels' liquidity, from the results of payments.
pub(crate) type Scorer = ProbabilisticScorer<Arc<NetGraph>, Arc<Logger>>;
/// Finds routes for one node; `E` is its source of entropy.
pub(crate) type Router<E> = DefaultRouter<
    Arc<NetGraph>,
    Arc<Logger>,
    E,
    Arc<Scores>,
    ProbabilisticScoringFeeParameters,
    Scorer,
>;
/// Verifies gossip messages, writes them to the graph and relays them (BOLT 7).
pub(crate) type GossipSync = P2PGossipSync<Arc<NetGraph>, Arc<FundingLookup>, Arc<Logger>>;

/// A node in the graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublicNode {
    /// Text from others.
    pub alias: String,
    /// `#rrggbb`; empty = not announced.
    pub color: String,
    /// `HOST:PORT`.
    pub addresses: Vec<String>,
    /// When it was announced; 0 = never.
    pub last_update_unix_s: u32,
    /// Its public channels.
    pub channels: u32,
    /// Of those whose capacity is known.
    pub capacity_sat: u64,
}

/// The shared network graph with its scores. Only the hub writes the graph.
pub struct Graph {
    network: Network,
    graph: Arc<NetGraph>,
    scores: Arc<Scores>,
    logger: Arc<Logger>,
}

impl Graph {
    /// An empty graph.
    pub fn new(network: Network) -> Graph {
        let logger = Arc::new(Logger {
            node: "graph".into(),
        });
        Graph::around(network, NetworkGraph::new(network, logger.clone()), logger)
    }

    /// Reads back [`Graph::graph_bytes`] and [`Graph::scorer_bytes`]. A graph that is missing, damaged or of another
    /// network is replaced by an empty one, without scores; so are scores that are missing or damaged.
    pub fn restore(
        network: Network,
        graph_bytes: Option<Vec<u8>>,
        scorer_bytes: Option<Vec<u8>>,
    ) -> Graph {
        let logger = Arc::new(Logger {
            node: "graph".into(),
        });
        let read = graph_bytes.and_then(|bytes| read_graph(network, &bytes, &logger));
        let Some(net_graph) = read else {
            return Graph::new(network);
        };
        let graph = Graph::around(network, net_graph, logger);
        if let Some(bytes) = scorer_bytes {
            graph.read_scores(&bytes);
        }
        graph
    }

    fn around(network: Network, net_graph: NetGraph, logger: Arc<Logger>) -> Graph {
        let graph = Arc::new(net_graph);
        let decay = ProbabilisticScoringDecayParameters::default();
        let scorer = ProbabilisticScorer::new(decay, graph.clone(), logger.clone());
        Graph {
            network,
            graph,
            scores: Arc::new(Scores::new(scorer)),
            logger,
        }
    }

    fn read_scores(&self, bytes: &[u8]) {
        let decay = ProbabilisticScoringDecayParameters::default();
        let args = (decay, self.graph.clone(), self.logger.clone());
        match unseal(bytes).and_then(|body| Scorer::read(&mut Cursor::new(body), args).ok()) {
            Some(scorer) => self.update_scores(|scores| *scores = scorer),
            None => tracing::warn!("the stored scores cannot be read: beginning without scores"),
        }
    }

    /// The graph in its stored form. It is 100 MB and more for the public network, so do not call this often.
    pub fn graph_bytes(&self) -> Vec<u8> {
        seal(&*self.graph)
    }

    /// The scores in their stored form.
    pub fn scorer_bytes(&self) -> Vec<u8> {
        seal(&*self.scores.read_lock())
    }

    /// Removes channels without a `channel_update` for two weeks (BOLT 7), and decays the scores. Call it about every
    /// hour; `now_unix_s` is the current time in seconds since 1970.
    pub fn prune(&self, now_unix_s: u64) {
        self.graph
            .remove_stale_channels_and_tracking_with_time(now_unix_s);
        self.update_scores(|scores| scores.time_passed(Duration::from_secs(now_unix_s)));
    }

    /// Number of channels and number of nodes.
    pub fn size(&self) -> (usize, usize) {
        let graph = self.graph.read_only();
        (graph.channels().len(), graph.nodes().len())
    }

    /// What a node has announced of itself, and its public channels; `None` when the graph does not know it.
    pub fn node(&self, node_id: &PublicKey) -> Option<PublicNode> {
        let graph = self.graph.read_only();
        let node = graph.node(&NodeId::from_pubkey(node_id))?;
        let announced = node.announcement_info.as_ref();
        let capacities = node
            .channels
            .iter()
            .filter_map(|scid| graph.channel(*scid)?.capacity_sats);
        Some(PublicNode {
            alias: announced
                .map(|it| it.alias().to_string())
                .unwrap_or_default(),
            color: announced
                .map(|it| {
                    let [r, g, b] = it.rgb();
                    format!("#{r:02x}{g:02x}{b:02x}")
                })
                .unwrap_or_default(),
            addresses: announced
                .map(|it| it.addresses().iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
            last_update_unix_s: announced.map_or(0, |it| it.last_update()),
            channels: u32::try_from(node.channels.len()).unwrap_or(u32::MAX),
            capacity_sat: capacities.fold(0, u64::saturating_add),
        })
    }

    /// Whether a channel with this short channel id has been announced (BOLT 7).
    pub(crate) fn knows(&self, scid: u64) -> bool {
        self.graph.read_only().channel(scid).is_some()
    }

    /// The addresses that a node has announced (BOLT 7) and that TCP or Tor can reach, as `host:port`; onion services last.
    pub(crate) fn addresses(&self, node_id: &PublicKey) -> Vec<String> {
        let graph = self.graph.read_only();
        let node = graph.node(&NodeId::from_pubkey(node_id));
        let announced = node.and_then(|node| node.announcement_info.as_ref());
        let addresses = announced.map_or(&[][..], |announced| announced.addresses());
        dialable(addresses)
    }

    /// Updates the scores from LDK's payment events.
    pub(crate) fn update_scores(&self, update: impl FnOnce(&mut Scorer)) {
        update(&mut self.scores.write_lock());
    }

    /// A router for one node.
    pub(crate) fn router<E: EntropySource>(
        &self,
        logger: Arc<Logger>,
        entropy: E,
    ) -> Arc<Router<E>> {
        let params = ProbabilisticScoringFeeParameters::default();
        Arc::new(Router::new(
            self.graph.clone(),
            logger,
            entropy,
            self.scores.clone(),
            params,
        ))
    }

    /// The fee of the best route with these parameters that begins with one of `first_hops`, each of which must have a short
    /// channel id; `None` when there is no route.
    pub(crate) fn route_fee_msat<E: EntropySource>(
        &self,
        payer: &PublicKey,
        params: &RouteParameters,
        first_hops: &[&ChannelDetails],
        in_flight: InFlightHtlcs,
        entropy: E,
    ) -> Option<u64> {
        let router = self.router(self.logger.clone(), entropy);
        let found = router.find_route(payer, params, Some(first_hops), in_flight);
        found.ok().map(|route| route.get_total_fees())
    }

    /// The hub's gossip handler. It looks up announced channels on `chain`, in tasks of the tokio runtime that this is
    /// called in; a lookup never blocks the caller.
    pub(crate) fn gossip_sync(
        &self,
        chain: Arc<dyn Chain>,
        logger: Arc<Logger>,
    ) -> Arc<GossipSync> {
        let lookup = FundingLookup::new(self.network, chain);
        Arc::new(P2PGossipSync::new(
            self.graph.clone(),
            Some(Arc::new(lookup)),
            logger,
        ))
    }
}

fn read_graph(network: Network, bytes: &[u8], logger: &Arc<Logger>) -> Option<NetGraph> {
    let read = unseal(bytes)
        .and_then(|body| NetGraph::read(&mut Cursor::new(body), logger.clone()).ok())
        .filter(|graph| graph.get_chain_hash() == ChainHash::using_genesis_block(network));
    if read.is_none() {
        tracing::warn!(
            "the stored network graph cannot be read or is not of {network}: beginning with an empty one"
        );
    }
    read
}

/// The announced addresses that TCP or Tor can reach, as `host:port`; onion services last.
fn dialable(addresses: &[SocketAddress]) -> Vec<String> {
    use SocketAddress::{Hostname, OnionV3, TcpIpV4, TcpIpV6};
    let is_tcp =
        |it: &&SocketAddress| matches!(it, TcpIpV4 { .. } | TcpIpV6 { .. } | Hostname { .. });
    let is_onion = |it: &&SocketAddress| matches!(it, OnionV3 { .. });
    let tcp = addresses.iter().filter(is_tcp);
    let all = tcp.chain(addresses.iter().filter(is_onion));
    all.map(ToString::to_string).collect()
}
