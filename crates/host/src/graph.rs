//! Keeping the shared network graph across restarts.
//!
//! It is a cache: what is lost of it the hub learns again from its peers. It is large on the public network, so it is
//! written seldom, and once more when the host stops.

use std::sync::Arc;
use std::time::Duration;

use bitcoin::Network;
use longhand_node::Graph;
use longhand_store::{Batch, Store, StoreError, Write};

use crate::links::now_unix_s;
use crate::shared::Shared;

const NAMESPACE: &str = "graph";
const GRAPH: &str = "graph";
const SCORES: &str = "scores";

/// How often it is tidied and written.
const PERIOD: Duration = Duration::from_secs(3600);

/// The graph as it was kept, or an empty one; and the lease under which it is written.
pub(crate) async fn load(
    store: &Arc<dyn Store>,
    network: Network,
) -> Result<(Graph, u64), StoreError> {
    let epoch = store.take_lease(NAMESPACE).await?;
    let graph = store.get(NAMESPACE, GRAPH).await?;
    let scores = store.get(NAMESPACE, SCORES).await?;
    Ok((Graph::restore(network, graph, scores), epoch))
}

/// Keeps it from time to time, for as long as the host runs.
pub(crate) async fn keep(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        shared.graph.prune(now_unix_s());
        save(&shared).await;
    }
}

/// Writes it now. A failure costs nothing but what the hub has to learn again.
pub(crate) async fn save(shared: &Shared) {
    let writes = vec![
        Write::Put(GRAPH.into(), shared.graph.graph_bytes()),
        Write::Put(SCORES.into(), shared.graph.scorer_bytes()),
    ];
    let batch = Batch {
        namespace: NAMESPACE.into(),
        epoch: shared.graph_epoch,
        writes,
    };
    if let Err(error) = shared.store.commit(batch).await {
        tracing::warn!(%error, "the network graph was not kept");
    }
}
