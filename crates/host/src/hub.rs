//! The hub: its seed, the node id that follows from it, and the hub's node once it runs.

pub(crate) mod socket;

use std::sync::Arc;

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::PublicKey;
use longhand_node::{Keys, Node, NodeConfig, PeerStream, local_node_id};
use longhand_store::{Batch, Store, Write};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::HostError;
use crate::config::HostConfig;
use crate::files;
use crate::hosted::Phase;
use crate::owners;

/// The hub's namespace in the store.
const NAMESPACE: &str = "hub";
/// Key in the host's own namespace: which seed the hub's state belongs to.
const SEED_MARK: &str = "hub-seed-mark";

/// The hub, whether or not it runs. Owners' nodes know its id alone.
pub(crate) struct Hub {
    node_id: PublicKey,
    seed: Zeroizing<[u8; 32]>,
    phase: watch::Sender<Phase>,
}

impl Hub {
    /// The hub with this seed, which does not run yet.
    pub fn new(seed: Zeroizing<[u8; 32]>) -> Hub {
        Hub {
            node_id: local_node_id(&seed),
            seed,
            phase: watch::Sender::new(Phase::Waiting),
        }
    }

    /// The hub's node id.
    pub fn node_id(&self) -> PublicKey {
        self.node_id
    }

    /// How the hub's node is run.
    pub fn node_config(&self, config: &HostConfig) -> NodeConfig {
        NodeConfig {
            is_hub: true,
            alias: config.hub.alias.clone(),
            announce: config.hub.announce.clone(),
            accepts_keysend: config.peer.accept_keysend,
            reserve_sat_per_channel: config.hub.reserve_sat_per_channel,
            ..NodeConfig::new(NAMESPACE, config.network, Keys::Local(self.seed.clone()))
        }
    }

    /// Sets the phase that a start has ended in; a hub that has failed since stays failed, and false is returned.
    pub fn started(&self, phase: Phase) -> bool {
        self.phase
            .send_if_modified(|current| current.start_with(phase))
    }

    /// The hub's node has ended by itself, for this reason.
    pub fn fail(&self, reason: String) {
        self.phase.send_replace(Phase::Failed(reason));
    }

    pub fn phase(&self) -> Phase {
        self.phase.borrow().clone()
    }

    /// Returns when its start has ended.
    pub async fn started_or_failed(&self) {
        let is_over = |phase: &Phase| matches!(phase, Phase::Running(_) | Phase::Failed(_));
        // Fails never: the sender is this hub's.
        let _ = self.phase.subscribe().wait_for(is_over).await;
    }

    /// The hub's node, when it runs.
    pub fn node(&self) -> Option<Node> {
        self.phase.borrow().node().cloned()
    }

    /// Takes a peer's connection. Drops it while the hub does not run: peers dial again.
    pub fn accept(&self, stream: Box<dyn PeerStream>) {
        if let Some(node) = self.node() {
            node.accept(stream);
        }
    }
}

/// The hub's seed. Made at the first start, it belongs to the database from then on: the state of one hub must never run
/// with another's keys.
pub(crate) async fn seed(
    config: &HostConfig,
    store: &Arc<dyn Store>,
    epoch: u64,
) -> Result<Zeroizing<[u8; 32]>, HostError> {
    let path = config.hub_seed_file();
    let marked = store.get(owners::NAMESPACE, SEED_MARK).await?;
    let seed = match (files::read_secret(&path)?, &marked) {
        (Some(seed), _) => seed,
        (None, None) => files::read_or_make_secret(&path)?,
        (None, Some(_)) => return Err(HostError::SeedMissing(path)),
    };
    let mark = mark(&seed);
    match marked {
        Some(marked) if marked == mark => {}
        Some(_) => return Err(HostError::SeedDiffers(path)),
        None => {
            let writes = vec![Write::Put(SEED_MARK.into(), mark)];
            let namespace = owners::NAMESPACE.into();
            store
                .commit(Batch {
                    namespace,
                    epoch,
                    writes,
                })
                .await?;
        }
    }
    Ok(seed)
}

/// A hash that differs for each seed and reveals nothing of it.
fn mark(seed: &[u8; 32]) -> Vec<u8> {
    let mut engine = sha256::Hash::engine();
    engine.input(b"longhand hub seed mark");
    engine.input(seed);
    sha256::Hash::from_engine(engine).to_byte_array().to_vec()
}

#[cfg(test)]
mod tests;
