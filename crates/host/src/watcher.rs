//! Events of running nodes, and blocks: calls to phones, metrics and the log at each.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use longhand_chain::{BlockRef, Chain, ChainEvent, Follower, WatchList};
use longhand_node::{Node, NodeEvent};
use tokio::sync::broadcast;

use crate::changes::{Changes, Kind};
use crate::files::to_hex;
use crate::hosted::{HostedNode, HostedNodes, overview_in_time};
use crate::hub::Hub;
use crate::metrics::Metrics;
use crate::switchboard::Switchboard;
use crate::tasks::Tasks;
use crate::wake::Wakes;

/// How often the chain source is asked for its tip until it has one.
const CHAIN_POLL: Duration = Duration::from_millis(100);
/// Pause after the chain source has refused a subscription.
const CHAIN_PAUSE: Duration = Duration::from_secs(1);
/// Nodes that are asked for their deadlines at once.
const OVERVIEWS: usize = 32;

/// Watches the nodes that run, and the chain.
pub(crate) struct NodeWatcher {
    pub chain: Arc<Follower>,
    pub hub: Arc<Hub>,
    pub switchboard: Arc<Switchboard>,
    pub nodes: Arc<HostedNodes>,
    pub wakes: Arc<Wakes>,
    pub metrics: Metrics,
    pub changes: Arc<Changes>,
    pub tasks: Arc<Tasks>,
}

impl NodeWatcher {
    /// The chain's tip, as soon as the source has one.
    pub async fn tip(&self) -> BlockRef {
        loop {
            match self.chain.tip() {
                Some(tip) => return tip,
                None => tokio::time::sleep(CHAIN_POLL).await,
            }
        }
    }

    /// Watches the hub's events for as long as it runs.
    pub fn watch_hub(self: &Arc<Self>, hub: &Node) {
        let (watcher, mut events) = (self.clone(), hub.events());
        self.tasks.spawn(async move {
            while let Some(event) = next(&mut events).await {
                watcher.on_hub_event(event);
            }
        });
    }

    /// Watches the events of an owner's node for as long as it runs.
    pub async fn watch(self: &Arc<Self>, hosted: &Arc<HostedNode>, node: &Node) {
        let (watcher, hosted_node, mut events) = (self.clone(), hosted.clone(), node.events());
        self.tasks.spawn(async move {
            while let Some(event) = next(&mut events).await {
                watcher.on_owner_event(&hosted_node, event);
            }
        });
        // A deadline that it reported before comes again with the next block only, which may be too late to call.
        if let Some(tip) = self.chain.tip() {
            let overview = overview_in_time(node).await;
            if let Some(deadline) = overview.and_then(|now| now.earliest_deadline) {
                self.wakes.htlc_in_flight(hosted, tip.height, deadline);
            }
        }
    }

    /// Follows the chain until the host ends.
    pub async fn follow_chain(self: Arc<Self>) {
        loop {
            let tip = self.tip().await;
            let mut subscription = match self.chain.subscribe(tip, WatchList::default()).await {
                Ok(subscription) => subscription,
                Err(error) => {
                    tracing::warn!(%error, "the host waits for the chain source");
                    tokio::time::sleep(CHAIN_PAUSE).await;
                    continue;
                }
            };
            self.at_height(tip.height).await;
            while let Some(event) = subscription.events.recv().await {
                if let ChainEvent::Synced { tip } = event {
                    self.at_height(tip.height).await;
                }
            }
        }
    }

    /// Looks at every deadline.
    async fn at_height(&self, height: u32) {
        self.metrics.chain_height.set(height.into());
        self.wakes.at_height(height);
        futures::stream::iter(self.nodes.all())
            .for_each_concurrent(OVERVIEWS, |node| async move {
                let overview = node.overview().await;
                if let Some(deadline) = overview.and_then(|now| now.earliest_deadline) {
                    self.wakes.htlc_in_flight(&node, height, deadline);
                }
            })
            .await;
    }

    fn on_hub_event(&self, event: NodeEvent) {
        match event {
            NodeEvent::Restarted => {
                self.on_restart("hub");
                self.changes.report(Kind::NodeRestarted, "", "");
            }
            NodeEvent::Failed(reason) => {
                self.switchboard.hang_up(self.hub.node_id());
                self.hub.fail(reason.clone());
                self.changes.report(Kind::NodeFailed, "", reason);
            }
            NodeEvent::PaymentsHeld(peers) => self.wakes.payments_held(&peers),
            NodeEvent::HeldForwarded(node_ids) => self.wakes.forwarded(&node_ids),
            NodeEvent::HeldFailed(node_id) => {
                tracing::info!(%node_id, "payments held for a phone that did not come were failed back");
                self.metrics.held_failed.inc();
            }
            NodeEvent::PeersNeeded(peers) => {
                let Some(tip) = self.chain.tip() else {
                    return;
                };
                for peer in peers {
                    if let Some(node) = self.nodes.of_node(&peer.node_id) {
                        let deadline = peer.deadline_height;
                        self.wakes.htlc_in_flight(&node, tip.height, deadline);
                    }
                }
            }
            NodeEvent::State(_) | NodeEvent::SignerNeeded { .. } | NodeEvent::HtlcLost { .. } => {}
        }
    }

    fn on_owner_event(&self, node: &HostedNode, event: NodeEvent) {
        match event {
            NodeEvent::Restarted => {
                self.on_restart(&node.name);
                self.changes.report(Kind::NodeRestarted, &node.name, "");
            }
            NodeEvent::Failed(reason) => {
                node.fail(reason.clone());
                self.changes.report(Kind::NodeFailed, &node.name, reason);
            }
            NodeEvent::State(state) => {
                tracing::debug!(owner = node.name, ?state, "state");
                node.set_state(state);
            }
            NodeEvent::SignerNeeded { deadline_height } => {
                if let Some(tip) = self.chain.tip() {
                    self.wakes.htlc_in_flight(node, tip.height, deadline_height);
                }
            }
            NodeEvent::HtlcLost {
                payment_hash,
                amount_msat,
                deadline_height,
            } => {
                tracing::error!(
                    owner = node.name,
                    payment_hash = to_hex(&payment_hash),
                    amount_msat,
                    deadline_height,
                    "an HTLC was lost: the phone was not there to claim it before its deadline"
                );
                self.metrics.htlcs_lost.inc();
                self.metrics.lost_msat.inc_by(amount_msat);
            }
            // Of hubs alone.
            NodeEvent::PaymentsHeld(_)
            | NodeEvent::HeldForwarded(_)
            | NodeEvent::HeldFailed(_)
            | NodeEvent::PeersNeeded(_) => {}
        }
    }

    fn on_restart(&self, owner: &str) {
        tracing::error!(
            owner,
            "a panic was caught: the node was loaded again from its store"
        );
        self.metrics.restarts.inc();
    }
}

/// The next event; `None` when the node has ended. Events that were missed are repeated with the next block.
async fn next(events: &mut broadcast::Receiver<NodeEvent>) -> Option<NodeEvent> {
    loop {
        match events.recv().await {
            Ok(event) => return Some(event),
            Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return None,
        }
    }
}
