//! What all tasks of a host share, and how its nodes are started and listened to.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use futures::StreamExt;
use longhand_chain::{BlockRef, Chain, ChainEvent, Follower, WatchList};
use longhand_link::{Conversation, LinkKeypair};
use longhand_node::{
    Graph, Keys, Node, NodeConfig, NodeEvent, PeerNeeded, PeerStream, Services, State,
};
use longhand_store::Store;
use tokio::sync::{Semaphore, broadcast, watch};
use tokio::task::JoinSet;
use zeroize::Zeroizing;

use crate::Addresses;
use crate::config::HostConfig;
use crate::dialer::HostDialer;
use crate::files;
use crate::hub::{self, Held};
use crate::links;
use crate::metrics::Metrics;
use crate::outside::{Outside, WakeCall, WakeReason};
use crate::owners::{Owner, OwnerError, Owners};
use crate::tenant::{Phase, Tenant, Tenants};
use crate::wake::Wakes;

/// How often it is asked whether the chain source is there yet.
const CHAIN_POLL: Duration = Duration::from_millis(100);
/// Pause before a node is started again that its chain source or its database has failed; each time twice as long, up to
/// the second.
const START_PAUSE: Duration = Duration::from_secs(1);
const START_PAUSE_MOST: Duration = Duration::from_secs(30);
/// Nodes that are loaded at once.
const STARTS: usize = 8;
/// Nodes that are asked for their deadlines at once.
const OVERVIEWS: usize = 32;
/// See [`soon`].
const SOON: Duration = Duration::from_secs(2);

/// What all tasks of a host share.
pub(crate) struct Shared {
    pub config: HostConfig,
    pub store: Arc<dyn Store>,
    pub owners: Owners,
    pub tenants: Arc<Tenants>,
    pub chain: Arc<Follower>,
    pub graph: Arc<Graph>,
    /// The lease under which the graph is kept.
    pub graph_epoch: u64,
    pub hub_seed: Zeroizing<[u8; 32]>,
    pub hub: watch::Sender<Phase>,
    pub held: Held,
    pub wakes: Arc<Wakes>,
    pub metrics: Metrics,
    pub link_key: LinkKeypair,
    /// Where it listens, once it does.
    pub addresses: OnceLock<Addresses>,
    pub outside: Arc<dyn Outside>,
    /// The conversation of links that belong to no owner.
    pub nobody: Conversation,
    /// Connections that have not proved who they are.
    pub handshakes: Arc<Semaphore>,
    pub starts: Semaphore,
    /// Links that become live from now on are closed at once.
    pub stopping: watch::Sender<bool>,
    /// `None` once the host has ended.
    pub tasks: Mutex<Option<JoinSet<()>>>,
}

impl Shared {
    pub fn starts() -> Semaphore {
        Semaphore::new(STARTS)
    }

