//! The signer of a node: attached or away, its batches, and leaving.

use std::time::{Duration, Instant};

use lightning::sign::EntropySource;
use longhand_proto::command::SignerStats;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{SignerBatch, SignerReply};

use crate::api::SignerAway;
use crate::keys::trimmed;
use crate::machine::output::{Answer, Batch, BatchTicket, RequestId};
use crate::machine::turn::Turn;
use crate::parts::in_flight::InFlight;

/// How long a detach waits for the step in hand.
const DETACH_LIMIT: Duration = Duration::from_secs(5);
/// How long a detach waits for a peer that may remove an HTLC: one that has given its preimage is about to.
const DETACH_CALM: Duration = Duration::from_millis(500);

/// A signer that asked to leave.
struct Detach {
    requests: Vec<RequestId>,
    until: Instant,
    /// Since when the signer has nothing to do, and no HTLC is moving.
    calm_since: Option<Instant>,
}

/// See the module. With local keys no signer is ever attached, and none is missed.
pub(crate) struct SignerSession {
    has_local_keys: bool,
    is_attached: bool,
    /// Of the signer that is attached, or was last.
    identity: Vec<u8>,
    /// Another one was attached before it.
    is_another: bool,
    /// It failed a batch: nothing more is sent until a signer is attached anew.
    is_stalled: bool,
    /// Counts attachments: replies to batches of an earlier one are dropped.
    generation: u64,
    detach: Option<Detach>,
    batches: u64,
    ops: u64,
    /// The longest run of batches that waited for each other, since the last reset.
    longest_chain: u32,
}

impl SignerSession {
    /// No signer. Replies of a generation before `generation` are dropped.
    pub fn new(has_local_keys: bool, generation: u64) -> SignerSession {
        SignerSession {
            has_local_keys,
            is_attached: false,
            identity: Vec::new(),
            is_another: false,
            is_stalled: false,
            generation,
            detach: None,
            batches: 0,
            ops: 0,
            longest_chain: 0,
        }
    }

    /// Whether operations can be signed: a signer is attached, or the keys are here.
    pub fn is_available(&self) -> bool {
        self.has_local_keys || self.is_attached
    }

    /// Whether a signer was asked to leave, and has not left yet.
    pub fn is_detaching(&self) -> bool {
        self.detach.is_some()
    }

    pub fn is_attached(&self) -> bool {
        self.is_attached
    }

    /// Whether another signer was attached before this one, since the node was loaded.
    pub fn is_another(&self) -> bool {
        self.is_another
    }

    /// See [`crate::SignerTransport::identity`].
    pub fn identity(&self) -> &[u8] {
        &self.identity
    }

    /// The generation for the machine that takes this one's place.
    pub fn next_generation(&self) -> u64 {
        self.generation.saturating_add(1)
    }

    pub fn stats(&self) -> SignerStats {
        SignerStats {
            batches: self.batches,
            ops: self.ops,
        }
    }

    /// See [`crate::Overview::signer_chain`].
    pub fn longest_chain(&self) -> u32 {
        self.longest_chain
    }

    pub fn reset_chain(&mut self) {
        self.longest_chain = 0;
    }

    /// Takes over the counts of the machine in whose place this one was loaded.
    pub fn continue_counts(&mut self, earlier: &SignerSession) {
        self.batches = earlier.batches;
        self.ops = earlier.ops;
        self.longest_chain = earlier.longest_chain;
    }

    // -- There and away.

    /// A signer is there. False with local keys: none is needed.
    pub fn attach(&mut self, turn: &mut Turn, identity: Vec<u8>) -> bool {
        let Some(remote) = turn.remote() else {
            return false;
        };
        self.generation += 1;
        self.is_attached = true;
        self.is_another = !self.identity.is_empty() && self.identity != identity;
        self.identity = identity;
        self.is_stalled = false;
        remote.forget();
        if self.is_another {
            remote.remove_free_keys();
        }
        self.answer_detach(turn);
        fill_pool(turn);
        true
    }

    /// The signer asks to leave. It is gone at once with local keys, which are always there.
    pub fn detach(&mut self, turn: &mut Turn, request: RequestId) {
        if self.has_local_keys {
            turn.output.replies.push((request, Answer::Done));
            return;
        }
        let until = turn.now.instant + DETACH_LIMIT;
        let detach = self.detach.get_or_insert_with(|| Detach {
            requests: Vec::new(),
            until,
            calm_since: None,
        });
        detach.requests.push(request);
    }

