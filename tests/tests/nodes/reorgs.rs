//! Changes of the chain while a node is down: reorganisations that it does not see, and many blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{BlockHash, Transaction, Txid};
use longhand_chain::{
    BlockRef, BroadcastAnswer, Chain, ChainError, ChainEvent, FeeRates, FiltersReply,
    FiltersRequest, Follower, HeadersReply, HeadersRequest, OutputLookup, Proof, ScanError,
    ScanReply, ScanRequest, Subscription, WatchList,
};
use longhand_node::Services;
use longhand_proto::command::GetInfo;
use longhand_proto::command::command::Command as Kind;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::payment::State;
use longhand_testkit::nodes::{Owner, World, ask, pay, settle, usable};
use longhand_testkit::until;
use tokio::sync::{mpsc, oneshot};

/// Blocks until a channel is ready.
const DEPTH: u32 = 3;
const CHANNEL_SAT: u64 = 1_000_000;

/// Bob has a channel, whose monitor is stored with an older block than the rest of his node. Another's funding has some
/// confirmations when his node goes down, and none when it comes back.
async fn world_with_a_funding_that_was_moved(confirmations: u32) -> (World, Owner) {
    let world = World::new().await;
    let bob = world.owner("bob", 2).await;
    bob.attach();
    world.open(&world.hub, &bob.node, CHANNEL_SAT, 0).await;
    world
        .begin_to_open(&world.hub, &bob.node, 2 * CHANNEL_SAT, 0)
        .await;
    for _ in 0..confirmations {
        world.mine(1).await;
        settle().await;
    }
    bob.node.stop().await;

    world.devnet.reorg(confirmations, Vec::new()).unwrap();
    let bob = Owner {
        node: world.start(&bob.name, &bob.phone).await,
        ..bob
    };
    bob.attach();
    (world, bob)
}

/// Found by `longhand-sim --scenario open-by-hub --seed 117720 --at store:13:unheard:now --at chain:7:reorg2:now`: the
/// node went on with a funding in a block that was in the chain no more, and with the channel's old short channel id.
#[tokio::test(flavor = "multi_thread")]
async fn a_funding_that_is_moved_while_a_node_is_down_is_where_it_is_now() {
    for confirmations in 1..DEPTH {
        let (world, bob) = world_with_a_funding_that_was_moved(confirmations).await;
        world.mine(2 * DEPTH).await;
        until("both channels are usable", async || {
            usable(&bob.node).await == 2 && usable(&world.hub).await == 2
        })
        .await;
        // More than the first channel can carry.
        let invoice = bob.invoice((CHANNEL_SAT + 100_000) * 1000).await;
        assert_eq!(pay(&world.hub, &invoice).await.state(), State::Succeeded);
    }
}

/// Found by `longhand-sim --scenario open-by-hub --seed 2933 --at store:22:fails:grace --at chain:1:reorg1:now`: a monitor was
/// stored with a block that was reorganised out of the chain since, though its node had received that, and later
/// blocks.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_not_closed_because_its_monitor_was_stored_with_a_block_that_is_gone() {
    // LDK writes a monitor with one block in five, by its channel's id: of the four blocks here, often one.
    for _ in 0..12 {
        let world = World::new().await;
        let bob = world.owner("bob", 2).await;
        bob.attach();
        world
            .begin_to_open(&world.hub, &bob.node, CHANNEL_SAT, 0)
            .await;
        world.devnet.reorg(1, Vec::new()).unwrap();
        world.mine_seen_by(&bob.node, DEPTH).await;
        until("the channel is usable", async || {
            usable(&bob.node).await == 1 && usable(&world.hub).await == 1
        })
        .await;
        bob.node.stop().await;

        let node = world.start(&bob.name, &bob.phone).await;
        node.attach(bob.phone.clone());
        until("the channel is usable again", async || {
            usable(&node).await == 1 && usable(&world.hub).await == 1
        })
        .await;
    }
}

/// A chain whose source goes away between two blocks: a node receives the first, and no `Synced` after it.
#[derive(Clone)]
struct Interrupted {
    follower: Arc<Follower>,
    is_interrupted: Arc<AtomicBool>,
    /// The height after which the node's last subscription began.
    began: Arc<AtomicU32>,
}

impl Interrupted {
    fn new(world: &World, is_interrupted: bool) -> Interrupted {
        Interrupted {
            follower: world.follower.clone(),
            is_interrupted: Arc::new(is_interrupted.into()),
            began: Arc::default(),
        }
    }
}

