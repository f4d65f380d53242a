//! Sessions of a link, over several connections: records and frames to either side from the other, which has the right
//! keys and follows no other rule.

use std::collections::{BTreeSet, VecDeque};

use longhand_link::core::handshake::{Initiator, Responder};
use longhand_link::core::record::Transport;
use longhand_link::core::requests::Requests;
use longhand_link::core::session::{Event, Session};
use longhand_link::{CloseCode, Config, Instance, LinkKeypair, Side, VERSION};
use longhand_proto::Code;
use longhand_proto::link::link_frame::Body;
use longhand_proto::link::{Hello, LinkFrame, Ping, Request, Response, response};
use prost::{Message, Oneof};

#[derive(Clone, PartialEq, Message)]
struct Script {
    #[prost(bool, tag = "1")]
    at_the_phone: bool,
    #[prost(message, repeated, tag = "2")]
    steps: Vec<Step>,
}

#[derive(Clone, PartialEq, Message)]
struct Step {
    #[prost(
        oneof = "What",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15"
    )]
    what: Option<What>,
}

#[derive(Clone, PartialEq, Oneof)]
enum What {
    /// A frame, with version and sequence made right.
    #[prost(message, tag = "1")]
    Frame(LinkFrame),
    /// Any bytes as a frame.
    #[prost(bytes, tag = "2")]
    Bytes(Vec<u8>),
    /// A record that was not sealed.
    #[prost(bytes, tag = "3")]
    Record(Vec<u8>),
    #[prost(uint32, tag = "4")]
    WaitMs(u32),
    /// This side sends a request of this many bytes.
    #[prost(uint32, tag = "5")]
    Ask(u32),
    /// This side answers the oldest request that runs, with this many bytes.
    #[prost(uint32, tag = "6")]
    Answer(u32),
    /// The carrier breaks; a process of the other side, one of three, comes back.
    #[prost(uint32, tag = "7")]
    Reconnect(u32),
    /// The last record again.
    #[prost(bool, tag = "8")]
    Repeat(bool),
    /// This side withdraws its oldest request.
    #[prost(bool, tag = "9")]
    Withdraw(bool),
    #[prost(bool, tag = "10")]
    Detach(bool),
    #[prost(bool, tag = "11")]
    ConfirmDetach(bool),
    #[prost(string, tag = "12")]
    Close(String),
    /// A request of this many bytes.
    #[prost(uint32, tag = "13")]
    Large(u32),
    /// The `Hello` that is due, with this heartbeat.
    #[prost(uint32, tag = "14")]
    Greet(u32),
    #[prost(bool, tag = "15")]
    ForgetAnswers(bool),
}

const MAX_FRAME: usize = 100_000;
const MAX_IN_FLIGHT: usize = 8;
const MAX_IN_FLIGHT_BYTES: usize = 60_000;
/// Processes of the other side whose requests are remembered.
const REMEMBERED: usize = 4;
const STEPS: usize = 64;
const CONNECTIONS: u32 = 6;

/// Tries one input.
pub fn run(data: &[u8]) {
    let Ok(script) = Script::decode(data) else {
        return;
    };
    let side = match script.at_the_phone {
        true => Side::Phone,
        false => Side::Host,
    };
    let mut world = World::new(side);
    for step in script.steps.into_iter().take(STEPS) {
        if let Some(what) = step.what {
            world.step(what);
            world.look();
        }
    }
}

/// The tested side, and the other one.
struct World {
    side: Side,
    requests: Requests,
    session: Session,
    now_ms: u64,
    /// Of the other side.
    transport: Transport,
    instance: Instance,
    sent: u64,
    last_record: Vec<u8>,
    connections: u32,
    seen: Seen,
}

/// Observations of the tested side.
#[derive(Default)]
struct Seen {
    frames: u64,
    opened: bool,
    closed: bool,
    /// Requests given to be executed, ever.
    executed: BTreeSet<(Instance, u64)>,
    running: VecDeque<(Instance, u64, usize)>,
    asked: VecDeque<u64>,
    processes: BTreeSet<Instance>,
}