    /// When a detach waits no longer, as far as nothing happens until then.
    pub fn detach_until(&self) -> Option<Instant> {
        let detach = self.detach.as_ref()?;
        let calm = detach.calm_since.map(|since| since + DETACH_CALM);
        Some(calm.map_or(detach.until, |calm| calm.min(detach.until)))
    }

    /// Whether a detach is due: the step in hand is finished, or takes too long.
    pub fn detach_is_due(
        &mut self,
        turn: &Turn,
        is_negotiating_a_close: bool,
        htlcs: InFlight,
    ) -> bool {
        let Some(detach) = &mut self.detach else {
            return false;
        };
        let now = turn.now.instant;
        let is_idle = turn.remote().is_none_or(|remote| remote.is_idle());
        if !is_idle || is_negotiating_a_close || htlcs == InFlight::Moving {
            detach.calm_since = None;
            return now >= detach.until;
        }
        let since = *detach.calm_since.get_or_insert(now);
        htlcs == InFlight::Nothing || now >= detach.until.min(since + DETACH_CALM)
    }

    /// The signer is gone. False with local keys, which never are.
    pub fn lost(&mut self, turn: &mut Turn) -> bool {
        let Some(remote) = turn.remote() else {
            return false;
        };
        self.generation += 1;
        self.is_attached = false;
        remote.forget();
        self.answer_detach(turn);
        true
    }

    fn answer_detach(&mut self, turn: &mut Turn) {
        if let Some(detach) = self.detach.take() {
            let requests = detach.requests.into_iter();
            let done = requests.map(|request| (request, Answer::Done));
            turn.output.replies.extend(done);
        }
    }

    // -- Batches.

    /// Whether there is something to send to the signer.
    pub fn has_batch(&self, turn: &Turn) -> bool {
        let can_send = self.is_attached && !self.is_stalled;
        can_send && turn.remote().is_some_and(|remote| remote.has_batch())
    }

    /// The wanted operations as one batch, as far as they fit. The rest goes at the end of the turn that takes in the
    /// reply.
    pub fn next_batch(&mut self, turn: &Turn) -> Option<Batch> {
        if !self.is_attached || self.is_stalled {
            return None;
        }
        let (keys, mut ops) = turn.remote()?.next_batch()?;
        trimmed::add(&mut ops, turn);
        // The run grows by this batch if it belongs to a channel's step.
        let depth = match is_step(&ops) {
            true => self.longest_chain.saturating_add(1),
            false => 0,
        };
        self.batches += 1;
        self.ops += ops.ops.len() as u64;
        let generation = self.generation;
        let ticket = BatchTicket {
            generation,
            keys,
            depth,
        };
        Some(Batch { ops, ticket })
    }

    /// The end of a batch. True when LDK is to try again the operations that wait for their signer.
    pub fn replied(
        &mut self,
        turn: &Turn,
        ticket: BatchTicket,
        reply: Result<SignerReply, SignerAway>,
    ) -> bool {
        if ticket.generation != self.generation {
            return false;
        }
        let Some(remote) = turn.remote() else {
            return false;
        };
        match reply {
            Ok(reply) => {
                self.longest_chain = self.longest_chain.max(ticket.depth);
                remote.take_reply(&ticket.keys, reply);
                fill_pool(turn);
                true
            }
            Err(SignerAway) => {
                remote.lost(&ticket.keys);
                self.is_stalled = true;
                false
            }
        }
    }
}

/// Asks the phone for keys of channels that do not exist yet.
fn fill_pool(turn: &Turn) {
    if let Some(remote) = turn.remote() {
        remote.fill_pool(|| turn.ldk.keys.get_secure_random_bytes());
    }
}

/// False for batches whose answers no protocol step waits for: handshakes, key pools, gossip, headers, proofs, filters, and a peer's revocation
/// that is reported alone.
fn is_step(batch: &SignerBatch) -> bool {
    !batch.ops.iter().all(|op| {
        matches!(
            op.op,
            Some(
                Op::Ecdh(_)
                    | Op::NewChannelKeys(_)
                    | Op::GetPoints(_)
                    | Op::SignGossip(_)
                    | Op::ExtendHeaders(_)
                    | Op::ProveTransaction(_)
                    | Op::ShowFilters(_)
                    | Op::CounterpartyRevocation(_)
            )
        )
    })
}

#[cfg(test)]
#[path = "tests/signer_session.rs"]
mod tests;
