//! A graph that takes in the gossip of one channel.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bitcoin::constants::ChainHash;
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::secp256k1::{Message, PublicKey, Secp256k1, SecretKey, ecdsa::Signature};
use bitcoin::{Amount, BlockHash, Network, OutPoint, Transaction, TxOut, Txid};
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
use lightning::util::ser::Writeable;
use longhand_chain::{
    BlockRef, BroadcastAnswer, ChainError, FeeRates, FiltersReply, FiltersRequest, HeadersReply,
    HeadersRequest, OutputLookup, Proof, ScanError, ScanReply, ScanRequest, Subscription,
    WatchList,
};
use tokio::sync::oneshot;

use super::funding::LOOKUP_TIMEOUT;
use super::sealed::HEADER_LEN;
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
impl OutputLookup for OneChannel {
    async fn unspent(&self, outpoint: &OutPoint) -> Result<Option<TxOut>, ChainError> {
        let ours = outpoint.txid == self.funding.compute_txid() && !self.spent;
        let output = self.funding.output.get(outpoint.vout as usize);
        Ok(output.filter(|_| ours).cloned())
    }
    async fn block_txids(&self, height: u32) -> Result<Option<Vec<Txid>>, ChainError> {
        if !self.answers {
            std::future::pending::<()>().await;
        }
        let other = Txid::all_zeros();
        Ok((height == 100).then(|| vec![other, other, self.funding.compute_txid()]))
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
    fn broadcast(&self, _: PublicKey, _: Vec<Transaction>) {}
    fn broadcast_answer(&self, _: PublicKey, _: Txid) -> oneshot::Receiver<BroadcastAnswer> {
        oneshot::channel().1
    }
    async fn scan(&self, request: ScanRequest) -> Result<ScanReply, ScanError> {
        Err(ScanError::Source {
            height: request.tip.height,
            error: ChainError::NotFound("block".into()),
        })
    }
    async fn headers(&self, _: HeadersRequest) -> Result<HeadersReply, ChainError> {
        Err(ChainError::NotFound("block".into()))
    }
    async fn filters(&self, _: FiltersRequest) -> Result<FiltersReply, ChainError> {
        Err(ChainError::NotFound("block".into()))
    }
    async fn proof(&self, _: BlockHash, _: Txid) -> Result<Proof, ChainError> {
        Err(ChainError::NotFound("block".into()))
    }
    fn outputs(&self) -> Arc<dyn OutputLookup> {
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
        "no channel is in the graph before its funding output was looked up"
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
async fn query_short_channel_ids_is_answered_with_what_is_known_and_then_the_end() {
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
    let answered = ask(Network::Regtest);
    let expected = [
        (256, announcement(Network::Regtest).encode()),
        (258, update(0).encode()),
        (258, update(1).encode()),
        (262, end(Network::Regtest, true).encode()),
    ];
    let types = |messages: &[(u16, Vec<u8>)]| messages.iter().map(|(t, _)| *t).collect::<Vec<_>>();
    assert_eq!(types(&answered), types(&expected));
    assert_eq!((&answered[0], &answered[3]), (&expected[0], &expected[3]));
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
async fn a_lookup_that_the_chain_does_not_answer_ends_after_its_timeout() {
    let silent = OneChannel {
        answers: false,
        ..OneChannel::new()
    };
    let asked = tokio::time::Instant::now();
    assert_eq!(gossip(silent).await.0.size(), (0, 0));
    assert!(asked.elapsed() >= LOOKUP_TIMEOUT);
}

#[tokio::test]
async fn a_node_that_panics_in_the_scores_stops_no_payment_of_another() {
    let graph = graph_with_a_channel().await;
    let update = AssertUnwindSafe(|| graph.update_scores(|_| panic!("of a test")));
    assert!(catch_unwind(update).is_err());
    assert!(route(&graph).is_some());
    graph.prune(now_unix_s());
}

#[tokio::test]
async fn a_stored_graph_comes_back_with_its_scores() {
    let graph = graph_with_a_channel().await;
    let nothing_learnt = graph.scorer_bytes();
    let path = route(&graph).unwrap().paths.remove(0);
    let now = Duration::from_secs(now_unix_s());
    graph.update_scores(|scores| scores.payment_path_failed(&path, SCID, now));
    let scores = graph.scorer_bytes();
    assert_ne!(scores, nothing_learnt);

    let bytes = graph.graph_bytes();
    let restored = Graph::restore(Network::Regtest, Some(bytes), Some(scores.clone()));
    assert_eq!(restored.size(), (1, 2));
    assert!(route(&restored).is_some());
    assert_eq!(restored.scorer_bytes(), scores);
}

#[tokio::test]
async fn a_graph_that_is_damaged_or_of_another_network_is_replaced_by_an_empty_one() {
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
async fn a_channel_without_updates_for_two_weeks_is_pruned() {
    let graph = graph_with_a_channel().await;
    graph.prune(now_unix_s());
    assert_eq!(graph.size(), (1, 2));
    graph.prune(now_unix_s() + 15 * 24 * 3_600);
    assert_eq!(graph.size(), (0, 0));
}

#[test]
fn of_a_nodes_announced_addresses_those_of_tcp_are_dialled_before_onion_services() {
    let onion = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion:9735";
    let parsed = [onion, "1.2.3.4:9735", "peer.example:9736"];
    let mut announced: Vec<SocketAddress> = parsed.map(|it| it.parse().unwrap()).to_vec();
    // Version 2 is gone from the Tor network.
    announced.push(SocketAddress::OnionV2([1; 12]));
    assert_eq!(
        dialable(&announced),
        ["1.2.3.4:9735", "peer.example:9736", onion]
    );
}
