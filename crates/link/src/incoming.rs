//! Requests of the other side, and their responses.

use std::fmt;
use std::sync::Arc;

use longhand_proto::Code;
use tokio::sync::{mpsc, watch};

use crate::conversation::Shared;
use crate::core::requests::{Answer, refusal};
use crate::key::{Instance, LinkKey};

/// Requests of the other side in order of arrival; each one once, however often it was sent.
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
    /// The static key of the other side.
    pub from: LinkKey,
    /// The kind of the payload: `signer` or `command`.
    pub kind: String,
    /// The encoded message.
    pub payload: Vec<u8>,
    /// Sends the response.
    pub responder: Responder,
}

/// Sends the response to one request, over the link that is live by then. Dropped without a response it refuses with
/// `UNANSWERED`.
pub struct Responder {
    /// `None` once the response is given.
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

    /// Keeps it from refusing when it is dropped.
    pub(crate) fn disarm(&mut self) {
        self.ticket = None;
    }

    /// Responds with `payload`.
    pub fn respond(mut self, payload: Vec<u8>) {
        self.answer(Ok(payload));
    }

    /// Refuses, with a stable code and one line for a person.
    pub fn refuse(mut self, code: impl Into<String>, message: &str) {
        self.answer(Err(refusal(code, message)));
    }

    /// Waits until the other side cancels the request. Its execution need not stop.
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
            Code::Unanswered,
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
    /// Shows only the size of the payload, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Incoming({}, {} bytes)", self.kind, self.payload.len())
    }
}
