//! Tests of the core, without sockets and with simulated time: two ends and a wire that the test holds.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod codec;
mod handshake;
mod resumption;
mod session;

use std::collections::{BTreeMap, VecDeque};

use longhand_proto::link::Request;

use super::handshake::{Established, Initiator, Responder};
use super::requests::{Answer, Requests};
use super::session::{Event, Session};
use super::{Config, Side};
use crate::VERSION;
use crate::error::{CloseCode, CloseReason, LinkError};
use crate::key::{Instance, LinkKey, LinkKeypair};

const PHONE: Instance = Instance([0xaa; 16]);
const HOST: Instance = Instance([0xbb; 16]);

/// One process: its state across connections, and its present connection.
struct End {
    requests: Requests,
    session: Option<Session>,
    /// The number of times that each request of the other side was to be executed.
    executed: BTreeMap<u64, u32>,
    /// Requests given to be executed and not answered yet.
    to_answer: Vec<(Instance, Request)>,
    answers: BTreeMap<u64, Result<Vec<u8>, LinkError>>,
    events: Vec<Event>,
}

impl End {
    fn new(side: Side, instance: Instance) -> End {
        let serves = match side {
            Side::Phone => "signer",
            Side::Host => "command",
        };
        End::with(side, instance, Config::new("test", &[serves]))
    }

    fn with(side: Side, instance: Instance, config: Config) -> End {
        End {
            requests: Requests::new(side, config, instance),
            session: None,
            executed: BTreeMap::new(),
            to_answer: Vec::new(),
            answers: BTreeMap::new(),
            events: Vec::new(),
        }
    }

    fn ask(&mut self, kind: &str, payload: &[u8]) -> u64 {
        let id = self.requests.ask(kind, payload.to_vec()).unwrap();
        if let Some(session) = &mut self.session {
            session.request(&mut self.requests, id, 0);
        }
        id
    }

    fn receive(&mut self, record: &[u8], now_ms: u64) {
        if let Some(session) = &mut self.session {
            session.receive(&mut self.requests, record, now_ms);
        }
        self.take_events();
    }

    fn take_events(&mut self) {
        let Some(session) = &mut self.session else {
            return;
        };
        while let Some(event) = session.poll_event() {
            match &event {
                Event::Request { remote, request } => {
                    *self.executed.entry(request.id).or_default() += 1;
                    self.to_answer.push((*remote, request.clone()));
                }
                Event::Answered { id, answer } => {
                    assert_eq!(
                        self.answers.insert(*id, answer.clone()),
                        None,
                        "one answer each"
                    );
                }
                _ => {}
            }
            self.events.push(event);
        }
    }

    /// Answers all requests that wait with their payload reversed, the last one first.
    fn answer_all(&mut self) {
        while let Some((remote, request)) = self.to_answer.pop() {
            let payload = request.payload.into_iter().rev().collect();
            self.answer(remote, request.id, Ok(payload));
        }
    }

    fn answer(&mut self, remote: Instance, id: u64, answer: Answer) {
        let answer = self.requests.answer(remote, id, answer);
        if let (Some(answer), Some(session)) = (answer, &mut self.session) {
            session.answer(id, answer, 0);
        }
    }

    fn records(&mut self) -> VecDeque<Vec<u8>> {
        let session = self.session.as_mut();
        session.map_or(VecDeque::new(), |s| {
            std::iter::from_fn(|| s.poll_record()).collect()
        })
    }

    fn closed(&self) -> Option<&CloseReason> {
        self.events.iter().rev().find_map(|event| match event {
            Event::Closed(reason) => Some(reason),
            _ => None,
        })
    }

    fn close_code(&self) -> Option<CloseCode> {
        self.closed().map(|reason| reason.code.clone())
    }
}

/// A phone, a host and the wire between them.
struct World {
    phone: End,
    host: End,
    to_host: VecDeque<Vec<u8>>,
    to_phone: VecDeque<Vec<u8>>,
    now_ms: u64,
}

impl World {
    fn new() -> World {
        World::of(End::new(Side::Phone, PHONE), End::new(Side::Host, HOST))
    }

    fn of(phone: End, host: End) -> World {
        let (to_host, to_phone) = (VecDeque::new(), VecDeque::new());
        World {
            phone,
            host,
            to_host,
            to_phone,
            now_ms: 0,
        }
    }

    fn connected() -> World {
        let mut world = World::new();
        world.connect();
        world.run();
        world
    }

    /// A new connection: handshake, and sessions that have not exchanged `Hello` yet.
    fn connect(&mut self) {
        let (phone, host) = handshake(self.phone.requests.instance());
        self.to_host.clear();
        self.to_phone.clear();
        self.phone.session = Some(Session::new(phone, &self.phone.requests, self.now_ms));
        self.host.session = Some(Session::new(host, &self.host.requests, self.now_ms));
        self.collect();
    }

    /// The connection breaks; records in transit are lost.
    fn drop_connection(&mut self) {
        self.to_host.clear();
        self.to_phone.clear();
        for end in [&mut self.phone, &mut self.host] {
            if let Some(session) = &mut end.session {
                session.lost("cut");
            }
            end.take_events();
            end.session = None;
        }
    }

    fn collect(&mut self) {
        self.to_host.extend(self.phone.records());
        self.to_phone.extend(self.host.records());
    }

    /// Delivers one record, the host's first; false when none is in transit.
    fn deliver_one(&mut self) -> bool {
        self.collect();
        if let Some(record) = self.to_phone.pop_front() {
            self.phone.receive(&record, self.now_ms);
        } else if let Some(record) = self.to_host.pop_front() {
            self.host.receive(&record, self.now_ms);
        } else {
            return false;
        }
        self.collect();
        true
    }

    fn run(&mut self) {
        while self.deliver_one() {}
    }

    /// Lets time pass on both ends, then delivers the records that they sent.
    fn tick(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        for end in [&mut self.phone, &mut self.host] {
            if let Some(session) = &mut end.session {
                session.tick(now_ms);
            }
            end.take_events();
        }
        self.run();
    }
}

/// Both ends of a fresh `IK` handshake.
fn handshake(phone_instance: Instance) -> (Established, Established) {
    let (phone, host) = (
        LinkKeypair::from_bytes([1; 32]),
        LinkKeypair::from_bytes([2; 32]),
    );
    let (initiator, first) = Initiator::attach(&phone, &host.public(), phone_instance).unwrap();
    let Ok(Responder::Attach(attach)) = Responder::receive(&host, &first) else {
        panic!()
    };
    assert_eq!(attach.phone(), &phone.public());
    let (host_side, answer) = attach.welcome().unwrap();
    let (phone_side, last) = initiator.receive(&answer).unwrap();
    assert_eq!((last, host_side.instance), (None, Some(phone_instance)));
    (phone_side, host_side)
}
