//! The tasks that have the chain answer the machine's questions: about past blocks, headers, transactions in blocks, and filters.

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::message::Message;

/// One question at a time of one kind. It ends with the driver.
#[derive(Default)]
pub(super) struct Question {
    /// Of the last one.
    number: u64,
    task: Option<AbortHandle>,
}

impl Question {
    /// Has the answer sent to `inbox` as the message that `wrap` makes of it and the question's number. The question before is dropped.
    pub fn ask<T: Send + 'static>(
        &mut self,
        answer: impl Future<Output = T> + Send + 'static,
        wrap: impl FnOnce(u64, T) -> Message + Send + 'static,
        inbox: mpsc::UnboundedSender<Message>,
    ) {
        self.cancel();
        let number = self.number;
        let task = tokio::spawn(async move {
            let _ = inbox.send(wrap(number, answer.await));
        });
        self.task = Some(task.abort_handle());
    }

    /// Whether an answer is to the last question, and of the machine that is there now.
    pub fn is_last(&self, number: u64) -> bool {
        self.number == number
    }

    /// Drops the last question: its answer may be in the inbox already.
    pub fn cancel(&mut self) {
        self.number = self.number.wrapping_add(1);
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Drop for Question {
    fn drop(&mut self) {
        self.cancel();
    }
}
