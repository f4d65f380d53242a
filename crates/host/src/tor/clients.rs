//! Who finds the onion services for phones, with restricted discovery: the holder of each owner's last pairing code, and the phone
//! that was paired with it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use longhand_link::carrier::tor::discovery_secret;
use longhand_link::{DiscoverySeed, OwnerId};
use longhand_tor::DiscoveryKey;
use longhand_tor::control::MAX_CLIENTS;

use super::Tor;

/// Owners of one service, each with one key: fewer than a descriptor has room for, since owners whose records cannot be read now may
/// be added.
pub(crate) const OWNERS_PER_SERVICE: usize = 100;
const _: () = assert!(OWNERS_PER_SERVICE < MAX_CLIENTS);

/// See the module.
pub(crate) struct TorClients {
    tor: Arc<Tor>,
    /// By service, then by owner.
    services: Mutex<BTreeMap<u32, BTreeMap<OwnerId, DiscoveryKey>>>,
}

impl TorClients {
    /// Nobody yet.
    pub fn new(tor: Arc<Tor>) -> TorClients {
        TorClients {
            tor,
            services: Mutex::default(),
        }
    }

    /// From now on the holder of this seed finds the service of this owner, and nobody else for this owner. A service is served once
    /// it has a client.
    pub fn set(&self, owner: OwnerId, service: u32, seed: Option<DiscoverySeed>) {
        let Some(seed) = seed else { return };
        let onion = self.tor.links_onion(service);
        let key = discovery_secret(&seed, &onion).public();
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        let owners = services.entry(service).or_default();
        if owners.insert(owner, key) != Some(key) {
            let clients = owners.values().copied().take(MAX_CLIENTS).collect();
            self.tor.serve_links(service, Some(clients));
        }
    }
}
