//! Addresses of peers, and dialling those that should be connected and are not.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bitcoin::secp256k1::PublicKey;

use crate::ldk::socket::ConnectionId;
use crate::machine::output::DialRequest;
use crate::machine::turn::Turn;
use crate::parts::connections::Connections;
use crate::store::journal::Journal;
use crate::store::schema::{key, peer_key};

/// Pause between attempts to dial one peer: the first, doubled with each up to the second.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MOST: Duration = Duration::from_secs(30);

/// Where dialling one peer stands.
struct Dial {
    is_dialing: bool,
    /// The last connection: while its handshake goes on, perhaps over a slow phone, no other is begun.
    connection: Option<ConnectionId>,
    not_before: Instant,
    pause: Duration,
}

impl Dial {
    /// Being dialled, or in the handshake.
    fn is_under_way(&self, connections: &Connections) -> bool {
        self.is_dialing || self.connection.is_some_and(|id| connections.contains(id))
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Dialing {
    /// Of peers with channels, or that the owner has connected.
    addresses: HashMap<PublicKey, String>,
    dials: HashMap<PublicKey, Dial>,
}

impl Dialing {
    /// Reads the addresses back. One that cannot be read is left out: the owner can give it again.
    pub fn load(journal: &Journal) -> Dialing {
        let stored = journal.loaded(key::PEER).into_iter();
        let addresses = stored.filter_map(|(node_id, bytes)| {
            Some((node_id.parse().ok()?, String::from_utf8(bytes).ok()?))
        });
        Dialing {
            addresses: addresses.collect(),
            dials: HashMap::new(),
        }
    }

    /// Stores where a peer can be dialled. Nothing for an empty address.
    pub fn remember(&mut self, turn: &Turn, node_id: PublicKey, address: &str) {
        if !address.is_empty() {
            let bytes = address.as_bytes().to_vec();
            turn.journal.put(peer_key(&node_id), bytes);
            self.addresses.insert(node_id, address.to_owned());
        }
    }

    /// A signer was attached, or is gone: every peer is dialled anew.
    pub fn clear(&mut self) {
        self.dials.clear();
    }

    /// The peers to dial: those with channels, those of `more`, and the hub; as far as they can be dialled. A hub has many
    /// more channels than that, and owners dial the hub.
    fn wanted(&self, turn: &Turn, more: impl Iterator<Item = PublicKey>) -> Vec<PublicKey> {
        let has_channel = |id: &&PublicKey| {
            let manager = &turn.ldk.manager;
            !manager.list_channels_with_counterparty(id).is_empty()
        };
        let dialled = self.addresses.keys();
        let mut wanted: Vec<PublicKey> = dialled.filter(has_channel).copied().collect();
        wanted.extend(more);
        let hub = turn.config.hub;
        wanted.extend(hub);
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|id| Some(*id) == hub || self.addresses.contains_key(id));
        wanted
    }

    /// The peers to dial now; see [`Dialing::wanted`].
    pub fn advance(
        &mut self,
        turn: &Turn,
        connections: &Connections,
        more: impl Iterator<Item = PublicKey>,
    ) -> Vec<DialRequest> {
        let now = turn.now.instant;
        let wanted = self.wanted(turn, more);
        self.dials
            .retain(|id, dial| dial.is_dialing || wanted.contains(id));
        if wanted.is_empty() {
            return Vec::new();
        }
        let connected = turn.ldk.peer_manager.list_peers().into_iter();
        let connected: HashSet<PublicKey> = connected.map(|it| it.counterparty_node_id).collect();
        let mut requests = Vec::new();
        for node_id in wanted {
            if connected.contains(&node_id) {
                self.dials.remove(&node_id);
                continue;
            }
            let dial = self.dials.entry(node_id).or_insert(Dial {
                is_dialing: false,
                connection: None,
                not_before: now,
                pause: PAUSE_FIRST,
            });
            if dial.is_under_way(connections) || now < dial.not_before {
                continue;
            }
            dial.is_dialing = true;
            let address = self.addresses.get(&node_id).cloned();
            requests.push(DialRequest {
                node_id,
                address: address.unwrap_or_default(),
            });
        }
        requests
    }

    /// An attempt has ended, with a connection or without.
    pub fn dialed(&mut self, node_id: &PublicKey, connection: Option<ConnectionId>, now: Instant) {
        if let Some(dial) = self.dials.get_mut(node_id) {
            dial.is_dialing = false;
            dial.connection = connection;
            dial.not_before = now + dial.pause;
            dial.pause = (dial.pause * 2).min(PAUSE_MOST);
        }
    }

    /// When a peer may be dialled again that is wanted and not connected.
    pub fn next(&self, connections: &Connections) -> Option<Instant> {
        let dials = self.dials.values();
        let waiting = dials.filter(|dial| !dial.is_under_way(connections));
        waiting.map(|dial| dial.not_before).min()
    }

    /// Whether an attempt for this peer is known. One that was begun before the dials were cleared is not.
    pub fn is_dialing(&self, node_id: &PublicKey) -> bool {
        self.dials.get(node_id).is_some_and(|dial| dial.is_dialing)
    }
}

#[cfg(test)]
#[path = "tests/dialing.rs"]
mod tests;
