//! Everything that leaves a machine, once the turn that made it is committed.

use bitcoin::Transaction;
use bitcoin::secp256k1::PublicKey;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{CommandReply, Error};
use longhand_proto::signer::SignerBatch;

use crate::api::{ForwardingFees, Forwards, NodeEvent, Overview, PeerNeeded};
use crate::errors::error_reply;
use crate::keys::desk::OpKey;
use crate::ldk::socket::ConnectionId;
use crate::store::history::Read;

/// Identifies a request until it is answered. The driver gives the ids; none is used twice.
pub(crate) type RequestId = u64;

/// The answer to a request.
pub(crate) enum Answer {
    Command(CommandReply),
    Overview(Overview),
    Hub(Result<HubAnswer, Error>),
    /// Of a detach: it is done.
    Done,
}

/// The answer to a hub's operator.
pub(crate) enum HubAnswer {
    Fees(ForwardingFees),
    Forwards(Forwards),
}

/// See the module.
#[derive(Default)]
pub(crate) struct Output {
    pub replies: Vec<(RequestId, Answer)>,
    /// Requests that the driver answers from the store.
    pub reads: Vec<(RequestId, Read)>,
    pub events: Vec<NodeEvent>,
    /// Peers for which payments are held; they become one event when the turn is committed.
    pub payments_held: Vec<PeerNeeded>,
    /// Peers that are needed for HTLCs that they were sent; likewise.
    pub peers_needed: Vec<PeerNeeded>,
    /// Packages of transactions to broadcast.
    pub packages: Vec<Vec<Transaction>>,
    /// The node has stopped: the driver ends after this output.
    pub has_stopped: bool,
}

/// Output of one connection.
pub(crate) struct PeerOutput {
    pub id: ConnectionId,
    pub messages: Vec<Vec<u8>>,
    /// So many more reads may come.
    pub reads: usize,
    /// To be closed after `messages`.
    pub is_closed: bool,
}

/// A peer to dial. Not held back until the commit: dialling changes nothing at the peer.
pub(crate) struct DialRequest {
    pub node_id: PublicKey,
    /// `host:port`; empty when the dialer should know (the hub).
    pub address: String,
}

/// Operations for the signer, with everything that comes back with the reply.
pub(crate) struct Batch {
    pub ops: SignerBatch,
    pub ticket: BatchTicket,
}

/// Names a batch in its reply.
pub(crate) struct BatchTicket {
    /// Of the signer's attachment: replies of an earlier one are dropped.
    pub generation: u64,
    pub keys: Vec<OpKey>,
    /// Batches in a row that waited for each other, this one included.
    pub depth: u32,
}

impl Output {
    /// Nothing waits for the commit; connections and the signer apart.
    pub fn is_empty(&self) -> bool {
        let Output {
            replies,
            reads,
            events,
            payments_held,
            peers_needed,
            packages,
            has_stopped,
        } = self;
        replies.is_empty()
            && reads.is_empty()
            && events.is_empty()
            && payments_held.is_empty()
            && peers_needed.is_empty()
            && packages.is_empty()
            && !has_stopped
    }

    /// Answers a command.
    pub fn reply(&mut self, id: RequestId, result: Result<Reply, Error>) {
        let reply = match result {
            Ok(reply) => CommandReply { reply: Some(reply) },
            Err(error) => error_reply(error),
        };
        self.replies.push((id, Answer::Command(reply)));
    }

    /// Puts the peers that are needed into events, one for all: a slow listener may not keep up with hundreds.
    pub fn gather_events(&mut self) {
        let held = first_of_each(&mut self.payments_held);
        if !held.is_empty() {
            self.events.push(NodeEvent::PaymentsHeld(held));
        }
        let needed = first_of_each(&mut self.peers_needed);
        if !needed.is_empty() {
            self.events.push(NodeEvent::PeersNeeded(needed));
        }
    }
}

/// Of each peer the lowest height.
fn first_of_each(peers: &mut Vec<PeerNeeded>) -> Vec<PeerNeeded> {
    let mut first = std::mem::take(peers);
    first.sort_by_key(|peer| (peer.node_id, peer.deadline_height));
    first.dedup_by_key(|peer| peer.node_id);
    first
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::secp256k1::{Secp256k1, SecretKey};

    use super::*;

    fn needed(byte: u8, deadline_height: u32) -> PeerNeeded {
        let secret = SecretKey::from_slice(&[byte; 32]).unwrap();
        PeerNeeded {
            node_id: secret.public_key(&Secp256k1::new()),
            deadline_height,
        }
    }

    #[test]
    fn each_peer_is_reported_once_with_its_first_deadline() {
        let mut output = Output {
            payments_held: vec![needed(1, 200), needed(2, 150), needed(1, 100)],
            ..Output::default()
        };
        assert!(!output.is_empty());
        output.gather_events();
        let [NodeEvent::PaymentsHeld(held)] = &output.events[..] else {
            panic!("one event for all");
        };
        let mut expected = [needed(1, 100), needed(2, 150)];
        expected.sort_by_key(|peer| peer.node_id);
        assert_eq!(held[..], expected);
    }
}
