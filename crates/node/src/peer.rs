//! Peers' sockets: bytes in and out of LDK's peer manager, over anything that carries bytes.
//!
//! Tasks move bytes; the actor alone calls LDK. Outgoing messages are collected in an [`Outbox`] and
//! handed to the writer only when the turn that made them is committed. Before LDK sees a handshake
//! act, the one ECDH that it needs is fetched from the phone: the peer's ephemeral key stands in
//! clear at bytes 1 to 33 of the 50-byte act (BOLT 8, Act One when they dial, Act Two when we do).

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bitcoin::secp256k1::PublicKey;
use lightning::ln::peer_handler::SocketDescriptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::AbortHandle;

use crate::PeerStream;
use crate::actor::Input;
use crate::journal::lock;

/// A peer that does not read makes LDK hold back at this many bytes.
const OUTBOX_LIMIT: usize = 256 * 1024;
/// Read at once.
const READ_SIZE: usize = 16 * 1024;
/// Reads that may wait in the actor's inbox for one connection.
const READS_AHEAD: usize = 4;
/// Length of BOLT 8's Act One and Act Two.
const ACT_LENGTH: usize = 50;

/// Identifies a connection to LDK.
#[derive(Clone)]
pub(crate) struct Socket {
    pub id: u64,
    outbox: Arc<Outbox>,
}

#[derive(Default)]
struct Outbox {
    state: Mutex<OutboxState>,
    /// With the writer, not yet written.
    writing: AtomicUsize,
}

#[derive(Default)]
struct OutboxState {
    /// One for each of LDK's writes: each is a message, or what it had no room for before.
    messages: Vec<Vec<u8>>,
    full: bool,
    pause_read: bool,
    closed: bool,
}

impl PartialEq for Socket {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Socket {}

impl Hash for Socket {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

impl SocketDescriptor for Socket {
    fn send_data(&mut self, data: &[u8], continue_read: bool) -> usize {
        let mut state = lock(&self.outbox.state);
        state.pause_read = !continue_read;
        if state.closed {
            return 0;
        }
        let collected: usize = state.messages.iter().map(Vec::len).sum();
        let queued = collected + self.outbox.writing.load(Ordering::Acquire);
        let taken = data.len().min(OUTBOX_LIMIT.saturating_sub(queued));
        if taken > 0 {
            state.messages.push(data[..taken].to_vec());
        }
        state.full = taken < data.len();
        taken
    }

    fn disconnect_socket(&mut self) {
        lock(&self.outbox.state).closed = true;
    }
}

/// Where a connection is in its handshake.
pub(crate) enum Handshake {
    /// The act with their ephemeral key is being collected.
    Reading(Vec<u8>),
    /// The phone is asked for the ECDH with this key; the act and what follows it wait.
    Waiting(PublicKey, Vec<u8>),
    /// LDK gets all bytes.
    Over,
}

/// What is to be done with bytes that came in.
pub(crate) enum Incoming {
    /// Nothing yet.
    Wait,
    /// Fetch the ECDH with this key, then call [`Connection::handshake_ready`].
    Fetch(PublicKey),
    /// Give these to LDK.
    Read(Vec<u8>),
}

/// One connection.
pub(crate) struct Connection {
    pub socket: Socket,
    pub handshake: Handshake,
    writer: mpsc::UnboundedSender<Vec<u8>>,
    reader: AbortHandle,
    credit: Arc<Semaphore>,
    /// Reads that LDK has taken: as many others may come, unless it asked for a pause.
    owed: usize,
    /// Reads that wait for the handshake.
    withheld: usize,
}

impl Connection {
    /// Sorts incoming bytes; see [`Incoming`].
    pub fn incoming(&mut self, bytes: Vec<u8>) -> Incoming {
        match &mut self.handshake {
            Handshake::Over => {
                self.owed += 1;
                Incoming::Read(bytes)
            }
            // Nothing more is read before these are: who dials may send what they like while the phone is asked.
            Handshake::Waiting(_, waiting) => {
                waiting.extend_from_slice(&bytes);
                self.withheld += 1;
                Incoming::Wait
            }
            Handshake::Reading(act) => {
                self.owed += 1;
                act.extend_from_slice(&bytes);
                if act.len() < ACT_LENGTH {
                    return Incoming::Wait;
                }
                let act = std::mem::take(act);
                match PublicKey::from_slice(&act[1..34]) {
                    Ok(ephemeral) => {
                        self.handshake = Handshake::Waiting(ephemeral, act);
                        Incoming::Fetch(ephemeral)
                    }
                    // LDK refuses it and says so.
                    Err(_) => {
                        self.handshake = Handshake::Over;
                        Incoming::Read(act)
                    }
                }
            }
        }
    }

    /// The ECDH is there: what waited for it.
    pub fn handshake_ready(&mut self) -> Vec<u8> {
        self.owed += std::mem::take(&mut self.withheld);
        match std::mem::replace(&mut self.handshake, Handshake::Over) {
            Handshake::Waiting(_, bytes) => bytes,
            other => {
                self.handshake = other;
                Vec::new()
            }
        }
    }

    /// Lets as many reads come as LDK has taken, unless it asked for a pause.
    fn allow_reads(&mut self) {
        if !lock(&self.socket.outbox.state).pause_read {
            self.credit.add_permits(std::mem::take(&mut self.owed));
        }
    }

    /// Lets go what LDK has written. True when it may write on after a full outbox.
    fn flush(&mut self) -> bool {
        self.allow_reads();
        let mut state = lock(&self.socket.outbox.state);
        for message in std::mem::take(&mut state.messages) {
            self.socket
                .outbox
                .writing
                .fetch_add(message.len(), Ordering::AcqRel);
            let _ = self.writer.send(message);
        }
        let room = self.socket.outbox.writing.load(Ordering::Acquire) < OUTBOX_LIMIT / 2;
        room && std::mem::take(&mut state.full)
    }

