//! A peer's connection as LDK's peer manager sees it: messages are collected, and leave with the turn's commit.

use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use lightning::ln::peer_handler::SocketDescriptor;

use crate::store::journal::lock;

/// Bytes collected or not yet written at which LDK holds back: the peer does not read.
pub(crate) const OUTBOX_LIMIT: usize = 256 * 1024;

/// Identifies a connection of a node. Ids are never used twice.
pub(crate) type ConnectionId = u64;

/// Identifies a connection to LDK.
#[derive(Clone)]
pub(crate) struct Socket {
    pub id: ConnectionId,
    outbox: Arc<Outbox>,
}

struct Outbox {
    state: Mutex<OutboxState>,
    /// Bytes that the writer was given and has not written yet; the writer subtracts.
    unwritten: Arc<AtomicUsize>,
}

#[derive(Default)]
struct OutboxState {
    /// One for each of LDK's writes: a message, or the rest of one for which there was no room before.
    messages: Vec<Vec<u8>>,
    full: bool,
    pause_read: bool,
    closed: bool,
}

impl Socket {
    /// A connection whose writer counts in `unwritten`.
    pub fn new(id: ConnectionId, unwritten: Arc<AtomicUsize>) -> Socket {
        let state = Mutex::default();
        Socket {
            id,
            outbox: Arc::new(Outbox { state, unwritten }),
        }
    }

    /// LDK has taken as many bytes as it wants for now.
    pub fn pauses_reads(&self) -> bool {
        lock(&self.outbox.state).pause_read
    }

    /// LDK has written, or closed the connection.
    pub fn has_output(&self) -> bool {
        let state = lock(&self.outbox.state);
        !state.messages.is_empty() || state.full || state.closed
    }

    pub fn is_closed(&self) -> bool {
        lock(&self.outbox.state).closed
    }

    /// Takes the messages for the writer, and counts them as not yet written.
    pub fn take_messages(&self) -> Vec<Vec<u8>> {
        let messages = std::mem::take(&mut lock(&self.outbox.state).messages);
        let bytes = messages.iter().map(Vec::len).sum();
        self.outbox.unwritten.fetch_add(bytes, Ordering::AcqRel);
        messages
    }

    /// Whether LDK may write again after the outbox was full. Once true, it is false until the outbox is full again.
    pub fn take_writable(&self) -> bool {
        let mut state = lock(&self.outbox.state);
        let has_room = self.outbox.unwritten.load(Ordering::Acquire) < OUTBOX_LIMIT / 2;
        has_room && std::mem::take(&mut state.full)
    }
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
        let queued = collected.saturating_add(self.outbox.unwritten.load(Ordering::Acquire));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> (Socket, Arc<AtomicUsize>) {
        let unwritten = Arc::new(AtomicUsize::new(0));
        (Socket::new(1, Arc::clone(&unwritten)), unwritten)
    }

    #[test]
    fn a_peer_that_does_not_read_makes_ldk_hold_back_until_half_of_it_is_written() {
        let (mut socket, unwritten) = socket();
        assert_eq!(socket.send_data(&[0; OUTBOX_LIMIT], true), OUTBOX_LIMIT);
        assert_eq!(socket.send_data(&[0; 100], true), 0);
        assert_eq!(socket.take_messages().len(), 1);
        assert_eq!(unwritten.load(Ordering::Acquire), OUTBOX_LIMIT);
        assert!(!socket.take_writable());

        unwritten.store(OUTBOX_LIMIT / 2 - 1, Ordering::Release);
        assert!(socket.take_writable());
        assert!(!socket.take_writable(), "LDK was asked to go on already");
    }

    #[test]
    fn a_connection_that_ldk_closed_takes_no_more_bytes() {
        let (mut socket, _) = socket();
        assert!(!socket.has_output());
        socket.disconnect_socket();
        assert!(socket.has_output() && socket.is_closed());
        assert_eq!(socket.send_data(&[1], true), 0);
    }
}
