//! The link's protocol as values without I/O: bytes and the time go in, bytes and events come out. Sockets, clocks and tasks are
//! elsewhere, so that every order of events can be tested and replayed.
//!
//! - [`handshake`]: authentication of both sides (Noise).
//! - [`record`]: frames as encrypted records.
//! - [`session`]: one connection from `Hello` to `Close`.
//! - [`requests`]: requests and responses, kept across connections so that no request is executed twice.

use std::time::Duration;

pub mod handshake;
pub mod record;
pub mod requests;
pub mod session;

#[cfg(test)]
mod tests;

/// The side of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// Dials; its requests have odd ids.
    Phone,
    /// Listens; its requests have even ids.
    Host,
}

impl Side {
    /// The id of this side's first request; each later id is 2 higher.
    pub(crate) fn first_id(self) -> u64 {
        match self {
            Side::Phone => 1,
            Side::Host => 2,
        }
    }

    /// Whether this side uses the id for its own requests.
    pub(crate) fn owns(self, id: u64) -> bool {
        id != 0 && id % 2 == self.first_id() % 2
    }
}

/// Settings of a conversation and its links.
#[derive(Clone, Debug)]
pub struct Config {
    /// Name and version of the software, sent to the other side for its logs.
    pub agent: String,
    /// The kinds of requests that are accepted; others are refused with `UNKNOWN_KIND`.
    pub serves: Vec<String>,
    /// A ping is sent after this long without sending anything; the other side is dead after two missed.
    pub heartbeat: Duration,
    /// The time for which requests wait for a new link after one broke.
    pub grace: Duration,
    /// Largest frame, in bytes, either way.
    pub max_frame: usize,
    /// Most requests of the other side in execution at once; more are refused with `BUSY`.
    pub max_in_flight: usize,
    /// Most bytes of these requests together; a single one is always accepted.
    pub max_in_flight_bytes: usize,
}

impl Config {
    /// The defaults: 10 s heartbeat, 3 s grace, 4 MiB frames, 1024 requests and 16 MiB of them at once.
    pub fn new(agent: &str, serves: &[&str]) -> Config {
        Config {
            agent: agent.to_owned(),
            serves: serves.iter().map(|kind| (*kind).to_owned()).collect(),
            heartbeat: Duration::from_secs(10),
            grace: Duration::from_secs(3),
            max_frame: 4 << 20,
            max_in_flight: 1024,
            max_in_flight_bytes: 16 << 20,
        }
    }

    pub(crate) fn heartbeat_ms(&self) -> u64 {
        u64::try_from(self.heartbeat.as_millis()).unwrap_or(u64::MAX)
    }
}
