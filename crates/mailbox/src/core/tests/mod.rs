#![allow(clippy::unwrap_used, clippy::expect_used)]
//! A relay whose books are checked after each step.

mod attaching;
mod limits;
mod property;
mod queues;

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use longhand_link::carrier::admission::SourceNetwork;
use longhand_link::carrier::mailbox::stream::{End, StreamId};

use super::limits::MESSAGE_BYTES;
use super::networks::NetworkUse;
use super::*;

/// A relay at a time.
struct World {
    relay: Relay,
    now: Time,
    events: Vec<Event>,
    closed: Vec<ConnectionId>,
}

fn stream(key: u8) -> StreamId {
    StreamId::of(&[key; 32])
}

fn network(last: u8) -> SourceNetwork {
    IpAddr::from(Ipv4Addr::new(192, 0, 2, last)).into()
}

fn ended(handle: u32, code: Code) -> Reply {
    Reply::Ended { handle, code }
}

fn data(handle: u32, payload: &[u8]) -> Reply {
    let payload = payload.to_vec();
    Reply::Data { handle, payload }
}

impl World {
    fn new() -> World {
        World::with(Limits::default())
    }

    fn with(limits: Limits) -> World {
        World {
            relay: Relay::new(limits),
            now: Duration::ZERO,
            events: Vec::new(),
            closed: Vec::new(),
        }
    }

    fn connect(&mut self) -> ConnectionId {
        self.relay.open(None, self.now).expect("there is room")
    }

    fn connect_from(&mut self, last: u8) -> ConnectionId {
        let opened = self.relay.open(Some(network(last)), self.now);
        opened.expect("there is room")
    }

    fn ask(&mut self, from: ConnectionId, request: Request) -> Pace {
        let pace = self.relay.receive(from, request, self.now);
        self.settle();
        pace
    }

    /// Attaches, and returns the reply to it.
    fn attach(&mut self, from: ConnectionId, handle: u32, key: u8, end: End) -> Reply {
        let request = Request::Attach {
            handle,
            stream: stream(key),
            end,
        };
        self.ask(from, request);
        self.take(from).expect("an attach is answered")
    }

    /// A connection that reads at this end.
    fn attached(&mut self, handle: u32, key: u8, end: End) -> ConnectionId {
        let id = self.connect();
        let reply = self.attach(id, handle, key, end);
        assert!(matches!(reply, Reply::Attached { .. }), "{reply:?}");
        id
    }

    /// A connection from this network that reads at this end.
    fn attached_from(&mut self, last: u8, handle: u32, key: u8, end: End) -> ConnectionId {
        let id = self.connect_from(last);
        let reply = self.attach(id, handle, key, end);
        assert!(matches!(reply, Reply::Attached { .. }), "{reply:?}");
        id
    }

    fn send(&mut self, from: ConnectionId, handle: u32, payload: &[u8]) -> Pace {
        let payload = payload.to_vec();
        self.ask(from, Request::Send { handle, payload })
    }

    fn take(&mut self, to: ConnectionId) -> Option<Reply> {
        let reply = self.relay.take(to);
        self.settle();
        reply
    }

    /// All replies that there are.
    fn read(&mut self, to: ConnectionId) -> Vec<Reply> {
        std::iter::from_fn(|| self.take(to)).collect()
    }

    fn close(&mut self, id: ConnectionId) {
        self.relay.close(id);
        self.settle();
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        self.relay.tick(self.now);
        self.settle();
    }

    fn settle(&mut self) {
        let output = self.relay.output();
        self.events.extend(output.events);
        self.closed.extend(output.closed);
        self.check();
    }

    /// The bytes for which a network pays.
    fn bytes_of(&self, last: u8) -> usize {
        self.relay.networks.of(Some(network(last))).bytes
    }

    fn waits(&self) -> usize {
        let is_wait = |event: &&Event| matches!(event, Event::Waits { .. });
        self.events.iter().filter(is_wait).count()
    }

    /// What the relay counts is what is there, within the limits.
    fn check(&self) {
        let relay = &self.relay;
        let counts = relay.counts();
        let mut accounts = HashMap::<SourceNetwork, NetworkUse>::new();
        let (mut ends, mut bytes) = (0, 0);
        let (mut due, mut held) = (BTreeSet::new(), BTreeSet::new());
        let mut unattached = BTreeSet::new();
        for (id, connection) in &relay.connections {
            ends += connection.attached.len();
            let mut turns = BTreeSet::new();
            for (handle, attachment) in &connection.attached {
                let side = relay.streams[&attachment.stream].side(attachment.end);
                let reader = side.reader.unwrap();
                assert_eq!((reader.connection, reader.handle), (*id, *handle));
                assert_eq!(attachment.is_ready, side.may_be_read());
                if attachment.is_ready {
                    turns.insert(*handle);
                }
            }
            let ready: BTreeSet<u32> = connection.ready.iter().copied().collect();
            assert_eq!(
                (ready, connection.ready.len()),
                (turns.clone(), turns.len())
            );
            if let Some(source) = connection.source {
                let account = accounts.entry(source).or_default();
                account.ends += connection.attached.len();
                account.connections += usize::from(connection.has_attached);
            }
            if let Some((payer, cost)) = connection.sending {
                bytes += cost;
                if let Some(payer) = payer {
                    accounts.entry(payer).or_default().bytes += cost;
                }
            }
            assert_eq!(
                connection.attach_until.is_some(),
                connection.attached.is_empty()
            );
            unattached.extend(connection.attach_until.map(|at| (at, *id)));
        }
        assert_eq!(unattached, relay.unattached);
        let looks = relay.connections.iter().map(|(id, it)| (it.look_at, *id));
        assert_eq!(looks.collect::<BTreeSet<_>>(), relay.looks);
        let mut readers = 0;
        for (id, known) in &relay.streams {
            assert!(!known.is_unused());
            for end in [End::Host, End::Phone] {
                let side = known.side(end);
                readers += usize::from(side.reader.is_some());
                let costs = side.queue.iter().map(|message| message.cost());
                assert_eq!(costs.sum::<usize>(), side.queue.bytes());
                assert!(side.queue.bytes() <= relay.limits.queue_bytes);
                bytes += side.queue.bytes();
                assert_eq!(side.queue.due.is_some(), !side.queue.is_empty());
                for message in side.queue.iter() {
                    assert!(side.queue.due.unwrap() <= message.at + relay.limits.wait());
                }
                if let (Some(payer), bytes) = side.queue.bill() {
                    accounts.entry(payer).or_default().bytes += bytes;
                }
                assert!(side.held_until.is_none() || !side.queue.is_empty());
                held.extend(side.held_until.map(|at| (at, *id, end)));
                due.extend(side.queue.due.map(|at| (at, *id, end)));
            }
        }
        assert_eq!(
            (ends, ends, bytes),
            (counts.ends, readers, counts.queued_bytes)
        );
        assert_eq!((&due, &held), (&relay.due, &relay.held));
        assert!(ends <= relay.limits.ends && bytes <= relay.limits.total_bytes);
        accounts.retain(|_, account| *account != NetworkUse::default());
        for account in accounts.values() {
            assert!(account.ends <= relay.limits.ends_per_network);
            assert!(account.connections <= relay.limits.connections_per_network);
            assert!(account.bytes <= relay.limits.bytes_per_network);
        }
        assert_eq!(accounts, relay.networks.all());
    }
}