#[async_trait]
impl Chain for Interrupted {
    async fn subscribe(
        &self,
        from: BlockRef,
        initial: WatchList,
    ) -> Result<Subscription, ChainError> {
        self.began.store(from.height, Ordering::SeqCst);
        let mut subscribed = self.follower.subscribe(from, initial).await?;
        let (sender, events) = mpsc::unbounded_channel();
        let chain = self.clone();
        tokio::spawn(async move {
            while let Some(event) = subscribed.events.recv().await {
                let is_rest = matches!(event, ChainEvent::Synced { .. });
                let is_lost = is_rest && chain.is_interrupted.load(Ordering::SeqCst);
                if !is_lost && sender.send(event).is_err() {
                    return;
                }
            }
        });
        Ok(Subscription {
            events,
            watch: subscribed.watch,
        })
    }

    fn tip(&self) -> Option<BlockRef> {
        self.follower.tip()
    }

    fn fee_rates(&self) -> FeeRates {
        self.follower.fee_rates()
    }

    fn broadcast(&self, node: PublicKey, package: Vec<Transaction>) {
        self.follower.broadcast(node, package);
    }

    fn broadcast_answer(&self, node: PublicKey, txid: Txid) -> oneshot::Receiver<BroadcastAnswer> {
        self.follower.broadcast_answer(node, txid)
    }

    async fn scan(&self, request: ScanRequest) -> Result<ScanReply, ScanError> {
        self.follower.scan(request).await
    }

    async fn filters(&self, request: FiltersRequest) -> Result<FiltersReply, ChainError> {
        self.follower.filters(request).await
    }

    async fn headers(&self, request: HeadersRequest) -> Result<HeadersReply, ChainError> {
        self.follower.headers(request).await
    }

    async fn proof(&self, block: BlockHash, txid: Txid) -> Result<Proof, ChainError> {
        self.follower.proof(block, txid).await
    }

    fn outputs(&self) -> Arc<dyn OutputLookup> {
        self.follower.outputs()
    }
}

/// Found by reading: the state stored with a transaction was ahead of the block with which the stream begins after a
/// start, and LDK got no notice that the transaction's block had left the chain. LDK panics when it comes in another.
#[tokio::test(flavor = "multi_thread")]
async fn a_close_that_moves_to_another_block_while_a_node_is_down_does_not_end_it() {
    let world = World::new().await;
    let chain = Interrupted::new(&world, false);
    let bob = world.owner_on(Arc::new(chain.clone()), "bob", 2).await;
    bob.attach();
    let pushed_msat = 400_000_000;
    let channel_id = world
        .open(&world.hub, &bob.node, CHANNEL_SAT, pushed_msat)
        .await;
    world.hub_closes(channel_id).await;
    chain.is_interrupted.store(true, Ordering::SeqCst);
    world.mine_seen_by(&bob.node, 1).await;
    bob.node.stop().await;

    world.devnet.reorg(1, Vec::new()).unwrap();
    let bob = Owner {
        node: world.start(&bob.name, &bob.phone).await,
        ..bob
    };
    bob.attach();
    world
        .mine_until("all of it is the owner's", async || {
            settle().await;
            let overview = bob.overview().await;
            overview.closing_sat == 0 && overview.onchain_pending_sat == 0
        })
        .await;
    let overview = bob.overview().await;
    assert!(overview.onchain_sat > 390_000, "{}", overview.onchain_sat);
    assert_eq!(overview.restarts, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_while_it_catches_up_does_not_begin_anew() {
    let world = World::new().await;
    let bob = world.owner("bob", 2).await;
    bob.node.stop().await;
    let height = world.devnet.tip().height;
    world.mine(150).await;
    let chain = Interrupted::new(&world, true);
    let start = || {
        let services = Services {
            chain: Arc::new(chain.clone()),
            ..world.services()
        };
        world.start_with(services, &bob.name, &bob.phone)
    };
    let node = start().await;
    until("it has received all blocks", async || {
        let info = ask(&node, Kind::GetInfo(GetInfo {})).await;
        matches!(info, Reply::Info(info) if info.block_height == height + 150)
    })
    .await;
    node.stop().await;

    let node = start().await;
    assert_eq!(chain.began.load(Ordering::SeqCst), height + 100);
    node.stop().await;
}
