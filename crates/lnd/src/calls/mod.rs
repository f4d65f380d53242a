//! The calls that a node answers, from the message of a request to that of its reply.
//!
//! A field of a request that would change what is done, and that a node cannot follow, is refused and not passed over: an app that asks
//! for a payment over one channel does not get one over another.

mod channels;
mod decode;
mod info;
mod invoices;
mod onchain;
mod payments;

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use futures::{Stream, StreamExt, stream};
use tonic::{Code, Status};

use crate::call::Path::{Get, Post};
use crate::node::{Page, Updates};
use crate::places::Places;
use crate::rights::Op;
use crate::status::{bad_input, status};

/// The version of lnd whose RPC this is, as nodes report it: apps decide by it what they ask for.
pub const LND_VERSION: &str = "0.21.2-beta";
/// The most invoices or payments of one reply.
pub const MOST_PER_PAGE: usize = 500;
/// The longest memo of an invoice, in bytes: what BOLT 11's field `d` has room for.
pub const MOST_MEMO_BYTES: usize = 639;

/// The one account of a wallet, as lnd names it.
const ACCOUNT: &str = "default";

const INFO: Op = Op::read("info");
const OFFCHAIN: Op = Op::read("offchain");
const ONCHAIN: Op = Op::read("onchain");
const INVOICES: Op = Op::read("invoices");

/// All of them, with the permission and the path of REST that lnd has for each.
pub(crate) fn all(places: Places) -> Places {
    let places = places
        .one(
            "lnrpc.Lightning/GetInfo",
            INFO,
            Get("/v1/getinfo"),
            info::get,
        )
        .one(
            "lnrpc.Lightning/GetNodeInfo",
            INFO,
            Get("/v1/graph/node/{pub_key}"),
            info::node,
        )
        .one(
            "walletrpc.WalletKit/ListAccounts",
            ONCHAIN,
            Get("/v2/wallet/accounts"),
            info::accounts,
        )
        .one(
            "lnrpc.Lightning/ChannelBalance",
            OFFCHAIN,
            Get("/v1/balance/channels"),
            channels::balance,
        )
        .one(
            "lnrpc.Lightning/ListChannels",
            OFFCHAIN,
            Get("/v1/channels"),
            channels::list,
        )
        .one(
            "lnrpc.Lightning/ClosedChannels",
            OFFCHAIN,
            Get("/v1/channels/closed"),
            channels::closed,
        )
        .one(
            "lnrpc.Lightning/PendingChannels",
            OFFCHAIN,
            Get("/v1/channels/pending"),
            channels::pending,
        );
    let places = places
        .one(
            "lnrpc.Lightning/AddInvoice",
            Op::write("invoices"),
            Post("/v1/invoices"),
            invoices::add,
        )
        .one(
            "lnrpc.Lightning/ListInvoices",
            INVOICES,
            Get("/v1/invoices"),
            invoices::list,
        )
        .one(
            "lnrpc.Lightning/LookupInvoice",
            INVOICES,
            Get("/v1/invoice/{r_hash_str}"),
            invoices::lookup,
        )
        .many(
            "lnrpc.Lightning/SubscribeInvoices",
            INVOICES,
            Get("/v1/invoices/subscribe"),
            invoices::subscribe,
        )
        .many(
            "invoicesrpc.Invoices/SubscribeSingleInvoice",
            INVOICES,
            Get("/v2/invoices/subscribe/{r_hash}"),
            invoices::subscribe_one,
        );
    let places = places
        .one(
            "lnrpc.Lightning/DecodePayReq",
            OFFCHAIN,
            Get("/v1/payreq/{pay_req}"),
            decode::decode,
        )
        .one(
            "lnrpc.Lightning/ListPayments",
            OFFCHAIN,
            Get("/v1/payments"),
            payments::list,
        )
        .many(
            "routerrpc.Router/SendPaymentV2",
            Op::write("offchain"),
            Post("/v2/router/send"),
            payments::send,
        )
        .many(
            "routerrpc.Router/TrackPaymentV2",
            OFFCHAIN,
            Get("/v2/router/track/{payment_hash}"),
            payments::track,
        );
    places
        .one(
            "lnrpc.Lightning/WalletBalance",
            ONCHAIN,
            Get("/v1/balance/blockchain"),
            onchain::balance,
        )
        .one(
            "lnrpc.Lightning/GetTransactions",
            ONCHAIN,
            Get("/v1/transactions"),
            onchain::transactions,
        )
        .many(
            "lnrpc.Lightning/SubscribeTransactions",
            ONCHAIN,
            Get("/v1/transactions/subscribe"),
            onchain::subscribe,
        )
        .one(
            "lnrpc.Lightning/NewAddress",
            Op::write("address"),
            Get("/v1/newaddress"),
            onchain::new_address,
        )
        .one(
            "lnrpc.Lightning/SendCoins",
            Op::write("onchain"),
            Post("/v1/transactions"),
            onchain::send,
        )
}

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

