//! Shared secrets of the node key with peers' ephemeral keys (BOLT 8).
//!
//! LDK asks for the secret inside a call that cannot wait, so `parts/connections.rs` requests it first and gives LDK the act after.

use std::collections::HashMap;

use bitcoin::secp256k1::PublicKey;
use longhand_bolt8::{ACT_BYTES, ActError, ephemeral_key};
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{Ecdh, Refusal, SignerOp};

use super::desk::{Asked, Desk, OpKey, key_of, node_op};

/// A peer's act, for which the phone gives a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerAct {
    pub ephemeral: PublicKey,
    bytes: Vec<u8>,
    /// The peer that the node dialled and whose Act Two it is; `None` for Act One of a peer that dials.
    dialed: Option<PublicKey>,
}

impl PeerAct {
    /// Reads the first bytes of a peer, [`ACT_BYTES`] or more.
    pub fn read(received: &[u8], dialed: Option<PublicKey>) -> Result<PeerAct, ActError> {
        let act = received.get(..ACT_BYTES).unwrap_or(received);
        Ok(PeerAct {
            ephemeral: ephemeral_key(act)?,
            bytes: act.to_vec(),
            dialed,
        })
    }

    fn op(&self) -> Ecdh {
        Ecdh {
            act: self.bytes.clone(),
            dialed_node_id: self
                .dialed
                .map_or_else(Vec::new, |peer| peer.serialize().to_vec()),
        }
    }
}

/// The state of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Secret {
    /// It is there.
    Ready,
    /// The phone has not answered yet.
    Waiting,
    /// The phone has refused it.
    Refused(Refusal),
}

/// By the peer's ephemeral key. Apart from those of onions, since a peer may use one key for both, and an onion's is needed
/// for longer.
#[derive(Default)]
pub(super) struct Handshakes(HashMap<PublicKey, [u8; 32]>);

impl Handshakes {
    pub fn secret(&self, ephemeral: &PublicKey) -> Option<[u8; 32]> {
        self.0.get(ephemeral).copied()
    }

    /// Requests the secret of a handshake. A refusal is returned once: nobody makes the same act again.
    pub fn prefetch(&mut self, desk: &mut Desk, act: &PeerAct) -> Secret {
        if self.0.contains_key(&act.ephemeral) {
            return Secret::Ready;
        }
        let op = node_op(Op::Ecdh(act.op()));
        let key = key_of(&op);
        match desk.ask(op) {
            // Answered before, to a peer that uses its key again.
            Asked::Answer(Answer::SharedSecret(secret)) if self.insert(act.ephemeral, &secret) => {
                Secret::Ready
            }
            Asked::Answer(_) | Asked::Waiting => Secret::Waiting,
            Asked::Refused(refusal) => {
                desk.withdraw(&key);
                Secret::Refused(refusal)
            }
        }
    }

    /// Takes the phone's answer.
    pub fn add(&mut self, asked: &Ecdh, secret: &[u8]) {
        if let Ok(ephemeral) = ephemeral_key(&asked.act) {
            self.insert(ephemeral, secret);
        }
    }

    fn insert(&mut self, ephemeral: PublicKey, secret: &[u8]) -> bool {
        let secret = <[u8; 32]>::try_from(secret);
        secret.is_ok_and(|secret| {
            self.0.insert(ephemeral, secret);
            true
        })
    }

