//! Events and commands about a payment whose record is not in memory. It may have ended, and then the store has it; the machine
//! does no I/O.
//!
//! So they wait, and the turn with them: it is not committed before the driver has read the records ([`NodeMachine::unread`])
//! and given them back in another round of the same turn. LDK counts an event as handled from when it was given out: were
//! the turn committed in between, a crash would lose it.

use lightning::events::Event;
use lightning::types::payment::PaymentHash;
use longhand_proto::command::{Command, Payment};

use super::NodeMachine;
use crate::machine::output::RequestId;
use crate::parts::payments::{hash_of_command, hash_of_event};

/// See the module.
#[derive(Default)]
pub(super) struct Unread {
    hashes: Vec<PaymentHash>,
    /// In the order in which they came.
    waiting: Vec<Waiting>,
}

enum Waiting {
    Event(Box<Event>),
    Command(RequestId, Command),
}

impl Unread {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn wait(&mut self, hash: PaymentHash, waiting: Waiting) {
        if !self.hashes.contains(&hash) {
            self.hashes.push(hash);
        }
        self.waiting.push(waiting);
    }
}

impl NodeMachine {
    /// The payments whose records this turn needs before it can go on. The driver reads them, and works a turn on
    /// `Input::RecordsRead`.
    pub fn unread(&self) -> &[PaymentHash] {
        &self.unread.hashes
    }

    /// The event, unless it has to wait for a record.
    pub(super) fn event_with_record(&mut self, event: Event) -> Option<Event> {
        match hash_of_event(&event).filter(|hash| !self.payments.is_known(hash)) {
            Some(hash) => {
                self.unread.wait(hash, Waiting::Event(Box::new(event)));
                None
            }
            None => Some(event),
        }
    }

    /// The command, unless it has to wait for a record.
    pub(super) fn command_with_record(
        &mut self,
        id: RequestId,
        command: Command,
    ) -> Option<Command> {
        match hash_of_command(&command).filter(|hash| !self.payments.is_known(hash)) {
            Some(hash) => {
                self.unread.wait(hash, Waiting::Command(id, command));
                None
            }
            None => Some(command),
        }
    }

    /// Goes on with everything that waited for these records.
    pub(super) fn records_read(&mut self, records: Vec<(PaymentHash, Option<Payment>)>) {
        for (hash, record) in records {
            self.payments.read(hash, record);
        }
        for waiting in std::mem::take(&mut self.unread).waiting {
            match waiting {
                Waiting::Event(event) => self.ldk_event(*event),
                Waiting::Command(id, command) => self.carry_out(id, command),
            }
        }
    }
}
