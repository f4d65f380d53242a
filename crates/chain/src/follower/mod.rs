//! The follower: one task that polls a source for all nodes of a host.
//!
//! Every subscriber has a cursor, the last block of its events. Subscribers with the same cursor move together:
//! `sync` fetches the next block once for all of them, `index` finds the subscribers that watch something in it, and
//! each gets its events. A new subscriber begins at its own last block, behind the others, and joins those whose
//! cursor it reaches. `broadcast` sends transactions until the source knows them. `headers` and `filters` are for signers
//! that check the chain.

mod broadcast;
mod fees;
mod filters;
mod headers;
mod index;
mod packages;
mod recent;
mod sync;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{BlockHash, OutPoint, ScriptBuf, Transaction, Txid};
use longhand_spv::Proof;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::fees::Fees;
use self::filters::FilterServer;
use self::headers::HeaderServer;
pub(crate) use self::index::Index;
use self::index::SubscriberId;
use crate::{
    BlockRef, BroadcastAnswer, Chain, ChainError, ChainEvent, ChainSource, FeeRates, FiltersReply,
    FiltersRequest, HeadersReply, HeadersRequest, OutputLookup, ScanError, ScanReply, ScanRequest,
    SourceHealth, Subscription, Watch, WatchList, scan,
};

/// How a [`Follower`] is run.
#[derive(Clone, Debug)]
pub struct FollowerConfig {
    /// How often the source is asked for its tip.
    pub poll_interval: Duration,
    /// The fee rate of everything when the source has had no estimate for an hour, in satoshis per 1,000 weight units.
    pub fallback_sat_per_kw: u32,
}

impl Default for FollowerConfig {
    /// Once a second; 1 sat/vB.
    fn default() -> FollowerConfig {
        FollowerConfig {
            poll_interval: Duration::from_secs(1),
            fallback_sat_per_kw: FeeRates::FLOOR.normal,
        }
    }
}

/// Follows one source for all nodes of a host. Dropping it closes every subscription.
///
/// A source that is down is waited for, at start and later. One that is merely behind (its tip is an ancestor of the
/// blocks that subscribers know) is waited for as well: blocks leave the chain only when others replace them.
pub struct Follower {
    shared: Arc<Shared>,
    broadcasts: Arc<broadcast::Queue>,
    tasks: Vec<JoinHandle<()>>,
}

/// State shared by the follower, its tasks and its subscribers.
struct Shared {
    source: ChainSource,
    subscribers: Mutex<Subscribers>,
    status: Mutex<Status>,
    /// Notified to poll now.
    wake: Notify,
    /// The tip; a change is a new block.
    tips: watch::Sender<Option<BlockRef>>,
    /// One search of past blocks at a time, in the order of the requests.
    scans: Semaphore,
    headers: HeaderServer,
    filters: FilterServer,
}

#[derive(Default)]
struct Subscribers {
    next_id: SubscriberId,
    index: Index,
    by_id: HashMap<SubscriberId, Subscriber>,
}

struct Subscriber {
    events: mpsc::UnboundedSender<ChainEvent>,
    /// The last block of its events.
    cursor: BlockRef,
    /// The tip of its last `Synced`.
    synced_at: Option<BlockRef>,
}

struct Status {
    fees: Fees,
    health: SourceHealth,
    reachable: bool,
}

impl Follower {
    /// Starts to follow `source`; waits for it when it is down. Must be called within a tokio runtime.
    pub fn start(source: impl Into<ChainSource>, config: FollowerConfig) -> Follower {
        let shared = Arc::new(Shared {
            source: source.into(),
            subscribers: Mutex::default(),
            status: Mutex::new(Status {
                fees: Fees::new(config.fallback_sat_per_kw),
                health: SourceHealth::default(),
                reachable: false,
            }),
            wake: Notify::new(),
            tips: watch::Sender::new(None),
            scans: Semaphore::new(1),
            headers: HeaderServer::new(),
            filters: FilterServer::new(),
        });
        let broadcasts = Arc::new(broadcast::Queue::default());
        let tasks = vec![
            tokio::spawn(sync::run(shared.clone(), config.poll_interval)),
            tokio::spawn(broadcast::run(
                shared.source.relay.clone(),
                shared.tips.subscribe(),
                broadcasts.clone(),
            )),
        ];
        Follower {
            shared,
            broadcasts,
            tasks,
        }
    }

    /// Polls the source now.
    pub fn poke(&self) {
        self.shared.wake.notify_one();
    }

