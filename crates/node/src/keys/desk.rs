//! The desk: operations that a node asks of its signer, and the answers.
//!
//! A value without I/O. An operation is identified by the hash of its content, so that asking twice is asking once. An
//! operation is wanted until it is answered; a batch of wanted operations is under way until its reply comes or the signer is
//! lost. Operations that must reach the phone whatever happens (a commitment to validate, a revocation to check) are also
//! stored, see `durable_ops.rs`.

use std::collections::{HashMap, VecDeque};

use bitcoin::hashes::{Hash, sha256};
use longhand_base::text::excerpt;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{Refusal, SignerBatch, SignerOp, SignerReply};
use prost::Message;

/// Answers that are kept until LDK asks again: more than one transaction needs. The claim of a commitment takes a signature
/// for each HTLC (966 at most, BOLT 3) and is made only when all of them are there.
const KEPT_ANSWERS: usize = 1024;

/// Limit of all batches under way together, in bytes: a link carries 4 MiB at once, and is closed when it is given more.
/// Further operations leave as answers come.
const UNDER_WAY_BYTES: usize = 3 << 20;

/// Identifies an operation by its content.
pub(crate) type OpKey = [u8; 32];

/// An operation that has been answered.
pub(crate) struct Answered {
    pub key: OpKey,
    pub op: SignerOp,
    pub answer: Answer,
}

/// The state of an operation.
pub(crate) enum Asked {
    /// Answered.
    Answer(Answer),
    /// The phone has refused it.
    Refused(Refusal),
    /// Not answered yet.
    Waiting,
}

impl Asked {
    /// The answer, if it is there.
    pub fn answer(self) -> Option<Answer> {
        match self {
            Asked::Answer(answer) => Some(answer),
            Asked::Refused(_) | Asked::Waiting => None,
        }
    }
}

/// See the module.
#[derive(Default)]
pub(crate) struct Desk {
    /// Unanswered, in the order they were asked.
    wanted: Vec<(OpKey, SignerOp)>,
    /// Those of `wanted` that are under way.
    under_way: HashMap<OpKey, UnderWay>,
    answers: HashMap<OpKey, Answer>,
    answered_order: VecDeque<OpKey>,
    /// Refused, and not sent again until [`Desk::clear_retries`] or [`Desk::forget`]. Those that must reach the phone stay in
    /// `wanted`, because LDK asks for them only once.
    refused: HashMap<OpKey, Refusal>,
    /// Number of calls of [`Desk::clear_retries`].
    clears: u64,
}

/// An operation that was sent and is not answered.
struct UnderWay {
    /// [`Desk::clears`] when it was sent.
    clears: u64,
    bytes: usize,
}

/// Bytes of an operation in a batch: a tag, its length, and itself (protobuf).
fn size(op: &SignerOp) -> usize {
    1 + prost::length_delimiter_len(op.encoded_len()) + op.encoded_len()
}

/// The identity of `op`.
pub(crate) fn key_of(op: &SignerOp) -> OpKey {
    sha256::Hash::hash(&op.encode_to_vec()).to_byte_array()
}

/// An operation of a channel.
pub(crate) fn channel_op(keys_id: [u8; 32], op: Op) -> SignerOp {
    SignerOp {
        channel_keys_id: keys_id.to_vec(),
        op: Some(op),
    }
}

/// An operation of the node as a whole.
pub(crate) fn node_op(op: Op) -> SignerOp {
    SignerOp {
        channel_keys_id: Vec::new(),
        op: Some(op),
    }
}

impl Desk {
    /// The state of `op`; a new one is wanted from now on.
    pub fn ask(&mut self, op: SignerOp) -> Asked {
        let key = key_of(&op);
        if let Some(answer) = self.answers.get(&key) {
            return Asked::Answer(answer.clone());
        }
        if let Some(refusal) = self.refused.get(&key) {
            return Asked::Refused(refusal.clone());
        }
        self.want(key, op);
        Asked::Waiting
    }

    /// Wants `op`, unless it is known. `key` is its [`key_of`].
    pub fn want(&mut self, key: OpKey, op: SignerOp) {
        let known = self.refused.contains_key(&key)
            || self.answers.contains_key(&key)
            || self.wanted.iter().any(|(wanted, _)| *wanted == key);
        if !known {
            self.wanted.push((key, op));
        }
    }

