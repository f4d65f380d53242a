//! The connections of a node to its peers: their bytes in and out of LDK's peer manager.
//!
//! Before LDK gets a handshake act, the one ECDH that it needs is fetched from the phone, which gets the act (BOLT 8, Act One when they
//! dial, Act Two when we do). When the phone refuses, the connection is closed. Messages that LDK sends leave with the turn's commit.

use std::collections::HashMap;

use bitcoin::secp256k1::PublicKey;
use lightning::ln::peer_handler::SocketDescriptor;
use longhand_bolt8::ACT_BYTES;
use longhand_proto::signer::Refusal;

use crate::keys::handshakes::{PeerAct, Secret};
use crate::ldk::socket::{ConnectionId, Socket};
use crate::machine::input::NewConnection;
use crate::machine::output::PeerOutput;
use crate::machine::turn::Turn;

/// Where a connection is in its handshake.
enum Handshake {
    /// The act with the peer's ephemeral key is being collected.
    Reading(Vec<u8>),
    /// The phone is asked for the ECDH of this act; it and the bytes after it wait.
    Waiting(PeerAct, Vec<u8>),
    /// LDK gets all bytes.
    Over,
}

/// The next step with bytes that came in.
#[derive(Debug, PartialEq, Eq)]
enum Incoming {
    /// More bytes, or the ECDH, are needed.
    Wait,
    /// Fetch the ECDH of this act, then call [`Connection::handshake_ready`].
    Fetch(PeerAct),
    /// Give these to LDK.
    Read(Vec<u8>),
}

struct Connection {
    socket: Socket,
    /// The peer that was dialled; `None` when it dialled.
    dialed: Option<PublicKey>,
    handshake: Handshake,
    /// Reads that LDK has taken: as many others may come, unless it asked for a pause.
    owed_reads: usize,
    /// Reads that wait for the handshake.
    withheld_reads: usize,
}

impl Connection {
    /// Sorts incoming bytes.
    fn incoming(&mut self, bytes: Vec<u8>) -> Incoming {
        match &mut self.handshake {
            Handshake::Over => {
                self.owed_reads += 1;
                Incoming::Read(bytes)
            }
            // No more is read before these are: a stranger may send any number of bytes while the phone is asked.
            Handshake::Waiting(_, waiting) => {
                waiting.extend_from_slice(&bytes);
                self.withheld_reads += 1;
                Incoming::Wait
            }
            Handshake::Reading(act) => {
                self.owed_reads += 1;
                act.extend_from_slice(&bytes);
                if act.len() < ACT_BYTES {
                    return Incoming::Wait;
                }
                let received = std::mem::take(act);
                match PeerAct::read(&received, self.dialed) {
                    Ok(act) => {
                        self.handshake = Handshake::Waiting(act.clone(), received);
                        Incoming::Fetch(act)
                    }
                    // LDK refuses it with its error.
                    Err(_) => {
                        self.handshake = Handshake::Over;
                        Incoming::Read(received)
                    }
                }
            }
        }
    }

    /// The ECDH is there: the bytes that waited for it.
    fn handshake_ready(&mut self) -> Vec<u8> {
        self.owed_reads += std::mem::take(&mut self.withheld_reads);
        match std::mem::replace(&mut self.handshake, Handshake::Over) {
            Handshake::Waiting(_, bytes) => bytes,
            other => {
                self.handshake = other;
                Vec::new()
            }
        }
    }

    /// As many reads as LDK has taken, unless it asked for a pause.
    fn take_reads(&mut self) -> usize {
        match self.socket.pauses_reads() {
            true => 0,
            false => std::mem::take(&mut self.owed_reads),
        }
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Connections {
    connections: HashMap<ConnectionId, Connection>,
    /// Connections have ended since this was last asked.
    has_lost: bool,
    /// Refused before LDK had them; the driver closes them.
    refused: Vec<ConnectionId>,
}

impl Connections {
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    pub fn contains(&self, id: ConnectionId) -> bool {
        self.connections.contains_key(&id)
    }

    /// Whether connections have ended since this was last asked.
    pub fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.has_lost)
    }

    /// A peer has connected.
    pub fn accept(&mut self, turn: &Turn, new: NewConnection) {
        if let Some(node_id) = new.hosted {
            turn.ldk.gate.add_hosted(node_id);
        }
        let socket = self.insert(turn, new, None);
        let id = socket.id;
        let accepted = turn.ldk.peer_manager.new_inbound_connection(socket, None);
        if accepted.is_err() {
            self.refuse(id);
        }
    }

    /// A peer was dialled: begins the handshake.
    pub fn dialed(&mut self, turn: &Turn, node_id: PublicKey, new: NewConnection) {
        let mut socket = self.insert(turn, new, Some(node_id));
        let id = socket.id;
        let peer_manager = &turn.ldk.peer_manager;
        match peer_manager.new_outbound_connection(node_id, socket.clone(), None) {
            Ok(act_one) => {
                socket.send_data(&act_one, true);
            }
            Err(_) => self.refuse(id),
        }
    }

    /// Closes a connection that LDK does not have.
    pub fn refuse(&mut self, id: ConnectionId) {
        self.remove(id);
        self.refused.push(id);
    }

