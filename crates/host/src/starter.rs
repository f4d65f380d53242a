//! Start of nodes: the hub and the owners' nodes, each by itself, as soon as the chain source is reached.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use longhand_node::{Graph, Keys, Node, NodeConfig, Services};
use longhand_store::Store;
use tokio::sync::Semaphore;

use crate::changes::Kind;
use crate::config::HostConfig;
use crate::hosted::{HostedNode, Phase};
use crate::hub::Hub;
use crate::switchboard::Switchboard;
use crate::tasks::Tasks;
use crate::watcher::NodeWatcher;

/// Pause before a node is started again after its chain source or its database failed; each time twice as long, up to
/// the second.
const START_PAUSE: Duration = Duration::from_secs(1);
const START_PAUSE_MOST: Duration = Duration::from_secs(30);
/// Owners' nodes that are loaded at once.
const LOADED_AT_ONCE: usize = 8;

/// Starts nodes.
pub(crate) struct NodeStarter {
    config: Arc<HostConfig>,
    store: Arc<dyn Store>,
    graph: Arc<Graph>,
    hub: Arc<Hub>,
    switchboard: Arc<Switchboard>,
    watcher: Arc<NodeWatcher>,
    tasks: Arc<Tasks>,
    loading: Semaphore,
}

impl NodeStarter {
    pub fn new(
        config: Arc<HostConfig>,
        store: Arc<dyn Store>,
        graph: Arc<Graph>,
        hub: Arc<Hub>,
        switchboard: Arc<Switchboard>,
        watcher: Arc<NodeWatcher>,
        tasks: Arc<Tasks>,
    ) -> NodeStarter {
        NodeStarter {
            config,
            store,
            graph,
            hub,
            switchboard,
            watcher,
            tasks,
            loading: Semaphore::new(LOADED_AT_ONCE),
        }
    }

    /// Starts the hub, in a task.
    pub fn start_hub(self: &Arc<Self>) {
        let starter = self.clone();
        self.tasks.spawn(async move { starter.load_hub().await });
    }

    /// Starts an owner's node, in a task. Nothing happens when no keys are registered, or when it is started already.
    pub fn start(self: &Arc<Self>, hosted: &Arc<HostedNode>) {
        let Some(node_id) = hosted.record().node_id() else {
            return;
        };
        self.switchboard.add(node_id);
        if hosted.begin() {
            let (starter, hosted) = (self.clone(), hosted.clone());
            self.tasks
                .spawn(async move { starter.load(&hosted, node_id).await });
        }
    }

    async fn load_hub(&self) {
        self.watcher.tip().await;
        let config = || self.hub.node_config(&self.config);
        let phase = self.run(self.hub.node_id(), config).await;
        match &phase {
            Phase::Running(node) => {
                tracing::info!(node_id = %node.node_id(), "the hub runs");
                let accepting = node.clone();
                let accept = Arc::new(move |from, stream| accepting.accept_hosted(from, stream));
                self.switchboard.open(node.node_id(), accept);
                self.watcher.watch_hub(node);
            }
            Phase::Failed(reason) => tracing::error!(%reason, "the hub cannot be started"),
            Phase::Waiting | Phase::Unregistered => {}
        }
        if self.hub.started(phase.clone()) {
            self.report("", &phase);
        }
    }

    async fn load(&self, hosted: &Arc<HostedNode>, node_id: PublicKey) {
        self.watcher.tip().await;
        let Ok(_turn) = self.loading.acquire().await else {
            return;
        };
        let record = hosted.record();
        let Some(registration) = &record.registration else {
            return;
        };
        let config = || NodeConfig {
            hub: Some(self.hub.node_id()),
            accepts_keysend: self.config.peer.accept_keysend,
            ..NodeConfig::new(
                record.namespace(),
                self.config.network,
                Keys::Remote(Box::new(registration.clone())),
            )
        };
        let phase = self.run(node_id, config).await;
        match &phase {
            Phase::Running(node) => {
                tracing::info!(owner = hosted.name, %node_id, "a node runs");
                self.watcher.watch(hosted, node).await;
            }
            Phase::Failed(reason) => {
                tracing::error!(owner = hosted.name, %reason, "a node cannot be started");
            }
            Phase::Waiting | Phase::Unregistered => {}
        }
        if hosted.started(phase.clone()) {
            self.report(&hosted.name, &phase);
        }
    }

    /// Reports the end of a start: after the phase is set, so that whoever reads the change finds it in the lists.
    fn report(&self, owner: &str, phase: &Phase) {
        match phase {
            Phase::Running(_) => self.watcher.changes.report(Kind::NodeStarted, owner, ""),
            Phase::Failed(reason) => self.watcher.changes.report(Kind::NodeFailed, owner, reason),
            Phase::Waiting | Phase::Unregistered => {}
        }
    }

    /// Starts a node; tries again while the chain source or the database fails.
    async fn run(&self, node_id: PublicKey, config: impl Fn() -> NodeConfig) -> Phase {
        let mut pause = START_PAUSE;
        loop {
            let services = Services {
                store: self.store.clone(),
                chain: self.watcher.chain.clone(),
                graph: self.graph.clone(),
                dialer: self.switchboard.dialer(node_id),
            };
            match Node::start(config(), services).await {
                Ok(node) => return Phase::Running(node),
                // As a running node does: a chain source or a disk that fails now may work later.
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
