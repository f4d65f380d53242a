//! What outlives links: requests both ways, resumed on the next link of the same two processes.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{CloseCode, CloseReason, LinkError};
use crate::key::Instance;

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Dials; its requests have odd ids.
    Phone,
    /// Listens; its requests have even ids.
    Host,
}

/// How a [`Peer`] and its links behave.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name and version of the software, told to the other side for its logs.
    pub agent: String,
    /// The kinds of requests that are taken; others are refused with `UNKNOWN_KIND`.
    pub serves: Vec<String>,
    /// A ping is sent after this long without sending anything; the other side is dead after two missed.
    pub heartbeat: Duration,
    /// How long requests wait for a new link after one broke.
    pub grace: Duration,
    /// How long the handshake may take.
    pub handshake_timeout: Duration,
    /// Largest frame, in bytes, either way.
    pub max_frame: usize,
    /// Most requests of the other side in execution at once; more are refused with `BUSY`.
    pub max_in_flight: usize,
}

impl Config {
    /// The defaults: 10 s heartbeat, 3 s grace, 10 s handshake, 4 MiB frames, 1024 requests at once.
    pub fn new(agent: &str, serves: &[&str]) -> Config {
        Config {
            agent: agent.to_owned(),
            serves: serves.iter().map(|kind| (*kind).to_owned()).collect(),
            heartbeat: Duration::from_secs(10),
            grace: Duration::from_secs(3),
            handshake_timeout: Duration::from_secs(10),
            max_frame: 4 << 20,
            max_in_flight: 1024,
        }
    }
}

/// One side of the conversation with one other process, over however many links it takes. Clones are handles
/// on the same one. It is down until its first link is live.
#[derive(Clone)]
pub struct Peer {
    shared: Arc<()>,
}

impl Peer {
    /// A peer, and what is asked of it.
    ///
    /// # Errors
    /// [`LinkError::Randomness`].
    pub fn new(side: Side, config: Config) -> Result<(Peer, IncomingRequests), LinkError> {
        let _ = (side, config);
        Err(LinkError::Handshake)
    }

    /// This process, as the other side knows it.
    pub fn instance(&self) -> Instance {
        Instance([0; 16])
    }

    /// Asks the other side and waits for the answer, also across a new link within the grace. Dropping the
    /// future cancels the request.
    ///
    /// # Errors
    /// [`LinkError::Down`] at once when the peer is down, or when it becomes so; [`LinkError::Restarted`];
    /// [`LinkError::Refused`]; [`LinkError::TooLarge`].
    pub async fn request(&self, kind: &str, payload: Vec<u8>) -> Result<Vec<u8>, LinkError> {
        let _ = (&self.shared, kind, payload);
        Err(LinkError::Restarted)
    }

    /// The live link, if there is one.
    pub fn link(&self) -> Option<Link> {
        None
    }

    /// Waits until the peer is down: its link closed for good, or broke and the grace is over. Returns at once
    /// when it is.
    pub async fn down(&self) -> CloseReason {
        std::future::pending().await
    }

    /// Ends the live link with `code` and fails what is asked, without waiting for the grace.
    pub fn give_up(&self, code: CloseCode, message: &str) {
        let _ = (code, message);
    }
}

/// What the other side asks, in order of arrival; each request once, however often it was sent.
pub struct IncomingRequests {}

impl IncomingRequests {
    /// The next request. `None` when every handle on the [`Peer`] is gone.
    pub async fn next(&mut self) -> Option<Incoming> {
        None
    }
}

/// A request of the other side.
pub struct Incoming {
    /// What the payload is: `signer` or `command`.
    pub kind: String,
    /// The request itself.
    pub payload: Vec<u8>,
    /// Where the answer goes.
    pub responder: Responder,
}

/// Answers one request, over whichever link is there by then. Dropped without an answer it refuses with
/// `UNANSWERED`.
pub struct Responder {}

impl Responder {
    /// Answers.
    pub fn respond(self, payload: Vec<u8>) {
        let _ = payload;
    }

    /// Refuses, with a stable code and one line for a person.
    pub fn refuse(self, code: &str, message: &str) {
        let _ = (code, message);
    }

    /// Waits until the other side no longer wants the answer. What has begun need not stop.
    pub async fn cancelled(&self) {}
}

/// One live connection. Clones are handles on the same one.
#[derive(Clone, Debug)]
pub struct Link {}

impl Link {
    /// See [`Peer::request`].
    ///
    /// # Errors
    /// As [`Peer::request`].
    pub async fn request(&self, kind: &str, payload: Vec<u8>) -> Result<Vec<u8>, LinkError> {
        let _ = (kind, payload);
        Err(LinkError::Restarted)
    }

    /// Waits until this link has ended, and says why. A peer may still be within its grace then: see
    /// [`Peer::down`].
    pub async fn closed(&self) -> CloseReason {
        std::future::pending().await
    }

    /// Asks the other side to finish the step in hand, waits until it has, and ends the link with `DETACHED`.
    ///
    /// # Errors
    /// [`LinkError::Down`] when the link ended before the other side agreed.
    pub async fn detach(&self) -> Result<(), LinkError> {
        Err(LinkError::Restarted)
    }

    /// Waits until the other side asks to detach; pends for ever when the link ends before.
    pub async fn detach_requested(&self) {}

    /// Everything is settled: lets the other side go, and ends the link with `DETACHED`.
    pub fn confirm_detach(&self) {}

    /// Ends the link with a stable code and one line for a person.
    pub fn close(&self, code: CloseCode, message: &str) {
        let _ = (code, message);
    }
}
