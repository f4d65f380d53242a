//! The history: payments that have ended. It grows for ever, so it is never in memory as a whole: the machine asks for a page
//! or for one record ([`Read`]), and the driver reads it.
//!
//! A record has the time when its payment began in its key, so that a page is one range of keys. A second key has the
//! position of each payment hash. Both change in the same batch as the rest of a turn.

use lightning::types::payment::PaymentHash;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{FoundPayment, Payment, Payments};
use longhand_store::{KeyRange, Store, StoreError};
use prost::Message;

use crate::hex::hex;
use crate::store::journal::Journal;
use crate::store::schema::key;

/// Payments on a page when its reader gives no limit, and the most of one.
pub(crate) const PAGE: u32 = 100;
pub(crate) const MOST_PER_PAGE: u32 = 1_000;
/// Bytes of a page after which it ends, whatever its limit. A link carries 4 MiB.
const MOST_BYTES: usize = 1024 * 1024;

/// The place of a payment in the history: by the time when it began, then by its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub created_unix_s: u64,
    pub hash: [u8; 32],
}

impl Position {
    /// `None` when the payment has no hash of 32 bytes.
    pub fn of(payment: &Payment) -> Option<Position> {
        Some(Position {
            created_unix_s: payment.created_unix_s,
            hash: <[u8; 32]>::try_from(&payment.payment_hash[..]).ok()?,
        })
    }

    /// 40 bytes: the time, big endian, and the hash. A cursor for an owner.
    pub fn to_bytes(self) -> Vec<u8> {
        [&self.created_unix_s.to_be_bytes()[..], &self.hash].concat()
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Position> {
        let (time, hash) = bytes.split_first_chunk::<8>()?;
        Some(Position {
            created_unix_s: u64::from_be_bytes(*time),
            hash: <[u8; 32]>::try_from(hash).ok()?,
        })
    }

    fn key(self) -> String {
        format!("{}{}", key::HISTORY_BY_TIME, hex(&self.to_bytes()))
    }
}

fn hash_key(hash: &[u8; 32]) -> String {
    format!("{}{}", key::HISTORY_BY_HASH, hex(hash))
}

/// Adds a payment that has ended, with this turn's commit.
pub(crate) fn add(journal: &Journal, payment: &Payment) {
    if let Some(position) = Position::of(payment) {
        journal.put(position.key(), payment.encode_to_vec());
        journal.put(hash_key(&position.hash), position.to_bytes());
    }
}

/// Takes a payment out again that goes on.
pub(crate) fn remove(journal: &Journal, payment: &Payment) {
    if let Some(position) = Position::of(payment) {
        journal.delete(position.key());
        journal.delete(hash_key(&position.hash));
    }
}

/// A request that is answered from the store, once the turn that asks for it is committed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Read {
    Page(Page),
    Payment(PaymentHash),
}

/// A page of payments.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Page {
    /// The payments before this position; from the newest on without it.
    pub before: Option<Position>,
    pub limit: u32,
    /// Those that are not in the history yet.
    pub live: Vec<Payment>,
}

impl Page {
    /// The keys that can be on the page, and the one after its end.
    fn range(&self) -> KeyRange {
        let end = || format!("{}~", key::HISTORY_BY_TIME);
        KeyRange {
            from: key::HISTORY_BY_TIME.into(),
            to: self.before.map_or_else(end, Position::key),
            limit: Some(self.limit.saturating_add(1)),
        }
    }

    /// The page from the history's part of it, newest first.
    fn merge(self, mut payments: Vec<Payment>) -> Payments {
        let is_before = |payment: &Payment| {
            let position = Position::of(payment);
            self.before.is_none_or(|before| position < Some(before))
        };
        payments.extend(self.live.into_iter().filter(is_before));
        payments.sort_by_key(|payment| std::cmp::Reverse(Position::of(payment)));
        let mut bytes = 0;
        let fits = payments.iter().take_while(|payment| {
            bytes += payment.encoded_len();
            bytes <= MOST_BYTES
        });
        // One at least, so that each page goes on.
        let on_page = fits.count().max(1).min(self.limit as usize);
        let is_last = payments.len() <= on_page;
        payments.truncate(on_page);
        let last = payments.last().and_then(Position::of);
        let next = last.filter(|_| !is_last);
        Payments {
            payments,
            next: next.map(Position::to_bytes).unwrap_or_default(),
        }
    }
}

/// Reads the answer to a request.
///
/// # Errors
/// [`StoreError`], with [`StoreError::Corrupt`] for a record that cannot be read.
pub(crate) async fn answer(
    store: &dyn Store,
    namespace: &str,
    read: Read,
) -> Result<Reply, StoreError> {
    match read {
        Read::Page(page) => {
            let entries = store.range(namespace, page.range()).await?;
            let payments = entries.iter().map(|(_, bytes)| decode(bytes));
            Ok(Reply::Payments(
                page.merge(payments.collect::<Result<_, _>>()?),
            ))
        }
        Read::Payment(hash) => Ok(Reply::FoundPayment(FoundPayment {
            payment: find(store, namespace, &hash).await?,
        })),
    }
}

/// The record of a payment that has ended.
///
/// # Errors
/// Like [`answer`].
pub(crate) async fn find(
    store: &dyn Store,
    namespace: &str,
    hash: &PaymentHash,
) -> Result<Option<Payment>, StoreError> {
    let Some(position) = store.get(namespace, &hash_key(&hash.0)).await? else {
        return Ok(None);
    };
    let position = Position::from_bytes(&position).ok_or_else(unreadable)?;
    let record = store.get(namespace, &position.key()).await?;
    decode(&record.ok_or_else(unreadable)?).map(Some)
}

fn decode(bytes: &[u8]) -> Result<Payment, StoreError> {
    Payment::decode(bytes).map_err(|_| unreadable())
}

fn unreadable() -> StoreError {
    StoreError::Corrupt("a record of a payment that has ended cannot be read".into())
}

#[cfg(test)]
#[path = "tests/history.rs"]
mod tests;
