//! Events and commands about a payment whose record is not in memory. It may have ended, and then the store has it; the machine
//! does no I/O.
//!
//! So they wait, and the turn with them: it is not committed before the driver has read the records (`NodeMachine::unread`)
//! and given them back in another round of the same turn. LDK counts an event as handled from when it was given out: were
//! the turn committed in between, a crash would lose it.

use lightning::events::Event;
use lightning::types::payment::PaymentHash;
use longhand_proto::command::Command;

use crate::machine::output::RequestId;
use crate::parts::payments::{Payments, hash_of_command, hash_of_event};

/// See the module.
#[derive(Default)]
pub(super) struct Unread {
    hashes: Vec<PaymentHash>,
    /// In the order in which they came.
    waiting: Vec<Waiting>,
}

/// Waits for a record.
pub(super) enum Waiting {
    Event(Box<Event>),
    Command(RequestId, Command),
}

impl Unread {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The payments whose records this turn needs.
    pub fn hashes(&self) -> &[PaymentHash] {
        &self.hashes
    }

    /// The event, unless it has to wait for a record.
    pub fn event(&mut self, payments: &Payments, event: Event) -> Option<Event> {
        match hash_of_event(&event).filter(|hash| !payments.is_known(hash)) {
            Some(hash) => {
                self.wait(hash, Waiting::Event(Box::new(event)));
                None
            }
            None => Some(event),
        }
    }

    /// The command, unless it has to wait for a record.
    pub fn command(
        &mut self,
        payments: &Payments,
        id: RequestId,
        command: Command,
    ) -> Option<Command> {
        match hash_of_command(&command).filter(|hash| !payments.is_known(hash)) {
            Some(hash) => {
                self.wait(hash, Waiting::Command(id, command));
                None
            }
            None => Some(command),
        }
    }

    /// Takes everything that waited.
    pub fn take(&mut self) -> Vec<Waiting> {
        std::mem::take(self).waiting
    }

    fn wait(&mut self, hash: PaymentHash, waiting: Waiting) {
        if !self.hashes.contains(&hash) {
            self.hashes.push(hash);
        }
        self.waiting.push(waiting);
    }
}
