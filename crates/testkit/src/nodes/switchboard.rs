//! Connections between the nodes of one world.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use longhand_node::{Dialer, Node, PeerStream};

use super::valve::{Valve, Valved};

/// Connects the nodes to each other by pipes in memory.
#[derive(Default)]
pub struct Switchboard {
    nodes: Mutex<HashMap<PublicKey, Node>>,
    /// Of all that the dialling side reads.
    pub valve: Arc<Valve>,
}

impl Switchboard {
    /// The node can be dialled; it replaces one with the same id.
    pub(super) fn connect(&self, node: &Node) {
        let mut nodes = self.nodes.lock().unwrap();
        nodes.insert(node.node_id(), node.clone());
    }
}

#[async_trait]
impl Dialer for Switchboard {
    async fn dial(&self, node_id: PublicKey, _: &str) -> std::io::Result<Box<dyn PeerStream>> {
        let node = self.nodes.lock().unwrap().get(&node_id).cloned();
        let node = node.ok_or_else(|| std::io::Error::other("no such node"))?;
        let (stream, theirs) = tokio::io::duplex(64 * 1024);
        node.accept(Box::new(theirs));
        let valve = self.valve.clone();
        Ok(Box::new(Valved { stream, valve }))
    }
}
