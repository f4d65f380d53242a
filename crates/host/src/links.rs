//! Where phones come in: their connections, and who the host is to them.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use longhand_link::{
    Carrier, CloseCode, Config, Conversation, HostIdentity, LinkError, LinkKey, LinkKeypair,
    Listener, OwnerId, Pairing, PairingId, Side, accept,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::attach::COMMAND;
use crate::config::HostConfig;
use crate::owners::OwnerError;
use crate::shared::Shared;

/// Most connections that have not proved who they are.
const MAX_HANDSHAKES: usize = 256;

/// Room for the connections that have not proved who they are.
pub(crate) fn handshakes() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MAX_HANDSHAKES))
}

/// What phones are told when the host stops.
pub(crate) const STOPPING: &str = "the host is stopping: come back later";

/// Takes connections until the listener ends, and lets them wait while too many are in their handshakes.
pub(crate) async fn listen(shared: Arc<Shared>, mut listener: Box<dyn Listener>) {
    while let Some(carrier) = listener.accept().await {
        let Ok(permit) = shared.handshakes.clone().acquire_owned().await else {
            return;
        };
        serve(&shared, carrier, permit);
    }
}

/// Takes a connection, unless too many are in their handshakes.
pub(crate) fn take(shared: &Arc<Shared>, carrier: Carrier) {
    match shared.handshakes.clone().try_acquire_owned() {
        Ok(permit) => serve(shared, carrier, permit),
        Err(_) => {
            shared.metrics.links_refused.inc();
            tracing::info!("too many phones come at once: one was not let in");
        }
    }
}

fn serve(shared: &Arc<Shared>, carrier: Carrier, permit: OwnedSemaphorePermit) {
    let strong = shared.clone();
    shared.spawn(async move {
        shake_hands(strong, carrier).await;
        drop(permit);
    });
}

/// One connection, from its first byte to a live link.
async fn shake_hands(shared: Arc<Shared>, carrier: Carrier) {
    match accept(carrier, &Identity(shared.clone())).await {
        Ok(accepted) => {
            // Its handshake was under way when all others were closed.
            if *shared.stopping.borrow() {
                return accepted.link.close(CloseCode::Shutdown, STOPPING);
            }
            let Some(tenant) = shared.tenants.get(&accepted.owner) else {
                return;
            };
            let newly_paired = accepted.newly_paired;
            tracing::info!(owner = tenant.name, newly_paired, "link");
            tenant.nudge.notify_one();
        }
        Err(error) => {
            shared.metrics.links_refused.inc();
            tracing::info!(%error, "a phone was not let in");
        }
    }
}

/// The [`Conversation`] of one owner, as configured.
pub(crate) fn conversation(
    config: &HostConfig,
) -> Result<(Conversation, longhand_link::IncomingRequests), LinkError> {
    let agent = concat!("longhand-host/", env!("CARGO_PKG_VERSION"));
    let mut link = Config::new(agent, &[COMMAND]);
    link.heartbeat = std::time::Duration::from_millis(config.link.heartbeat_ms.into());
    link.grace = config.grace();
    Conversation::new(Side::Host, link)
}

/// Seconds since 1970.
pub(crate) fn now_unix_s() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// The host as its links see it.
pub(crate) struct Identity(pub Arc<Shared>);

#[async_trait]
impl HostIdentity for Identity {
    fn keypair(&self) -> LinkKeypair {
        self.0.link_key.clone()
    }

    async fn pairing(&self, id: &PairingId) -> Result<Pairing, LinkError> {
        Ok(self.0.owners.pairing(id, now_unix_s()).await)
    }

    async fn pin(&self, id: &PairingId, phone: &LinkKey) -> Result<Option<OwnerId>, LinkError> {
        let pinned = self.0.owners.pin(id, phone, now_unix_s()).await;
        let pinned = pinned.map_err(|e: OwnerError| LinkError::Identity(e.to_string()))?;
        Ok(pinned.map(|owner| owner.id))
    }

    async fn owner_of(&self, phone: &LinkKey) -> Result<Option<OwnerId>, LinkError> {
        Ok(self.0.owners.owner_of(phone).await)
    }

    fn conversation_of(&self, owner: &OwnerId) -> Conversation {
        match self.0.tenants.get(owner) {
            Some(tenant) => tenant.conversation.clone(),
            // Every owner in the book has a tenant; this one's links lead nowhere.
            None => self.0.nobody.clone(),
        }
    }
}