    /// Wants `op` before all other operations of its channel.
    pub fn want_first(&mut self, key: OpKey, op: SignerOp) {
        if self.wanted.iter().any(|(wanted, _)| *wanted == key) {
            return;
        }
        let channel = &op.channel_keys_id;
        let place = self
            .wanted
            .iter()
            .position(|(_, other)| other.channel_keys_id == *channel);
        self.wanted
            .insert(place.unwrap_or(self.wanted.len()), (key, op));
    }

    /// Wants `op` before all others.
    pub fn want_at_front(&mut self, op: SignerOp) {
        let key = key_of(&op);
        self.refused.remove(&key);
        if !self.wanted.iter().any(|(wanted, _)| *wanted == key) {
            self.wanted.insert(0, (key, op));
        }
    }

    /// Whether [`Desk::next_batch`] returns one.
    pub fn has_batch(&self) -> bool {
        self.next_ops().next().is_some()
    }

    /// The next batch: operations that are wanted, not under way and not refused, in order, up to the limit of bytes under
    /// way. One that is larger by itself is sent alone. `None` when there are none.
    pub fn next_batch(&mut self) -> Option<(Vec<OpKey>, SignerBatch)> {
        let next: Vec<(OpKey, SignerOp)> = self.next_ops().cloned().collect();
        let (keys, ops): (Vec<OpKey>, Vec<SignerOp>) = next.into_iter().unzip();
        for (key, op) in keys.iter().zip(&ops) {
            let (clears, bytes) = (self.clears, size(op));
            self.under_way.insert(*key, UnderWay { clears, bytes });
        }
        (!keys.is_empty()).then_some((keys, SignerBatch { ops }))
    }

    fn next_ops(&self) -> impl Iterator<Item = &(OpKey, SignerOp)> {
        let under_way = self.under_way.values().map(|it| it.bytes);
        let mut bytes: usize = under_way.sum();
        let next = self.wanted.iter().filter(|(key, _)| {
            !self.refused.contains_key(key) && !self.under_way.contains_key(key)
        });
        next.take_while(move |(_, op)| {
            let is_alone = bytes == 0;
            bytes = bytes.saturating_add(size(op));
            is_alone || bytes <= UNDER_WAY_BYTES
        })
    }

    /// Takes the reply to a batch. An operation without an answer counts as refused for now, so that a phone that does not
    /// answer is not asked all the time.
    pub fn take_reply(&mut self, keys: &[OpKey], reply: SignerReply) -> Vec<Answered> {
        let mut answered = Vec::new();
        let mut answers = reply.answers.into_iter();
        for key in keys {
            let sent_at = self.under_way.remove(key).map(|it| it.clears);
            let answer = answers.next().and_then(|answer| answer.answer);
            let answer = plain(answer.unwrap_or_else(no_answer));
            let Some(at) = self.wanted.iter().position(|(wanted, _)| wanted == key) else {
                continue;
            };
            let op = match &answer {
                Answer::Refusal(refusal) => {
                    // Refusals were cleared after it was sent, so its reason may be gone: it may be asked again at once.
                    if !(refusal.retry && sent_at.is_some_and(|at| at < self.clears)) {
                        self.refused.insert(*key, refusal.clone());
                    }
                    if stays_wanted(&self.wanted[at].1, refusal) {
                        self.wanted[at].1.clone()
                    } else {
                        self.wanted.remove(at).1
                    }
                }
                answer => {
                    self.keep(*key, answer.clone());
                    self.wanted.remove(at).1
                }
            };
            answered.push(Answered {
                key: *key,
                op,
                answer,
            });
        }
        answered
    }

    fn keep(&mut self, key: OpKey, answer: Answer) {
        self.answers.insert(key, answer);
        self.answered_order.push_back(key);
        if self.answered_order.len() > KEPT_ANSWERS
            && let Some(oldest) = self.answered_order.pop_front()
        {
            self.answers.remove(&oldest);
        }
    }

    /// The signer went away before it answered this batch.
    pub fn lost(&mut self, keys: &[OpKey]) {
        for key in keys {
            self.under_way.remove(key);
        }
    }

