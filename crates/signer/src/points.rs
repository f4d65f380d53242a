//! Points with which the node key was multiplied: those of handshakes (BOLT 8) and those of onions (BOLT 4), kept apart.
//!
//! A handshake's secret is given for any point, since the host holds the other key of the handshakes that it begins, and could make up every
//! act. So that it does not get the secret of an onion in this way, which the phone reads first, no point serves for both.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;

use bitcoin::secp256k1::PublicKey;
use longhand_proto::signer::SignerOp;
use longhand_proto::signer::signer_op::Op;

/// So many points of each kind are remembered: a busy node has some hundred handshakes a day. In memory, since a phone starts again.
const KEPT: usize = 4_096;

/// Where the onion's point is in `update_add_htlc` (BOLT 2): after the channel id, the HTLC's id, amount, hash and expiry, and the onion's
/// version (BOLT 4).
const ONION_POINT: Range<usize> = 85..118;

/// See the module.
#[derive(Default)]
pub(crate) struct Points {
    pub handshakes: Seen,
    pub onions: Seen,
}

impl Points {
    /// An operation was carried out.
    pub fn answered(&mut self, op: &SignerOp) {
        match &op.op {
            Some(Op::Ecdh(op)) => self.handshakes.add(&op.public_key),
            Some(Op::PeelOnion(op)) => {
                let point = op.update_add_htlc.get(ONION_POINT);
                self.onions.add(point.unwrap_or_default());
            }
            _ => {}
        }
    }
}

/// The last points of one kind.
#[derive(Default)]
pub(crate) struct Seen {
    points: HashSet<PublicKey>,
    in_order: VecDeque<PublicKey>,
}

impl Seen {
    pub fn has(&self, point: &PublicKey) -> bool {
        self.points.contains(point)
    }

    /// Remembers a point; the oldest is forgotten when there are too many.
    fn add(&mut self, point: &[u8]) {
        let Ok(point) = PublicKey::from_slice(point) else {
            return;
        };
        if !self.points.insert(point) {
            return;
        }
        self.in_order.push_back(point);
        if self.in_order.len() > KEPT
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.points.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::secp256k1::{Secp256k1, SecretKey};

    use super::*;

    #[test]
    fn the_oldest_point_is_forgotten_and_one_that_comes_again_counts_once() {
        let secp = Secp256k1::new();
        let point = |number: u64| {
            let mut bytes = [1; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            SecretKey::from_slice(&bytes).unwrap().public_key(&secp)
        };
        let mut seen = Seen::default();
        for number in 0..KEPT as u64 {
            seen.add(&point(number).serialize());
        }
        seen.add(&point(0).serialize());
        assert!(seen.has(&point(0)));
        seen.add(&point(KEPT as u64).serialize());
        assert!(!seen.has(&point(0)));
        assert!(seen.has(&point(1)) && seen.has(&point(KEPT as u64)));
    }
}
