//! The owner's invoices that nobody has paid yet, for the owner's history alone: LDK takes a payment without such a record.

use std::collections::HashMap;

use longhand_proto::command::{CreateInvoice, OpenInvoice};
use prost::Message;

use crate::machine::turn::Turn;
use crate::store::journal::Journal;
use crate::store::schema::{invoice_key, key};

/// How long a record is kept after its invoice has expired. LDK takes a payment two hours later still.
const KEPT_S: u64 = 86_400;
/// The most records; of more, those that expire first are forgotten.
const MOST: usize = 500;

/// See the module. By payment hash.
#[derive(Default)]
pub(crate) struct OpenInvoices {
    invoices: HashMap<Vec<u8>, OpenInvoice>,
}

impl OpenInvoices {
    /// Reads the records back. One that cannot be read is left out: no money depends on it.
    pub fn load(journal: &Journal) -> OpenInvoices {
        let records = journal.loaded(key::INVOICE).into_iter();
        let invoices = records.filter_map(|(_, bytes)| OpenInvoice::decode(&bytes[..]).ok());
        OpenInvoices {
            invoices: invoices.map(|it| (it.payment_hash.clone(), it)).collect(),
        }
    }

    /// An invoice was made. The request was checked.
    pub fn add(&mut self, turn: &Turn, request: &CreateInvoice) {
        let now = turn.now.unix_s();
        let invoice = OpenInvoice {
            payment_hash: request.payment_hash.clone(),
            amount_msat: request.amount_msat,
            description: request.description.clone(),
            created_unix_s: now,
            expires_unix_s: now.saturating_add(request.expiry_s.into()),
        };
        let record = invoice.encode_to_vec();
        turn.journal.put(invoice_key(&invoice.payment_hash), record);
        self.invoices.insert(invoice.payment_hash.clone(), invoice);
        self.forget_old(turn, now);
    }

    fn forget_old(&mut self, turn: &Turn, now: u64) {
        let mut invoices: Vec<&OpenInvoice> = self.invoices.values().collect();
        invoices.sort_by_key(|it| it.expires_unix_s);
        let surplus = invoices.len().saturating_sub(MOST);
        let old = invoices.into_iter().enumerate();
        let old = old.filter(|(nth, it)| *nth < surplus || is_old(it, now));
        let old: Vec<Vec<u8>> = old.map(|(_, it)| it.payment_hash.clone()).collect();
        old.iter().for_each(|hash| self.remove(turn, hash));
    }

    pub fn get(&self, payment_hash: &[u8]) -> Option<&OpenInvoice> {
        self.invoices.get(payment_hash)
    }

    /// The invoice was paid.
    pub fn remove(&mut self, turn: &Turn, payment_hash: &[u8]) {
        if self.invoices.remove(payment_hash).is_some() {
            turn.journal.delete(invoice_key(payment_hash));
        }
    }

    /// Newest first.
    pub fn list(&self, now_unix_s: u64) -> Vec<OpenInvoice> {
        let invoices = self.invoices.values().filter(|it| !is_old(it, now_unix_s));
        let mut invoices: Vec<OpenInvoice> = invoices.cloned().collect();
        invoices.sort_by_key(|it| std::cmp::Reverse((it.created_unix_s, it.payment_hash.clone())));
        invoices
    }
}

fn is_old(invoice: &OpenInvoice, now_unix_s: u64) -> bool {
    invoice.expires_unix_s.saturating_add(KEPT_S) < now_unix_s
}

#[cfg(test)]
#[path = "tests/open_invoices.rs"]
mod tests;