    /// Operations that were refused with `retry` may be asked again.
    pub fn clear_retries(&mut self) {
        self.clears += 1;
        self.refused.retain(|_, refusal| !refusal.retry);
    }

    /// An operation was carried out, after which others may be answered that were refused for now. What waits for the owner does not depend
    /// on it.
    pub fn step_done(&mut self) {
        self.clears += 1;
        self.refused
            .retain(|_, refusal| !refusal.retry || refusal.waits_for_the_owner());
    }

    /// The signer is gone: keeps only operations that must reach it. LDK asks for the others again.
    pub fn forget(&mut self) {
        self.wanted.retain(|(_, op)| must_reach_phone(op));
        self.under_way = HashMap::new();
        self.answers = HashMap::new();
        self.answered_order = VecDeque::new();
        self.refused = HashMap::new();
    }

    /// Whether the secrets of an onion are not answered yet.
    pub fn peels_pending(&self) -> bool {
        self.wanted_ops()
            .any(|op| matches!(op.op, Some(Op::PeelOnion(_))))
    }

    /// All unanswered operations.
    pub fn wanted_ops(&self) -> impl Iterator<Item = &SignerOp> {
        self.wanted.iter().map(|(_, op)| op)
    }

    /// Whether every wanted operation is refused.
    pub fn is_idle(&self) -> bool {
        let mut keys = self.wanted.iter().map(|(key, _)| key);
        keys.all(|key| self.refused.contains_key(key))
    }

    /// The unanswered operations of one channel.
    pub fn wanted_for<'a>(&'a self, keys_id: &'a [u8]) -> impl Iterator<Item = &'a SignerOp> {
        self.wanted_ops()
            .filter(move |op| op.channel_keys_id == keys_id)
    }

    /// Whether the signature of a cooperative close is wanted.
    pub fn is_signing_close(&self) -> bool {
        let mut wanted = self.wanted_ops();
        wanted.any(|op| matches!(op.op, Some(Op::SignClosing(_))))
    }

    /// Whether an operation of this channel must reach the phone.
    pub fn has_durable_op(&self, keys_id: &[u8]) -> bool {
        self.wanted_for(keys_id).any(must_reach_phone)
    }

    /// Removes an operation that is no longer needed.
    pub fn withdraw(&mut self, key: &OpKey) {
        self.wanted.retain(|(wanted, _)| wanted != key);
        self.answers.remove(key);
        self.refused.remove(key);
    }
}

/// The answer, with the texts of a refusal cut: they are logged, and stored with failed commands.
fn plain(answer: Answer) -> Answer {
    match answer {
        Answer::Refusal(refusal) => Answer::Refusal(Refusal {
            rule: excerpt(&refusal.rule),
            message: excerpt(&refusal.message),
            retry: refusal.retry,
        }),
        answer => answer,
    }
}

fn no_answer() -> Answer {
    Answer::Refusal(Refusal {
        rule: "no-answer".into(),
        message: "the signer gave no answer to this operation".into(),
        retry: true,
    })
}

/// Whether an operation stays wanted though it was refused. An onion that was refused for good does not: LDK goes on, and
/// fails its HTLC. A proof that was refused for now does: nobody asks for it again.
fn stays_wanted(op: &SignerOp, refusal: &Refusal) -> bool {
    match op.op {
        Some(Op::PeelOnion(_) | Op::ProveTransaction(_)) => refusal.retry,
        _ => must_reach_phone(op),
    }
}

