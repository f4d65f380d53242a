//! The accounts of source networks: what their clients use, and which of it could be given up to make room.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use longhand_link::carrier::admission::SourceNetwork;
use longhand_link::carrier::mailbox::stream::{End, StreamId};

use super::ConnectionId;

/// What the clients of one source network use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NetworkUse {
    /// Connections that have attached a stream.
    pub connections: usize,
    pub ends: usize,
    /// In queues, and in messages that are being sent.
    pub bytes: usize,
}

/// Who pays for a queue, and how much.
pub(super) type Bill = (Option<SourceNetwork>, usize);

/// What can be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Burden {
    /// The messages at an end, and with them the stream.
    Queue(StreamId, End),
    /// The message that is being sent to a connection, and with it the connection.
    Sending(ConnectionId),
}

#[derive(Default)]
struct Account {
    used: NetworkUse,
    queues: BTreeSet<(usize, StreamId, End)>,
    sending: BTreeSet<ConnectionId>,
    /// In place of the network, which has no order.
    number: u64,
}

impl Account {
    /// A queue rather than a message that is being sent: with a connection all its streams would end.
    fn largest(&self) -> Option<Burden> {
        let queue = self.queues.last();
        let queue = queue.map(|(_, stream, end)| Burden::Queue(*stream, *end));
        queue.or_else(|| self.sending.first().copied().map(Burden::Sending))
    }
}

/// The accounts of all source networks that use something. Connections inside this process have none.
#[derive(Default)]
pub(super) struct Networks {
    accounts: HashMap<SourceNetwork, Account>,
    /// Accounts with bytes, by these and their number.
    by_bytes: BTreeMap<(usize, u64), SourceNetwork>,
    last_number: u64,
}

impl Networks {
    pub fn of(&self, source: Option<SourceNetwork>) -> NetworkUse {
        let found = source.and_then(|source| self.accounts.get(&source));
        found.map(|account| account.used).unwrap_or_default()
    }

    /// Changes the numbers of connections and ends.
    pub fn change(&mut self, source: Option<SourceNetwork>, change: impl FnOnce(&mut NetworkUse)) {
        self.with(source, |account| change(&mut account.used));
    }

    /// The queue of an end has changed, or who pays for it.
    pub fn charge_queue(&mut self, stream: StreamId, end: End, before: Bill, after: Bill) {
        if before == after {
            return;
        }
        let (source, bytes) = before;
        self.with(source, |account| {
            account.queues.remove(&(bytes, stream, end));
            account.used.bytes = account.used.bytes.saturating_sub(bytes);
        });
        let (source, bytes) = after;
        if bytes > 0 {
            self.with(source, |account| {
                account.queues.insert((bytes, stream, end));
                account.used.bytes = account.used.bytes.saturating_add(bytes);
            });
        }
    }

    /// A message is being sent to a connection.
    pub fn begin_sending(&mut self, to: ConnectionId, (source, bytes): Bill) {
        self.with(source, |account| {
            account.sending.insert(to);
            account.used.bytes = account.used.bytes.saturating_add(bytes);
        });
    }

    /// The message has been sent.
    pub fn end_sending(&mut self, to: ConnectionId, (source, bytes): Bill) {
        self.with(source, |account| {
            account.sending.remove(&to);
            account.used.bytes = account.used.bytes.saturating_sub(bytes);
        });
    }

    /// The first to give up of what this network uses.
    pub fn largest(&self, source: SourceNetwork) -> Option<Burden> {
        self.accounts.get(&source)?.largest()
    }

    /// The first to give up of what the network uses that uses most.
    pub fn heaviest(&self) -> Option<Burden> {
        let (_, source) = self.by_bytes.last_key_value()?;
        self.largest(*source)
    }

    /// Changes an account, and forgets it when nothing is used.
    fn with(&mut self, source: Option<SourceNetwork>, change: impl FnOnce(&mut Account)) {
        let Some(source) = source else { return };
        let last_number = &mut self.last_number;
        let account = self.accounts.entry(source).or_insert_with(|| {
            *last_number = last_number.saturating_add(1);
            Account {
                number: *last_number,
                ..Account::default()
            }
        });
        let (before, number) = (account.used.bytes, account.number);
        change(account);
        let used = account.used;
        if used.bytes != before {
            self.by_bytes.remove(&(before, number));
            if used.bytes > 0 {
                self.by_bytes.insert((used.bytes, number), source);
            }
        }
        if used == NetworkUse::default() {
            self.accounts.remove(&source);
        }
    }

    /// All accounts, once their indexes are compared with them.
    #[cfg(test)]
    pub fn all(&self) -> HashMap<SourceNetwork, NetworkUse> {
        let accounts = self.accounts.iter();
        let with_bytes = accounts.clone().filter(|(_, it)| it.used.bytes > 0);
        let by_bytes = with_bytes.map(|(source, it)| ((it.used.bytes, it.number), *source));
        assert_eq!(by_bytes.collect::<BTreeMap<_, _>>(), self.by_bytes);
        for account in self.accounts.values() {
            let queued: usize = account.queues.iter().map(|(bytes, ..)| bytes).sum();
            assert!(queued <= account.used.bytes);
            assert!(account.sending.is_empty() == (queued == account.used.bytes));
        }
        accounts.map(|(source, it)| (*source, it.used)).collect()
    }
}