/// A hash or a node id as hex.
fn from_hex<const N: usize>(what: &str, text: &str) -> Result<[u8; N], Status> {
    let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).ok();
    let bytes = bytes.and_then(|it| <[u8; N]>::try_from(it).ok());
    bytes.ok_or_else(|| bad_input(format!("{what} has to be {N} bytes as hex")))
}

fn from_bytes<const N: usize>(what: &str, bytes: &[u8]) -> Result<[u8; N], Status> {
    let bytes = <[u8; N]>::try_from(bytes);
    bytes.map_err(|_| bad_input(format!("{what} has to be {N} bytes")))
}

/// As the messages have amounts and times.
fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Rounded down, as lnd does.
fn sat(msat: u64) -> i64 {
    int(msat / 1_000)
}

/// An amount that may be given in either unit, in millisatoshis; 0 when it is in neither.
fn amount_msat(what: &str, sat: i64, msat: i64) -> Result<u64, Status> {
    if sat != 0 && msat != 0 {
        let line = format!("sat and msat arguments are mutually exclusive: give {what} in one");
        return Err(bad_input(line));
    }
    let in_msat = sat.checked_mul(1_000).and_then(|it| it.checked_add(msat));
    let amount = in_msat.and_then(|it| u64::try_from(it).ok());
    amount.ok_or_else(|| bad_input(format!("{what} is below 0, or more than there can be")))
}

/// Only the one account that a wallet has.
fn check_account(name: &str) -> Result<(), Status> {
    match name {
        "" | ACCOUNT => Ok(()),
        _ => Err(status(
            Code::NotFound,
            "account not found: the wallet has only \"default\"",
        )),
    }
}

/// Refuses what cannot be followed, by its name.
fn refuse(is_asked: bool, what: &str) -> Result<(), Status> {
    match is_asked {
        true => Err(bad_input(format!(
            "Longhand cannot follow {what}: leave it out"
        ))),
        false => Ok(()),
    }
}

/// The fields of both lists that say which part is wanted.
struct Listing {
    offset: u64,
    limit: u64,
    reversed: bool,
    /// Seconds since 1970, both included; 0 = any.
    from_unix_s: u64,
    to_unix_s: u64,
}

impl Listing {
    /// The page of a node. Without offset and limit an app wants all there is; those that fit are then the newest.
    fn page(&self, default_limit: usize) -> Page {
        use crate::node::index_of;
        let limit = match usize::try_from(self.limit) {
            Ok(0) => default_limit,
            Ok(limit) => limit.min(MOST_PER_PAGE),
            Err(_) => MOST_PER_PAGE,
        };
        let is_all = self.offset == 0 && self.limit == 0;
        let (mut above, mut below) = match (self.reversed, self.offset) {
            (true, 0) | (false, 0) => (0, u64::MAX),
            (true, offset) => (0, offset),
            (false, offset) => (offset, u64::MAX),
        };
        if self.from_unix_s != 0 {
            above = above.max(index_of(self.from_unix_s, &[0; 32]).saturating_sub(1));
        }
        if self.to_unix_s != 0 {
            below = below.min(index_of(self.to_unix_s.saturating_add(1), &[0; 32]));
        }
        Page {
            above,
            below,
            newest_first: self.reversed || is_all,
            limit,
        }
    }
}

/// The messages up to the last one, which `is_last` says.
fn up_to_last<T: Send + 'static>(
    updates: Updates<T>,
    is_last: fn(&T) -> bool,
) -> impl Stream<Item = Result<T, Status>> + Send + 'static {
    stream::unfold(Some(updates), move |left| async move {
        let mut left = left?;
        match left.next().await {
            Some(Ok(update)) => {
                let left = (!is_last(&update)).then_some(left);
                Some((Ok(update), left))
            }
            Some(Err(error)) => Some((Err(error.into()), None)),
            None => {
                let line = "the node stopped before the last message: ask again for the state";
                Some((Err(status(Code::Unavailable, line)), None))
            }
        }
    })
}

#[cfg(test)]
pub(crate) fn page_for_test(limit: u64) -> Page {
    let listing = Listing {
        offset: 0,
        limit,
        reversed: false,
        from_unix_s: 0,
        to_unix_s: 0,
    };
    listing.page(100)
}