    /// The connection has ended.
    pub fn closed(&mut self, turn: &Turn, id: ConnectionId) {
        if let Some(connection) = self.remove(id) {
            turn.ldk
                .peer_manager
                .socket_disconnected(&connection.socket);
        }
    }

    /// Bytes of a peer.
    pub fn bytes(&mut self, turn: &Turn, id: ConnectionId, bytes: Vec<u8>) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        match connection.incoming(bytes) {
            Incoming::Wait => {}
            Incoming::Fetch(act) => {
                if let Some(remote) = turn.remote() {
                    remote.prefetch_handshake(&act);
                }
            }
            Incoming::Read(bytes) => {
                let socket = connection.socket.clone();
                self.read(turn, socket, &bytes);
            }
        }
    }

    /// Goes on with the handshakes whose ECDH has come. Closes the connections whose ECDH the phone has refused, and returns them with the
    /// refusals.
    pub fn advance_handshakes(&mut self, turn: &Turn) -> Vec<(ConnectionId, Refusal)> {
        let mut refused = Vec::new();
        let Some(remote) = turn.remote() else {
            return refused;
        };
        for (id, act) in self.waiting() {
            match remote.prefetch_handshake(&act) {
                Secret::Waiting => {}
                Secret::Ready => self.finish_handshake(turn, id),
                Secret::Refused(refusal) => {
                    self.closed(turn, id);
                    self.refuse(id);
                    refused.push((id, refusal));
                }
            }
        }
        let waiting: Vec<_> = self.waiting().into_iter().map(|(_, act)| act).collect();
        remote.retain_handshakes(&waiting);
        refused
    }

    fn finish_handshake(&mut self, turn: &Turn, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            let socket = connection.socket.clone();
            let bytes = connection.handshake_ready();
            self.read(turn, socket, &bytes);
        }
    }

    /// Whether LDK has output that no writer has, or a connection is to be closed.
    pub fn have_output(&self) -> bool {
        let mut connections = self.connections.values();
        !self.refused.is_empty() || connections.any(|it| it.socket.has_output())
    }

    /// The reads that may come after a turn that is not committed yet and in which LDK wrote nothing.
    pub fn take_reads(&mut self) -> Vec<(ConnectionId, usize)> {
        let connections = self.connections.iter_mut();
        let reads = connections.map(|(id, connection)| (*id, connection.take_reads()));
        reads.filter(|(_, reads)| *reads > 0).collect()
    }

    /// Everything that LDK wrote up to a commit. A connection that may be written to again after its outbox was full is
    /// written to: LDK had queued that in a turn that is committed.
    pub fn take_output(&mut self, turn: &Turn) -> Vec<PeerOutput> {
        let mut outputs: Vec<PeerOutput> = self.refused.drain(..).map(closed_without_ldk).collect();
        for connection in self.connections.values_mut() {
            let mut messages = connection.socket.take_messages();
            if connection.socket.take_writable() {
                let mut socket = connection.socket.clone();
                let peer_manager = &turn.ldk.peer_manager;
                let written = peer_manager.write_buffer_space_avail(&mut socket);
                if written.is_err() {
                    socket.disconnect_socket();
                }
                messages.append(&mut connection.socket.take_messages());
            }
            let output = PeerOutput {
                id: connection.socket.id,
                messages,
                reads: connection.take_reads(),
                is_closed: connection.socket.is_closed(),
            };
            if output.is_closed || output.reads > 0 || !output.messages.is_empty() {
                outputs.push(output);
            }
        }
        let before = self.connections.len();
        self.connections
            .retain(|_, connection| !connection.socket.is_closed());
        self.has_lost |= self.connections.len() < before;
        outputs
    }

    fn insert(&mut self, turn: &Turn, new: NewConnection, dialed: Option<PublicKey>) -> Socket {
        let socket = Socket::new(new.id, new.unwritten);
        let handshake = match turn.remote() {
            Some(_) => Handshake::Reading(Vec::new()),
            None => Handshake::Over,
        };
        let connection = Connection {
            socket: socket.clone(),
            dialed,
            handshake,
            owed_reads: 0,
            withheld_reads: 0,
        };
        self.connections.insert(new.id, connection);
        socket
    }

    fn remove(&mut self, id: ConnectionId) -> Option<Connection> {
        let removed = self.connections.remove(&id);
        self.has_lost |= removed.is_some();
        removed
    }

    fn read(&mut self, turn: &Turn, mut socket: Socket, bytes: &[u8]) {
        let read = turn.ldk.peer_manager.read_event(&mut socket, bytes);
        if read.is_err() {
            self.refuse(socket.id);
        }
    }

    /// Connections whose handshake waits for an ECDH, with the act that it is for.
    fn waiting(&self) -> Vec<(ConnectionId, PeerAct)> {
        let connections = self.connections.iter();
        let waiting = connections.filter_map(|(id, connection)| match &connection.handshake {
            Handshake::Waiting(act, _) => Some((*id, act.clone())),
            _ => None,
        });
        waiting.collect()
    }
}

fn closed_without_ldk(id: ConnectionId) -> PeerOutput {
    PeerOutput {
        id,
        messages: Vec::new(),
        reads: 0,
        is_closed: true,
    }
}

#[cfg(test)]
#[path = "tests/connections.rs"]
mod tests;
