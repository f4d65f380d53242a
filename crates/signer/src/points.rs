//! Points with which the node key was multiplied: those of handshakes (BOLT 8) and those of onions (BOLT 4), kept apart.
//!
//! The host holds the other key of the handshakes that it begins, and can make up the peer's act with any point. So that it does not get the
//! secret of an onion in this way, which the phone reads first, no point serves for both.

use std::collections::{HashSet, VecDeque};
use std::ops::Range;

use bitcoin::secp256k1::PublicKey;
use longhand_bolt8::ephemeral_key;
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
    /// Of peers that the node dialled.
    pub dialed: Seen,
    /// Of peers that dialled. Apart, since there may be any number of them.
    pub dialing: Seen,
    pub onions: Seen,
}

impl Points {
    /// Whether the point was used in a handshake.
    pub fn has_handshake(&self, point: &PublicKey) -> bool {
        self.dialed.has(point) || self.dialing.has(point)
    }

    /// An operation was carried out. Returns whether it was a new handshake with a peer that the node dialled.
    pub fn answered(&mut self, op: &SignerOp) -> bool {
        match &op.op {
            Some(Op::Ecdh(op)) => {
                let point = ephemeral_key(&op.act).ok();
                let is_dialed = !op.dialed_node_id.is_empty();
                let points = match is_dialed {
                    true => &mut self.dialed,
                    false => &mut self.dialing,
                };
                points.add(point) && is_dialed
            }
            Some(Op::PeelOnion(op)) => {
                let point = op.update_add_htlc.get(ONION_POINT);
                let point = point.and_then(|point| PublicKey::from_slice(point).ok());
                self.onions.add(point);
                false
            }
            _ => false,
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

    /// Remembers a point; the oldest is forgotten when there are too many. Returns whether it is a new one.
    fn add(&mut self, point: Option<PublicKey>) -> bool {
        let Some(point) = point.filter(|point| self.points.insert(*point)) else {
            return false;
        };
        self.in_order.push_back(point);
        if self.in_order.len() > KEPT
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.points.remove(&oldest);
        }
        true
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
            seen.add(Some(point(number)));
        }
        seen.add(Some(point(0)));
        assert!(seen.has(&point(0)));
        seen.add(Some(point(KEPT as u64)));
        assert!(!seen.has(&point(0)));
        assert!(seen.has(&point(1)) && seen.has(&point(KEPT as u64)));
    }
}
