//! Invoices of the owner's.

use std::future::ready;
use std::sync::Arc;

use futures::{StreamExt, stream};
use tonic::{Code, Status};

use super::{
    Listing, MOST_MEMO_BYTES, MOST_PER_PAGE, amount_msat, from_bytes, from_hex, int, refuse, sat,
    up_to_last,
};
use crate::call::Messages;
use crate::node::{self, Change, InvoiceState as State, NewInvoice, Node, Page, index_of};
use crate::proto::invoicesrpc::SubscribeSingleInvoiceRequest;
use crate::proto::lnrpc::invoice::InvoiceState;
use crate::proto::lnrpc::{
    AddInvoiceResponse, Invoice, InvoiceSubscription, ListInvoiceRequest, ListInvoiceResponse,
    PaymentHash,
};
use crate::status::{bad_input, status};

/// As lnd: a day when nothing is said, and at most a year.
const EXPIRY_S: u32 = 86_400;
const MOST_EXPIRY_S: u32 = 31_536_000;
/// As lnd, when an app does not say how many it wants.
const PER_PAGE: usize = 100;

pub(super) async fn add(node: Arc<dyn Node>, asked: Invoice) -> Result<AddInvoiceResponse, Status> {
    let new = checked(asked)?;
    let made = node.add_invoice(new).await?;
    Ok(AddInvoiceResponse {
        r_hash: made.payment_hash.to_vec(),
        add_index: index_of(made.created_unix_s, &made.payment_hash),
        payment_addr: made.payment_secret.map(Vec::from).unwrap_or_default(),
        payment_request: made.bolt11,
    })
}

/// `private` is not followed: the node puts hints into an invoice when a payer needs them.
fn checked(asked: Invoice) -> Result<NewInvoice, Status> {
    refuse(
        !asked.r_preimage.is_empty(),
        "r_preimage, since the phone makes preimages",
    )?;
    refuse(!asked.description_hash.is_empty(), "description_hash")?;
    refuse(!asked.fallback_addr.is_empty(), "fallback_addr")?;
    refuse(asked.cltv_expiry != 0, "cltv_expiry")?;
    refuse(!asked.route_hints.is_empty(), "route_hints")?;
    refuse(asked.is_amp, "is_amp")?;
    refuse(asked.is_keysend, "is_keysend")?;
    refuse(asked.is_blinded, "is_blinded")?;
    if asked.memo.len() > MOST_MEMO_BYTES {
        return Err(bad_input(format!(
            "memo too large: {} bytes (maxsize={MOST_MEMO_BYTES})",
            asked.memo.len()
        )));
    }
    let expiry_s = match u32::try_from(asked.expiry) {
        Ok(0) => EXPIRY_S,
        Ok(expiry_s) if expiry_s <= MOST_EXPIRY_S => expiry_s,
        _ => {
            let line = format!("expiry has to be from 1 to {MOST_EXPIRY_S} seconds");
            return Err(bad_input(line));
        }
    };
    Ok(NewInvoice {
        amount_msat: amount_msat("value", asked.value, asked.value_msat)?,
        description: asked.memo,
        expiry_s,
    })
}

pub(super) async fn list(
    node: Arc<dyn Node>,
    asked: ListInvoiceRequest,
) -> Result<ListInvoiceResponse, Status> {
    let listing = Listing {
        offset: asked.index_offset,
        limit: asked.num_max_invoices,
        reversed: asked.reversed,
        from_unix_s: asked.creation_date_start,
        to_unix_s: asked.creation_date_end,
    };
    let page = listing.page(PER_PAGE);
    let invoices = ascending(node.invoices(page, asked.pending_only).await?, page.limit);
    Ok(ListInvoiceResponse {
        first_index_offset: invoices.first().map_or(0, |it| it.add_index),
        last_index_offset: invoices
            .last()
            .map_or(asked.index_offset, |it| it.add_index),
        invoices,
    })
}

/// As lnd orders a page, whichever end it is of.
fn ascending(found: Vec<node::Invoice>, limit: usize) -> Vec<Invoice> {
    let mut invoices: Vec<Invoice> = found.into_iter().take(limit).map(message).collect();
    invoices.sort_by_key(|it| it.add_index);
    invoices
}

