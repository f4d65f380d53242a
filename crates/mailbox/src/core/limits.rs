//! Limits of a relay: what one key, one network and all together may use.

use std::collections::HashMap;
use std::time::Duration;

use longhand_link::carrier::admission::SourceNetwork;
use serde::{Deserialize, Serialize};

use super::{MAX_PAYLOAD, Time};

/// Memory of a message beside its payload, in bytes: without it, empty messages would cost nothing.
pub const MESSAGE_BYTES: usize = 96;

/// Requests of a connection beside messages that are sent on: an attach costs the check of a signature. A host attaches all its
/// streams at once.
pub(super) const REQUESTS: Rate = Rate {
    per_s: 1_000,
    burst: 20_000,
};

/// Replies beside messages that a connection may have waiting before its requests are read no further, and one more for each end
/// that it has attached.
pub(super) const MAX_REPLIES: usize = 256;

/// Time without a request after which a connection is sent a ping, and that for the answer.
pub(super) const QUIET: Time = Duration::from_secs(60);
pub(super) const PONG_WITHIN: Time = Duration::from_secs(30);

/// Bad signatures that end a connection.
pub(super) const MAX_BAD_SIGNATURES: u8 = 3;

/// Limits of a mailbox; `docs/mailbox.example.toml` has the meaning of each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections of one source network that have attached a stream.
    pub connections_per_network: usize,
    /// Attached ends of one source network.
    pub ends_per_network: usize,
    /// Attached ends of all together.
    pub ends: usize,
    /// Messages that wait at an end without a reader.
    pub queue_messages: usize,
    /// Bytes that wait at one end.
    pub queue_bytes: usize,
    /// How long a message may wait.
    pub queue_s: u64,
    /// Bytes in all queues.
    pub total_bytes: usize,
    /// Bytes in all queues that clients of one source network have sent.
    pub bytes_per_network: usize,
    /// Bytes that may be sent with one key in a second, over a longer time.
    pub bytes_per_s: u64,
    /// Bytes that may be sent with one key at once.
    pub bytes_burst: u64,
    /// Messages that may be sent with one key in a second, over a longer time.
    pub messages_per_s: u64,
    /// Messages that may be sent with one key at once.
    pub messages_burst: u64,
    /// Connections that have attached nothing within this time are closed.
    pub attach_within_s: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_per_network: 256,
            ends_per_network: 20_000,
            ends: 400_000,
            queue_messages: 64,
            queue_bytes: 512 << 10,
            queue_s: 60,
            total_bytes: 256 << 20,
            bytes_per_network: 32 << 20,
            bytes_per_s: 4 << 20,
            bytes_burst: 8 << 20,
            messages_per_s: 2_000,
            messages_burst: 4_000,
            attach_within_s: 10,
        }
    }
}

impl Limits {
    /// The first limit with which nothing could be carried, and the least value that it may have.
    pub fn too_small(&self) -> Option<(&'static str, u64)> {
        let message = MAX_PAYLOAD + MESSAGE_BYTES;
        let wide = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        let limits = [
            (
                "connections_per_network",
                wide(self.connections_per_network),
                1,
            ),
            ("ends_per_network", wide(self.ends_per_network), 1),
            ("ends", wide(self.ends), 1),
            ("queue_messages", wide(self.queue_messages), 1),
            ("queue_bytes", wide(self.queue_bytes), wide(message)),
            ("queue_s", self.queue_s, 1),
            ("total_bytes", wide(self.total_bytes), wide(message)),
            (
                "bytes_per_network",
                wide(self.bytes_per_network),
                wide(message),
            ),
            ("bytes_per_s", self.bytes_per_s, 1),
            ("bytes_burst", self.bytes_burst, wide(message)),
            ("messages_per_s", self.messages_per_s, 1),
            ("messages_burst", self.messages_burst, 1),
            ("attach_within_s", self.attach_within_s, 1),
        ];
        let found = limits.into_iter().find(|(_, value, least)| value < least);
        found.map(|(name, _, least)| (name, least))
    }

    pub(super) fn wait(&self) -> Time {
        Duration::from_secs(self.queue_s)
    }

    pub(super) fn attach_within(&self) -> Time {
        Duration::from_secs(self.attach_within_s)
    }

    pub(super) fn bytes(&self) -> Rate {
        Rate {
            per_s: self.bytes_per_s,
            burst: self.bytes_burst,
        }
    }

    pub(super) fn messages(&self) -> Rate {
        Rate {
            per_s: self.messages_per_s,
            burst: self.messages_burst,
        }
    }
}

/// How fast a token bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    pub per_s: u64,
    pub burst: u64,
}

impl Rate {
    /// The time in which a bucket gets this many tokens.
    fn ns(self, tokens: u64) -> u64 {
        let ns = u128::from(tokens) * 1_000_000_000 / u128::from(self.per_s.max(1));
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

/// A token bucket, in eight bytes: the time at which it is full again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    full_at_ns: u64,
}

impl Bucket {
    /// Takes tokens, which may be more than there are. Returns the time from which on none are owed: not after `now` when there
    /// were enough.
    pub fn charge(&mut self, tokens: u64, rate: Rate, now: Time) -> Time {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        self.full_at_ns = self.full_at_ns.max(now).saturating_add(rate.ns(tokens));
        Duration::from_nanos(self.full_at_ns.saturating_sub(rate.ns(rate.burst)))
    }
}

/// What the clients of one source network use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NetworkUse {
    /// Connections that have attached a stream.
    pub connections: usize,
    pub ends: usize,
    /// In queues.
    pub bytes: usize,
}

/// The accounts of all source networks that use something. Connections inside this process have none.
#[derive(Default)]
pub(super) struct Networks(HashMap<SourceNetwork, NetworkUse>);

impl Networks {
    pub fn of(&self, source: Option<SourceNetwork>) -> NetworkUse {
        let found = source.and_then(|source| self.0.get(&source));
        found.copied().unwrap_or_default()
    }

    /// Changes an account, and forgets it when nothing is used.
    pub fn change(&mut self, source: Option<SourceNetwork>, change: impl FnOnce(&mut NetworkUse)) {
        let Some(source) = source else { return };
        let account = self.0.entry(source).or_default();
        change(account);
        if *account == NetworkUse::default() {
            self.0.remove(&source);
        }
    }

    #[cfg(test)]
    pub fn all(&self) -> &HashMap<SourceNetwork, NetworkUse> {
        &self.0
    }
}