fn process(number: u32) -> Instance {
    Instance([1 + (number % 3) as u8; 16])
}

fn config(side: Side) -> Config {
    Config {
        max_frame: MAX_FRAME,
        max_in_flight: MAX_IN_FLIGHT,
        max_in_flight_bytes: MAX_IN_FLIGHT_BYTES,
        ..Config::new("fuzz", &[served(side)])
    }
}

fn served(side: Side) -> &'static str {
    match side {
        Side::Phone => "signer",
        Side::Host => "command",
    }
}

impl World {
    fn new(side: Side) -> World {
        let requests = Requests::new(side, config(side), Instance([0xee; 16]));
        let (session, transport) = connect(side, &requests, process(0), 0);
        let mut world = World {
            side,
            requests,
            session,
            now_ms: 0,
            transport,
            instance: process(0),
            sent: 0,
            last_record: Vec::new(),
            connections: 1,
            seen: Seen::default(),
        };
        world.look();
        world
    }

    fn step(&mut self, what: What) {
        let now_ms = self.now_ms;
        match what {
            What::Frame(frame) => self.send(LinkFrame {
                version: 1,
                sequence: self.sent,
                ..frame
            }),
            What::Bytes(bytes) => self.send_bytes(&bytes),
            What::Record(record) => self.deliver(record, false),
            What::WaitMs(ms) => {
                self.now_ms += u64::from(ms);
                self.session.tick(self.now_ms);
            }
            What::Ask(size) => {
                let payload = vec![7; size as usize % (MAX_FRAME * 2)];
                let fits = payload.len() < MAX_FRAME - 100;
                let asked = self.requests.ask("anything", payload);
                assert!(asked.is_ok() || !fits);
                if let Ok(id) = asked {
                    self.seen.asked.push_back(id);
                    self.session.request(&mut self.requests, id, now_ms);
                }
            }
            What::Answer(size) => {
                if let Some((remote, id, _)) = self.seen.running.pop_front() {
                    let answer = Ok(vec![8; size as usize % (MAX_FRAME * 2)]);
                    if let Some(answer) = self.requests.answer(remote, id, answer) {
                        self.session.answer(id, answer, now_ms);
                    }
                }
            }
            What::Reconnect(number) => self.reconnect(process(number)),
            What::Repeat(_) => {
                let record = self.last_record.clone();
                self.deliver(record, false);
            }
            What::Withdraw(_) => {
                if let Some(id) = self.seen.asked.pop_front()
                    && self.requests.withdraw(id)
                {
                    self.session.cancel(id, now_ms);
                }
            }
            What::Detach(_) => self.session.detach(now_ms),
            What::ConfirmDetach(_) => self.session.confirm_detach(now_ms),
            What::Close(message) => self.session.close(CloseCode::Shutdown, &message, now_ms),
            What::Large(size) => {
                let id = 1_000 + 2 * self.sent + u64::from(self.side == Side::Host);
                let request = Request {
                    id,
                    kind: served(self.side).into(),
                    payload: vec![9; size as usize % (MAX_FRAME * 2)],
                };
                self.send_body(Body::Request(request));
            }
            What::Greet(heartbeat_ms) => {
                let hello = hello(self.instance, heartbeat_ms);
                self.send_body(Body::Hello(hello));
            }
            What::ForgetAnswers(_) => self.requests.forget_answers(),
        }
    }

    fn send_body(&mut self, body: Body) {
        self.send(LinkFrame {
            version: 1,
            sequence: self.sent,
            body: Some(body),
        });
    }

    fn send(&mut self, frame: LinkFrame) {
        self.send_bytes(&frame.encode_to_vec());
    }

    fn send_bytes(&mut self, frame: &[u8]) {
        let records = self.transport.seal(frame).expect("a frame can be sealed");
        self.sent += 1;
        for record in records {
            self.deliver(record, true);
        }
    }