    /// Runs a task for as long as the host runs.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks();
        let Some(tasks) = tasks.as_mut() else { return };
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended {
                tracing::error!(%error, "a task of the host ended by a panic");
            }
        }
        tasks.spawn(task);
    }

    pub fn tasks(&self) -> MutexGuard<'_, Option<JoinSet<()>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends everything at once and without a word, as if the process was killed. Whoever says something goes first.
    pub fn kill(&self) {
        self.stopping.send_replace(true);
        self.wakes.stop();
        self.held.stop();
        let tenants = self.tenants.all();
        let owners_nodes = tenants.iter().filter_map(|tenant| tenant.node());
        owners_nodes.chain(self.hub()).for_each(|node| node.kill());
        for tenant in tenants {
            tenant.conversation.abandon();
        }
        self.nobody.abandon();
        // Nothing is aborted while it is locked: a task may have something to spawn.
        let tasks = self.tasks().take();
        drop(tasks);
    }

    /// The hub, once it runs.
    pub fn hub(&self) -> Option<Node> {
        self.hub.borrow().node().cloned()
    }

    /// The hub's node id, once it runs.
    pub fn hub_node_id(&self) -> Option<PublicKey> {
        self.hub.borrow().node().map(Node::node_id)
    }

    /// Gives the hub a peer's connection. Without its hub a host has nobody to talk to peers: they try again.
    pub fn take_peer(&self, stream: Box<dyn PeerStream>) {
        if let Some(hub) = self.hub() {
            hub.accept(stream);
        }
    }

    /// Sets up an owner at run time; its node is started when it is registered.
    pub fn add_tenant(self: &Arc<Self>, owner: Owner) -> Result<(), OwnerError> {
        let (conversation, requests) = links::conversation(&self.config)?;
        let tenant = Arc::new(Tenant::new(owner, conversation));
        self.tenants.add(tenant.clone());
        if matches!(*tenant.phase.borrow(), Phase::Waiting) {
            self.spawn(start_owner(self.clone(), tenant.clone()));
        }
        self.spawn(crate::attach::run(self.clone(), tenant, requests));
        Ok(())
    }

    /// Starts the node of an owner that has just been registered; nothing when it is started already.
    pub fn start_node(self: &Arc<Self>, tenant: &Arc<Tenant>) {
        let begins = tenant.phase.send_if_modified(|phase| {
            let begins = matches!(phase, Phase::Unregistered);
            if begins {
                *phase = Phase::Waiting;
            }
            begins
        });
        if begins {
            self.spawn(start_owner(self.clone(), tenant.clone()));
        }
    }

    /// Calls the owner's phone, when it is away and has a wake URL.
    pub fn wake(&self, tenant: &Tenant, reason: WakeReason, deadline_height: u32) {
        let owner = tenant.owner();
        let (Some(url), Some(node_id)) = (&owner.wake_url, owner.node_id()) else {
            return;
        };
        if !*tenant.attached.borrow() {
            let call = WakeCall {
                owner: owner.name,
                node_id,
                reason,
                deadline_height,
            };
            self.wakes.wake(tenant.id, url, call);
        }
    }

    /// Calls the owner's phone for an HTLC, when its deadline is near and has not passed.
    fn wake_for(&self, tenant: &Tenant, height: u32, deadline_height: u32) {
        let near = height.saturating_add(self.config.wake.before_blocks);
        if deadline_height > height && deadline_height <= near {
            self.wake(tenant, WakeReason::Deadline, deadline_height);
        }
    }

    /// Sets what is not counted as it happens.
    pub fn refresh_metrics(&self) {
        let tenants = self.tenants.all();
        self.metrics
            .set_nodes(tenants.iter().map(|tenant| tenant.state()));
        let links = tenants.iter().filter(|tenant| tenant.is_linked()).count();
        self.metrics
            .links
            .set(i64::try_from(links).unwrap_or(i64::MAX));
        self.metrics
            .chain_reachable
            .set(self.chain.reachable().into());
    }

    fn services(self: &Arc<Self>, owner: Option<PublicKey>) -> Services {
        Services {
            store: self.store.clone(),
            chain: self.chain.clone(),
            graph: self.graph.clone(),
            dialer: Arc::new(HostDialer {
                shared: Arc::downgrade(self),
                owner,
            }),
        }
    }

    async fn tip(&self) -> BlockRef {
        loop {
            match self.chain.tip() {
                Some(tip) => return tip,
                None => tokio::time::sleep(CHAIN_POLL).await,
            }
        }
    }

    /// Starts the node of `owner`, or the hub; waits when the chain source is away.
    async fn start(
        self: &Arc<Self>,
        owner: Option<PublicKey>,
        config: impl Fn() -> NodeConfig,
    ) -> Phase {
        let mut pause = START_PAUSE;
        loop {
            match Node::start(config(), self.services(owner)).await {
                Ok(node) => return Phase::Running(node),
                // As a node that runs does: a chain source or a disk that fails now may not in a while.
                Err(error) if error.is_transient() => {
                    tracing::warn!(%error, "a node waits before it is started again");
                }
                Err(error) => return Phase::Failed(error.to_string()),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(START_PAUSE_MOST);
        }
    }
}

