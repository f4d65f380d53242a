//! The network graph and its scores, kept in files of the host's directory across restarts.
//!
//! They are a cache: the hub learns the graph again from its peers. They are large on the public network (100 MB), so they are
//! written seldom, and once more when the host stops; in files of their own, because a database with one writer would keep all
//! nodes waiting for them.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bitcoin::Network;
use longhand_node::Graph;
use longhand_store::{Batch, Store, StoreError, Write};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::{JoinError, spawn_blocking};

use crate::clock::now_unix_s;

const GRAPH_FILE: &str = "graph.bin";
const SCORES_FILE: &str = "scores.bin";
/// Where earlier versions had them in the store.
const NAMESPACE: &str = "graph";
const GRAPH: &str = "graph";
const SCORES: &str = "scores";

/// How often they are pruned and written.
const PERIOD: Duration = Duration::from_secs(3600);

/// The graph of all nodes of the host, and its files.
pub(crate) struct GraphKeeper {
    directory: PathBuf,
    graph: Arc<Graph>,
    /// Held while the files are written: a write goes on though the task that waits for it has ended.
    writing: Arc<Mutex<()>>,
}

impl GraphKeeper {
    /// The graph as it was stored, or an empty one.
    ///
    /// # Errors
    /// Of the store, in which earlier versions had it.
    pub async fn load(
        directory: &Path,
        store: &dyn Store,
        network: Network,
    ) -> Result<GraphKeeper, StoreError> {
        let earlier = take_from_store(store).await?;
        let paths = (directory.join(GRAPH_FILE), directory.join(SCORES_FILE));
        let read = move || {
            let graph = read_file(&paths.0).or(earlier.0);
            Graph::restore(network, graph, read_file(&paths.1).or(earlier.1))
        };
        let graph = run_blocking(read).await;
        Ok(GraphKeeper {
            directory: directory.to_owned(),
            graph: Arc::new(graph.unwrap_or_else(|_| Graph::new(network))),
            writing: Arc::default(),
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
        let (graph, directory) = (self.graph.clone(), self.directory.clone());
        let writing = self.writing.clone();
        let write = move || {
            let _one = writing.lock().unwrap_or_else(PoisonError::into_inner);
            write_file(&directory.join(GRAPH_FILE), &graph.graph_bytes())?;
            write_file(&directory.join(SCORES_FILE), &graph.scorer_bytes())
        };
        let written = run_blocking(write).await;
        if let Err(error) = written.unwrap_or_else(|panicked| Err(panicked.into())) {
            tracing::warn!(%error, "the network graph was not stored");
        }
    }
}

/// Does work that takes long on a thread for that; in the task itself on a runtime of one thread, as that of the simulation, where the
/// order of events must not depend on how fast another thread is.
async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => Ok(work()),
        _ => spawn_blocking(work).await,
    }
}

/// Graph and scores as earlier versions stored them, which are then removed.
async fn take_from_store(
    store: &dyn Store,
) -> Result<(Option<Vec<u8>>, Option<Vec<u8>>), StoreError> {
    let graph = store.get(NAMESPACE, GRAPH).await?;
    let scores = store.get(NAMESPACE, SCORES).await?;
    if graph.is_some() || scores.is_some() {
        let batch = Batch {
            namespace: NAMESPACE.into(),
            epoch: store.take_lease(NAMESPACE).await?,
            writes: vec![Write::Delete(GRAPH.into()), Write::Delete(SCORES.into())],
        };
        store.commit(batch).await?;
    }
    Ok((graph, scores))
}

fn read_file(path: &Path) -> Option<Vec<u8>> {
    match std::fs::read(path) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            tracing::warn!(%error, path = %path.display(), "a part of the network graph cannot be read");
            None
        }
    }
}

/// Replaces the file as a whole.
fn write_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = File::create(&draft)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    std::fs::rename(&draft, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use longhand_store::MemoryStore;

    use super::*;

    async fn load(directory: &Path, store: &MemoryStore) -> GraphKeeper {
        GraphKeeper::load(directory, store, Network::Signet)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn the_graph_is_stored_in_files_and_never_in_the_store() {
        let (dir, store) = (tempfile::tempdir().unwrap(), MemoryStore::default());
        load(dir.path(), &store).await.save().await;
        let bytes = std::fs::read(dir.path().join(GRAPH_FILE)).unwrap();
        let keeper = load(dir.path(), &store).await;
        assert_eq!(keeper.graph().graph_bytes(), bytes);
        assert!(store.load(NAMESPACE).await.unwrap().is_empty());
        assert!(!dir.path().join("graph.new").exists());
    }

    #[tokio::test]
    async fn the_graph_of_an_earlier_version_is_taken_out_of_the_store() {
        let (dir, store) = (tempfile::tempdir().unwrap(), MemoryStore::default());
        let bytes = Graph::new(Network::Signet).graph_bytes();
        let batch = Batch {
            namespace: NAMESPACE.into(),
            epoch: store.take_lease(NAMESPACE).await.unwrap(),
            writes: vec![Write::Put(GRAPH.into(), bytes.clone())],
        };
        store.commit(batch).await.unwrap();
        let keeper = load(dir.path(), &store).await;
        assert_eq!(keeper.graph().graph_bytes(), bytes);
        assert!(store.load(NAMESPACE).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_damaged_file_is_an_empty_graph() {
        let (dir, store) = (tempfile::tempdir().unwrap(), MemoryStore::default());
        std::fs::write(dir.path().join(GRAPH_FILE), b"half a graph").unwrap();
        let keeper = load(dir.path(), &store).await;
        assert_eq!(keeper.graph().size(), (0, 0));
    }
}
