//! Refusals. [`Rule`] lists the rules.

use std::collections::BTreeMap;

use longhand_proto::rule::Retry;
pub use longhand_proto::rule::Rule;
use longhand_proto::signer::Refusal;

/// A refusal: the rule, and the reason in one line for a person. Nothing was signed and nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {message}")]
pub struct Refused {
    /// The rule that refused.
    pub rule: Rule,
    /// The operation and the reason. Never a secret.
    pub message: String,
    /// Whether the same operation may be answered later.
    pub retry: bool,
}

impl Refused {
    /// A refusal by `rule`, for good unless it always allows another attempt.
    pub(crate) fn new(rule: Rule, message: impl Into<String>) -> Refused {
        Refused {
            rule,
            message: message.into(),
            retry: rule.retry() == Retry::Always,
        }
    }

    /// A refusal for now by a rule whose refusals are for good otherwise ([`Retry::Sometimes`]).
    pub(crate) fn for_now(rule: Rule, message: impl Into<String>) -> Refused {
        debug_assert_eq!(rule.retry(), Retry::Sometimes, "{rule}");
        Refused {
            rule,
            message: message.into(),
            retry: true,
        }
    }

    /// [`Rule::Malformed`].
    pub(crate) fn malformed(what: impl Into<String>) -> Refused {
        Refused::new(Rule::Malformed, what)
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Refusal {
        Refusal {
            rule: refused.rule.name().to_string(),
            message: refused.message,
            retry: refused.retry,
        }
    }
}

/// Counts of refusals by rule since the engine was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals(BTreeMap<Rule, u64>);

impl Refusals {
    /// The count of one rule.
    pub fn of(&self, rule: Rule) -> u64 {
        self.0.get(&rule).copied().unwrap_or(0)
    }

    /// Every rule that has refused, with its count.
    pub fn iter(&self) -> impl Iterator<Item = (Rule, u64)> + '_ {
        self.0.iter().map(|(rule, count)| (*rule, *count))
    }

    pub(crate) fn count(&mut self, refused: &Refused) {
        let count = self.0.entry(refused.rule).or_insert(0);
        *count = count.saturating_add(1);
    }
}
