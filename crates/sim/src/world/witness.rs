//! Somebody who hears all that an owner's phone says, through all its lives, and does not believe its ledger.

use std::collections::VecDeque;
use std::sync::Mutex;

use longhand_phone::testing::{Said, Witness};
use longhand_proto::signer::SignerOp;
use longhand_proto::signer::signer_answer::Answer;
use longhand_signer::audit::{Audit, Violation};

use crate::world::check::{Class, Fault};
use crate::world::parts::lock;

/// See the module.
#[derive(Default)]
pub struct Observer {
    notes: Mutex<Notes>,
}

#[derive(Default)]
struct Notes {
    audit: Audit,
    /// What has not left yet, and the record that has to be durable first.
    waiting: VecDeque<(u64, Heard)>,
    wrong: Vec<Violation>,
    /// How much was heard that left.
    heard: u32,
}

enum Heard {
    Answer(Box<(SignerOp, Answer)>),
    Invoice {
        payment_hash: [u8; 32],
        amount_msat: u64,
    },
}

impl Observer {
    /// One who goes on with what was heard before.
    pub fn new(audit: Audit) -> Observer {
        let notes = Notes {
            audit,
            ..Notes::default()
        };
        Observer {
            notes: Mutex::new(notes),
        }
    }

    /// What was heard so far.
    pub fn audit(&self) -> Audit {
        lock(&self.notes).audit.clone()
    }

    /// What the phone said and must never say. That nothing was heard of it counts too: whoever hears nothing proves
    /// nothing.
    pub fn faults(&self, owner: &str) -> Vec<Fault> {
        let notes = lock(&self.notes);
        let deaf = (notes.heard == 0).then(|| "nothing was heard".to_owned());
        let wrong = notes.wrong.iter().map(ToString::to_string).chain(deaf);
        wrong
            .map(|what| Fault::new(Class::Signed, format!("{owner}'s phone: {what}")))
            .collect()
    }
}

impl Witness for Observer {
    fn made(&self, said: Said<'_>, version: u64) {
        let heard = match said {
            Said::Answer(op, answer) => Heard::Answer(Box::new((op.clone(), answer.clone()))),
            Said::Invoice {
                payment_hash,
                amount_msat,
            } => Heard::Invoice {
                payment_hash,
                amount_msat,
            },
        };
        lock(&self.notes).waiting.push_back((version, heard));
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
        while let Some((_, heard)) = self.waiting.pop_front_if(|(needs, _)| *needs <= version) {
            let judged = match &heard {
                Heard::Answer(said) => self.audit.saw(&said.0, &said.1),
                Heard::Invoice {
                    payment_hash,
                    amount_msat,
                } => self.audit.saw_invoice(*payment_hash, *amount_msat),
            };
            self.wrong.extend(judged.err());
            self.heard += 1;
        }
    }
}
