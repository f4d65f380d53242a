//! The network graph and the scores, one of each for all nodes of a host.
//!
//! The hub alone writes the graph, from gossip: see [`Graph::gossip_sync`]. Every node reads it through a [`Router`] of
//! its own, and adds to the shared scores what its payments teach. Both are caches: they are stored now and then, and
//! what cannot be read back is begun anew.

mod queries;

use std::io::Cursor;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bitcoin::constants::ChainHash;
use bitcoin::hashes::{Hash, sha256};
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
pub(crate) use queries::{Answers, Queries};

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
        match unseal(bytes).and_then(|body| Scorer::read(&mut Cursor::new(body), args).ok()) {
            Some(scorer) => *self.scorer.write().unwrap_or_else(PoisonError::into_inner) = scorer,
            None => tracing::warn!("the stored scores cannot be read: beginning anew"),
        }
    }

    /// The graph, to be stored. 100 MB and more for the public network: not to be called often.
    pub fn graph_bytes(&self) -> Vec<u8> {
        seal(&*self.graph)
    }

    /// The scores, to be stored.
    pub fn scorer_bytes(&self) -> Vec<u8> {
        seal(&*self.scorer.read().unwrap_or_else(PoisonError::into_inner))
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

    /// The scores, to be updated from payments' events.
    /// Whether a channel has been announced (BOLT 7), by its short id.
    pub(crate) fn knows(&self, scid: u64) -> bool {
        self.graph.read_only().channel(scid).is_some()
    }

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
    let read = unseal(bytes)
        .and_then(|body| NetGraph::read(&mut Cursor::new(body), logger.clone()).ok())
        .filter(|graph| graph.get_chain_hash() == ChainHash::using_genesis_block(network));
    if read.is_none() {
        tracing::warn!(
            "the stored network graph cannot be read or is not of {network}: beginning anew"
        );
    }
    read
}

/// Begins what [`seal`] makes; the last character is its version.
const MAGIC: &[u8; 4] = b"LHC1";
const HEADER_LEN: usize = MAGIC.len() + 32;

/// LDK's encoding behind its hash. LDK's readers trust the counts they read, and would take gigabytes for damaged ones.
fn seal(content: &impl Writeable) -> Vec<u8> {
    let body = content.encode();
    let mut sealed = Vec::with_capacity(HEADER_LEN + body.len());
    sealed.extend_from_slice(MAGIC);
    sealed.extend_from_slice(sha256::Hash::hash(&body).as_byte_array());
    sealed.extend_from_slice(&body);
    sealed
}

