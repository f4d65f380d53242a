//! Incoming payments: their invoices and preimages.

use std::collections::BTreeSet;

use lightning::ln::chan_utils::CommitmentTransaction;
use lightning_invoice::Bolt11Invoice;

use super::{Fault, Signed, unrecorded};
use crate::engine::{Answer, Change, Signer};
use crate::ledger::{entry, htlc_owed};
use crate::proposal::{Invoice, Preimage};
use crate::rules::Judged;

pub(super) fn release(preimage: &Preimage<'_>, now_unix_s: u64) -> Signed {
    let payment = preimage.payment;
    let answer = Answer::Preimage(payment.preimage.to_vec());
    if payment.public.released.is_some() {
        return unrecorded(answer);
    }
    let received_msat = preimage.received_msat();
    let released = entry::PreimageReleased {
        payment_hash: payment.public.payment_hash.to_vec(),
        received_msat: received_msat.ok_or(Fault("nothing was received"))?,
        at_unix_s: now_unix_s,
    };
    let owed = preimage.owed();
    let owed = owed.iter().flat_map(|(keys_id, htlcs)| {
        let owed = htlcs.iter();
        owed.map(|(htlc, count)| Change::HtlcOwed(htlc_owed(keys_id, htlc, count)))
    });
    let changes = std::iter::once(Change::PreimageReleased(released)).chain(owed);
    Ok((answer, changes.collect()))
}

/// Hands the invoice out.
pub(crate) fn release_invoice(
    judged: Judged<Invoice<'_>>,
    now_unix_s: u64,
) -> (Bolt11Invoice, Change) {
    let Invoice { invoice, asked, .. } = judged.into_inner();
    let signed = entry::InvoiceSigned {
        payment_hash: asked.payment_hash.to_vec(),
        bolt11: invoice.to_string(),
        expires_unix_s: expires_unix_s(&invoice, now_unix_s),
    };
    (invoice, Change::InvoiceSigned(signed))
}

impl Signer {
    /// The owner's payments that are in a holder commitment for the first time.
    pub(super) fn payments_seen(
        &self,
        commitment: &CommitmentTransaction,
        at_unix_s: u64,
    ) -> Vec<Change> {
        let hashes: BTreeSet<[u8; 32]> = commitment
            .nondust_htlcs()
            .iter()
            .filter(|htlc| !htlc.offered)
            .map(|htlc| htlc.payment_hash.0)
            .collect();
        let unseen = |hash: &[u8; 32]| {
            let payment = self.state.payments.get(hash);
            payment.is_some_and(|payment| payment.public.seen_unix_s.is_none())
        };
        let seen = |hash: [u8; 32]| entry::PaymentSeen {
            payment_hash: hash.to_vec(),
            at_unix_s,
        };
        hashes
            .into_iter()
            .filter(unseen)
            .map(seen)
            .map(Change::PaymentSeen)
            .collect()
    }
}

/// The time until which the phone accepts payments for an invoice that it signs now, in seconds since 1970. The timestamp is the
/// host's, and payments are compared with the phone's clock: a phone whose clock is fast must not treat its invoice as expired early.
fn expires_unix_s(invoice: &Bolt11Invoice, now_unix_s: u64) -> u64 {
    let expiry_s = invoice.expiry_time().as_secs();
    let date_unix_s = invoice.duration_since_epoch().as_secs();
    date_unix_s.max(now_unix_s).saturating_add(expiry_s)
}
