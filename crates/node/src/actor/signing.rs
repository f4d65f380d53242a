//! The signer of a node: there, away, asked and answering.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use lightning::sign::EntropySource;
use longhand_proto::signer::SignerBatch;
use longhand_proto::signer::signer_op::Op;
use tokio::time::Instant;

use super::{Actor, Attached, Input, SignerAnswer, WAKING_LIMIT};
use crate::{SignerAway, SignerTransport, State};

impl Actor {
    /// Local keys are always there.
    pub(super) fn signer_is_there(&self) -> bool {
        self.core.remote().is_none() || self.signer.is_some()
    }

    pub(super) fn attach(&mut self, signer: Arc<dyn SignerTransport>) {
        let Some(remote) = self.core.remote().cloned() else {
            return;
        };
        self.generation += 1;
        self.signer = Some(Attached {
            signer,
            stalled: false,
        });
        self.detaching = None;
        self.awake_by = Instant::now() + WAKING_LIMIT;
        self.set_state(State::Waking);
        self.dials.clear();
        remote.forget();
        self.fill_pool();
        #[cfg(feature = "testing")]
        if let Some(left) = self.panics_when_attached.checked_sub(1) {
            self.panics_when_attached = left;
            panic!("asked for by a test");
        }
        self.unblock();
    }

    pub(super) fn fill_pool(&self) {
        if let Some(remote) = self.core.remote() {
            remote.fill_pool(|| self.core.keys.get_secure_random_bytes());
        }
    }

    /// LDK tries again what waits for its signer.
    pub(super) fn unblock(&mut self) {
        self.core.manager.signer_unblocked(None);
        self.core.chain_monitor.signer_unblocked(None);
        self.core.sweep();
    }

    /// The signer is gone: so are the peers (promise 3), at once.
    pub(super) fn signer_gone(&mut self) {
        let Some(remote) = self.core.remote().cloned() else {
            return;
        };
        self.generation += 1;
        self.signer = None;
        self.set_state(State::Dormant);
        self.core.peer_manager.disconnect_all_peers();
        remote.forget();
        self.core.requests.clear();
        self.dials.clear();
        if let Some(detaching) = self.detaching.take() {
            self.outgoing.detached.extend(detaching.done);
        }
    }

    pub(super) fn finish_detach(&mut self) {
        let Some(detaching) = &self.detaching else {
            return;
        };
        let idle = self.core.remote().is_none_or(|remote| remote.is_idle());
        let idle = idle && !self.core.is_agreeing_on_a_close();
        if idle || Instant::now() >= detaching.until {
            self.signer_gone();
        }
    }

    pub(super) fn signer_answered(&mut self, answer: SignerAnswer) {
        if answer.generation != self.generation {
            return;
        }
        let Some(remote) = self.core.remote().cloned() else {
            return;
        };
        match answer.reply {
            Ok(reply) => {
                self.count.answered = self.count.answered.max(answer.depth);
                remote.take_reply(&answer.keys, reply);
                self.fill_pool();
                self.unblock();
            }
            Err(SignerAway) => {
                remote.lost(&answer.keys);
                if let Some(attached) = &mut self.signer {
                    attached.stalled = true;
                }
            }
        }
    }

    /// Whether there is something to send to the signer.
    pub(super) fn has_batch(&self) -> bool {
        let there = self.signer.as_ref().is_some_and(|signer| !signer.stalled);
        there && self.core.remote().is_some_and(|remote| remote.has_batch())
    }

    /// Sends what is wanted as one batch, as far as it fits. What is left goes at the end of the turn that takes in its reply.
    pub(super) fn send_batch(&mut self) {
        let (Some(remote), Some(attached)) = (self.core.remote(), &self.signer) else {
            return;
        };
        if attached.stalled {
            return;
        }
        let Some((keys, batch)) = remote.next_batch() else {
            return;
        };
        // The run grows by this batch if it belongs to a channel's step.
        let depth = if is_step(&batch) {
            self.count.answered.saturating_add(1)
        } else {
            0
        };
        self.count.batches += 1;
        self.count.ops += batch.ops.len() as u64;
        let signer = Arc::clone(&attached.signer);
        let (generation, inbox) = (self.generation, self.own_inbox.clone());
        let mut signing = Box::pin(async move { signer.sign(batch).await });
        // Begun here, so that batches leave in the order of the turns that made them, whatever order their tasks run in.
        let at_once = signing
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        tokio::spawn(async move {
            let reply = match at_once {
                Poll::Ready(reply) => reply,
                Poll::Pending => signing.await,
            };
            let answer = SignerAnswer {
                generation,
                keys,
                depth,
                reply,
            };
            let _ = inbox.send(Input::SignerReply(answer));
        });
    }
}

/// False for batches whose answers no protocol step waits for: handshakes, key pools, gossip, and a peer's
/// revocation told by itself.
fn is_step(batch: &SignerBatch) -> bool {
    !batch.ops.iter().all(|op| {
        matches!(
            op.op,
            Some(
                Op::Ecdh(_)
                    | Op::NewChannelKeys(_)
                    | Op::GetPoints(_)
                    | Op::SignGossip(_)
                    | Op::CounterpartyRevocation(_)
            )
        )
    })
}
