//! Rules by which the signer refuses. Each has a stable name, on which programs and tests rely.
//!
//! | rule | refuses |
//! |---|---|
//! | [`MALFORMED`] | an operation that cannot be read, or whose parts contradict each other |
//! | [`UNKNOWN_CHANNEL`] | an operation on a channel that was never set up |
//! | [`SETUP_CHANGED`] | other parameters for a channel that is already set up |
//! | [`SETUP_LEDGER`] | a new channel whose keys were not given with this ledger |
//! | [`SETUP_KEYS`] | parameters whose holder keys are not the phone's, or whose peer's keys are |
//! | [`SETUP_TYPE`] | a channel type that the signer does not know how to keep safe, or a splice |
//! | [`COMMITMENT_MISMATCH`] | a commitment that is not what the channel's parameters make of it |
//! | [`HOLDER_NUMBER`] | a holder commitment that is neither the next, nor the same again |
//! | [`HOLDER_SIGNATURE`] | a holder commitment without valid signatures of the peer |
//! | [`REVOKE_BEFORE_VALIDATE`] | a secret before a newer holder commitment is validated |
//! | [`REVOKE_SIGNED`] | the secret of a holder commitment that was signed for broadcast |
//! | [`SIGN_REVOKED`] | to sign a holder commitment that is revoked, or not on record |
//! | [`COUNTERPARTY_NUMBER`] | a counterparty commitment that is neither the next, nor the same again |
//! | [`COUNTERPARTY_UNREVOKED`] | a counterparty commitment while the one before the last is not revoked |
//! | [`REVOCATION_ORDER`] | a revocation of a commitment that is not the next to be revoked |
//! | [`REVOCATION_SECRET`] | a revocation secret that is not that commitment's |
//! | [`FUNDING_BEFORE_VALIDATE`] | to fund a channel whose first holder commitment is not validated |
//! | [`FUNDING_OUTPUT`] | a funding transaction without the channel's funding output |
//! | [`NOT_OUR_SCRIPT`] | to send what is the owner's to a script that is not the owner's, or that the owner would not find again |
//! | [`NOT_OUR_INPUT`] | a PSBT in which nothing is the phone's to sign, or an input is not what it says; for a channel, one whose txid could still change |
//! | [`SEND_UNASKED`] | an on-chain payment that the owner did not ask for, or with a higher fee, or a second one for the same request |
//! | [`NOT_OUR_OUTPUT`] | to spend an output that is not of that channel |
//! | [`JUSTICE_UNREVOKED`] | to punish a commitment of the peer's that is not revoked (retry) |
//! | [`PREIMAGE_UNKNOWN`] | a preimage that the phone did not make, or whose invoice it did not sign |
//! | [`PREIMAGE_NOT_COMMITTED`] | a preimage before its HTLCs are irrevocably committed on both sides (retry, unless they are dust) |
//! | [`PREIMAGE_UNDERPAID`] | a preimage for less than its invoice asks (retry, unless what is missing is dust) |
//! | [`PREIMAGE_EXPIRED`] | a preimage for a payment that came after its invoice had expired |
//! | [`INVOICE_MISMATCH`] | an invoice that is not what the owner asked for |
//! | [`DUPLICATE`] | a preimage, an invoice or an id that was used before for something else |

use std::collections::BTreeMap;

use longhand_proto::signer::Refusal;

