//! The peers of a node: who should be connected, dialling, and their bytes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::secp256k1::PublicKey;
use lightning::ln::peer_handler::SocketDescriptor;
use longhand_proto::command::error::Action;
use tokio::time::Instant;

use super::{Actor, BACKOFF_FIRST, BACKOFF_MOST, Input};
use crate::PeerStream;
use crate::commands::{Wait, error, refused};
use crate::peer::{Incoming, Peers, Socket};

/// Where dialling one peer stands.
pub(super) struct Dial {
    under_way: bool,
    /// The last connection: while its handshake goes on, perhaps over a slow phone, no other is begun.
    connection: Option<u64>,
    pub(super) not_before: Instant,
    backoff: Duration,
}

impl Dial {
    fn from(now: Instant) -> Dial {
        Dial {
            under_way: false,
            connection: None,
            not_before: now,
            backoff: BACKOFF_FIRST,
        }
    }

    /// Being dialled, or shaking hands.
    pub(super) fn is_going_on(&self, peers: &Peers) -> bool {
        self.under_way || self.connection.is_some_and(|id| peers.has(id))
    }
}

impl Actor {
    pub(super) fn accept(&mut self, stream: Box<dyn PeerStream>) {
        if !self.signer_is_there() || self.detaching.is_some() {
            return;
        }
        let socket = self.core.peers.add(stream);
        let id = socket.id;
        if self
            .core
            .peer_manager
            .new_inbound_connection(socket, None)
            .is_err()
        {
            self.core.peers.remove(id);
        }
    }

    pub(super) fn dialed(
        &mut self,
        node_id: PublicKey,
        stream: std::io::Result<Box<dyn PeerStream>>,
    ) {
        let (connection, failure) = match stream {
            Ok(stream) if self.signer_is_there() => (Some(self.connected(node_id, stream)), None),
            Ok(_) => return,
            Err(error) => (None, Some(error)),
        };
        let Some(dial) = self.dials.get_mut(&node_id) else {
            return;
        };
        dial.under_way = false;
        dial.connection = connection;
        dial.not_before = Instant::now() + dial.backoff;
        dial.backoff = (dial.backoff * 2).min(BACKOFF_MOST);
        if let Some(failure) = failure {
            self.unreachable(node_id, &failure.to_string());
        }
    }

    /// Begins the handshake. Returns the connection's id.
    pub(super) fn connected(&mut self, node_id: PublicKey, stream: Box<dyn PeerStream>) -> u64 {
        let mut socket = self.core.peers.add(stream);
        let id = socket.id;
        match self
            .core
            .peer_manager
            .new_outbound_connection(node_id, socket.clone(), None)
        {
            Ok(act_one) => {
                socket.send_data(&act_one, true);
            }
            Err(_) => {
                self.core.peers.remove(id);
            }
        }
        id
    }

    /// Nobody waits for a peer that does not answer.
    pub(super) fn unreachable(&mut self, node_id: PublicKey, reason: &str) {
        let failure = error(
            "PEER_UNREACHABLE",
            Action::Retry,
            format!("the peer {node_id} cannot be reached ({reason}): check its address"),
        );
        let waits_for = |wait: &Wait| *wait == Wait::Peer(node_id);
        for (_, reply) in self.waiters.extract_if(.., |(wait, _)| waits_for(wait)) {
            self.outgoing
                .replies
                .push((reply, refused(failure.clone())));
        }
        let bytes = node_id.serialize();
        let opens: Vec<u128> = self
            .core
            .opens
            .iter()
            .filter(|(_, open)| {
                !open.created
                    && open
                        .request
                        .as_ref()
                        .is_some_and(|r| r.counterparty_node_id == bytes)
            })
            .map(|(id, _)| *id)
            .collect();
        for id in opens {
            self.core
                .open_failed(id, "PEER_UNREACHABLE", &failure.message);
        }
    }

