//! Addresses of peers, and dialling those that should be connected and are not.
//!
//! An address that a command gives is tried, and is stored only when the peer has answered there and has a channel or an
//! opening: a command fills no store, and an address that does not work replaces none that does.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bitcoin::secp256k1::PublicKey;
use longhand_base::text::excerpt;
use longhand_proto::Code;
use longhand_proto::command::Error;
use longhand_proto::signer::Refusal;

use crate::ldk::socket::ConnectionId;
use crate::machine::output::DialRequest;
use crate::machine::turn::Turn;
use crate::parts::connections::Connections;
use crate::parts::openings::Openings;
use crate::store::journal::Journal;
use crate::store::schema::{key, peer_key};

/// Pause between attempts to dial one peer: the first, doubled with each up to the second.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MOST: Duration = Duration::from_secs(30);
/// After a connection that ends within this time the next attempt has a pause too, of up to the second: a phone gives the secret of one
/// handshake in four seconds for any length of time.
const SHORT: Duration = Duration::from_secs(10);
const PAUSE_MOST_AFTER_SHORT: Duration = Duration::from_secs(4);
/// The longest address in bytes.
const ADDRESS_BYTES: usize = 255;
/// Stored addresses of one peer.
const KNOWN: usize = 4;
/// Announced addresses (BOLT 7) of one peer that are tried.
const ANNOUNCED: usize = 4;
/// Addresses of commands at one time.
const GIVEN: usize = 64;

/// Dialling one peer.
struct Dial {
    is_dialing: bool,
    /// The phone has refused the peer for good.
    is_refused: bool,
    /// The last connection: while its handshake goes on, perhaps over a slow phone, no other is begun.
    connection: Option<ConnectionId>,
    /// The address of the last attempt.
    address: String,
    /// Attempts since the peer is wanted.
    attempts: usize,
    not_before: Instant,
    pause: Duration,
}

impl Dial {
    fn new(now: Instant) -> Dial {
        Dial {
            is_dialing: false,
            is_refused: false,
            connection: None,
            address: String::new(),
            attempts: 0,
            not_before: now,
            pause: PAUSE_FIRST,
        }
    }

    /// The next one, after a pause.
    fn after(now: Instant, pause: Duration) -> Dial {
        Dial {
            not_before: now + pause,
            pause,
            ..Dial::new(now)
        }
    }

    fn ended(&mut self, now: Instant) {
        self.is_dialing = false;
        self.not_before = now + self.pause;
        self.pause = (self.pause * 2).min(PAUSE_MOST);
    }

    /// Being dialled, or in the handshake.
    fn is_under_way(&self, connections: &Connections) -> bool {
        self.is_dialing || self.connection.is_some_and(|id| connections.contains(id))
    }
}

/// An attempt without a connection, after which no address is left that was not tried.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unreachable {
    pub node_id: PublicKey,
    /// One line for a person.
    pub message: String,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Dialing {
    /// Of peers with a channel or an opening: addresses at which a handshake succeeded, newest first. Stored.
    known: HashMap<PublicKey, Vec<String>>,
    /// Of peers that a command or an opening wants: the address that the owner gave. Of peers that are connected: the one
    /// that answered.
    given: HashMap<PublicKey, String>,
    dials: HashMap<PublicKey, Dial>,
    /// Peers that were dialled, and connected less than [`SHORT`] ago: when, and the pause before another attempt. One that hangs up at once
    /// is not dialled at once, since each handshake needs the phone.
    connected_lately: HashMap<PublicKey, (Instant, Duration)>,
    unreachable: Vec<Unreachable>,
}

impl Dialing {
    /// Reads the addresses back, and takes those of the openings under way. One that cannot be read is left out: the owner can give it again.
    pub fn load(journal: &Journal, openings: &Openings) -> Dialing {
        let stored = journal.loaded(key::PEER).into_iter();
        let known = stored.filter_map(|(node_id, bytes)| {
            let lines = String::from_utf8(bytes).ok()?;
            let addresses = lines.lines().take(KNOWN).map(str::to_owned).collect();
            Some((node_id.parse().ok()?, addresses))
        });
        Dialing {
            known: known.collect(),
            given: openings.addresses().collect(),
            ..Dialing::default()
        }
    }

    /// Whether a peer can be wanted with this address; nothing is kept.
    ///
    /// # Errors
    /// `PEER_MALFORMED` for one that is not `host:port`, `NO_PEER_ADDRESS` when none is given and none is known,
    /// `TOO_MANY_PEERS`.
    pub fn check(&self, turn: &Turn, node_id: &PublicKey, address: &str) -> Result<(), Error> {
        if !address.is_empty() {
            check_address(address)?;
        }
        if turn.is_connected(node_id) {
            return Ok(());
        }
        // Owners' nodes dial the hub.
        if address.is_empty() && !turn.config.is_hub && self.addresses(turn, node_id).is_empty() {
            let message = "no address of this peer is known: give its node id with its address, NODE_ID@HOST:PORT";
            return Err(Error::new(Code::NoPeerAddress, message));
        }
        let is_new = !self.given.contains_key(node_id);
        if !address.is_empty() && is_new && self.given.len() >= GIVEN {
            let message = "too many peers are being connected: wait until some are, or cannot be";
            return Err(Error::new(Code::TooManyPeers, message));
        }
        Ok(())
    }

