//! Operations that are stored until the phone has answered them: the phone must learn of them whatever happens, and LDK asks
//! for each only once.

use longhand_proto::signer::SignerOp;
use longhand_proto::signer::signer_op::Op;
use prost::Message;

use super::desk::{Desk, OpKey, key_of};
use crate::hex::hex;
use crate::store::journal::Journal;
use crate::store::schema;

/// Their records.
#[derive(Default)]
pub(super) struct DurableOps {
    /// Order of the next record.
    next_order: u64,
}

impl DurableOps {
    /// Puts the stored operations on the desk, in the order in which they were stored. `None` when a record cannot be read.
    pub fn load(journal: &Journal, desk: &mut Desk) -> Option<DurableOps> {
        let mut stored = Vec::new();
        for (_, bytes) in journal.loaded(schema::key::OP) {
            let StoredOp { order, op } = StoredOp::decode(&bytes[..]).ok()?;
            stored.push((order, op?));
        }
        stored.sort_by_key(|(order, _)| *order);
        let last = stored.last();
        let next_order = last.map_or(0, |(order, _)| order.saturating_add(1));
        for (_, op) in stored {
            want(desk, key_of(&op), op);
        }
        Some(DurableOps { next_order })
    }

    /// Stores an operation and puts it on the desk.
    pub fn want(&mut self, journal: &Journal, desk: &mut Desk, op: SignerOp) {
        let key = key_of(&op);
        let stored = StoredOp {
            order: self.next_order,
            op: Some(op.clone()),
        };
        self.next_order = self.next_order.saturating_add(1);
        journal.put(path(&key), stored.encode_to_vec());
        want(desk, key, op);
    }

    /// Removes an operation that was answered.
    pub fn answered(&self, journal: &Journal, key: &OpKey) {
        journal.delete(path(key));
    }
}

/// The phone needs a channel's parameters first, and the first commitment of a channel that the peer opens is validated, and
/// stored, before LDK gives them.
fn want(desk: &mut Desk, key: OpKey, op: SignerOp) {
    match op.op {
        Some(Op::SetupChannel(_)) => desk.want_first(key, op),
        _ => desk.want(key, op),
    }
}

fn path(key: &OpKey) -> String {
    format!("{}{}", schema::key::OP, hex(key))
}

#[derive(Clone, PartialEq, Message)]
struct StoredOp {
    #[prost(fixed64, tag = "1")]
    order: u64,
    #[prost(message, optional, tag = "2")]
    op: Option<SignerOp>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use longhand_proto::signer::{CounterpartyRevocation, SetupChannel, ValidateHolderCommitment};

    use super::super::desk::channel_op;
    use super::super::testing::reloaded;
    use super::*;

    const KEYS: [u8; 32] = [1; 32];

    fn revocation(index: u64) -> SignerOp {
        let op = CounterpartyRevocation {
            index,
            ..CounterpartyRevocation::default()
        };
        channel_op(KEYS, Op::CounterpartyRevocation(op))
    }

    fn asked(desk: &Desk) -> Vec<SignerOp> {
        desk.wanted_ops().cloned().collect()
    }

    #[test]
    fn what_is_not_answered_is_asked_after_a_restart_in_the_same_order() {
        let journal = Journal::default();
        let mut desk = Desk::default();
        let mut ops = DurableOps::load(&journal, &mut desk).unwrap();
        let all: Vec<SignerOp> = (0..20).map(revocation).collect();
        for op in &all {
            ops.want(&journal, &mut desk, op.clone());
        }
        assert_eq!(asked(&desk), all);
        ops.answered(&journal, &key_of(&all[0]));

        let (journal, mut desk) = (reloaded(&journal), Desk::default());
        let mut ops = DurableOps::load(&journal, &mut desk).unwrap();
        assert_eq!(asked(&desk), all[1..]);
        ops.want(&journal, &mut desk, revocation(99));
        assert_eq!(desk.wanted_ops().last(), Some(&revocation(99)));
    }

    #[test]
    fn a_setup_comes_before_what_was_stored_of_its_channel() {
        let journal = Journal::default();
        let mut desk = Desk::default();
        let mut ops = DurableOps::default();
        let validate = Op::ValidateHolderCommitment(ValidateHolderCommitment::default());
        let validate = channel_op(KEYS, validate);
        let setup = channel_op(KEYS, Op::SetupChannel(SetupChannel::default()));
        ops.want(&journal, &mut desk, validate.clone());
        ops.want(&journal, &mut desk, setup.clone());
        assert_eq!(asked(&desk), [setup.clone(), validate.clone()]);

        let mut after = Desk::default();
        DurableOps::load(&reloaded(&journal), &mut after).unwrap();
        assert_eq!(asked(&after), [setup, validate]);
    }

    #[test]
    fn a_record_that_cannot_be_read_is_an_error() {
        for record in [vec![0xff], Vec::new()] {
            let journal = Journal::loading(vec![("op/00".to_owned(), record)]);
            assert!(DurableOps::load(&journal, &mut Desk::default()).is_none());
        }
    }
}
