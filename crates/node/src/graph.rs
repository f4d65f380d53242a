//! The network graph and the scores, one of each for all nodes of a host.
//!
//! The hub alone writes the graph, from gossip: see [`Graph::gossip_sync`]. Every node reads it through a [`Router`] of
//! its own, and adds to the shared scores what its payments teach. Both are caches: they are stored now and then, and
//! what cannot be read back is begun anew.

use std::io::Cursor;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bitcoin::constants::ChainHash;
use bitcoin::{Network, OutPoint, TxOut};
use lightning::routing::gossip::{NetworkGraph, P2PGossipSync};
use lightning::routing::router::DefaultRouter;
use lightning::routing::scoring::{
    ProbabilisticScorer, ProbabilisticScoringDecayParameters, ProbabilisticScoringFeeParameters,
    ScoreUpdate,
};
use lightning::routing::utxo::{UtxoFuture, UtxoLookup, UtxoLookupError, UtxoResult};
use lightning::util::ser::{ReadableArgs, Writeable};
use lightning::util::wakers::Notifier;
use longhand_chain::{Chain, ChainError, ChainSource};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::logger::Logger;

/// LDK's graph of public channels and nodes.
pub(crate) type NetGraph = NetworkGraph<Arc<Logger>>;
/// What payments have taught of channels' liquidity.
pub(crate) type Scorer = ProbabilisticScorer<Arc<NetGraph>, Arc<Logger>>;
/// Finds routes for one node; `E` is its source of entropy.
pub(crate) type Router<E> = DefaultRouter<
    Arc<NetGraph>,
    Arc<Logger>,
    E,
    Arc<RwLock<Scorer>>,
    ProbabilisticScoringFeeParameters,
    Scorer,
>;
/// Takes in gossip and passes it on.
pub(crate) type GossipSync = P2PGossipSync<Arc<NetGraph>, Arc<FundingLookup>, Arc<Logger>>;

/// Questions to the chain source about announced channels that are open at once; more wait. A new graph brings tens of
/// thousands of them.
const LOOKUPS_AT_ONCE: usize = 16;

/// How long one such question may take. LDK holds back other gossip while too many are open.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);

/// The shared network graph with its scores. Written by the hub alone.
pub struct Graph {
    network: Network,
    graph: Arc<NetGraph>,
    scorer: Arc<RwLock<Scorer>>,
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

    /// A graph from what [`Graph::graph_bytes`] and [`Graph::scorer_bytes`] gave. What is missing, cannot be read or is
    /// another network's is begun anew: both are caches.
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
            scorer: Arc::new(RwLock::new(scorer)),
            logger,
        }
    }

    fn read_scores(&self, bytes: &[u8]) {
        let decay = ProbabilisticScoringDecayParameters::default();
        let args = (decay, self.graph.clone(), self.logger.clone());
        match Scorer::read(&mut Cursor::new(bytes), args) {
            Ok(scorer) => *self.scorer.write().unwrap_or_else(PoisonError::into_inner) = scorer,
            Err(e) => tracing::warn!("the stored scores cannot be read ({e}): beginning anew"),
        }
    }

    /// The graph, to be stored. 100 MB and more for the public network: not to be called often.
    pub fn graph_bytes(&self) -> Vec<u8> {
        self.graph.encode()
    }

    /// The scores, to be stored.
    pub fn scorer_bytes(&self) -> Vec<u8> {
        self.scorer
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .encode()
    }

    /// Removes channels that nobody has spoken of for two weeks (BOLT 7), and lets old scores fade. To be called every
    /// hour or so with the time of now.
    pub fn prune(&self, now_unix_s: u64) {
        self.graph
            .remove_stale_channels_and_tracking_with_time(now_unix_s);
        let mut scorer = self.scorer.write().unwrap_or_else(PoisonError::into_inner);
        scorer.time_passed(Duration::from_secs(now_unix_s));
    }

    /// Known channels and nodes.
    pub fn size(&self) -> (usize, usize) {
        let graph = self.graph.read_only();
        (graph.channels().len(), graph.nodes().len())
    }

    /// LDK's graph.
    pub(crate) fn net_graph(&self) -> Arc<NetGraph> {
        self.graph.clone()
    }

    /// The scores, to be updated from payments' events.
    pub(crate) fn scorer(&self) -> Arc<RwLock<Scorer>> {
        self.scorer.clone()
    }

    /// A router for one node.
    pub(crate) fn router<E: lightning::sign::EntropySource>(
        &self,
        logger: Arc<Logger>,
        entropy: E,
    ) -> Arc<Router<E>> {
        let params = ProbabilisticScoringFeeParameters::default();
        Arc::new(Router::new(
            self.graph.clone(),
            logger,
            entropy,
            self.scorer.clone(),
            params,
        ))
    }

    /// Takes in gossip for the hub, and looks up announced channels on `chain`. To be called within a tokio runtime;
    /// the lookups run on it and never block the caller.
    pub(crate) fn gossip_sync(
        &self,
        chain: Arc<dyn Chain>,
        logger: Arc<Logger>,
    ) -> Arc<GossipSync> {
        let lookup = FundingLookup {
            chain_hash: ChainHash::using_genesis_block(self.network),
            chain,
            runtime: Handle::current(),
            permits: Arc::new(Semaphore::new(LOOKUPS_AT_ONCE)),
        };
        Arc::new(P2PGossipSync::new(
            self.graph.clone(),
            Some(Arc::new(lookup)),
            logger,
        ))
    }
}