    /// A command, or an opening, wants the peer. When an address is given, it is tried next.
    pub fn give(&mut self, turn: &Turn, node_id: PublicKey, address: &str) {
        if turn.is_connected(&node_id) {
            return;
        }
        let is_given = !address.is_empty();
        if let Some(dial) = self.dials.get_mut(&node_id) {
            dial.is_refused = false;
            if is_given {
                dial.attempts = 0;
                dial.not_before = turn.now.instant;
            }
        }
        if is_given {
            self.given.insert(node_id, address.to_owned());
        }
    }

    /// A signer was attached, or is gone: every peer is dialled anew.
    pub fn clear(&mut self) {
        self.dials.clear();
        self.connected_lately.clear();
    }

    /// The addresses of a peer, in the order in which they are tried. The hub's first is empty: the dialer knows it.
    fn addresses(&self, turn: &Turn, node_id: &PublicKey) -> Vec<String> {
        let mut addresses = Vec::new();
        if turn.config.hub == Some(*node_id) {
            addresses.push(String::new());
        }
        addresses.extend(self.given.get(node_id).cloned());
        addresses.extend(self.known.get(node_id).into_iter().flatten().cloned());
        addresses.extend(turn.graph.addresses(node_id).into_iter().take(ANNOUNCED));
        let mut seen = HashSet::new();
        addresses.retain(|address| seen.insert(address.clone()));
        addresses
    }

    /// The peers to dial now: those with channels whose addresses are known, those of openings and commands, and the hub. A
    /// hub has many more channels than that, and owners dial the hub.
    pub fn advance(
        &mut self,
        turn: &Turn,
        connections: &Connections,
        openings: impl Iterator<Item = PublicKey>,
        commands: impl Iterator<Item = PublicKey>,
    ) -> Vec<DialRequest> {
        let openings: HashSet<PublicKey> = openings.collect();
        let has_channel = |id: &PublicKey| {
            let manager = &turn.ldk.manager;
            openings.contains(id) || !manager.list_channels_with_counterparty(id).is_empty()
        };
        let connected = turn.ldk.peer_manager.list_peers().into_iter();
        let connected: HashSet<PublicKey> = connected.map(|it| it.counterparty_node_id).collect();
        for node_id in &connected {
            self.connected(turn, connections, *node_id);
        }
        let now = turn.now.instant;
        self.connected_lately
            .retain(|_, (since, _)| now.saturating_duration_since(*since) < SHORT);
        self.forget(turn, has_channel);
        let mut wanted: Vec<PublicKey> = self.known.keys().copied().collect();
        wanted.extend(self.given.keys().filter(|id| has_channel(id)));
        wanted.extend(openings.iter().copied().chain(commands));
        wanted.extend(turn.config.hub);
        wanted.sort_unstable();
        wanted.dedup();
        wanted.retain(|id| !connected.contains(id));
        self.dials
            .retain(|id, dial| dial.is_dialing || wanted.contains(id));
        self.given
            .retain(|id, _| connected.contains(id) || wanted.contains(id));
        for node_id in connected {
            if has_channel(&node_id) {
                self.keep(turn, node_id);
            }
        }
        let dials = wanted.into_iter();
        dials
            .filter_map(|node_id| self.dial(turn, connections, node_id))
            .collect()
    }

    /// Forgets the addresses of peers without a channel and without an opening.
    fn forget(&mut self, turn: &Turn, has_channel: impl Fn(&PublicKey) -> bool) {
        self.known.retain(|node_id, _| {
            let is_needed = has_channel(node_id);
            if !is_needed {
                turn.journal.delete(peer_key(node_id));
            }
            is_needed
        });
    }

    /// The peer is connected: the address that answered stays, and no other that a command gave.
    fn connected(&mut self, turn: &Turn, connections: &Connections, node_id: PublicKey) {
        let Some(dial) = self.dials.remove(&node_id) else {
            return;
        };
        let pause = dial.pause.min(PAUSE_MOST_AFTER_SHORT);
        self.connected_lately
            .insert(node_id, (turn.now.instant, pause));
        let is_ours = dial.connection.is_some_and(|id| connections.contains(id));
        self.given.remove(&node_id);
        if is_ours && !dial.address.is_empty() {
            self.given.insert(node_id, dial.address);
        }
    }

