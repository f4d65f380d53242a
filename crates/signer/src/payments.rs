//! Incoming payments, as the owner begins and lists them.

use bitcoin::hashes::{Hash, sha256};

use crate::engine::{Change, Recorded, Signer};
use crate::ledger::entry;
use crate::rules::{Refused, Rule};

/// An incoming payment for which the phone made a preimage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// SHA-256 of the preimage.
    pub payment_hash: [u8; 32],
    /// The amount of the invoice; 0 = any amount.
    pub amount_msat: u64,
    /// The time when it was made, in seconds since 1970.
    pub created_unix_s: u64,
    /// The signed invoice, in BOLT 11; empty before [`Signer::finish_invoice`].
    pub bolt11: String,
    /// The time until which the phone accepts payments for the invoice, by its own clock: the invoice's expiry, or the same time span
    /// after it was signed, whichever is later. 0 before there is an invoice.
    pub expires_unix_s: u64,
    /// The time when the first HTLC for it was validated.
    pub seen_unix_s: Option<u64>,
    /// The release of the preimage, with the amount that was irrevocably committed to it then.
    pub released: Option<Released>,
}

/// See [`Payment::released`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// Sum of the HTLCs, in millisatoshis.
    pub received_msat: u64,
    /// The time, in seconds since 1970.
    pub at_unix_s: u64,
}

impl Signer {
    /// Makes a preimage of 32 bytes of the caller's fresh `entropy`, and returns its hash, for an invoice over `amount_msat` (0 = any
    /// amount, if the owner's limits allow it).
    pub fn new_payment(
        &mut self,
        amount_msat: u64,
        entropy: [u8; 32],
        now_unix_s: u64,
    ) -> Result<Recorded<[u8; 32]>, Refused> {
        if amount_msat == 0 && self.state.limits.numbers.any_amount_sat == 0 {
            return Err(Refused::new(
                Rule::AnyAmount,
                "an invoice without an amount is not allowed: give an amount, or allow it by `longhand phone limits any_amount_sat`",
            ));
        }
        let value = payment_hash(&entropy);
        if self.state.payments.contains_key(&value) {
            return Err(Refused::new(
                Rule::Duplicate,
                "this preimage was made before: give fresh entropy",
            ));
        }
        let made = entry::PaymentMade {
            preimage: entropy.to_vec(),
            amount_msat,
            created_unix_s: now_unix_s,
        };
        self.owner_call(value, Change::PaymentMade(made))
    }

    /// The incoming payments for which the phone made preimages, in no particular order.
    pub fn payments(&self) -> impl Iterator<Item = &Payment> + '_ {
        self.state.payments.values().map(|payment| &payment.public)
    }
}

/// SHA-256 of a preimage.
pub(crate) fn payment_hash(preimage: &[u8; 32]) -> [u8; 32] {
    sha256::Hash::hash(preimage).to_byte_array()
}
