//! Witness of all answers and invoices of an owner's phone, across restarts; it does not rely on the phone's ledger.

use std::collections::VecDeque;
use std::sync::Mutex;

use bitcoin::hashes::{Hash, sha256};
use longhand_phone::{Said, Witness};
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{GetPreimage, SignerOp};
use longhand_signer::audit::{Audit, Violation};

use crate::world::fault::{Class, Fault};
use crate::world::parts::lock;

/// See the module.
#[derive(Default)]
pub struct Observer {
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    audit: Audit,
    /// Answers and invoices that have not left yet, each with the record that has to be durable first.
    waiting: VecDeque<(u64, Observed)>,
    wrong: Vec<Violation>,
    /// Number of answers and invoices that have left.
    seen: u32,
}

enum Observed {
    Answer(Box<(SignerOp, Answer)>),
    Invoice {
        payment_hash: [u8; 32],
        amount_msat: u64,
    },
}

impl Observer {
    /// An observer that continues an earlier audit.
    pub fn new(audit: Audit) -> Observer {
        let notes = Notes {
            audit,
            ..Notes::default()
        };
        Observer {
            notes: Mutex::new(notes),
        }
    }

    /// The audit so far.
    pub fn audit(&self) -> Audit {
        lock(&self.notes).audit.clone()
    }

    /// Records a preimage that no invoice was signed for, as if the phone had given it.
    pub fn hear_a_sale(&self) {
        self.sells(0);
        self.durable(0);
    }

    /// Records such an answer, which depends on this record.
    fn sells(&self, version: u64) {
        let preimage = [3; 32];
        let op = SignerOp {
            channel_keys_id: Vec::new(),
            op: Some(Op::GetPreimage(GetPreimage {
                payment_hash: sha256::Hash::hash(&preimage).to_byte_array().to_vec(),
                htlcs: Vec::new(),
            })),
        };
        let answer = Answer::Preimage(preimage.to_vec());
        self.made(Said::Answer(&op, &answer), version);
    }

    /// Violations of the phone. To have seen no answer is one too, since it proves nothing.
    pub fn faults(&self, owner: &str) -> Vec<Fault> {
        let notes = lock(&self.notes);
        let blind = (notes.seen == 0).then(|| "nothing was observed".to_owned());
        let wrong = notes.wrong.iter().map(ToString::to_string).chain(blind);
        wrong
            .map(|what| Fault::new(Class::Signed, format!("{owner}'s phone: {what}")))
            .collect()
    }
}

impl Witness for Observer {
    fn made(&self, said: Said<'_>, version: u64) {
        let observed = match said {
            Said::Answer(op, answer) => Observed::Answer(Box::new((op.clone(), answer.clone()))),
            Said::Invoice {
                payment_hash,
                amount_msat,
            } => Observed::Invoice {
                payment_hash,
                amount_msat,
            },
        };
        lock(&self.notes).waiting.push_back((version, observed));
    }

    fn durable(&self, version: u64) {
        lock(&self.notes).let_out(version);
    }

    fn restored(&self, version: u64) {
        let mut notes = lock(&self.notes);
        notes.let_out(version);
        notes.waiting.clear();
    }
}

impl Notes {
    fn let_out(&mut self, version: u64) {
        while let Some((_, observed)) = self.waiting.pop_front_if(|(needs, _)| *needs <= version) {
            let judged = match &observed {
                Observed::Answer(said) => self.audit.saw(&said.0, &said.1),
                Observed::Invoice {
                    payment_hash,
                    amount_msat,
                } => self.audit.saw_invoice(*payment_hash, *amount_msat),
            };
            self.wrong.extend(judged.err());
            self.seen += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    /// An observer of a preimage that no invoice was signed for, which depends on record 2.
    fn sold() -> Observer {
        let observer = Observer::default();
        let invoice = Said::Invoice {
            payment_hash: [1; 32],
            amount_msat: 7,
        };
        observer.made(invoice, 1);
        observer.sells(2);
        observer.durable(1);
        assert_eq!(observer.faults("ann"), []);
        observer
    }

    #[test]
    fn what_leaves_is_judged() {
        let observer = sold();
        observer.durable(2);
        let [fault] = &observer.faults("ann")[..] else {
            panic!()
        };
        assert_eq!(fault.class, Class::Signed);
        assert!(fault.what.contains("no invoice was signed"), "{fault:?}");
    }

    #[test]
    fn what_was_durable_when_the_phone_died_is_judged_as_if_it_had_left() {
        let observer = sold();
        observer.restored(2);
        assert_eq!(observer.faults("ann").len(), 1);
    }

    #[test]
    fn what_was_lost_with_the_phone_was_never_said() {
        let observer = sold();
        observer.restored(1);
        observer.durable(2);
        assert_eq!(observer.faults("ann"), []);
    }

    #[test]
    fn an_observer_that_saw_nothing_is_a_fault() {
        let [fault] = &Observer::default().faults("ann")[..] else {
            panic!()
        };
        assert_eq!(fault.class, Class::Signed);
    }
}
