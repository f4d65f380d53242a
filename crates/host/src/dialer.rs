//! How the nodes of a host reach their peers: each other inside the host, the rest through its [`crate::Outside`].

use std::io::{Error, ErrorKind};
use std::sync::Weak;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use longhand_node::{Dialer, Node, PeerStream};
use tokio::time::timeout;

use crate::shared::Shared;

/// Dials for one node.
pub(crate) struct HostDialer {
    pub shared: Weak<Shared>,
    /// The owner's node that dials; `None` for the hub.
    pub owner: Option<PublicKey>,
}

#[async_trait]
impl Dialer for HostDialer {
    async fn dial(
        &self,
        node_id: PublicKey,
        address: &str,
    ) -> std::io::Result<Box<dyn PeerStream>> {
        let shared = self.shared.upgrade().ok_or_else(stopping)?;
        if let Some(hub) = shared.hub().filter(|hub| hub.node_id() == node_id) {
            return self.join(&shared, &hub);
        }
        if let Some(tenant) = shared.tenants.of_node(&node_id) {
            let for_hub = self.owner.is_none();
            return match tenant.node() {
                Some(node) if for_hub && *tenant.attached.borrow() => self.join(&shared, &node),
                _ if for_hub => Err(Error::new(
                    ErrorKind::HostUnreachable,
                    "the owner's phone is away",
                )),
                _ => Err(Error::new(
                    ErrorKind::HostUnreachable,
                    "it is a node of this host: open channels with the hub, which connects all of them",
                )),
            };
        }
        let (outside, mut ends) = (shared.outside.clone(), shared.stopping.subscribe());
        let limit = Duration::from_millis(shared.config.peer.connect_timeout_ms);
        drop(shared);
        tokio::select! {
            biased;
            _ = ends.wait_for(|stopping| *stopping) => Err(stopping()),
            dialled = timeout(limit, outside.dial(node_id, address)) => dialled.unwrap_or_else(|_| {
                let late = format!("{address} did not answer in time");
                Err(Error::new(ErrorKind::TimedOut, late))
            }),
        }
    }
}

impl HostDialer {
    /// A connection inside this host.
    fn join(&self, shared: &Shared, to: &Node) -> std::io::Result<Box<dyn PeerStream>> {
        let not_yet = || Error::new(ErrorKind::NotConnected, "the hub does not run yet");
        let from = self.owner.or_else(|| shared.hub_node_id());
        let (near, far) = shared
            .outside
            .join(from.ok_or_else(not_yet)?, to.node_id())?;
        to.accept(far);
        Ok(near)
    }
}

fn stopping() -> Error {
    Error::new(ErrorKind::NotConnected, "the host is stopping")
}