    fn deliver(&mut self, record: Vec<u8>, sealed: bool) {
        let was_closed = self.seen.closed;
        self.session
            .receive(&mut self.requests, &record, self.now_ms);
        self.last_record = record;
        self.look();
        assert!(
            sealed || was_closed || self.seen.closed,
            "a record was taken that was not sealed"
        );
    }

    fn reconnect(&mut self, instance: Instance) {
        if self.connections == CONNECTIONS {
            return;
        }
        self.connections += 1;
        self.session.lost("the carrier broke");
        self.look();
        let (session, transport) = connect(self.side, &self.requests, instance, self.now_ms);
        (self.session, self.transport) = (session, transport);
        (self.instance, self.sent) = (instance, 0);
        self.seen = Seen {
            frames: 0,
            opened: false,
            closed: false,
            ..std::mem::take(&mut self.seen)
        };
    }

    /// Reads and checks all records that are sent, and all events.
    fn look(&mut self) {
        while let Some(record) = self.session.poll_record() {
            let opened = self.transport.open(&record, usize::MAX);
            if let Some(frame) = opened.expect("a sent record can be opened") {
                self.frame(&frame);
            }
        }
        while let Some(event) = self.session.poll_event() {
            assert!(!self.seen.closed, "an event after the close");
            self.event(event);
        }
        if self.seen.closed {
            assert!(!self.session.is_open() && self.session.next_timeout_ms().is_none());
        }
        let current = self.requests.remote();
        if self.seen.processes.len() > REMEMBERED {
            return;
        }
        let running = self.seen.running.iter();
        let running = running.filter(|(remote, _, _)| Some(*remote) == current);
        let sizes: Vec<usize> = running.map(|(_, _, size)| *size).collect();
        assert!(sizes.len() <= MAX_IN_FLIGHT);
        // One alone is always taken; empty ones take nothing.
        let alone = sizes.iter().filter(|size| **size > 0).count() <= 1;
        assert!(alone || sizes.iter().sum::<usize>() <= MAX_IN_FLIGHT_BYTES);
    }

    fn frame(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= MAX_FRAME + 100, "a frame is too large");
        let frame = LinkFrame::decode(bytes).expect("a sent record has a frame");
        assert_eq!(
            (frame.version, frame.sequence),
            (VERSION.into(), self.seen.frames)
        );
        self.seen.frames += 1;
        let body = frame.body.expect("a frame has a body");
        let is_first = frame.sequence == 0;
        let may_be_first = matches!(body, Body::Hello(_) | Body::Close(_));
        assert!(!is_first || may_be_first, "{body:?} before Hello");
    }

    fn event(&mut self, event: Event) {
        let seen = &mut self.seen;
        match event {
            Event::Open { remote, agent, .. } => {
                assert!(!std::mem::replace(&mut seen.opened, true), "opened twice");
                assert!(!agent.chars().any(char::is_control) && agent.chars().count() <= 200);
                seen.processes.insert(remote);
            }
            Event::Request { remote, request } => {
                assert!(seen.opened);
                assert_eq!(request.id % 2 == 1, self.side == Side::Host, "a foreign id");
                assert_eq!(request.kind, served(self.side));
                let first = seen.executed.insert((remote, request.id));
                let forgets = seen.processes.len() > REMEMBERED;
                assert!(first || forgets, "request {} is executed again", request.id);
                let running = (remote, request.id, request.payload.len());
                seen.running.push_back(running);
            }
            Event::Answered { id, .. } => {
                let waiting = seen.asked.iter().position(|asked| *asked == id);
                seen.asked
                    .remove(waiting.expect("an answer without a request"));
            }
            Event::Closed(reason) => {
                assert!(!reason.message.chars().any(char::is_control) || !reason.by_peer);
                seen.closed = true;
            }
            Event::Cancelled { .. } | Event::DetachRequested => assert!(seen.opened),
        }
    }
}

fn hello(instance: Instance, heartbeat_ms: u32) -> Hello {
    Hello {
        agent: "fuzz".into(),
        instance: instance.0.to_vec(),
        heartbeat_ms,
        open_requests: vec![],
        greeting: Vec::new(),
    }
}

