//! The network graph, kept in the store across restarts.
//!
//! The stored graph is a cache: the hub learns the rest again from its peers. It is large on the public network, so it is
//! written seldom, and once more when the host stops.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use longhand_node::Graph;
use longhand_store::{Batch, Store, StoreError, Write};

use crate::clock::now_unix_s;

const NAMESPACE: &str = "graph";
const GRAPH: &str = "graph";
const SCORES: &str = "scores";

/// How often it is pruned and written.
const PERIOD: Duration = Duration::from_secs(3600);

/// The graph of all nodes of the host, and its place in the store.
pub(crate) struct GraphKeeper {
    store: Arc<dyn Store>,
    /// The lease under which it is written.
    epoch: u64,
    graph: Arc<Graph>,
}

impl GraphKeeper {
    /// The graph as it was stored, or an empty one.
    pub async fn load(store: Arc<dyn Store>, network: Network) -> Result<GraphKeeper, StoreError> {
        let epoch = store.take_lease(NAMESPACE).await?;
        let graph = store.get(NAMESPACE, GRAPH).await?;
        let scores = store.get(NAMESPACE, SCORES).await?;
        Ok(GraphKeeper {
            graph: Arc::new(Graph::restore(network, graph, scores)),
            store,
            epoch,
        })
    }

    /// The graph itself.
    pub fn graph(&self) -> Arc<Graph> {
        self.graph.clone()
    }

    /// Stores it from time to time, for as long as the host runs.
    pub async fn keep(self: Arc<Self>) {
        loop {
            tokio::time::sleep(PERIOD).await;
            self.graph.prune(now_unix_s());
            self.save().await;
        }
    }

    /// Stores it now. After a failure the hub learns more of it again, and nothing else is lost.
    pub async fn save(&self) {
        let writes = vec![
            Write::Put(GRAPH.into(), self.graph.graph_bytes()),
            Write::Put(SCORES.into(), self.graph.scorer_bytes()),
        ];
        let batch = Batch {
            namespace: NAMESPACE.into(),
            epoch: self.epoch,
            writes,
        };
        if let Err(error) = self.store.commit(batch).await {
            tracing::warn!(%error, "the network graph was not stored");
        }
    }
}
