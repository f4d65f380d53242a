//! Whole stories of a host that lies: an honest beginning, what it tries then, one attempt after the other, and what the owner
//! can still do afterwards.

mod channels;
mod seen;
mod updates;

use longhand_proto::signer::SignerOp;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_signer::Rule;

use crate::Verdict;
use crate::attacks::incoming::invoiced;
use crate::scene::{Phone, rule};

/// A story that can be played against a phone.
pub struct Story {
    /// What the host is after.
    pub name: &'static str,
    tell: fn(&mut Telling),
}

/// One operation of a story that was played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What the host asks for.
    pub name: String,
    /// What is to become of it.
    pub expected: Verdict,
    /// What became of it.
    pub verdict: Verdict,
}

/// A story that was played.
pub struct Played {
    /// Its operations, in order.
    pub steps: Vec<Step>,
    /// All that the phone was sent, and its answers, for an observer.
    pub said: Vec<(SignerOp, Answer)>,
    /// The owner's invoices: payment hashes and amounts.
    pub invoices_msat: Vec<([u8; 32], u64)>,
}

/// Whether the phone runs through a story without a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restarts {
    /// It does.
    Never,
    /// It starts again from its disk after each operation.
    EachStep,
}

/// All stories.
pub fn stories() -> Vec<Story> {
    let mut all = updates::stories();
    all.extend(channels::stories());
    all.extend(seen::stories());
    all
}

impl Story {
    /// Plays it against a new phone.
    pub fn play(&self, restarts: Restarts) -> Played {
        let mut telling = Telling {
            phone: Phone::new(),
            restarts,
            steps: Vec::new(),
            invoices_msat: Vec::new(),
        };
        (self.tell)(&mut telling);
        Played {
            steps: telling.steps,
            said: telling.phone.said,
            invoices_msat: telling.invoices_msat,
        }
    }
}

/// A story that is being played.
struct Telling {
    phone: Phone,
    restarts: Restarts,
    steps: Vec<Step>,
    invoices_msat: Vec<([u8; 32], u64)>,
}

impl Telling {
    /// The host asks for what is to be carried out; the answer, if it was.
    fn goes(&mut self, name: impl Into<String>, op: Op) -> Option<Answer> {
        self.asks(name, op, Verdict::Signed)
    }

    /// Several of these, one after the other.
    fn all_go(&mut self, name: &str, ops: impl IntoIterator<Item = Op>) {
        for op in ops {
            self.goes(name, op);
        }
    }

    /// The host asks for what this rule is to refuse.
    fn stops(&mut self, by: Rule, name: impl Into<String>, op: Op) {
        self.asks(name, op, Verdict::Refused(by));
    }

    fn asks(&mut self, name: impl Into<String>, op: Op, expected: Verdict) -> Option<Answer> {
        let asked = self.phone.ask(op);
        let verdict = match &asked {
            Ok(_) => Verdict::Signed,
            Err(refusal) => Verdict::Refused(rule(refusal)),
        };
        let name = name.into();
        self.steps.push(Step {
            name,
            expected,
            verdict,
        });
        if self.restarts == Restarts::EachStep {
            self.phone.restart();
        }
        asked.ok()
    }

    /// The owner makes an invoice.
    fn invoice(&mut self, amount_msat: u64) -> [u8; 32] {
        let payment_hash = invoiced(&mut self.phone, amount_msat);
        self.invoices_msat.push((payment_hash, amount_msat));
        payment_hash
    }
}
