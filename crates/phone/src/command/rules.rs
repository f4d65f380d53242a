//! The limits of the phone's rules, and what they have refused.

use serde::{Deserialize, Serialize};

/// The limits of the phone's rules.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitList {
    /// Each limit, then each rule that can be set to warn.
    pub limits: Vec<Limit>,
}

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Its name, with its unit at the end.
    pub name: String,
    /// Its value.
    pub value: String,
    /// The value of a new phone.
    pub default: String,
    /// What it limits.
    pub about: String,
}

/// What the phone has refused, the latest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalList {
    /// At most [`crate::refusals::KEPT`].
    pub refusals: Vec<Refusal>,
}

/// An operation of the host that a rule has refused, or would have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The rule's stable name.
    pub rule: String,
    /// The reason.
    pub message: String,
    /// It was carried out: the rule is set to warn.
    pub is_warning: bool,
    /// When it was refused last, in seconds since 1970; when it was refused first, if it waits for the owner.
    pub last_unix_s: u64,
    /// How often, for the same reason. What waits for the owner is counted once: the node asks again and again.
    pub count: u64,
}
