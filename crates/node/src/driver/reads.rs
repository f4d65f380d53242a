//! Reads from the store for the machine: records that a turn needs, and replies that are in the history.

use longhand_proto::command::{CommandReply, Error};
use longhand_store::StoreError;

use super::Driver;
use crate::errors::error_reply;
use crate::machine::input::Input;
use crate::machine::output::Answer;
use crate::store::history;

impl Driver {
    /// Reads the records that the turn needs, and lets the machine go on with it. False when that panicked.
    ///
    /// # Errors
    /// [`StoreError`]; the turn cannot be committed then.
    pub(super) async fn read_for_turn(&mut self) -> Result<bool, StoreError> {
        // LDK may go on with what it gets, and need others.
        while !self.machine.unread().is_empty() {
            let (store, namespace) = (&*self.services.store, &self.config.namespace);
            let mut records = Vec::new();
            for hash in self.machine.unread() {
                records.push((*hash, history::find(store, namespace, hash).await?));
            }
            let inputs = vec![Input::RecordsRead(records)];
            if !self.catch_panic(|driver| driver.turn(inputs)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Answers the requests of committed turns that are about the history. Nothing is written meanwhile, so that no payment
    /// is both there and in the request, or in neither.
    pub(super) async fn answer_reads(&mut self) {
        for (id, read) in std::mem::take(&mut self.reads) {
            let namespace = &self.config.namespace;
            let answer = history::answer(&*self.services.store, namespace, read).await;
            let reply = match answer {
                Ok(reply) => CommandReply { reply: Some(reply) },
                Err(failure) => error_reply(Error::new(failure.code(), failure.to_string())),
            };
            self.pending.answer(id, Answer::Command(reply));
        }
    }
}