fn read_graph(network: Network, bytes: &[u8], logger: &Arc<Logger>) -> Option<NetGraph> {
    match NetGraph::read(&mut Cursor::new(bytes), logger.clone()) {
        Ok(graph) if graph.get_chain_hash() == ChainHash::using_genesis_block(network) => {
            Some(graph)
        }
        Ok(_) => {
            tracing::warn!("the stored network graph is not of {network}: beginning anew");
            None
        }
        Err(e) => {
            tracing::warn!("the stored network graph cannot be read ({e}): beginning anew");
            None
        }
    }
}

/// Checks that an announced channel has an unspent funding output.
pub(crate) struct FundingLookup {
    chain_hash: ChainHash,
    chain: Arc<dyn Chain>,
    runtime: Handle,
    permits: Arc<Semaphore>,
}

impl UtxoLookup for FundingLookup {
    fn get_utxo(
        &self,
        chain_hash: &ChainHash,
        short_channel_id: u64,
        done: Arc<Notifier>,
    ) -> UtxoResult {
        if *chain_hash != self.chain_hash {
            return UtxoResult::Sync(Err(UtxoLookupError::UnknownChain));
        }
        let future = UtxoFuture::new(done);
        let (answer, source, permits) = (future.clone(), self.chain.source(), self.permits.clone());
        self.runtime.spawn(async move {
            // The semaphore is never closed; were it, the question would just not wait.
            let _permit = permits.acquire_owned().await;
            let lookup = funding_output(source.as_ref(), short_channel_id);
            let found = tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await;
            answer.resolve(match found {
                Ok(Ok(Some(output))) => Ok(output),
                Ok(Ok(None)) => Err(UtxoLookupError::UnknownTx),
                Ok(Err(e)) => {
                    tracing::debug!("an announced channel could not be looked up: {e}");
                    Err(UtxoLookupError::UnknownTx)
                }
                Err(_) => {
                    tracing::debug!("looking up an announced channel took too long");
                    Err(UtxoLookupError::UnknownTx)
                }
            });
        });
        UtxoResult::Async(future)
    }
}

/// The output that a short channel id (BOLT 7: block, transaction, output) names, if it is unspent.
async fn funding_output(
    source: &dyn ChainSource,
    short_channel_id: u64,
) -> Result<Option<TxOut>, ChainError> {
    let height = (short_channel_id >> 40) as u32;
    let index = ((short_channel_id >> 16) & 0xff_ffff) as u32;
    let vout = (short_channel_id & 0xffff) as u32;
    match source.transaction_at(height, index).await? {
        Some(tx) => {
            source
                .unspent(&OutPoint {
                    txid: tx.compute_txid(),
                    vout,
                })
                .await
        }
        None => Ok(None),
    }
}