/// Starts the hub as soon as the chain is there.
pub(crate) async fn start_hub(shared: Arc<Shared>) {
    shared.tip().await;
    let keys = || Keys::Local(shared.hub_seed.clone());
    let config = || NodeConfig {
        is_hub: true,
        alias: shared.config.hub.alias.clone(),
        announce: shared.config.hub.announce.clone(),
        ..NodeConfig::new(hub::NAMESPACE, shared.config.network, keys())
    };
    let phase = shared.start(None, config).await;
    match &phase {
        Phase::Running(node) => {
            tracing::info!(node_id = %node.node_id(), "the hub runs");
            shared.spawn(listen(Arc::downgrade(&shared), node.events(), None));
        }
        Phase::Failed(reason) => tracing::error!(%reason, "the hub cannot be started"),
        Phase::Waiting | Phase::Unregistered => {}
    }
    set_phase(&shared.hub, phase);
}

/// Starts an owner's node as soon as the chain and the hub are there.
async fn start_owner(shared: Arc<Shared>, tenant: Arc<Tenant>) {
    let phase = match hub_ready(&shared).await {
        Ok(hub) => {
            let Ok(_turn) = shared.starts.acquire().await else {
                return;
            };
            let owner = tenant.owner();
            let (Some(registration), Some(node_id)) = (&owner.registration, owner.node_id()) else {
                return;
            };
            let keys = || Keys::Remote(Box::new(registration.clone()));
            let config = || NodeConfig {
                hub: Some(hub),
                ..NodeConfig::new(owner.namespace(), shared.config.network, keys())
            };
            shared.start(Some(node_id), config).await
        }
        Err(reason) => Phase::Failed(reason),
    };
    match &phase {
        Phase::Running(node) => {
            tracing::info!(owner = tenant.name, node_id = %node.node_id(), "a node runs");
            let (shared_weak, events) = (Arc::downgrade(&shared), node.events());
            shared.spawn(listen(shared_weak, events, Some(tenant.clone())));
            // What it told before it was listened to, it tells with the next block: that may be too late to begin.
            let overview = soon(node.overview()).await;
            let deadline = overview.and_then(|now| now.earliest_deadline);
            if let (Some(deadline), Some(tip)) = (deadline, shared.chain.tip()) {
                shared.wake_for(&tenant, tip.height, deadline);
            }
        }
        Phase::Failed(reason) => {
            tracing::error!(owner = tenant.name, %reason, "a node cannot be started");
        }
        Phase::Waiting | Phase::Unregistered => {}
    }
    set_phase(&tenant.phase, phase);
}

/// Sets where a start has led to; a node that has failed since stays failed.
fn set_phase(sender: &watch::Sender<Phase>, phase: Phase) {
    sender.send_if_modified(|current| {
        let has_failed = matches!(current, Phase::Failed(_));
        if !has_failed {
            *current = phase;
        }
        !has_failed
    });
}

async fn hub_ready(shared: &Shared) -> Result<PublicKey, String> {
    let mut hub = shared.hub.subscribe();
    let ready = hub
        .wait_for(|phase| matches!(phase, Phase::Running(_) | Phase::Failed(_)))
        .await;
    match ready.as_deref() {
        Ok(Phase::Running(node)) => Ok(node.node_id()),
        Ok(Phase::Failed(reason)) => Err(format!("the hub does not run: {reason}")),
        _ => Err("the host is stopping".into()),
    }
}

/// Listens to one node; `tenant` is none for the hub.
async fn listen(
    shared: Weak<Shared>,
    mut events: broadcast::Receiver<NodeEvent>,
    tenant: Option<Arc<Tenant>>,
) {
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(broadcast::error::RecvError::Lagged(_)) => continue,
            Err(broadcast::error::RecvError::Closed) => return,
        };
        let Some(shared) = shared.upgrade() else {
            return;
        };
        take_event(&shared, tenant.as_deref(), event);
    }
}