/// An operation that cannot be read, or whose parts contradict each other.
pub const MALFORMED: &str = "malformed";
/// An operation on a channel that was never set up.
pub const UNKNOWN_CHANNEL: &str = "unknown-channel";
/// Other parameters for a channel that is already set up.
pub const SETUP_CHANGED: &str = "setup-changed";
/// A new channel whose keys were not given with this ledger: it may be an old one, which the ledger does not remember.
pub const SETUP_LEDGER: &str = "setup-ledger";
/// Parameters whose holder keys are not the phone's, or whose peer's keys are.
pub const SETUP_KEYS: &str = "setup-keys";
/// A channel type that the signer does not know how to keep safe, or a splice.
pub const SETUP_TYPE: &str = "setup-type";
/// A commitment that is not what the channel's parameters make of it.
pub const COMMITMENT_MISMATCH: &str = "commitment-mismatch";
/// A holder commitment that is neither the next, nor the same again.
pub const HOLDER_NUMBER: &str = "holder-number";
/// A holder commitment without valid signatures of the peer.
pub const HOLDER_SIGNATURE: &str = "holder-signature";
/// A secret before a newer holder commitment is validated.
pub const REVOKE_BEFORE_VALIDATE: &str = "revoke-before-validate";
/// The secret of a holder commitment that was signed for broadcast.
pub const REVOKE_SIGNED: &str = "revoke-signed";
/// To sign a holder commitment that is revoked, or not on record.
pub const SIGN_REVOKED: &str = "sign-revoked";
/// A counterparty commitment that is neither the next, nor the same again.
pub const COUNTERPARTY_NUMBER: &str = "counterparty-number";
/// A counterparty commitment while the one before the last is not revoked.
pub const COUNTERPARTY_UNREVOKED: &str = "counterparty-unrevoked";
/// A revocation of a commitment that is not the next to be revoked.
pub const REVOCATION_ORDER: &str = "revocation-order";
/// A revocation secret that is not that commitment's.
pub const REVOCATION_SECRET: &str = "revocation-secret";
/// To fund a channel whose first holder commitment is not validated.
pub const FUNDING_BEFORE_VALIDATE: &str = "funding-before-validate";
/// A funding transaction without the channel's funding output.
pub const FUNDING_OUTPUT: &str = "funding-output";
/// To send what is the owner's to a script that is not the owner's, or that the owner would not find again.
pub const NOT_OUR_SCRIPT: &str = "not-our-script";
/// A PSBT in which nothing is the phone's to sign, or an input is not what it says; for a channel, one whose txid could
/// still change.
pub const NOT_OUR_INPUT: &str = "not-our-input";
/// An on-chain payment that the owner did not ask for, or with a higher fee, or a second one for the same request.
pub const SEND_UNASKED: &str = "send-unasked";
/// To spend an output that is not of that channel.
pub const NOT_OUR_OUTPUT: &str = "not-our-output";
/// To punish a commitment of the peer's that is not revoked.
pub const JUSTICE_UNREVOKED: &str = "justice-unrevoked";
/// A preimage that the phone did not make, or whose invoice it did not sign.
pub const PREIMAGE_UNKNOWN: &str = "preimage-unknown";
/// A preimage before its HTLCs are irrevocably committed on both sides.
pub const PREIMAGE_NOT_COMMITTED: &str = "preimage-not-committed";
/// A preimage for less than its invoice asks.
pub const PREIMAGE_UNDERPAID: &str = "preimage-underpaid";
/// A preimage for a payment that came after its invoice had expired.
pub const PREIMAGE_EXPIRED: &str = "preimage-expired";
/// An invoice that is not what the owner asked for.
pub const INVOICE_MISMATCH: &str = "invoice-mismatch";
/// A preimage, an invoice or an id that was used before for something else.
pub const DUPLICATE: &str = "duplicate";

/// A refusal: the rule, and the reason in one line for a person. Nothing was signed and nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule}: {message}")]
pub struct Refused {
    /// One of this module's names.
    pub rule: &'static str,
    /// The operation and the reason. Never a secret.
    pub message: String,
    /// Whether the same operation may be answered later.
    pub retry: bool,
}

impl Refused {
    /// A refusal for good.
    pub(crate) fn new(rule: &'static str, message: impl Into<String>) -> Refused {
        Refused {
            rule,
            message: message.into(),
            retry: false,
        }
    }

    /// A refusal for now: the same operation may be answered later.
    pub(crate) fn for_now(rule: &'static str, message: impl Into<String>) -> Refused {
        Refused {
            rule,
            message: message.into(),
            retry: true,
        }
    }

    /// [`MALFORMED`].
    pub(crate) fn malformed(what: impl Into<String>) -> Refused {
        Refused::new(MALFORMED, what)
    }
}

impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Refusal {
        Refusal {
            rule: refused.rule.to_string(),
            message: refused.message,
            retry: refused.retry,
        }
    }
}

/// Counts of refusals by rule since the engine was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals(BTreeMap<&'static str, u64>);

impl Refusals {
    /// The count of one rule.
    pub fn of(&self, rule: &str) -> u64 {
        self.0.get(rule).copied().unwrap_or(0)
    }

    /// Every rule that has refused, with its count.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        self.0.iter().map(|(rule, count)| (*rule, *count))
    }

    pub(crate) fn count(&mut self, refused: &Refused) {
        let count = self.0.entry(refused.rule).or_insert(0);
        *count = count.saturating_add(1);
    }
}
