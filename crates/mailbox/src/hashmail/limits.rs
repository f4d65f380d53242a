//! Limits of the hashmail mailbox: what one box, one network and all together may use.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::core::Time;
use crate::core::rates::Rate;

/// The largest message that a configuration may allow, in bytes: stock clients refuse larger ones.
const MAX_MESSAGE_BYTES: usize = 4 << 20;

/// Limits of the boxes; `docs/mailbox.example.toml` has the meaning of each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HashmailLimits {
    /// Boxes of all together.
    pub boxes: usize,
    /// Boxes that one source network has created.
    pub boxes_per_network: usize,
    /// Ends of boxes that clients of one source network use or wait for.
    pub ends_per_network: usize,
    /// The largest message, in bytes of its protobuf.
    pub message_bytes: usize,
    /// Messages that wait in a box before its writer is read no further.
    pub queue_messages: usize,
    /// Bytes that wait in a box before its writer is read no further.
    pub queue_bytes: usize,
    /// How long a message waits for a reader, in seconds.
    pub queue_s: u64,
    /// Bytes that wait or arrive in all boxes.
    pub total_bytes: usize,
    /// Those of them that the clients of one source network have sent.
    pub bytes_per_network: usize,
    /// Messages through one box in a second, over a longer time.
    pub messages_per_s: u64,
    /// Messages through one box at once.
    pub messages_burst: u64,
    /// Bytes through one box in a second, over a longer time.
    pub bytes_per_s: u64,
    /// Bytes through one box at once.
    pub bytes_burst: u64,
    /// A reader that takes nothing for this time, while something waits, is ended. In seconds.
    pub stuck_s: u64,
    /// A box whose ends are both free for this time is removed. In seconds.
    pub stale_s: u64,
}

impl Default for HashmailLimits {
    fn default() -> HashmailLimits {
        HashmailLimits {
            boxes: 50_000,
            boxes_per_network: 4_096,
            ends_per_network: 2_048,
            message_bytes: MAX_MESSAGE_BYTES,
            queue_messages: 256,
            queue_bytes: 1 << 20,
            queue_s: 10,
            total_bytes: 256 << 20,
            bytes_per_network: 32 << 20,
            messages_per_s: 2_000,
            messages_burst: 4_000,
            bytes_per_s: 8 << 20,
            bytes_burst: 16 << 20,
            stuck_s: 60,
            stale_s: 3_600,
        }
    }
}

impl HashmailLimits {
    /// The first limit with which it cannot work, and what to do about it.
    pub fn fault(&self) -> Option<String> {
        let wide = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
        let most = wide(MAX_MESSAGE_BYTES);
        let message = wide(self.message_bytes);
        if message > most {
            return Some(format!(
                "message_bytes is above {most}, the most that stock clients take"
            ));
        }
        // A message is counted as it arrives, and while it is being sent.
        let two = message.saturating_mul(2);
        let least = [
            ("boxes", wide(self.boxes), 1),
            ("boxes_per_network", wide(self.boxes_per_network), 1),
            ("ends_per_network", wide(self.ends_per_network), 1),
            ("message_bytes", message, 1),
            ("queue_messages", wide(self.queue_messages), 1),
            ("queue_bytes", wide(self.queue_bytes), 1),
            ("queue_s", self.queue_s, 1),
            ("total_bytes", wide(self.total_bytes), two),
            ("bytes_per_network", wide(self.bytes_per_network), two),
            ("messages_per_s", self.messages_per_s, 1),
            ("messages_burst", self.messages_burst, 1),
            ("bytes_per_s", self.bytes_per_s, 1),
            ("bytes_burst", self.bytes_burst, message),
            ("stuck_s", self.stuck_s, 1),
            ("stale_s", self.stale_s, 1),
        ];
        let (key, _, least) = least.into_iter().find(|(_, value, least)| value < least)?;
        Some(format!("{key} is too small: give it at least {least}"))
    }

    pub(super) fn messages(&self) -> Rate {
        Rate {
            per_s: self.messages_per_s,
            burst: self.messages_burst,
        }
    }

    pub(super) fn bytes(&self) -> Rate {
        Rate {
            per_s: self.bytes_per_s,
            burst: self.bytes_burst,
        }
    }

    pub(super) fn queue_time(&self) -> Time {
        Duration::from_secs(self.queue_s)
    }

    pub(super) fn stuck_time(&self) -> Time {
        Duration::from_secs(self.stuck_s)
    }

    pub(super) fn stale_time(&self) -> Time {
        Duration::from_secs(self.stale_s)
    }
}