fn take_event(shared: &Arc<Shared>, tenant: Option<&Tenant>, event: NodeEvent) {
    match (event, tenant) {
        (NodeEvent::Restarted, tenant) => {
            let name = tenant.map_or("hub", |tenant| tenant.name.as_str());
            tracing::error!(
                owner = name,
                "a panic was caught: the node was loaded again from its store"
            );
            shared.metrics.restarts.inc();
        }
        (NodeEvent::Failed(reason), Some(tenant)) => {
            tenant.phase.send_replace(Phase::Failed(reason));
        }
        (NodeEvent::Failed(reason), None) => {
            shared.hub.send_replace(Phase::Failed(reason));
        }
        (NodeEvent::State(state), Some(tenant)) => {
            tracing::debug!(owner = tenant.name, ?state, "state");
            tenant.set_state(state);
            if let (State::Active, Some(node_id)) = (state, tenant.owner().node_id()) {
                shared.held.release(&node_id);
            }
        }
        (NodeEvent::SignerNeeded { deadline_height }, Some(tenant)) => {
            if let Some(tip) = shared.chain.tip() {
                shared.wake_for(tenant, tip.height, deadline_height);
            }
        }
        (NodeEvent::PeersNeeded(peers), None) => {
            let Some(tip) = shared.chain.tip() else {
                return;
            };
            for peer in peers {
                if let Some(tenant) = shared.tenants.of_node(&peer.node_id) {
                    shared.wake_for(&tenant, tip.height, peer.deadline_height);
                }
            }
        }
        (
            NodeEvent::HtlcLost {
                payment_hash,
                amount_msat,
                deadline_height,
            },
            Some(tenant),
        ) => {
            tracing::error!(
                owner = tenant.name,
                payment_hash = files::to_hex(&payment_hash),
                amount_msat,
                deadline_height,
                "an HTLC was lost: the phone was not there to claim it before its deadline"
            );
            shared.metrics.htlcs_lost.inc();
            shared.metrics.lost_msat.inc_by(amount_msat);
        }
        (NodeEvent::PaymentsHeld(peers), None) => {
            for PeerNeeded {
                node_id,
                deadline_height,
            } in peers
            {
                if let Some(tenant) = shared.tenants.of_node(&node_id) {
                    shared.wake(&tenant, WakeReason::Payment, deadline_height);
                }
                hub::hold(shared, node_id, deadline_height);
            }
        }
        (
            NodeEvent::State(_) | NodeEvent::SignerNeeded { .. } | NodeEvent::HtlcLost { .. },
            None,
        )
        | (NodeEvent::PaymentsHeld(_) | NodeEvent::PeersNeeded(_), Some(_)) => {}
    }
}

/// Follows the chain for what the host itself does at each block.
pub(crate) async fn follow_chain(shared: Arc<Shared>) {
    loop {
        let tip = shared.tip().await;
        let mut subscription = match shared.chain.subscribe(tip, WatchList::default()).await {
            Ok(subscription) => subscription,
            Err(error) => {
                tracing::warn!(%error, "the host waits for the chain source");
                tokio::time::sleep(START_PAUSE).await;
                continue;
            }
        };
        at_height(&shared, tip.height).await;
        while let Some(event) = subscription.events.recv().await {
            if let ChainEvent::Synced { tip } = event {
                at_height(&shared, tip.height).await;
            }
        }
    }
}

/// What a node answers at once. One that is being loaded again may take long, and nobody else is to wait for it.
pub(crate) async fn soon<T>(answer: impl Future<Output = Option<T>>) -> Option<T> {
    tokio::time::timeout(SOON, answer).await.ok().flatten()
}

/// Looks at every deadline.
async fn at_height(shared: &Arc<Shared>, height: u32) {
    shared.metrics.chain_height.set(height.into());
    shared.wakes.block(height);
    hub::fail_due(shared, height);
    futures::stream::iter(shared.tenants.all())
        .for_each_concurrent(OVERVIEWS, |tenant| async move {
            let Some(node) = tenant.node() else { return };
            let overview = soon(node.overview()).await;
            let deadline = overview.and_then(|overview| overview.earliest_deadline);
            if let Some(deadline) = deadline {
                shared.wake_for(&tenant, height, deadline);
            }
        })
        .await;
}