fn must_reach_phone(op: &SignerOp) -> bool {
    matches!(
        op.op,
        Some(
            Op::SetupChannel(_)
                | Op::ValidateHolderCommitment(_)
                | Op::CounterpartyRevocation(_)
                | Op::PeelOnion(_)
        )
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use longhand_proto::signer::{
        Done, ReleaseSecret, SetupChannel, SignerAnswer, ValidateHolderCommitment,
    };

    fn release(index: u64) -> SignerOp {
        let op = Op::ReleaseSecret(ReleaseSecret { index });
        SignerOp {
            channel_keys_id: vec![1; 32],
            op: Some(op),
        }
    }

    fn done() -> SignerAnswer {
        SignerAnswer {
            answer: Some(Answer::Done(Done {})),
        }
    }

    fn refusal(retry: bool) -> SignerAnswer {
        let refusal = Refusal {
            rule: "rule".into(),
            message: "no".into(),
            retry,
        };
        SignerAnswer {
            answer: Some(Answer::Refusal(refusal)),
        }
    }

    #[test]
    fn an_operation_asked_twice_is_sent_once_and_then_answered_from_the_cache() {
        let mut desk = Desk::default();
        assert!(desk.ask(release(7)).answer().is_none());
        assert!(desk.ask(release(7)).answer().is_none());
        let (keys, batch) = desk.next_batch().unwrap();
        assert_eq!(batch.ops.len(), 1);
        assert!(
            desk.next_batch().is_none(),
            "nothing is asked twice at once"
        );
        desk.take_reply(
            &keys,
            SignerReply {
                answers: vec![done()],
            },
        );
        assert!(desk.ask(release(7)).answer().is_some());
        assert!(desk.is_idle());
    }

    #[test]
    fn an_operation_that_was_lost_with_the_link_is_asked_again() {
        let mut desk = Desk::default();
        desk.ask(release(7));
        let (keys, first) = desk.next_batch().unwrap();
        desk.lost(&keys);
        let (_, second) = desk.next_batch().unwrap();
        assert_eq!(first, second);
    }

    #[test]
    fn an_operation_without_an_answer_is_asked_again_later_and_not_at_once() {
        let mut desk = Desk::default();
        desk.ask(release(7));
        desk.ask(release(6));
        let (keys, _) = desk.next_batch().unwrap();
        let answers = vec![done()];
        desk.take_reply(&keys, SignerReply { answers });
        assert!(matches!(desk.ask(release(7)), Asked::Answer(_)));
        assert!(matches!(desk.ask(release(6)), Asked::Refused(_)));
        assert!(desk.next_batch().is_none());
        desk.clear_retries();
        desk.ask(release(6));
        assert_eq!(desk.next_batch().unwrap().1.ops, vec![release(6)]);
    }

    #[test]
    fn a_refusal_does_not_stand_when_retries_were_cleared_after_its_operation_was_sent() {
        let mut desk = Desk::default();
        desk.ask(release(7));
        let (keys, _) = desk.next_batch().unwrap();
        desk.clear_retries();
        let answers = vec![refusal(true)];
        desk.take_reply(&keys, SignerReply { answers });
        desk.ask(release(7));
        let (keys, batch) = desk.next_batch().unwrap();
        assert_eq!(batch.ops, vec![release(7)]);

        // Refused again, and nothing has come since: now it stands.
        let answers = vec![refusal(true)];
        desk.take_reply(&keys, SignerReply { answers });
        desk.ask(release(7));
        assert!(desk.next_batch().is_none());
    }

    #[test]
    fn an_operation_that_must_reach_the_phone_is_asked_again_though_it_was_refused() {
        let mut desk = Desk::default();
        let revocation = SignerOp {
            channel_keys_id: vec![1; 32],
            op: Some(Op::CounterpartyRevocation(Default::default())),
        };
        for (retry, again) in [
            (true, Desk::clear_retries as fn(&mut Desk)),
            (false, Desk::forget),
        ] {
            desk.ask(revocation.clone());
            let (keys, _) = desk.next_batch().unwrap();
            let answers = vec![refusal(retry)];
            desk.take_reply(&keys, SignerReply { answers });
            assert!(desk.next_batch().is_none());
            assert!(desk.is_idle(), "nobody waits for it");
            again(&mut desk);
        }
        assert_eq!(desk.next_batch().unwrap().1.ops, vec![revocation]);
    }

    #[test]
    fn the_signatures_of_one_large_transaction_are_there_together() {
        let mut desk = Desk::default();
        let all = 0..966;
        all.clone().for_each(|index| {
            desk.ask(release(index));
        });
        let (keys, _) = desk.next_batch().unwrap();
        let answers = vec![done(); keys.len()];
        desk.take_reply(&keys, SignerReply { answers });
        let mut asked = all.map(|index| desk.ask(release(index)));
        assert!(asked.all(|asked| asked.answer().is_some()));
    }

    const LARGE: usize = 700_000;

    /// An operation of so many bytes; `index` makes it different from others.
    fn op_of(bytes: usize, index: u8) -> SignerOp {
        let commitment = vec![index; bytes];
        let op = Op::ValidateHolderCommitment(ValidateHolderCommitment {
            commitment,
            ..ValidateHolderCommitment::default()
        });
        SignerOp {
            channel_keys_id: vec![1; 32],
            op: Some(op),
        }
    }

    #[test]
    fn more_than_a_link_carries_at_once_is_sent_in_order_as_answers_come() {
        const FRAME: usize = 4 << 20;
        let mut desk = Desk::default();
        let all: Vec<SignerOp> = (0..20).map(|index| op_of(LARGE, index)).collect();
        for op in &all {
            desk.ask(op.clone());
        }
        let mut asked = Vec::new();
        while desk.has_batch() {
            let (keys, batch) = desk.next_batch().unwrap();
            assert!(batch.encoded_len() < FRAME - 1_000);
            assert!(!desk.has_batch(), "no more is under way than one carries");
            assert!(desk.next_batch().is_none());
            asked.extend(batch.ops);
            let answers = vec![done(); keys.len()];
            desk.take_reply(&keys, SignerReply { answers });
        }
        assert!(asked == all);
        assert!(desk.is_idle());
    }

    #[test]
    fn operations_under_way_on_a_broken_link_take_no_room_on_the_next() {
        let mut desk = Desk::default();
        for op in (0..10).map(|index| op_of(LARGE, index)) {
            desk.ask(op);
        }
        let (keys, first) = desk.next_batch().unwrap();
        desk.lost(&keys);
        assert!(desk.next_batch() == Some((keys, first.clone())));
        desk.forget();
        assert!(desk.next_batch().unwrap().1 == first);
    }

    #[test]
    fn an_operation_that_is_larger_than_a_batch_may_be_is_asked_by_itself() {
        let mut desk = Desk::default();
        let huge = op_of(UNDER_WAY_BYTES, 1);
        desk.ask(release(7));
        desk.ask(huge.clone());
        let (keys, batch) = desk.next_batch().unwrap();
        assert!(batch.ops == [release(7)]);
        let answers = vec![done()];
        desk.take_reply(&keys, SignerReply { answers });
        assert!(desk.next_batch().unwrap().1.ops == [huge]);
    }

    #[test]
    fn a_refusal_stands_until_it_may_be_retried() {
        let mut desk = Desk::default();
        for retry in [true, false] {
            desk.ask(release(7));
            let (keys, _) = desk.next_batch().unwrap();
            desk.take_reply(
                &keys,
                SignerReply {
                    answers: vec![refusal(retry)],
                },
            );
            assert!(matches!(desk.ask(release(7)), Asked::Refused(_)));
            desk.clear_retries();
        }
        assert!(matches!(desk.ask(release(7)), Asked::Refused(_)));
        assert!(desk.next_batch().is_none());
    }

    #[test]
    fn without_a_signer_only_operations_that_must_reach_it_are_kept() {
        let mut desk = Desk::default();
        let op = Op::CounterpartyRevocation(Default::default());
        let revocation = SignerOp {
            channel_keys_id: vec![1; 32],
            op: Some(op),
        };
        desk.ask(release(7));
        desk.ask(revocation.clone());
        desk.next_batch();
        desk.forget();
        assert_eq!(desk.next_batch().unwrap().1.ops, vec![revocation]);
    }

    #[test]
    fn a_channel_is_set_up_before_anything_else_is_asked_of_it() {
        let mut desk = Desk::default();
        desk.ask(SignerOp {
            channel_keys_id: vec![2; 32],
            op: release(9).op,
        });
        desk.ask(release(7));
        let op = Op::SetupChannel(SetupChannel::default());
        let setup = SignerOp {
            channel_keys_id: vec![1; 32],
            op: Some(op),
        };
        desk.want_first(key_of(&setup), setup.clone());
        let (_, batch) = desk.next_batch().unwrap();
        assert_eq!(batch.ops[1..], [setup, release(7)]);
    }
}
