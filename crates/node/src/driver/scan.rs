//! The task that has the chain answer the machine's request for past blocks.

use std::sync::Arc;

use longhand_chain::{Chain, ScanRequest};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::message::Message;

/// One request at a time. It ends with the driver.
#[derive(Default)]
pub(super) struct ScanTask {
    /// Of the last request.
    number: u64,
    task: Option<AbortHandle>,
}

impl ScanTask {
    /// Asks `chain`, and sends the answer to `inbox`.
    pub fn begin(
        &mut self,
        chain: Arc<dyn Chain>,
        request: ScanRequest,
        inbox: mpsc::UnboundedSender<Message>,
    ) {
        self.cancel();
        let number = self.number;
        let task = tokio::spawn(async move {
            let answer = Box::new(chain.scan(request).await);
            let _ = inbox.send(Message::Scanned(number, answer));
        });
        self.task = Some(task.abort_handle());
    }

    /// Whether an answer is to the last request, and of the machine that is there now.
    pub fn is_last(&self, number: u64) -> bool {
        self.number == number
    }

    /// Drops the last request: its answer may be in the inbox already.
    pub fn cancel(&mut self) {
        self.number = self.number.wrapping_add(1);
        if let Some(task) = self.task.take() {
            task.abort();
        }
    }
}

impl Drop for ScanTask {
    fn drop(&mut self) {
        self.cancel();
    }
}