/// A new session of `side`, and the transport of the other side, the process `other`.
fn connect(side: Side, requests: &Requests, other: Instance, now_ms: u64) -> (Session, Transport) {
    let (phone, host) = (
        LinkKeypair::from_bytes([1; 32]),
        LinkKeypair::from_bytes([2; 32]),
    );
    let instance = match side {
        Side::Phone => requests.instance(),
        Side::Host => other,
    };
    let (initiator, first) = Initiator::attach(&phone, &host.public(), instance).unwrap();
    let Ok(Responder::Attach(attach)) = Responder::receive(&host, &first) else {
        panic!("an attach is one")
    };
    let (at_host, answer) = attach.welcome().unwrap();
    let (at_phone, _) = initiator.receive(&answer).unwrap();
    let (ours, theirs) = match side {
        Side::Phone => (at_phone, at_host),
        Side::Host => (at_host, at_phone),
    };
    (Session::new(ours, requests, now_ms), theirs.transport)
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let frame = |body| {
        What::Frame(LinkFrame {
            body: Some(body),
            ..LinkFrame::default()
        })
    };
    let request = |id, kind: &str, payload: &[u8]| {
        frame(Body::Request(Request {
            id,
            kind: kind.into(),
            payload: payload.into(),
        }))
    };
    let response = |id| {
        frame(Body::Response(Response {
            id,
            result: Some(response::Result::Payload(vec![1, 2, 3])),
        }))
    };
    let greeting = hello(process(0), 10_000).encode_to_vec();
    let resumed = Hello {
        open_requests: vec![1, 2],
        ..hello(process(0), 10_000)
    };
    let script = |at_the_phone: bool| {
        let (theirs, ours) = if at_the_phone { (2, 1) } else { (1, 2) };
        let kind = served(if at_the_phone {
            Side::Phone
        } else {
            Side::Host
        });
        let long = vec![
            What::Greet(10_000),
            request(theirs, kind, b"one"),
            What::Ask(100),
            request(theirs + 2, kind, b"two"),
            request(theirs + 4, "other", b"three"),
            What::Answer(50),
            response(ours),
            frame(Body::Ping(Ping { nonce: 5 })),
            What::Ask(10),
            What::Reconnect(0),
            frame(Body::Hello(resumed.clone())),
            request(theirs, kind, b"one"),
            request(theirs + 2, kind, b"two"),
            What::Answer(10),
            response(ours + 2),
            frame(Body::Cancel(longhand_proto::link::Cancel {
                id: theirs + 2,
            })),
            What::WaitMs(10_000),
            frame(Body::Pong(longhand_proto::link::Pong { nonce: 1 })),
            frame(Body::Detach(longhand_proto::link::Detach {})),
            What::ConfirmDetach(true),
        ];
        let restarted = vec![
            What::Ask(1),
            What::Greet(50),
            What::Large(70_000),
            What::Large(10),
            What::Withdraw(true),
            What::Ask(3),
            What::Reconnect(1),
            What::Greet(600_000),
            What::ForgetAnswers(true),
            What::Large(150_000),
            What::Reconnect(2),
            What::WaitMs(60_000),
        ];
        let rude = vec![
            What::Bytes(greeting.clone()),
            What::Reconnect(0),
            What::Record(b"nothing".to_vec()),
            What::Reconnect(0),
            What::Greet(10_000),
            What::Repeat(true),
            What::Reconnect(0),
            What::Greet(10_000),
            What::Detach(true),
            frame(Body::Detached(longhand_proto::link::Detached {})),
            What::Reconnect(0),
            frame(Body::Close(longhand_proto::link::Close {
                code: Code::Replaced.into(),
                message: "another link".into(),
            })),
            What::Reconnect(0),
            What::Greet(10_000),
            What::Close("enough".into()),
        ];
        [long, restarted, rude].map(|steps| {
            let steps = steps.into_iter().map(|what| Step { what: Some(what) });
            Script {
                at_the_phone,
                steps: steps.collect(),
            }
            .encode_to_vec()
        })
    };
    [script(false), script(true)].concat()
}
