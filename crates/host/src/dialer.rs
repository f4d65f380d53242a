//! How the nodes of a host reach their peers: each other through memory, the rest by TCP.

use std::io::{Error, ErrorKind};
use std::sync::Weak;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::secp256k1::PublicKey;
use longhand_node::{Dialer, Node, PeerStream};
use tokio::net::TcpStream;

use crate::shared::Shared;

/// Bytes in flight between two nodes of one host, each way.
const PIPE: usize = 64 * 1024;

/// Dials for the hub, or for owners' nodes.
pub(crate) struct HostDialer {
    pub shared: Weak<Shared>,
    pub for_hub: bool,
    pub connect_timeout: Duration,
}

#[async_trait]
impl Dialer for HostDialer {
    async fn dial(
        &self,
        node_id: PublicKey,
        address: &str,
    ) -> std::io::Result<Box<dyn PeerStream>> {
        let stopping = || Error::new(ErrorKind::NotConnected, "the host is stopping");
        let shared = self.shared.upgrade().ok_or_else(stopping)?;
        if shared.hub_node_id() == Some(node_id) {
            let hub = shared.hub().ok_or_else(stopping)?;
            return Ok(pipe_to(&hub));
        }
        if let Some(tenant) = shared.tenants.of_node(&node_id) {
            return match tenant.node() {
                Some(node) if self.for_hub && *tenant.attached.borrow() => Ok(pipe_to(&node)),
                _ if self.for_hub => Err(Error::new(
                    ErrorKind::HostUnreachable,
                    "the owner's phone is away",
                )),
                _ => Err(Error::new(
                    ErrorKind::HostUnreachable,
                    "it is a node of this host: open channels with the hub, which connects all of them",
                )),
            };
        }
        drop(shared);
        self.connect(address).await
    }
}

impl HostDialer {
    async fn connect(&self, address: &str) -> std::io::Result<Box<dyn PeerStream>> {
        if address.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "no address is known: give host:port",
            ));
        }
        let late = |_| {
            Error::new(
                ErrorKind::TimedOut,
                format!("{address} did not answer in time"),
            )
        };
        let connecting = TcpStream::connect(address);
        let stream = tokio::time::timeout(self.connect_timeout, connecting)
            .await
            .map_err(late)??;
        // A Lightning message is small and waited for.
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// A connection inside this process, accepted by `node`.
fn pipe_to(node: &Node) -> Box<dyn PeerStream> {
    let (near, far) = tokio::io::duplex(PIPE);
    node.accept(Box::new(far));
    Box::new(near)
}
