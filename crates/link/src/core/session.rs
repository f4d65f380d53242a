//! Sessions: one connection each, from `Hello` to `Close`.
//!
//! A [`Session`] takes records and the time, and gives records to send, [`Event`]s and the time of the next call. The requests
//! are in [`Requests`], which is lent to it, so that the next session goes on where this one ended.

use std::collections::{BTreeSet, VecDeque};

use longhand_base::text::excerpt;
use longhand_proto::link::{
    Cancel, Close, Detach, Detached, Hello, LinkFrame, Ping, Pong, Request, Response,
    link_frame::Body, response,
};
use prost::Message;

use super::Side;
use super::handshake::{Established, close_reason};
use super::record::Transport;
use super::requests::{Answer, Arrival, MAX_GREETING, Requests};
use crate::VERSION;
use crate::error::{CloseCode, CloseReason, LinkError};
use crate::key::Instance;

/// Bounds of the heartbeat that the other side may announce.
const HEARTBEAT_MS: std::ops::RangeInclusive<u64> = 50..=600_000;

/// An event of a session.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The session is open: the other side has proved its key and sent `Hello`.
    Open {
        /// Whether it is the process of an earlier session, whose requests go on.
        resumed: bool,
        /// The other side's process.
        remote: Instance,
        /// Name and version of its software.
        agent: String,
    },
    /// A request to execute; the response goes to [`Session::answer`].
    Request {
        /// The process that sent it.
        remote: Instance,
        /// The request.
        request: Request,
    },
    /// The other side cancelled this request.
    Cancelled {
        /// The process that sent the request.
        remote: Instance,
        /// The request's id.
        id: u64,
    },
    /// A request of this side is answered.
    Answered {
        /// The request's id.
        id: u64,
        /// The payload of the response, a refusal, or [`LinkError::Restarted`].
        answer: Result<Vec<u8>, LinkError>,
    },
    /// The other side wants to detach: finish the step in hand, then call [`Session::confirm_detach`].
    DetachRequested,
    /// The session has ended. No event follows.
    Closed(CloseReason),
}

/// A breach of the protocol by the other side. Ends the session.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The record was changed, cut, repeated, left out or sealed with other keys.
    #[error("a record cannot be decrypted: it was changed, cut off, repeated or lost on the way")]
    Unreadable,
    /// The plaintext is no frame.
    #[error("a record was decrypted, but is no frame")]
    Malformed,
    /// The frame is larger than agreed.
    #[error("a frame is larger than {max} bytes")]
    TooLarge {
        /// The limit.
        max: usize,
    },
    /// A frame is missing, or came twice.
    #[error("frame {found} came when frame {expected} was due")]
    Sequence {
        /// The sequence number that was due.
        expected: u64,
        /// The sequence number that was received.
        found: u64,
    },
    /// The frame is of another version.
    #[error("a frame has version {found}, this program speaks {VERSION}")]
    Version {
        /// As received.
        found: u32,
    },
    /// Another frame came before `Hello`.
    #[error("the first frame was not Hello")]
    NoHello,
    /// `Hello` came twice, or is not valid.
    #[error("a Hello came twice or makes no sense")]
    BadHello,
    /// A request of the other side has an id that only this side may use.
    #[error("a request has the id {0}, which is not the other side's to use")]
    ForeignId(u64),
    /// A record could not be sealed.
    #[error("a record could not be encrypted")]
    Seal,
}