    /// Stores the address at which a connected peer answered.
    fn keep(&mut self, turn: &Turn, node_id: PublicKey) {
        let Some(address) = self.given.remove(&node_id) else {
            return;
        };
        let known = self.known.entry(node_id).or_default();
        if known.first() == Some(&address) {
            return;
        }
        known.retain(|it| *it != address);
        known.insert(0, address);
        known.truncate(KNOWN);
        turn.journal
            .put(peer_key(&node_id), known.join("\n").into_bytes());
    }

    /// Begins an attempt, unless one is under way or it is too early.
    fn dial(
        &mut self,
        turn: &Turn,
        connections: &Connections,
        node_id: PublicKey,
    ) -> Option<DialRequest> {
        let now = turn.now.instant;
        let addresses = self.addresses(turn, &node_id);
        if let Some(dial) = self.dials.get_mut(&node_id) {
            if dial.is_refused || dial.is_under_way(connections) {
                return None;
            }
            if dial.connection.take().is_some() {
                let address = &dial.address;
                let reason = format!("something answers at {address}, but not as this node");
                self.failed(turn, node_id, &reason);
            }
        }
        // A peer without one dials us.
        if addresses.is_empty() {
            self.dials.remove(&node_id);
            return None;
        }
        let lately = self.connected_lately.remove(&node_id);
        let new = || lately.map_or(Dial::new(now), |(_, pause)| Dial::after(now, pause));
        let dial = self.dials.entry(node_id).or_insert_with(new);
        if now < dial.not_before {
            return None;
        }
        let address = addresses.get(dial.attempts % addresses.len())?.clone();
        dial.attempts = dial.attempts.wrapping_add(1);
        dial.is_dialing = true;
        dial.address.clone_from(&address);
        Some(DialRequest { node_id, address })
    }

    /// An attempt has ended with a connection, whose handshake begins.
    pub fn dialed(&mut self, node_id: &PublicKey, connection: ConnectionId, now: Instant) {
        if let Some(dial) = self.dials.get_mut(node_id) {
            dial.connection = Some(connection);
            dial.ended(now);
        }
    }

    /// An attempt has ended without a connection. One that was begun before the dials were cleared is not known.
    pub fn dial_failed(&mut self, turn: &Turn, node_id: PublicKey, reason: &str) {
        if let Some(dial) = self.dials.get_mut(&node_id).filter(|dial| dial.is_dialing) {
            dial.ended(turn.now.instant);
            self.failed(turn, node_id, reason);
        }
    }

    /// The phone has refused the handshake of a connection, which is closed. When the refusal is for now, the peer is dialled again; else
    /// when its owner asks again, or with the next attach.
    pub fn handshake_refused(&mut self, connection: ConnectionId, refusal: &Refusal) {
        let mut dials = self.dials.iter_mut();
        let dialed = dials.find(|(_, dial)| dial.connection == Some(connection));
        let Some((node_id, dial)) = dialed else {
            return;
        };
        dial.connection = None;
        if !refusal.retry {
            dial.is_refused = true;
            let node_id = *node_id;
            let message = format!(
                "the phone refuses to connect to the peer {node_id}: {}",
                excerpt(&refusal.message)
            );
            self.unreachable.push(Unreachable { node_id, message });
        }
    }

    fn failed(&mut self, turn: &Turn, node_id: PublicKey, reason: &str) {
        let addresses = self.addresses(turn, &node_id).len();
        let attempts = self.dials.get(&node_id).map_or(0, |dial| dial.attempts);
        if attempts >= addresses {
            let message = format!(
                "the peer {node_id} cannot be reached ({}): check its node id and address",
                excerpt(reason)
            );
            self.unreachable.push(Unreachable { node_id, message });
        }
    }

    /// The peers of which every address was tried since they are wanted, and the attempts that failed after that.
    pub fn take_unreachable(&mut self) -> Vec<Unreachable> {
        std::mem::take(&mut self.unreachable)
    }

    /// When a peer may be dialled again that is wanted and not connected.
    pub fn next(&self, connections: &Connections) -> Option<Instant> {
        let dials = self.dials.values();
        let waiting = dials.filter(|dial| !dial.is_refused && !dial.is_under_way(connections));
        waiting.map(|dial| dial.not_before).min()
    }
}

/// Checks that an address is `host:port`.
fn check_address(address: &str) -> Result<(), Error> {
    let is_graphic = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    let parts = address.rsplit_once(':');
    let is_address = address.len() <= ADDRESS_BYTES
        && parts.is_some_and(|(host, port)| {
            !host.is_empty() && is_graphic(host) && port.parse().is_ok_and(|port: u16| port > 0)
        });
    let message = "this is not the address of a peer: give HOST:PORT, 255 characters at most";
    is_address
        .then_some(())
        .ok_or_else(|| Error::new(Code::PeerMalformed, message))
}

#[cfg(test)]
#[path = "tests/dialing.rs"]
mod tests;