/// What was sealed, if it is undamaged.
fn unseal(sealed: &[u8]) -> Option<&[u8]> {
    let (hash, body) = sealed.strip_prefix(MAGIC)?.split_at_checked(32)?;
    (sha256::Hash::hash(body).as_byte_array() == hash).then_some(body)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::time::{SystemTime, UNIX_EPOCH};

    use async_trait::async_trait;
    use bitcoin::block::Header;
    use bitcoin::hashes::{HashEngine, sha256d};
    use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, SecretKey, ecdsa::Signature};
    use bitcoin::{Amount, Block, BlockHash, Transaction};
    use lightning::ln::chan_utils::make_funding_redeemscript;
    use lightning::ln::msgs::{
        BaseMessageHandler, ChannelAnnouncement, ChannelUpdate, QueryShortChannelIds,
        ReplyShortChannelIdsEnd, RoutingMessageHandler, UnsignedChannelAnnouncement,
        UnsignedChannelUpdate,
    };
    use lightning::ln::peer_handler::CustomMessageHandler;
    use lightning::ln::wire::Type;
    use lightning::routing::gossip::NodeId;
    use lightning::routing::router::{
        InFlightHtlcs, PaymentParameters, Route, RouteParameters, Router as _,
    };
    use lightning::sign::KeysManager;
    use lightning::types::features::ChannelFeatures;
    use longhand_chain::{BlockRef, FeeRates, Subscription, WatchList};

    use super::*;

    /// Block 100, transaction 2, output 1.
    const SCID: u64 = 100 << 40 | 2 << 16 | 1;

    fn key(byte: u8) -> SecretKey {
        SecretKey::from_slice(&[byte; 32]).unwrap()
    }

    fn node(byte: u8) -> PublicKey {
        key(byte).public_key(&Secp256k1::new())
    }

    fn now_unix_s() -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .as_secs()
    }

    /// One channel's funding transaction, on a chain that is nothing else.
    struct OneChannel {
        funding: Transaction,
        spent: bool,
        answers: bool,
    }

    impl OneChannel {
        fn new() -> OneChannel {
            let script_pubkey = make_funding_redeemscript(&node(3), &node(4)).to_p2wsh();
            let change = TxOut {
                value: Amount::from_sat(1),
                script_pubkey: Default::default(),
            };
            let funding = Transaction {
                version: bitcoin::transaction::Version::TWO,
                lock_time: bitcoin::absolute::LockTime::ZERO,
                input: vec![],
                output: vec![
                    change,
                    TxOut {
                        value: Amount::from_sat(500_000),
                        script_pubkey,
                    },
                ],
            };
            OneChannel {
                funding,
                spent: false,
                answers: true,
            }
        }
    }

    #[async_trait]
    impl ChainSource for OneChannel {
        async fn tip(&self) -> Result<BlockRef, ChainError> {
            Err(ChainError::NotFound("tip".into()))
        }
        async fn header(&self, _: &BlockHash) -> Result<(Header, u32), ChainError> {
            Err(ChainError::NotFound("header".into()))
        }
        async fn hash_at(&self, _: u32) -> Result<BlockHash, ChainError> {
            Err(ChainError::NotFound("height".into()))
        }
        async fn block(&self, _: &BlockHash) -> Result<Block, ChainError> {
            Err(ChainError::NotFound("block".into()))
        }
        async fn fee_rates(&self) -> Result<FeeRates, ChainError> {
            Ok(FeeRates::FLOOR)
        }
        async fn broadcast(&self, _: &[Transaction]) -> Result<(), ChainError> {
            Ok(())
        }
        async fn unspent(&self, outpoint: &OutPoint) -> Result<Option<TxOut>, ChainError> {
            let ours = outpoint.txid == self.funding.compute_txid() && !self.spent;
            let output = self.funding.output.get(outpoint.vout as usize);
            Ok(output.filter(|_| ours).cloned())
        }
        async fn transaction_at(
            &self,
            height: u32,
            index: u32,
        ) -> Result<Option<Transaction>, ChainError> {
            if !self.answers {
                std::future::pending::<()>().await;
            }
            Ok(((height, index) == (100, 2)).then(|| self.funding.clone()))
        }
    }

    struct OneChain(Arc<OneChannel>);

    #[async_trait]
    impl Chain for OneChain {
        async fn subscribe(&self, _: BlockRef, _: WatchList) -> Result<Subscription, ChainError> {
            Err(ChainError::NotFound("block".into()))
        }
        fn tip(&self) -> Option<BlockRef> {
            None
        }
        fn fee_rates(&self) -> FeeRates {
            FeeRates::FLOOR
        }
        fn broadcast(&self, _: Vec<Transaction>) {}
        fn source(&self) -> Arc<dyn ChainSource> {
            self.0.clone()
        }
    }

    fn sign(contents: &impl Writeable, key: &SecretKey) -> Signature {
        let mut engine = sha256d::Hash::engine();
        engine.input(&contents.encode());
        let hash = sha256d::Hash::from_engine(engine);
        Secp256k1::new().sign_ecdsa(&Message::from_digest(hash.to_byte_array()), key)
    }

    /// A channel of nodes 1 and 2 with funding keys 3 and 4.
    fn announcement(network: Network) -> ChannelAnnouncement {
        let contents = UnsignedChannelAnnouncement {
            features: ChannelFeatures::empty(),
            chain_hash: ChainHash::using_genesis_block(network),
            short_channel_id: SCID,
            node_id_1: NodeId::from_pubkey(&node(1)),
            node_id_2: NodeId::from_pubkey(&node(2)),
            bitcoin_key_1: NodeId::from_pubkey(&node(3)),
            bitcoin_key_2: NodeId::from_pubkey(&node(4)),
            excess_data: Vec::new(),
        };
        ChannelAnnouncement {
            node_signature_1: sign(&contents, &key(1)),
            node_signature_2: sign(&contents, &key(2)),
            bitcoin_signature_1: sign(&contents, &key(3)),
            bitcoin_signature_2: sign(&contents, &key(4)),
            contents,
        }
    }

    fn update(direction: u8) -> ChannelUpdate {
        let contents = UnsignedChannelUpdate {
            chain_hash: ChainHash::using_genesis_block(Network::Regtest),
            short_channel_id: SCID,
            timestamp: now_unix_s() as u32,
            message_flags: 1,
            channel_flags: direction,
            cltv_expiry_delta: 40,
            htlc_minimum_msat: 1,
            htlc_maximum_msat: 400_000_000,
            fee_base_msat: 0,
            fee_proportional_millionths: 0,
            excess_data: Vec::new(),
        };
        ChannelUpdate {
            signature: sign(&contents, &key(direction + 1)),
            contents,
        }
    }

    /// Gossips the channel to a new graph and waits for the lookup.
    async fn gossip(channel: OneChannel) -> (Graph, Arc<GossipSync>) {
        let graph = Graph::new(Network::Regtest);
        let chain = Arc::new(OneChain(Arc::new(channel)));
        let sync = graph.gossip_sync(chain, Arc::new(Logger { node: "hub".into() }));
        let checked = sync.validation_completion_future();
        let pending = sync.handle_channel_announcement(None, &announcement(Network::Regtest));
        assert!(
            pending.is_err(),
            "nothing is known before the chain has been asked"
        );
        checked.await;
        sync.get_and_clear_pending_msg_events();
        (graph, sync)
    }

    async fn graph_with_a_channel() -> Graph {
        let (graph, sync) = gossip(OneChannel::new()).await;
        for direction in [0, 1] {
            sync.handle_channel_update(None, &update(direction))
                .unwrap();
        }
        graph
    }

    /// From node 1 to node 2, 10 sat.
    fn route(graph: &Graph) -> Option<Route> {
        let logger = Arc::new(Logger {
            node: "alice".into(),
        });
        let entropy = Arc::new(KeysManager::new(&[9; 32], 1, 1, true));
        let params = PaymentParameters::from_node_id(node(2), 40);
        let params = RouteParameters::from_payment_params_and_value(params, 10_000);
        let router = graph.router(logger, entropy);
        router
            .find_route(&node(1), &params, None, InFlightHtlcs::new())
            .ok()
    }

    #[tokio::test]
    async fn a_channel_with_an_unspent_output_is_taken_in_and_routed_through() {
        let graph = graph_with_a_channel().await;
        assert_eq!(graph.size(), (1, 2));
        let capacity = graph.graph.read_only().channel(SCID).unwrap().capacity_sats;
        assert_eq!(capacity, Some(500_000));
        assert_eq!(route(&graph).unwrap().get_total_amount(), 10_000);
    }

    #[tokio::test]
    async fn a_peer_that_asks_for_channels_is_told_what_is_known_of_them_and_then_the_end() {
        let (_graph, sync) = gossip(OneChannel::new()).await;
        for direction in [0, 1] {
            sync.handle_channel_update(None, &update(direction))
                .unwrap();
        }
        let answers = Arc::new(Answers::default());
        let queries = Queries::new(sync, answers.clone());
        let ask = |network| {
            let query = QueryShortChannelIds {
                chain_hash: ChainHash::using_genesis_block(network),
                short_channel_ids: vec![SCID - 1, SCID, SCID + 1],
            };
            queries
                .handle_query_short_channel_ids(node(5), query)
                .unwrap();
            let sent = answers.get_and_clear_pending_msg();
            assert!(sent.iter().all(|(to, _)| *to == node(5)));
            sent.into_iter()
                .map(|(_, answer)| (answer.type_id(), answer.encode()))
                .collect::<Vec<_>>()
        };
        let end = |network, full_information| ReplyShortChannelIdsEnd {
            chain_hash: ChainHash::using_genesis_block(network),
            full_information,
        };
        let told = ask(Network::Regtest);
        let expected = [
            (256, announcement(Network::Regtest).encode()),
            (258, update(0).encode()),
            (258, update(1).encode()),
            (262, end(Network::Regtest, true).encode()),
        ];
        let types =
            |messages: &[(u16, Vec<u8>)]| messages.iter().map(|(t, _)| *t).collect::<Vec<_>>();
        assert_eq!(types(&told), types(&expected));
        assert_eq!((&told[0], &told[3]), (&expected[0], &expected[3]));
        assert_eq!(
            ask(Network::Signet),
            [(262, end(Network::Signet, false).encode())]
        );
    }

    #[tokio::test]
    async fn a_channel_that_is_spent_or_was_never_there_is_not_taken_in() {
        let spent = OneChannel {
            spent: true,
            ..OneChannel::new()
        };
        assert_eq!(gossip(spent).await.0.size(), (0, 0));
        let mut other = OneChannel::new();
        other.funding.output[1].script_pubkey = Default::default();
        assert_eq!(gossip(other).await.0.size(), (0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_chain_that_does_not_answer_is_given_up() {
        let silent = OneChannel {
            answers: false,
            ..OneChannel::new()
        };
        let asked = tokio::time::Instant::now();
        assert_eq!(gossip(silent).await.0.size(), (0, 0));
        assert!(asked.elapsed() >= LOOKUP_TIMEOUT);
    }

    #[tokio::test]
    async fn a_stored_graph_comes_back_with_its_scores() {
        let graph = graph_with_a_channel().await;
        let nothing_learnt = graph.scorer_bytes();
        let path = route(&graph).unwrap().paths.remove(0);
        let now = Duration::from_secs(now_unix_s());
        graph
            .scorer()
            .write()
            .unwrap()
            .payment_path_failed(&path, SCID, now);
        let scores = graph.scorer_bytes();
        assert_ne!(scores, nothing_learnt);

        let bytes = graph.graph_bytes();
        let restored = Graph::restore(Network::Regtest, Some(bytes), Some(scores.clone()));
        assert_eq!(restored.size(), (1, 2));
        assert!(route(&restored).is_some());
        assert_eq!(restored.scorer_bytes(), scores);
    }

    #[tokio::test]
    async fn a_graph_that_is_damaged_or_of_another_network_is_begun_anew() {
        let bytes = graph_with_a_channel().await.graph_bytes();
        let size = |network, bytes: &[u8]| {
            Graph::restore(network, Some(bytes.to_vec()), Some(b"scores".to_vec())).size()
        };
        assert_eq!(size(Network::Regtest, &bytes), (1, 2));
        assert_eq!(size(Network::Signet, &bytes), (0, 0));
        assert_eq!(size(Network::Regtest, &bytes[..bytes.len() - 1]), (0, 0));
        assert_eq!(size(Network::Regtest, &[]), (0, 0));
        let mut counts_billions = bytes.clone();
        counts_billions[HEADER_LEN + 2 + 32] = 0xff;
        assert_eq!(size(Network::Regtest, &counts_billions), (0, 0));
    }

    #[tokio::test]
    async fn a_channel_nobody_speaks_of_is_pruned() {
        let graph = graph_with_a_channel().await;
        graph.prune(now_unix_s());
        assert_eq!(graph.size(), (1, 2));
        graph.prune(now_unix_s() + 15 * 24 * 3_600);
        assert_eq!(graph.size(), (0, 0));
    }
}
