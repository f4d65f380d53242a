//! Connections of the host's nodes to their peers: to each other inside the host, to all others through its [`Network`].
//!
//! The hub has channels with the owners' nodes, and owners' nodes with the hub; two owners' nodes are never joined. A node
//! is known here by a *line*, over which it takes connections while it can: the hub while it runs, an owner's node while it
//! has its phone as its signer.

use std::collections::HashMap;
use std::io::{Error, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use longhand_node::{Dialer, PeerStream};
use tokio::time::timeout;

use crate::network::{DialFrom, Network, PeerDial};
use crate::tasks::Tasks;

/// Takes a connection for a node, from another node of the host.
pub(crate) type Accept = Arc<dyn Fn(PublicKey, Box<dyn PeerStream>) + Send + Sync>;

/// The lines of all nodes of one host.
pub(crate) struct Switchboard {
    hub: PublicKey,
    network: Arc<dyn Network>,
    /// How long dialling a peer outside may take.
    limit: Duration,
    tasks: Arc<Tasks>,
    /// `None` once it is closed. A line is `None` while its node takes no connections.
    lines: Mutex<Option<HashMap<PublicKey, Option<Accept>>>>,
}

impl Switchboard {
    /// A switchboard that has the hub's line alone, closed.
    pub fn new(
        hub: PublicKey,
        network: Arc<dyn Network>,
        limit: Duration,
        tasks: Arc<Tasks>,
    ) -> Switchboard {
        Switchboard {
            hub,
            network,
            limit,
            tasks,
            lines: Mutex::new(Some(HashMap::from([(hub, None)]))),
        }
    }

    /// Adds the line of an owner's node, closed: from now on this id is not dialled outside.
    pub fn add(&self, node_id: PublicKey) {
        if let Some(lines) = self.lock().as_mut() {
            lines.entry(node_id).or_default();
        }
    }

    /// Opens the line of a node, until [`Switchboard::hang_up`].
    pub fn open(&self, node_id: PublicKey, accept: Accept) {
        self.set(node_id, Some(accept));
    }

    /// Closes the line of a node.
    pub fn hang_up(&self, node_id: PublicKey) {
        self.set(node_id, None);
    }

    /// Removes all lines, with the nodes that they hold, for good. For a host that is stopping: nothing is dialled any more.
    pub fn close(&self) {
        let lines = self.lock().take();
        drop(lines);
    }

    /// Dials for the node with this id.
    pub fn dialer(self: &Arc<Self>, from: PublicKey) -> Arc<dyn Dialer> {
        let switchboard = self.clone();
        Arc::new(NodeDialer { switchboard, from })
    }

    fn set(&self, node_id: PublicKey, line: Option<Accept>) {
        let before = match self.lock().as_mut() {
            Some(lines) => lines.insert(node_id, line),
            None => Some(line),
        };
        // Without the lock: it may be the last handle on a node.
        drop(before);
    }

    /// The line to `to`; `None` when it is no node of this host.
    fn line(&self, from: PublicKey, to: PublicKey) -> Option<std::io::Result<Accept>> {
        let line = self.lock().as_ref()?.get(&to)?.clone();
        let refused = |kind, reason: &str| Err(Error::new(kind, reason));
        Some(match line {
            _ if from != self.hub && to != self.hub => refused(
                ErrorKind::HostUnreachable,
                "it is a node of this host: open channels with the hub, which connects all of them",
            ),
            Some(accept) => Ok(accept),
            None if to == self.hub => refused(ErrorKind::NotConnected, "the hub does not run"),
            None => refused(ErrorKind::HostUnreachable, "the owner's phone is away"),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<HashMap<PublicKey, Option<Accept>>>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Dials for one node.
struct NodeDialer {
    switchboard: Arc<Switchboard>,
    from: PublicKey,
}

#[async_trait]
impl Dialer for NodeDialer {
    async fn dial(
        &self,
        node_id: PublicKey,
        address: &str,
    ) -> std::io::Result<Box<dyn PeerStream>> {
        let Switchboard {
            network,
            limit,
            tasks,
            ..
        } = &*self.switchboard;
        if let Some(line) = self.switchboard.line(self.from, node_id) {
            let accept = line?;
            let (near, far) = network.join(self.from, node_id)?;
            accept(self.from, far);
            return Ok(near);
        }
        let from = match self.from {
            from if from == self.switchboard.hub => DialFrom::Hub,
            owner => DialFrom::Owner(owner),
        };
        let peer = PeerDial {
            from,
            node_id,
            address,
        };
        let stopping = || Error::new(ErrorKind::NotConnected, "the host is stopping");
        tokio::select! {
            biased;
            () = tasks.stopping() => Err(stopping()),
            dialled = timeout(network.limit(peer).unwrap_or(*limit), network.dial(peer)) => dialled.unwrap_or_else(|_| {
                let late = format!("{address} did not answer in time");
                Err(Error::new(ErrorKind::TimedOut, late))
            }),
        }
    }
}

#[cfg(test)]
mod tests;