    pub(super) fn peer_bytes(&mut self, id: u64, bytes: Vec<u8>) {
        let remote = self.core.remote().cloned();
        let Some(connection) = self.core.peers.get(id) else {
            return;
        };
        match connection.incoming(bytes) {
            Incoming::Wait => {}
            Incoming::Fetch(ephemeral) => {
                if let Some(remote) = remote {
                    remote.prefetch_handshake(&ephemeral);
                }
            }
            Incoming::Read(bytes) => {
                let socket = connection.socket.clone();
                self.read(socket, &bytes);
            }
        }
    }

    pub(super) fn read(&mut self, mut socket: Socket, bytes: &[u8]) {
        if self
            .core
            .peer_manager
            .read_event(&mut socket, bytes)
            .is_err()
        {
            self.core.peers.remove(socket.id);
        }
    }

    /// Goes on with the handshakes whose ECDH has come.
    pub(super) fn feed_handshakes(&mut self) {
        let Some(remote) = self.core.remote().cloned() else {
            return;
        };
        for (id, ephemeral) in self.core.peers.waiting() {
            if remote.prefetch_handshake(&ephemeral)
                && let Some(connection) = self.core.peers.get(id)
            {
                let socket = connection.socket.clone();
                let bytes = connection.handshake_ready();
                self.read(socket, &bytes);
            }
        }
        let waiting = self.core.peers.waiting().into_iter();
        let waiting: Vec<_> = waiting.map(|(_, ephemeral)| ephemeral).collect();
        remote.retain_handshakes(&waiting);
    }

    pub(super) fn peer_closed(&mut self, id: u64) {
        if let Some(connection) = self.core.peers.remove(id) {
            self.core
                .peer_manager
                .socket_disconnected(&connection.socket);
        }
    }

    /// Whether peers that are wanted are dialled.
    pub(super) fn dials_now(&self) -> bool {
        self.signer_is_there() && self.detaching.is_none()
    }

    /// Dials the peers that should be there and are not.
    pub(super) fn connect_peers(&mut self) {
        if !self.dials_now() {
            return;
        }
        let now = Instant::now();
        let wanted = self.wanted_peers();
        self.dials
            .retain(|id, dial| dial.under_way || wanted.contains(id));
        if wanted.is_empty() {
            return;
        }
        let connected = self.core.peer_manager.list_peers();
        let connected: HashSet<PublicKey> = connected
            .iter()
            .map(|peer| peer.counterparty_node_id)
            .collect();
        for node_id in wanted {
            if connected.contains(&node_id) {
                self.dials.remove(&node_id);
                continue;
            }
            let address = self
                .core
                .addresses
                .get(&node_id)
                .cloned()
                .unwrap_or_default();
            let dial = self.dials.entry(node_id).or_insert_with(|| Dial::from(now));
            if dial.is_going_on(&self.core.peers) || now < dial.not_before {
                continue;
            }
            dial.under_way = true;
            let (dialer, inbox) = (
                Arc::clone(&self.core.services.dialer),
                self.own_inbox.clone(),
            );
            tokio::spawn(async move {
                let stream = dialer.dial(node_id, &address).await;
                let _ = inbox.send(Input::Dialed(node_id, stream));
            });
        }
    }

    /// Of those that can be dialled. A hub has many more channels than that, and owners dial the hub.
    pub(super) fn wanted_peers(&self) -> Vec<PublicKey> {
        let has_channel = |id: &&PublicKey| {
            let manager = &self.core.manager;
            !manager.list_channels_with_counterparty(id).is_empty()
        };
        let dialled = self.core.addresses.keys();
        let mut wanted: Vec<PublicKey> = dialled.filter(has_channel).copied().collect();
        let opening = self
            .core
            .opens
            .values()
            .filter(|open| !open.broadcast && !open.has_failed());
        let opening = opening.filter_map(|open| open.request.as_ref());
        wanted.extend(
            opening.filter_map(|request| PublicKey::from_slice(&request.counterparty_node_id).ok()),
        );
        wanted.extend(self.waiters.iter().filter_map(|(wait, _)| match wait {
            Wait::Peer(node_id) => Some(*node_id),
            _ => None,
        }));
        let hub = self.core.config.hub;
        wanted.extend(hub);
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|id| Some(*id) == hub || self.core.addresses.contains_key(id));
        wanted
    }
}
