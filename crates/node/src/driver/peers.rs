//! Tasks that move bytes between peers' streams and the machine.
//!
//! A reader may read ahead by a few reads; more are allowed as LDK takes them. A writer gets messages only after the turn
//! that made them is committed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::api::PeerStream;
use crate::driver::message::{Message, PeerEvent};
use crate::ldk::socket::{ConnectionId, OUTBOX_LIMIT};
use crate::machine::input::NewConnection;
use crate::machine::output::PeerOutput;

/// Read at once.
const READ_SIZE: usize = 16 * 1024;
/// Reads that may wait in the inbox for one connection.
const READS_AHEAD: usize = 4;

/// How long the last messages of a closed connection may take to be written.
const LINGER: Duration = Duration::from_secs(5);

/// The tasks of one connection.
struct Connection {
    writer: mpsc::UnboundedSender<Vec<u8>>,
    reader: AbortHandle,
    /// One permit for each read that may come.
    reads: Arc<Semaphore>,
    /// Dropped with the connection: the writer has a little time left.
    _open: oneshot::Sender<()>,
}

impl Drop for Connection {
    /// The writer ends by itself when it has written what it holds, or soon.
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// All connections of a node.
pub(crate) struct Peers {
    connections: HashMap<ConnectionId, Connection>,
    next_id: ConnectionId,
    inbox: mpsc::UnboundedSender<Message>,
}

impl Peers {
    /// None yet. Their events go to `inbox`.
    pub fn new(inbox: mpsc::UnboundedSender<Message>) -> Peers {
        Peers {
            connections: HashMap::new(),
            next_id: 0,
            inbox,
        }
    }

    /// Takes a stream, and begins to read from it.
    pub fn add(&mut self, stream: Box<dyn PeerStream>) -> NewConnection {
        let id = self.next_id;
        self.next_id += 1;
        let (read, write) = tokio::io::split(stream);
        let reads = Arc::new(Semaphore::new(READS_AHEAD));
        let reading = read_loop(id, read, Arc::clone(&reads), self.inbox.clone());
        let reader = tokio::spawn(reading).abort_handle();
        let (writer, messages) = mpsc::unbounded_channel();
        let unwritten = Arc::new(AtomicUsize::new(0));
        let writing = Arc::clone(&unwritten);
        let (open, closed) = oneshot::channel();
        let inbox = self.inbox.clone();
        tokio::spawn(async move {
            // A peer that does not read would keep the stream for ever.
            let linger = async {
                let _ = closed.await;
                tokio::time::sleep(LINGER).await;
            };
            tokio::select! {
                biased;
                () = write_loop(id, write, messages, writing, inbox) => {}
                () = linger => {}
            }
        });
        let connection = Connection {
            writer,
            reader,
            reads,
            _open: open,
        };
        self.connections.insert(id, connection);
        NewConnection {
            id,
            unwritten,
            hosted: None,
        }
    }

    /// Whether the connection is open; events of others are dropped.
    pub fn contains(&self, id: ConnectionId) -> bool {
        self.connections.contains_key(&id)
    }

    /// The stream has ended.
    pub fn remove(&mut self, id: ConnectionId) {
        self.connections.remove(&id);
    }

    /// Closes all, after a panic of the machine: the next one does not know them.
    pub fn clear(&mut self) {
        self.connections.clear();
    }

    /// Lets more reads come.
    pub fn allow_reads(&self, id: ConnectionId, reads: usize) {
        if let Some(connection) = self.connections.get(&id) {
            connection.reads.add_permits(reads);
        }
    }

    /// Writes what the machine has sent, and closes the connection if it has.
    pub fn send(&mut self, output: PeerOutput) {
        let Some(connection) = self.connections.get(&output.id) else {
            return;
        };
        for message in output.messages {
            // An error means that the writer has ended; its event is in the inbox.
            let _ = connection.writer.send(message);
        }
        connection.reads.add_permits(output.reads);
        if output.is_closed {
            self.connections.remove(&output.id);
        }
    }
}

async fn read_loop(
    id: ConnectionId,
    mut stream: ReadHalf<Box<dyn PeerStream>>,
    reads: Arc<Semaphore>,
    inbox: mpsc::UnboundedSender<Message>,
) {
    let mut buffer = vec![0; READ_SIZE];
    while let Ok(permit) = reads.acquire().await {
        permit.forget();
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => {
                let bytes = PeerEvent::Bytes(buffer[..length].to_vec());
                if inbox.send(Message::Peer(id, bytes)).is_err() {
                    return;
                }
            }
        }
    }
    let _ = inbox.send(Message::Peer(id, PeerEvent::Closed));
}

async fn write_loop(
    id: ConnectionId,
    mut stream: WriteHalf<Box<dyn PeerStream>>,
    mut messages: mpsc::UnboundedReceiver<Vec<u8>>,
    unwritten: Arc<AtomicUsize>,
    inbox: mpsc::UnboundedSender<Message>,
) {
    while let Some(bytes) = messages.recv().await {
        if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
            let _ = inbox.send(Message::Peer(id, PeerEvent::Closed));
            return;
        }
        let before = unwritten.fetch_sub(bytes.len(), Ordering::AcqRel);
        if before >= OUTBOX_LIMIT / 2 {
            let _ = inbox.send(Message::Peer(id, PeerEvent::Writable));
        }
    }
    let _ = stream.shutdown().await;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_read_loses_the_connection_soon_after_it_is_closed() {
        let (inbox, _events) = mpsc::unbounded_channel();
        let mut peers = Peers::new(inbox);
        let (near, mut far) = tokio::io::duplex(16);
        let new = peers.add(Box::new(near));
        new.unwritten.fetch_add(64, Ordering::AcqRel);
        peers.send(PeerOutput {
            id: new.id,
            messages: vec![vec![7; 64]],
            reads: 0,
            is_closed: true,
        });
        tokio::time::sleep(LINGER * 2).await;
        let mut read = Vec::new();
        far.read_to_end(&mut read).await.unwrap();
        assert_eq!(read.len(), 16, "what was in flight, and then the end");
    }
}
