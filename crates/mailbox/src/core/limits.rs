//! Limits of a relay: what one key, one network and all together may use.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::rates::Rate;
use super::{MAX_PAYLOAD, Time};

/// Memory of a message beside its payload, in bytes: without it, empty messages would cost nothing.
pub const MESSAGE_BYTES: usize = 96;

/// Requests of a connection beside messages that are sent on. A host attaches all its streams at once.
pub(super) const REQUESTS: Rate = Rate {
    per_s: 1_000,
    burst: 20_000,
};

/// Signatures of a source network that are checked, for attaches and deletes. A host with 20,000 owners, and its neighbours, attach
/// all at once after a restart of the mailbox; after another one right then, within 40 s.
pub(super) const SIGNATURES: Rate = Rate {
    per_s: 500,
    burst: 25_000,
};

/// Time after which a connection is closed that has detached all its ends.
pub(super) const UNATTACHED: Time = Duration::from_secs(60);

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
    /// Connections of all together, with a stream or without.
    pub connections: usize,
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
    /// Bytes in all queues, and in messages that are being sent.
    pub total_bytes: usize,
    /// Those of them for which one source network pays: that of the reader, or that of the sender while there is none.
    pub bytes_per_network: usize,
    /// Bytes that may be sent with one key in a second, over a longer time.
    pub bytes_per_s: u64,
    /// Bytes that may be sent with one key at once.
    pub bytes_burst: u64,
    /// Messages that may be sent with one key in a second, over a longer time.
    pub messages_per_s: u64,
    /// Messages that may be sent with one key at once.
    pub messages_burst: u64,
    /// Bytes that the clients of one source network may send in a second, and at once.
    pub network_bytes_per_s: u64,
    /// Connections that have attached nothing within this time are closed.
    pub attach_within_s: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections: 100_000,
            connections_per_network: 1_024,
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
            network_bytes_per_s: 64 << 20,
            attach_within_s: 10,
        }
    }
}

impl Limits {
    /// The first limit with which nothing could be carried, and the least value that it may have.
    pub fn too_small(&self) -> Option<(&'static str, u64)> {
        // Messages for ends without a reader have half of the bytes: one has to fit in.
        let message = MAX_PAYLOAD + MESSAGE_BYTES;
        let wide = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        let limits = [
            ("connections", wide(self.connections), 1),
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
            ("total_bytes", wide(self.total_bytes), wide(2 * message)),
            (
                "bytes_per_network",
                wide(self.bytes_per_network),
                wide(2 * message),
            ),
            ("bytes_per_s", self.bytes_per_s, 1),
            ("bytes_burst", self.bytes_burst, wide(message)),
            ("messages_per_s", self.messages_per_s, 1),
            ("messages_burst", self.messages_burst, 1),
            (
                "network_bytes_per_s",
                self.network_bytes_per_s,
                wide(message),
            ),
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

    pub(super) fn network_bytes(&self) -> Rate {
        Rate {
            per_s: self.network_bytes_per_s,
            burst: self.network_bytes_per_s,
        }
    }

    pub(super) fn messages(&self) -> Rate {
        Rate {
            per_s: self.messages_per_s,
            burst: self.messages_burst,
        }
    }
}