pub(super) async fn lookup(node: Arc<dyn Node>, asked: PaymentHash) -> Result<Invoice, Status> {
    let hash = match asked.r_hash.is_empty() {
        true => from_hex("r_hash_str", &asked.r_hash_str)?,
        false => from_bytes("r_hash", &asked.r_hash)?,
    };
    found(node.invoice(hash).await?).map(message)
}

fn found(invoice: Option<node::Invoice>) -> Result<node::Invoice, Status> {
    invoice.ok_or_else(|| status(Code::NotFound, "unable to locate invoice"))
}

/// New invoices and paid ones. With `add_index`, first those that were made after it, as many as a page has; not with `settle_index`,
/// which begins at no known place of a history that is ordered by the time when invoices were made.
pub(super) async fn subscribe(
    node: Arc<dyn Node>,
    asked: InvoiceSubscription,
) -> Result<Messages<Invoice>, Status> {
    // Before the look at those that are there, so that none is missed between the two.
    let changes = node.changes();
    let mut missed = Vec::new();
    if asked.add_index != 0 {
        let page = Page {
            above: asked.add_index,
            below: u64::MAX,
            newest_first: false,
            limit: MOST_PER_PAGE,
        };
        missed = ascending(node.invoices(page, false).await?, page.limit);
    }
    let changes = changes.filter_map(async |change| match change {
        Ok(Change::Invoice(invoice)) => {
            let is_told = matches!(invoice.state, State::Open | State::Paid);
            is_told.then(|| Ok(message(*invoice)))
        }
        Ok(Change::Transaction(_)) => None,
        Err(error) => Some(Err(error.into())),
    });
    Ok(stream::iter(missed.into_iter().map(Ok))
        .chain(changes)
        .boxed())
}

/// The state of one invoice, now and whenever it changes, until it is paid or canceled.
pub(super) async fn subscribe_one(
    node: Arc<dyn Node>,
    asked: SubscribeSingleInvoiceRequest,
) -> Result<Messages<Invoice>, Status> {
    let hash = from_bytes("r_hash", &asked.r_hash)?;
    let changes = node.changes();
    let now = found(node.invoice(hash).await?)?;
    let changes = changes.filter_map(move |change| {
        ready(match change {
            Ok(Change::Invoice(invoice)) => (invoice.payment_hash == hash).then_some(Ok(*invoice)),
            Ok(Change::Transaction(_)) => None,
            Err(error) => Some(Err(error)),
        })
    });
    let states = stream::iter([Ok(now)]).chain(changes).boxed();
    let is_last = |it: &node::Invoice| matches!(it.state, State::Paid | State::Canceled);
    let states = up_to_last(states, is_last);
    Ok(states.map(|state| state.map(message)).boxed())
}

fn message(invoice: node::Invoice) -> Invoice {
    let state = match invoice.state {
        State::Open => InvoiceState::Open,
        State::Accepted => InvoiceState::Accepted,
        State::Paid => InvoiceState::Settled,
        State::Canceled => InvoiceState::Canceled,
    };
    let is_paid = invoice.state == State::Paid;
    let index = |unix_s| index_of(unix_s, &invoice.payment_hash);
    let expiry_s = invoice
        .expires_unix_s
        .saturating_sub(invoice.created_unix_s);
    Invoice {
        add_index: index(invoice.created_unix_s),
        settle_index: if is_paid {
            index(invoice.paid_unix_s)
        } else {
            0
        },
        r_preimage: invoice.preimage.map(Vec::from).unwrap_or_default(),
        r_hash: invoice.payment_hash.to_vec(),
        value: sat(invoice.amount_msat),
        value_msat: int(invoice.amount_msat),
        settled: is_paid,
        creation_date: int(invoice.created_unix_s),
        settle_date: int(invoice.paid_unix_s),
        expiry: int(expiry_s),
        private: invoice.is_private,
        amt_paid: int(invoice.paid_msat),
        amt_paid_sat: sat(invoice.paid_msat),
        amt_paid_msat: int(invoice.paid_msat),
        state: state as i32,
        payment_addr: invoice.payment_secret.map(Vec::from).unwrap_or_default(),
        payment_request: invoice.bolt11,
        memo: invoice.description,
        ..Invoice::default()
    }
}
