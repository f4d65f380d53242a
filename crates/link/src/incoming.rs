//! What the other side asks, and where the answers go.

use std::fmt;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use crate::conversation::Shared;
use crate::core::requests::{Answer, refusal};
use crate::key::{Instance, LinkKey};

/// What the other side asks, in order of arrival; each request once, however often it was sent.
pub struct IncomingRequests {
    inner: mpsc::UnboundedReceiver<Incoming>,
}

impl IncomingRequests {
    pub(crate) fn new(inner: mpsc::UnboundedReceiver<Incoming>) -> IncomingRequests {
        IncomingRequests { inner }
    }

    /// The next request. `None` when every handle on the [`crate::Conversation`] is gone.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.inner.recv().await
    }
}

/// A request of the other side.
pub struct Incoming {
    /// The static key of who asks.
    pub from: LinkKey,
    /// What the payload is: `signer` or `command`.
    pub kind: String,
    /// The request itself.
    pub payload: Vec<u8>,
    /// Where the answer goes.
    pub responder: Responder,
}

/// Answers one request, over whichever link is there by then. Dropped without an answer it refuses with
/// `UNANSWERED`.
pub struct Responder {
    /// Taken by the answer.
    ticket: Option<(Arc<Shared>, Instance, u64)>,
    cancelled: watch::Receiver<bool>,
}

impl Responder {
    pub(crate) fn new(
        shared: Arc<Shared>,
        remote: Instance,
        id: u64,
        cancelled: watch::Receiver<bool>,
    ) -> Responder {
        Responder {
            ticket: Some((shared, remote, id)),
            cancelled,
        }
    }

    /// Makes it drop silently.
    pub(crate) fn disarm(&mut self) {
        self.ticket = None;
    }

    /// Answers.
    pub fn respond(mut self, payload: Vec<u8>) {
        self.answer(Ok(payload));
    }

    /// Refuses, with a stable code and one line for a person.
    pub fn refuse(mut self, code: &str, message: &str) {
        self.answer(Err(refusal(code, message)));
    }

    /// Waits until the other side no longer wants the answer. What has begun need not stop.
    pub async fn cancelled(&self) {
        if self
            .cancelled
            .clone()
            .wait_for(|cancelled| *cancelled)
            .await
            .is_err()
        {
            std::future::pending().await
        }
    }

    fn answer(&mut self, answer: Answer) {
        if let Some((shared, remote, id)) = self.ticket.take() {
            shared.answer(remote, id, answer);
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.answer(Err(refusal(
            "UNANSWERED",
            "the request was given up without an answer: ask again",
        )));
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Responder({:?})",
            self.ticket.as_ref().map(|(_, _, id)| id)
        )
    }
}

impl fmt::Debug for Incoming {
    /// Payloads may hold secrets: only their size is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incoming({}, {} bytes)", self.kind, self.payload.len())
    }
}
