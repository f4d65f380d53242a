//! A host that lies: it speaks the protocol of the signer as a real one does, and asks for what would cost the owner money.
//!
//! [`cases`] are honest operations, which are to be carried out, and attacks: one change each to an operation or to the story before it,
//! which is to be refused by the one rule that is named. [`judge`] plays a case against a new phone. [`stories`] are whole attempts to
//! steal, of many operations. For tests, simulations and `longhand bench refusals`.
//!
//! An attack counts once for each rule and change.

#![allow(
    clippy::expect_used,
    reason = "a story whose honest part fails is a fault of the double"
)]

mod attacks;
pub mod chain;
pub mod funded;
pub mod gossip;
mod handshake;
pub mod invoice;
pub mod onion;
pub mod scene;
pub mod stories;
mod tlv;

use std::fmt;

use longhand_proto::signer::signer_op::Op;
use longhand_signer::Rule;

use scene::Phone;

/// What the phone did with the last operation of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was carried out.
    Signed,
    /// A rule refused it.
    Refused(Rule),
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Signed => f.write_str("signed"),
            Verdict::Refused(rule) => write!(f, "refused by {rule}"),
        }
    }
}

/// A story, and what is to become of its last operation.
pub struct Case {
    /// The rule that it is about.
    pub rule: Rule,
    /// What is changed; for an honest one, what is asked for.
    pub name: String,
    /// Whether it is to be carried out.
    pub is_honest: bool,
    play: Box<dyn Fn(&mut Phone) -> Verdict + Send + Sync>,
}

impl Case {
    /// What is to become of it.
    pub fn expected(&self) -> Verdict {
        match self.is_honest {
            true => Verdict::Signed,
            false => Verdict::Refused(self.rule),
        }
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.name)
    }
}

/// All cases, those of one rule together.
pub fn cases() -> Vec<Case> {
    let mut all = attacks::all();
    all.sort_by_key(|case| case.rule);
    all
}

/// Plays a case against a new phone, which is prepared before.
pub fn judge(case: &Case, prepare: impl Fn(&mut Phone)) -> Verdict {
    let mut phone = Phone::new();
    prepare(&mut phone);
    (case.play)(&mut phone)
}

/// Collects the cases of one rule.
struct Cases {
    rule: Rule,
    all: Vec<Case>,
}

impl Cases {
    fn of(rule: Rule) -> Cases {
        Cases {
            rule,
            all: Vec::new(),
        }
    }

    fn add(
        &mut self,
        is_honest: bool,
        name: impl Into<String>,
        play: impl Fn(&mut Phone) -> Verdict + Send + Sync + 'static,
    ) {
        self.all.push(Case {
            rule: self.rule,
            name: name.into(),
            is_honest,
            play: Box::new(play),
        });
    }

    /// An operation on the channel of the scene that is to be carried out.
    fn honest(
        &mut self,
        name: impl Into<String>,
        op: impl Fn(&mut Phone) -> Op + Send + Sync + 'static,
    ) {
        self.add(true, name, move |phone| {
            let op = op(phone);
            asked(phone, op)
        });
    }

    /// One that is to be refused.
    fn attack(
        &mut self,
        name: impl Into<String>,
        op: impl Fn(&mut Phone) -> Op + Send + Sync + 'static,
    ) {
        self.add(false, name, move |phone| {
            let op = op(phone);
            asked(phone, op)
        });
    }
}

/// Asks on the scene's channel. A refusal leaves no record.
fn asked(phone: &mut Phone, op: Op) -> Verdict {
    phone.read_onions_of(&op);
    let before = phone.signer.version();
    match phone.ask(op) {
        Ok(_) => Verdict::Signed,
        Err(refusal) => {
            assert_eq!(phone.signer.version(), before, "a refusal left a trace");
            Verdict::Refused(scene::rule(&refusal))
        }
    }
}