    /// LDK has written, or closed the connection.
    fn has_output(&self) -> bool {
        let state = lock(&self.socket.outbox.state);
        !state.messages.is_empty() || state.full || state.closed
    }

    fn is_closed(&self) -> bool {
        lock(&self.socket.outbox.state).closed
    }
}

impl Drop for Connection {
    /// The writer ends by itself when it has written what it holds.
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// All connections of a node.
pub(crate) struct Peers {
    connections: HashMap<u64, Connection>,
    /// Ids are never used twice: after a reload, what old connections still have to say is ignored.
    next_id: u64,
    /// Some have gone since this was last asked.
    has_lost: bool,
    inbox: mpsc::UnboundedSender<Input>,
    /// Handshakes need the phone.
    remote_keys: bool,
}

impl Peers {
    /// None yet; the first will be `next_id`.
    pub fn new(inbox: mpsc::UnboundedSender<Input>, remote_keys: bool, next_id: u64) -> Peers {
        Peers {
            connections: HashMap::new(),
            next_id,
            has_lost: false,
            inbox,
            remote_keys,
        }
    }

    /// Takes a stream; LDK has to be told of the socket.
    pub fn add(&mut self, stream: Box<dyn PeerStream>) -> Socket {
        let id = self.next_id;
        self.next_id += 1;
        let outbox = Arc::new(Outbox::default());
        let socket = Socket { id, outbox };
        let (read, write) = tokio::io::split(stream);
        let credit = Arc::new(Semaphore::new(READS_AHEAD));
        let (writer, to_write) = mpsc::unbounded_channel();
        let reading = read_loop(id, read, Arc::clone(&credit), self.inbox.clone());
        let reader = tokio::spawn(reading).abort_handle();
        let writing = Arc::clone(&socket.outbox);
        tokio::spawn(write_loop(id, write, to_write, writing, self.inbox.clone()));
        let handshake = if self.remote_keys {
            Handshake::Reading(Vec::new())
        } else {
            Handshake::Over
        };
        let connection = Connection {
            socket: socket.clone(),
            handshake,
            writer,
            reader,
            credit,
            owed: 0,
            withheld: 0,
        };
        self.connections.insert(id, connection);
        socket
    }

    /// The id of the next connection.
    pub fn next_id(&self) -> u64 {
        self.next_id
    }

    pub fn get(&mut self, id: u64) -> Option<&mut Connection> {
        self.connections.get_mut(&id)
    }

    pub fn has(&self, id: u64) -> bool {
        self.connections.contains_key(&id)
    }

    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    pub fn remove(&mut self, id: u64) -> Option<Connection> {
        let removed = self.connections.remove(&id);
        self.has_lost |= removed.is_some();
        removed
    }

    /// Whether connections have gone since this was last asked.
    pub fn take_lost(&mut self) -> bool {
        std::mem::take(&mut self.has_lost)
    }

    /// Connections whose handshake waits for an ECDH, with the key it is with.
    pub fn waiting(&self) -> Vec<(u64, PublicKey)> {
        let waiting =
            self.connections
                .iter()
                .filter_map(|(id, connection)| match &connection.handshake {
                    Handshake::Waiting(ephemeral, _) => Some((*id, *ephemeral)),
                    _ => None,
                });
        waiting.collect()
    }

    /// Whether LDK has something to say that is not with a writer.
    pub fn have_output(&self) -> bool {
        self.connections.values().any(Connection::has_output)
    }

    /// After a turn that is not committed yet and in which LDK said nothing: reads go on.
    pub fn allow_reads(&mut self) {
        self.connections
            .values_mut()
            .for_each(Connection::allow_reads);
    }

    /// Lets go what LDK wrote in this turn and forgets what it closed. Returns the sockets that may
    /// be written to again.
    pub fn flush(&mut self) -> Vec<Socket> {
        let mut writable = Vec::new();
        for connection in self.connections.values_mut() {
            if connection.flush() {
                writable.push(connection.socket.clone());
            }
        }
        let before = self.connections.len();
        self.connections
            .retain(|_, connection| !connection.is_closed());
        self.has_lost |= self.connections.len() < before;
        writable
    }
}

async fn read_loop(
    id: u64,
    mut stream: ReadHalf<Box<dyn PeerStream>>,
    credit: Arc<Semaphore>,
    inbox: mpsc::UnboundedSender<Input>,
) {
    let mut buffer = vec![0; READ_SIZE];
    while let Ok(permit) = credit.acquire().await {
        permit.forget();
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => {
                if inbox
                    .send(Input::PeerBytes(id, buffer[..length].to_vec()))
                    .is_err()
                {
                    return;
                }
            }
        }
    }
    let _ = inbox.send(Input::PeerClosed(id));
}

async fn write_loop(
    id: u64,
    mut stream: WriteHalf<Box<dyn PeerStream>>,
    mut to_write: mpsc::UnboundedReceiver<Vec<u8>>,
    outbox: Arc<Outbox>,
    inbox: mpsc::UnboundedSender<Input>,
) {
    while let Some(bytes) = to_write.recv().await {
        if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
            let _ = inbox.send(Input::PeerClosed(id));
            return;
        }
        let before = outbox.writing.fetch_sub(bytes.len(), Ordering::AcqRel);
        if before >= OUTBOX_LIMIT / 2 {
            let _ = inbox.send(Input::PeerWritable);
        }
    }
    let _ = stream.shutdown().await;
}