    /// Whether the source answered the last poll.
    pub fn reachable(&self) -> bool {
        self.shared.status().reachable
    }

    /// The state that the source last reported of itself.
    pub fn source_health(&self) -> SourceHealth {
        self.shared.status().health
    }

    /// The tip of the last poll, and every later one.
    pub fn tips(&self) -> watch::Receiver<Option<BlockRef>> {
        self.shared.tips.subscribe()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        // Subscribers see their channel of events closed, also when their `Watch` outlives the follower.
        self.shared.subscribers().by_id.clear();
    }
}

#[async_trait]
impl Chain for Follower {
    /// Never waits and never fails: a source that is down is waited for by the follower.
    async fn subscribe(
        &self,
        from: BlockRef,
        initial: WatchList,
    ) -> Result<Subscription, ChainError> {
        let (sender, events) = mpsc::unbounded_channel();
        let id = {
            let mut subscribers = self.shared.subscribers();
            let id = subscribers.next_id;
            subscribers.next_id += 1;
            subscribers.index.add(id, initial);
            let subscriber = Subscriber {
                events: sender,
                cursor: from,
                synced_at: None,
            };
            subscribers.by_id.insert(id, subscriber);
            id
        };
        self.poke();
        let watch = Arc::new(Watcher {
            shared: Arc::downgrade(&self.shared),
            id,
        });
        Ok(Subscription { events, watch })
    }

    fn tip(&self) -> Option<BlockRef> {
        *self.shared.tips.borrow()
    }

    fn fee_rates(&self) -> FeeRates {
        self.shared.status().fees.rates(Instant::now())
    }

    fn broadcast(&self, node: PublicKey, package: Vec<Transaction>) {
        self.broadcasts.add(node, package);
    }

    fn broadcast_answer(&self, node: PublicKey, txid: Txid) -> oneshot::Receiver<BroadcastAnswer> {
        self.broadcasts.answer(node, txid)
    }

    async fn scan(&self, request: ScanRequest) -> Result<ScanReply, ScanError> {
        let _permit = self.shared.scans.acquire().await;
        scan(&*self.shared.source.blocks, &request).await
    }

    async fn headers(&self, request: HeadersRequest) -> Result<HeadersReply, ChainError> {
        let blocks = &*self.shared.source.blocks;
        let tip = self.shared.known_tip()?;
        self.shared.headers.after(blocks, tip, &request).await
    }

    async fn filters(&self, request: FiltersRequest) -> Result<FiltersReply, ChainError> {
        let Shared {
            source,
            headers,
            filters,
            ..
        } = &*self.shared;
        let tip = self.shared.known_tip()?;
        filters.from(&*source.blocks, headers, tip, &request).await
    }

    async fn proof(&self, block: BlockHash, txid: Txid) -> Result<Proof, ChainError> {
        let blocks = &*self.shared.source.blocks;
        self.shared.headers.prove(blocks, block, txid).await
    }

    fn outputs(&self) -> Arc<dyn OutputLookup> {
        self.shared.source.outputs.clone()
    }
}

impl Shared {
    fn subscribers(&self) -> MutexGuard<'_, Subscribers> {
        self.subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The tip, for answers that end with it.
    fn known_tip(&self) -> Result<BlockRef, ChainError> {
        let tip = *self.tips.borrow();
        tip.ok_or_else(|| ChainError::NotFound("its own tip yet".into()))
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The [`Watch`] of one subscriber.
struct Watcher {
    shared: Weak<Shared>,
    id: SubscriberId,
}

impl Watcher {
    fn with_index(&self, add: impl FnOnce(&mut Index, SubscriberId)) {
        let Some(shared) = self.shared.upgrade() else {
            return;
        };
        let mut subscribers = shared.subscribers();
        // An entry of a subscriber that is removed already would stay in the index for ever.
        if subscribers.by_id.contains_key(&self.id) {
            add(&mut subscribers.index, self.id);
        }
    }
}

impl Watch for Watcher {
    fn outpoint(&self, outpoint: OutPoint) {
        self.with_index(|index, id| index.outpoint(id, outpoint));
    }

    fn script(&self, script: ScriptBuf) {
        self.with_index(|index, id| index.script(id, script));
    }

    fn txid(&self, txid: Txid) {
        self.with_index(|index, id| index.txid(id, txid));
    }
}

impl std::fmt::Debug for Watcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Watcher({})", self.id)
    }
}
