//! The link server: takes the connections of phones, and shakes hands with them as the host.

use std::sync::Arc;

use async_trait::async_trait;
use longhand_link::{
    Carrier, CloseCode, Conversation, HostIdentity, LinkError, LinkKey, LinkKeypair, Listener,
    OwnerId, Pairing, PairingId, accept,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::clock::now_unix_s;
use crate::hosted::HostedNodes;
use crate::metrics::Metrics;
use crate::owners::{OwnerBook, OwnerError};
use crate::tasks::Tasks;

/// Limit of connections in their handshakes.
const MAX_HANDSHAKES: usize = 256;
/// The reason sent to phones when the host stops.
pub(crate) const STOPPING: &str = "the host is stopping: come back later";

/// Takes the connections of phones.
pub(crate) struct LinkServer {
    key: LinkKeypair,
    book: Arc<OwnerBook>,
    nodes: Arc<HostedNodes>,
    metrics: Metrics,
    tasks: Arc<Tasks>,
    /// The conversation of links that belong to no owner: its requests are refused.
    no_owner: Conversation,
    handshakes: Arc<Semaphore>,
}

impl LinkServer {
    pub fn new(
        key: LinkKeypair,
        book: Arc<OwnerBook>,
        nodes: Arc<HostedNodes>,
        metrics: Metrics,
        tasks: Arc<Tasks>,
        no_owner: Conversation,
    ) -> LinkServer {
        LinkServer {
            key,
            book,
            nodes,
            metrics,
            tasks,
            no_owner,
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
        }
    }

    /// Takes connections until the listener ends, and lets them wait while too many are in their handshakes.
    pub async fn listen(self: Arc<Self>, mut listener: Box<dyn Listener>) {
        while let Some(carrier) = listener.accept().await {
            let Ok(permit) = self.handshakes.clone().acquire_owned().await else {
                return;
            };
            self.serve(carrier, permit);
        }
    }

    /// Takes a connection; closes it when too many are in their handshakes.
    pub fn take(self: &Arc<Self>, carrier: Carrier) {
        match self.handshakes.clone().try_acquire_owned() {
            Ok(permit) => self.serve(carrier, permit),
            Err(_) => {
                self.metrics.links_refused.inc();
                tracing::debug!("too many phones come at once: one was not let in");
            }
        }
    }

    /// Closes all links at once, and sends nothing to the phones.
    pub fn abandon(&self) {
        for node in self.nodes.all() {
            node.conversation.abandon();
        }
        self.no_owner.abandon();
    }

    fn serve(self: &Arc<Self>, carrier: Carrier, permit: OwnedSemaphorePermit) {
        let server = self.clone();
        self.tasks.spawn(async move {
            server.shake_hands(carrier).await;
            drop(permit);
        });
    }

    /// One connection, from its first byte to a live link.
    async fn shake_hands(&self, carrier: Carrier) {
        match accept(carrier, self).await {
            Ok(accepted) => {
                // Its handshake was under way when all other links were closed.
                if self.tasks.is_stopping() {
                    return accepted.link.close(CloseCode::Shutdown, STOPPING);
                }
                let Some(node) = self.nodes.get(&accepted.owner) else {
                    return;
                };
                let newly_paired = accepted.newly_paired;
                tracing::info!(owner = node.name, newly_paired, "link");
                node.nudge.notify_one();
            }
            Err(error) => {
                self.metrics.links_refused.inc();
                // Counted, and not logged by default: strangers can cause it as often as they like.
                tracing::debug!(%error, "a phone was not let in");
            }
        }
    }
}

#[async_trait]
impl HostIdentity for LinkServer {
    fn keypair(&self) -> LinkKeypair {
        self.key.clone()
    }

    async fn pairing(&self, id: &PairingId) -> Result<Pairing, LinkError> {
        Ok(self.book.pairing(id, now_unix_s()).await)
    }

    async fn pin(&self, id: &PairingId, phone: &LinkKey) -> Result<Option<OwnerId>, LinkError> {
        let pinned = self.book.pin(id, phone, now_unix_s()).await;
        let pinned = pinned.map_err(|e: OwnerError| LinkError::Identity(e.to_string()))?;
        Ok(pinned.map(|owner| owner.id))
    }

    async fn owner_of(&self, phone: &LinkKey) -> Result<Option<OwnerId>, LinkError> {
        Ok(self.book.owner_of(phone).await)
    }

    fn conversation_of(&self, owner: &OwnerId) -> Conversation {
        match self.nodes.get(owner) {
            Some(node) => node.conversation.clone(),
            // Every owner in the book has a node here; requests on the links of this one are refused.
            None => self.no_owner.clone(),
        }
    }
}