    /// Keeps only the handshakes that are `waiting`, and withdraws the requests for others: those are over, or their
    /// connection is closed.
    pub fn retain(&mut self, desk: &mut Desk, waiting: &[PeerAct]) {
        self.0
            .retain(|key, _| waiting.iter().any(|act| act.ephemeral == *key));
        let is_over = |op: &SignerOp| match &op.op {
            Some(Op::Ecdh(ecdh)) => !waiting.iter().any(|act| act.bytes == ecdh.act),
            _ => false,
        };
        let over = desk.wanted_ops().filter(|op| is_over(op));
        let over: Vec<OpKey> = over.map(key_of).collect();
        for key in over {
            desk.withdraw(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use longhand_proto::signer::{SignerAnswer, SignerReply};

    use super::super::testing::key;
    use super::*;

    /// Act One with this key.
    fn act(ephemeral: &PublicKey) -> PeerAct {
        let bytes = [&[0][..], &ephemeral.serialize(), &[7; 16]].concat();
        PeerAct::read(&bytes, None).unwrap()
    }

    #[test]
    fn the_phone_gets_the_act_alone_and_the_peer_that_was_dialled() {
        let received = [&act(&key(1)).bytes[..], &[9; 20]].concat();
        let read = PeerAct::read(&received, Some(key(2))).unwrap();
        assert_eq!(read.ephemeral, key(1));
        let op = read.op();
        assert_eq!(op.act, act(&key(1)).bytes);
        assert_eq!(op.dialed_node_id, key(2).serialize());
    }

    #[test]
    fn a_secret_is_requested_once_and_there_when_it_was_answered() {
        let (mut handshakes, mut desk) = (Handshakes::default(), Desk::default());
        let act = act(&key(1));
        assert_eq!(handshakes.prefetch(&mut desk, &act), Secret::Waiting);
        assert_eq!(handshakes.prefetch(&mut desk, &act), Secret::Waiting);
        let ops: Vec<_> = desk.wanted_ops().cloned().collect();
        assert_eq!(ops, [node_op(Op::Ecdh(act.op()))]);

        handshakes.add(&act.op(), &[7; 32]);
        assert_eq!(handshakes.prefetch(&mut desk, &act), Secret::Ready);
        assert_eq!(handshakes.secret(&key(1)), Some([7; 32]));
    }

    #[test]
    fn an_answer_that_is_no_secret_is_not_one() {
        let (mut handshakes, mut desk) = (Handshakes::default(), Desk::default());
        let act = act(&key(1));
        handshakes.add(&act.op(), &[7; 31]);
        handshakes.add(&Ecdh::default(), &[7; 32]);
        assert_eq!(handshakes.secret(&key(1)), None);
        assert_eq!(handshakes.prefetch(&mut desk, &act), Secret::Waiting);
    }

    #[test]
    fn a_refusal_is_returned_and_not_kept() {
        let (mut handshakes, mut desk) = (Handshakes::default(), Desk::default());
        let act = act(&key(1));
        handshakes.prefetch(&mut desk, &act);
        let (keys, _) = desk.next_batch().unwrap();
        let refusal = Refusal {
            rule: "handshake-peer".into(),
            message: "no".into(),
            retry: true,
        };
        let answer = SignerAnswer {
            answer: Some(Answer::Refusal(refusal.clone())),
        };
        let answers = vec![answer];
        desk.take_reply(&keys, SignerReply { answers });
        let state = handshakes.prefetch(&mut desk, &act);
        assert_eq!(state, Secret::Refused(refusal));
        assert_eq!(handshakes.prefetch(&mut desk, &act), Secret::Waiting);
    }

    #[test]
    fn handshakes_that_are_over_are_removed_and_no_longer_requested() {
        let (mut handshakes, mut desk) = (Handshakes::default(), Desk::default());
        let acts = [1, 2, 3, 4].map(|number| act(&key(number)));
        handshakes.add(&acts[0].op(), &[7; 32]);
        handshakes.add(&acts[1].op(), &[8; 32]);
        handshakes.prefetch(&mut desk, &acts[2]);
        handshakes.prefetch(&mut desk, &acts[3]);

        handshakes.retain(&mut desk, &[acts[1].clone(), acts[3].clone()]);

        assert_eq!(handshakes.secret(&key(1)), None);
        assert_eq!(handshakes.secret(&key(2)), Some([8; 32]));
        let ops: Vec<_> = desk.wanted_ops().cloned().collect();
        assert_eq!(ops, [node_op(Op::Ecdh(acts[3].op()))]);
    }
}