impl ProtocolError {
    fn code(&self) -> CloseCode {
        match self {
            ProtocolError::Version { .. } => CloseCode::Version,
            _ => CloseCode::Protocol,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Opening,
    Open,
    Closed,
}

/// One connection after its handshake.
pub struct Session {
    side: Side,
    transport: Transport,
    phase: Phase,
    /// The other side's process: the host knows it from the handshake, the phone from `Hello`.
    remote: Option<Instance>,
    /// Requests of the other side that this side's `Hello` listed as open: their responses are sent without being asked for again.
    promised: Vec<u64>,
    next_sent: u64,
    next_received: u64,
    heartbeat_ms: u64,
    patience_ms: u64,
    last_sent_ms: u64,
    last_received_ms: u64,
    max_frame: usize,
    records: VecDeque<Vec<u8>>,
    events: VecDeque<Event>,
}

impl Session {
    /// A session on a finished handshake. The host sends its `Hello` at once, the phone after it has received that.
    pub fn new(established: Established, requests: &Requests, now_ms: u64) -> Session {
        let heartbeat_ms = requests.config().heartbeat_ms();
        let mut session = Session {
            side: requests.side(),
            transport: established.transport,
            phase: Phase::Opening,
            remote: established.instance,
            promised: Vec::new(),
            next_sent: 0,
            next_received: 0,
            heartbeat_ms,
            patience_ms: patience(heartbeat_ms, heartbeat_ms),
            last_sent_ms: now_ms,
            last_received_ms: now_ms,
            max_frame: requests.config().max_frame,
            records: VecDeque::new(),
            events: VecDeque::new(),
        };
        if session.side == Side::Host {
            session.hello(requests, now_ms);
        }
        session
    }

    /// Takes a record of the other side.
    pub fn receive(&mut self, requests: &mut Requests, record: &[u8], now_ms: u64) {
        if self.phase == Phase::Closed {
            return;
        }
        if let Err(error) = self.try_receive(requests, record, now_ms) {
            self.close(error.code(), &error.to_string(), now_ms);
        }
    }

    /// Ends the session: the carrier was closed or broke.
    pub fn lost(&mut self, reason: &str) {
        self.end(CloseReason::local(CloseCode::Lost, reason));
    }

    /// Sends a ping when one is due, or ends the session as `DEAD`.
    pub fn tick(&mut self, now_ms: u64) {
        if self.phase == Phase::Closed {
            return;
        }
        if now_ms >= self.last_received_ms.saturating_add(self.patience_ms) {
            self.close(CloseCode::Dead, "nothing was received for too long", now_ms);
        } else if self.may_ping() && now_ms >= self.next_ping_ms() {
            self.send(
                Body::Ping(Ping {
                    nonce: self.next_sent,
                }),
                now_ms,
            );
        }
    }

    /// The time of the next [`Session::tick`]; `None` once closed.
    pub fn next_timeout_ms(&self) -> Option<u64> {
        let dead = self.last_received_ms.saturating_add(self.patience_ms);
        let next = match self.may_ping() {
            true => self.next_ping_ms().min(dead),
            false => dead,
        };
        (self.phase != Phase::Closed).then_some(next)
    }

    /// No ping is sent before this side's `Hello`; a phone sends that after it has received the host's.
    fn may_ping(&self) -> bool {
        self.next_sent > 0
    }

    /// The host's ping is due a tenth later, so that only the phone pings on an idle link.
    fn next_ping_ms(&self) -> u64 {
        let later_ms = match self.side {
            Side::Phone => 0,
            Side::Host => self.heartbeat_ms / 10,
        };
        let silence_ms = self.heartbeat_ms.saturating_add(later_ms);
        self.last_sent_ms.saturating_add(silence_ms)
    }

    /// The next record to send.
    pub fn poll_record(&mut self) -> Option<Vec<u8>> {
        self.records.pop_front()
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether `Hello` was exchanged and the session has not ended.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Sends a request that was added by [`Requests::ask`]. Until the session is open it stays there.
    pub fn request(&mut self, requests: &mut Requests, id: u64, now_ms: u64) {
        if self.is_open()
            && let Some(request) = requests.take_to_send(id)
        {
            self.send(Body::Request(request), now_ms);
        }
    }

    /// Sends a `Cancel` for a request that was withdrawn.
    pub fn cancel(&mut self, id: u64, now_ms: u64) {
        if self.is_open() {
            self.send(Body::Cancel(Cancel { id }), now_ms);
        }
    }

    /// Sends the response that [`Requests::answer`] returned.
    pub fn answer(&mut self, id: u64, answer: Answer, now_ms: u64) {
        if self.is_open() {
            let result = match answer {
                Ok(payload) => response::Result::Payload(payload),
                Err(refusal) => response::Result::Error(refusal),
            };
            self.send(
                Body::Response(Response {
                    id,
                    result: Some(result),
                }),
                now_ms,
            );
        }
    }

    /// Sends a `Detach`.
    pub fn detach(&mut self, now_ms: u64) {
        if self.is_open() {
            self.send(Body::Detach(Detach {}), now_ms);
        }
    }

    /// Sends a `Detached` and ends the session.
    pub fn confirm_detach(&mut self, now_ms: u64) {
        if self.is_open() {
            self.send(Body::Detached(Detached {}), now_ms);
            self.end(CloseReason::local(
                CloseCode::Detached,
                "the other side detached",
            ));
        }
    }

    /// Sends a `Close` with the reason and ends the session.
    pub fn close(&mut self, code: CloseCode, message: &str, now_ms: u64) {
        if self.phase != Phase::Closed {
            let close = Close {
                code: code.as_str().into(),
                message: message.into(),
            };
            self.send(Body::Close(close), now_ms);
            self.end(CloseReason::local(code, message));
        }
    }

    fn try_receive(
        &mut self,
        requests: &mut Requests,
        record: &[u8],
        now_ms: u64,
    ) -> Result<(), ProtocolError> {
        let opened = self.transport.open(record, self.max_frame)?;
        self.last_received_ms = self.last_received_ms.max(now_ms);
        let Some(bytes) = opened else { return Ok(()) };
        let frame = LinkFrame::decode(bytes.as_slice()).map_err(|_| ProtocolError::Malformed)?;
        if frame.version != u32::from(VERSION) {
            return Err(ProtocolError::Version {
                found: frame.version,
            });
        }
        if frame.sequence != self.next_received {
            let (expected, found) = (self.next_received, frame.sequence);
            return Err(ProtocolError::Sequence { expected, found });
        }
        self.next_received += 1;
        match (self.phase, frame.body) {
            (Phase::Opening, Some(Body::Hello(hello))) => self.open(requests, hello, now_ms),
            (Phase::Opening, Some(Body::Close(close))) => {
                self.end(close_reason(close));
                Ok(())
            }
            (Phase::Opening, _) => Err(ProtocolError::NoHello),
            (Phase::Open, Some(body)) => self.handle(requests, body, now_ms),
            // A frame of a kind that a later version added is ignored.
            (Phase::Open, None) | (Phase::Closed, _) => Ok(()),
        }
    }

    fn handle(
        &mut self,
        requests: &mut Requests,
        body: Body,
        now_ms: u64,
    ) -> Result<(), ProtocolError> {
        match body {
            Body::Hello(_) => return Err(ProtocolError::BadHello),
            Body::Request(request) => return self.arrive(requests, request, now_ms),
            Body::Response(response) => self.answered(requests, response),
            Body::Cancel(Cancel { id }) => {
                if let (true, Some(remote)) = (requests.cancelled(id), self.remote) {
                    self.events.push_back(Event::Cancelled { remote, id });
                }
            }
            Body::Ping(Ping { nonce }) => self.send(Body::Pong(Pong { nonce }), now_ms),
            Body::Pong(_) => {}
            Body::Detach(_) => self.events.push_back(Event::DetachRequested),
            Body::Detached(_) => self.end(CloseReason {
                code: CloseCode::Detached,
                message: "the other side has settled everything and let go".into(),
                by_peer: true,
            }),
            Body::Close(close) => self.end(close_reason(close)),
        }
        Ok(())
    }

    /// Takes the other side's `Hello`, and sends all that waits for it.
    fn open(
        &mut self,
        requests: &mut Requests,
        hello: Hello,
        now_ms: u64,
    ) -> Result<(), ProtocolError> {
        let instance = hello
            .instance
            .as_slice()
            .try_into()
            .map_err(|_| ProtocolError::BadHello)?;
        let remote = Instance(instance);
        let heartbeat_ms = u64::from(hello.heartbeat_ms);
        let expected = self.remote.is_none_or(|known| known == remote);
        if !expected || remote == requests.instance() || !HEARTBEAT_MS.contains(&heartbeat_ms) {
            return Err(ProtocolError::BadHello);
        }
        if hello.greeting.len() > MAX_GREETING {
            return Err(ProtocolError::BadHello);
        }
        requests.remote_greeting = hello.greeting;
        self.remote = Some(remote);
        self.patience_ms = patience(self.heartbeat_ms, heartbeat_ms);
        let resumed = requests.remote() == Some(remote);
        let (restarted, orphans) = requests.meet(remote);
        if self.side == Side::Phone {
            self.hello(requests, now_ms);
        }
        self.phase = Phase::Open;
        let agent = excerpt(&hello.agent);
        self.events.push_back(Event::Open {
            resumed,
            remote,
            agent,
        });
        let gone = restarted.into_iter().map(|id| Event::Answered {
            id,
            answer: Err(LinkError::Restarted),
        });
        self.events.extend(gone);
        self.events.extend(
            orphans
                .into_iter()
                .map(|(remote, id)| Event::Cancelled { remote, id }),
        );
        for id in std::mem::take(&mut self.promised) {
            if let Some(answer) = requests.promised(id) {
                self.answer(id, answer, now_ms);
            }
        }
        let open: BTreeSet<u64> = hello.open_requests.into_iter().collect();
        for request in requests.resend(&open) {
            self.send(Body::Request(request), now_ms);
        }
        Ok(())
    }

    fn hello(&mut self, requests: &Requests, now_ms: u64) {
        self.promised = self
            .remote
            .map_or(Vec::new(), |remote| requests.running(&remote));
        let heartbeat_ms = self
            .heartbeat_ms
            .clamp(*HEARTBEAT_MS.start(), *HEARTBEAT_MS.end());
        let hello = Hello {
            agent: requests.config().agent.clone(),
            instance: requests.instance().0.to_vec(),
            heartbeat_ms: u32::try_from(heartbeat_ms).unwrap_or(u32::MAX),
            open_requests: self.promised.clone(),
            greeting: requests.greeting().to_vec(),
        };
        self.send(Body::Hello(hello), now_ms);
    }

    fn arrive(
        &mut self,
        requests: &mut Requests,
        request: Request,
        now_ms: u64,
    ) -> Result<(), ProtocolError> {
        let Some(remote) = self.remote else {
            return Err(ProtocolError::NoHello);
        };
        let id = request.id;
        if id == 0 || self.side.owns(id) {
            return Err(ProtocolError::ForeignId(id));
        }
        match requests.arrive(id, &request.kind, request.payload.len()) {
            Arrival::New => self.events.push_back(Event::Request { remote, request }),
            Arrival::Running => {}
            Arrival::Done(answer) => self.answer(id, answer, now_ms),
        }
        Ok(())
    }

    fn answered(&mut self, requests: &mut Requests, response: Response) {
        if !requests.answered(response.id) {
            return;
        }
        let answer = match response.result {
            Some(response::Result::Payload(payload)) => Ok(payload),
            Some(response::Result::Error(e)) => Err(LinkError::Refused {
                code: excerpt(&e.code),
                message: excerpt(&e.message),
            }),
            None => Err(LinkError::Protocol("an answer is empty".into())),
        };
        self.events.push_back(Event::Answered {
            id: response.id,
            answer,
        });
    }

    fn send(&mut self, body: Body, now_ms: u64) {
        let frame = LinkFrame {
            version: VERSION.into(),
            sequence: self.next_sent,
            body: Some(body),
        };
        self.next_sent += 1;
        self.last_sent_ms = self.last_sent_ms.max(now_ms);
        match self.transport.seal(&frame.encode_to_vec()) {
            Ok(records) => self.records.extend(records),
            Err(error) => self.end(CloseReason::local(CloseCode::Protocol, error.to_string())),
        }
    }

    fn end(&mut self, reason: CloseReason) {
        if self.phase != Phase::Closed {
            self.phase = Phase::Closed;
            self.events.push_back(Event::Closed(reason));
        }
    }
}

/// The records of a `Close` in place of the host's `Hello`, for a phone that is refused after its handshake.
pub fn refuse(
    established: &mut Established,
    code: CloseCode,
    message: &str,
) -> Result<Vec<Vec<u8>>, ProtocolError> {
    let close = Close {
        code: code.as_str().into(),
        message: message.into(),
    };
    let frame = LinkFrame {
        version: VERSION.into(),
        sequence: 0,
        body: Some(Body::Close(close)),
    };
    established.transport.seal(&frame.encode_to_vec())
}

/// The longest silence of the other side, in milliseconds: two heartbeats of the slower side, and half of one for the way.
fn patience(ours_ms: u64, theirs_ms: u64) -> u64 {
    ours_ms.max(theirs_ms).saturating_mul(5) / 2
}
