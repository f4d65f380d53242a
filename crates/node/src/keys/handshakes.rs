//! Shared secrets of the node key with peers' ephemeral keys (BOLT 8).
//!
//! LDK asks for the secret inside a call that cannot wait, so `parts/connections.rs` requests it first and gives LDK the act after.

use std::collections::HashMap;

use bitcoin::secp256k1::PublicKey;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{Ecdh, SignerOp};

use super::desk::{Desk, OpKey, key_of, node_op};

/// By the peer's ephemeral key. Apart from those of onions, since a peer may use one key for both, and an onion's is needed
/// for longer.
#[derive(Default)]
pub(super) struct Handshakes(HashMap<PublicKey, [u8; 32]>);

impl Handshakes {
    pub fn secret(&self, ephemeral: &PublicKey) -> Option<[u8; 32]> {
        self.0.get(ephemeral).copied()
    }

    /// Requests the secret of a handshake; true when it is there.
    pub fn prefetch(&mut self, desk: &mut Desk, ephemeral: &PublicKey) -> bool {
        if self.0.contains_key(ephemeral) {
            return true;
        }
        let op = Op::Ecdh(Ecdh {
            public_key: ephemeral.serialize().to_vec(),
        });
        match desk.ask(node_op(op)).answer() {
            // Answered before, to a peer that uses its key again.
            Some(Answer::SharedSecret(secret)) => self.insert(*ephemeral, &secret),
            _ => false,
        }
    }

    /// Takes the phone's answer.
    pub fn add(&mut self, asked: &Ecdh, secret: &[u8]) {
        if let Ok(ephemeral) = PublicKey::from_slice(&asked.public_key) {
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
    pub fn retain(&mut self, desk: &mut Desk, waiting: &[PublicKey]) {
        self.0.retain(|key, _| waiting.contains(key));
        let waiting: Vec<_> = waiting.iter().map(PublicKey::serialize).collect();
        let is_over = |op: &SignerOp| match &op.op {
            Some(Op::Ecdh(ecdh)) => !waiting.iter().any(|key| key[..] == ecdh.public_key[..]),
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
    use super::super::testing::key;
    use super::*;

    fn ecdh(ephemeral: &PublicKey) -> Ecdh {
        Ecdh {
            public_key: ephemeral.serialize().to_vec(),
        }
    }

    #[test]
    fn a_secret_is_requested_once_and_there_when_it_was_answered() {
        let (mut handshakes, mut desk) = (Handshakes::default(), Desk::default());
        assert!(!handshakes.prefetch(&mut desk, &key(1)));
        assert!(!handshakes.prefetch(&mut desk, &key(1)));
        let ops: Vec<_> = desk.wanted_ops().cloned().collect();
        assert_eq!(ops, [node_op(Op::Ecdh(ecdh(&key(1))))]);

        handshakes.add(&ecdh(&key(1)), &[7; 32]);
        assert!(handshakes.prefetch(&mut desk, &key(1)));
        assert_eq!(handshakes.secret(&key(1)), Some([7; 32]));
    }

    #[test]
    fn an_answer_that_is_no_secret_is_not_one() {
        let (mut handshakes, mut desk) = (Handshakes::default(), Desk::default());
        handshakes.add(&ecdh(&key(1)), &[7; 31]);
        handshakes.add(&Ecdh::default(), &[7; 32]);
        assert_eq!(handshakes.secret(&key(1)), None);
        assert!(!handshakes.prefetch(&mut desk, &key(1)));
    }

    #[test]
    fn handshakes_that_are_over_are_removed_and_no_longer_requested() {
        let (mut handshakes, mut desk) = (Handshakes::default(), Desk::default());
        handshakes.add(&ecdh(&key(1)), &[7; 32]);
        handshakes.add(&ecdh(&key(2)), &[8; 32]);
        handshakes.prefetch(&mut desk, &key(3));
        handshakes.prefetch(&mut desk, &key(4));

        handshakes.retain(&mut desk, &[key(2), key(4)]);

        assert_eq!(handshakes.secret(&key(1)), None);
        assert_eq!(handshakes.secret(&key(2)), Some([8; 32]));
        let ops: Vec<_> = desk.wanted_ops().cloned().collect();
        assert_eq!(ops, [node_op(Op::Ecdh(ecdh(&key(4))))]);
    }
}
