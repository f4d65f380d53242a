//! Go-back-N: messages in order over a mailbox that may lose some, without I/O and without a clock.
//!
//! Each end numbers the packets it sends; so many as the window has are on their way at once. The other end acknowledges each in order,
//! and asks for the first that it lacks (`NACK`), from which all are sent again. When nothing comes for a while, an end sends a ping, and
//! gives up when nothing answers.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::{Duration, Instant};

use crate::Role;
use crate::packet::{Data, Packet};

/// The bytes of messages that wait, to be sent or to be read.
const MAX_WAITING_BYTES: usize = 8 << 20;
/// The longest message.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// For how long the other end may take to answer at most, however slow it was before.
const LONGEST_RESEND: Duration = Duration::from_secs(60);

/// Times and sizes. The defaults fit stock ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timing {
    /// Packets that may be on their way; the client's counts.
    pub window: u8,
    /// The most bytes of a message in one packet.
    pub chunk_bytes: usize,
    /// After so long a `SYN` is sent again.
    pub handshake: Duration,
    /// After so long without an answer, or five round trips if that is longer, packets are sent again.
    pub resend: Duration,
    /// After so long without a packet a ping is sent.
    pub ping: Duration,
    /// After so long without an answer to it the connection is lost. Stock ends give 3 s, which networks of phones do not keep.
    pub pong: Duration,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            window: 20,
            chunk_bytes: 32 * 1024,
            handshake: Duration::from_secs(2),
            resend: Duration::from_secs(1),
            ping: Duration::from_secs(7),
            pong: Duration::from_secs(10),
        }
    }
}

/// The reason for which a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Over {
    /// This end has closed it.
    #[error("the connection was closed here")]
    Closed,
    /// The other end has closed it.
    #[error("the other side has closed the connection")]
    ByPeer,
    /// The other end has begun another.
    #[error("the other side has begun another connection")]
    Restarted,
    /// Nothing has answered for a while.
    #[error("the other side does not answer")]
    Silent,
    /// It sent what is no packet, or nothing that belongs there.
    #[error("the other side does not speak this protocol")]
    Malformed,
    /// It asked for a window of 0 or 255, or another than it was offered.
    #[error("the other side wants a window that cannot be")]
    Window,
    /// Its message is too long.
    #[error("a message of the other side is longer than {MAX_MESSAGE_BYTES} bytes")]
    TooLong,
}

/// The reason for which a message is not sent. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The connection is over.
    #[error(transparent)]
    Over(#[from] Over),
    /// Too much waits already: send it when some has been acknowledged.
    #[error("too many bytes wait for the other side: try again when some were acknowledged")]
    Full,
    /// Longer than any message.
    #[error("a message of {0} bytes is too long: {MAX_MESSAGE_BYTES} at most")]
    TooLong(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The client has sent `SYN`, and waits for the server's.
    Calling,
    /// The server waits for `SYN`.
    Listening,
    /// The server has answered it.
    Answered,
    Open,
    Over(Over),
}

/// One end of a connection. See the module.
pub struct GoBackN {
    role: Role,
    timing: Timing,
    state: State,
    /// Packets for the stream.
    output: VecDeque<Packet>,
    sent: Sent,
    received: Received,
    /// When the last packet came.
    heard: Instant,
    /// When a ping was sent that nothing has answered.
    pinged: Option<Instant>,
    /// When `SYN` was sent last.
    called: Instant,
}

/// What this end sends.
struct Sent {
    /// Parts of messages that are not numbered yet.
    waiting: VecDeque<Data>,
    waiting_bytes: usize,
    /// Those that are not acknowledged, in order, the first with the number `base`.
    under_way: VecDeque<UnderWay>,
    base: u8,
    resent: Option<Instant>,
    round_trip: Duration,
}

struct UnderWay {
    data: Data,
    at: Instant,
    is_resent: bool,
}

/// What the other end sends.
struct Received {
    /// The number that comes next.
    next: u8,
    parts: Vec<u8>,
    messages: VecDeque<Vec<u8>>,
    message_bytes: usize,
    asked: Option<(u8, Instant)>,
}

impl GoBackN {
    /// A client calls at once; a server waits for it.
    pub fn new(role: Role, timing: Timing, now: Instant) -> GoBackN {
        let mut output = VecDeque::new();
        let state = match role {
            Role::Client => {
                let window = timing.window;
                output.push_back(Packet::Syn { window });
                State::Calling
            }
            Role::Server => State::Listening,
        };
        GoBackN {
            role,
            timing,
            state,
            output,
            sent: Sent {
                waiting: VecDeque::new(),
                waiting_bytes: 0,
                under_way: VecDeque::new(),
                base: 0,
                resent: None,
                round_trip: Duration::ZERO,
            },
            received: Received {
                next: 0,
                parts: Vec::new(),
                messages: VecDeque::new(),
                message_bytes: 0,
                asked: None,
            },
            heard: now,
            pinged: None,
            called: now,
        }
    }

    /// Whether the two ends have found each other.
    pub fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Why it is over; `None` while it is not.
    pub fn over(&self) -> Option<Over> {
        match self.state {
            State::Over(over) => Some(over),
            _ => None,
        }
    }

    /// Sends a message, once there is room for it in the window.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn send(&mut self, now: Instant, message: &[u8]) -> Result<(), SendError> {
        if let State::Over(over) = self.state {
            return Err(over.into());
        }
        if message.len() > MAX_MESSAGE_BYTES {
            return Err(SendError::TooLong(message.len()));
        }
        if self.sent.waiting_bytes.saturating_add(message.len()) > MAX_WAITING_BYTES {
            return Err(SendError::Full);
        }
        self.sent.waiting_bytes += message.len();
        let chunks: Vec<&[u8]> = match message.is_empty() {
            true => vec![message],
            false => message.chunks(self.timing.chunk_bytes.max(1)).collect(),
        };
        let last = chunks.len() - 1;
        let parts = chunks.into_iter().enumerate().map(|(at, part)| Data {
            sequence: 0,
            is_final: at == last,
            is_ping: false,
            payload: part.to_vec(),
        });
        self.sent.waiting.extend(parts);
        self.fill_window(now);
        Ok(())
    }

    /// Closes it. One packet more is to be sent.
    pub fn close(&mut self) {
        if self.over().is_none() {
            self.output.clear();
            self.output.push_back(Packet::Fin);
            self.state = State::Over(Over::Closed);
        }
    }

    /// The next packet for the stream.
    pub fn next_packet(&mut self) -> Option<Vec<u8>> {
        self.output.pop_front().map(|packet| packet.write())
    }

    /// The next message of the other end.
    pub fn next_message(&mut self) -> Option<Vec<u8>> {
        let message = self.received.messages.pop_front()?;
        self.received.message_bytes -= message.len();
        Some(message)
    }

    /// Takes a packet from the stream.
    pub fn received(&mut self, now: Instant, bytes: &[u8]) {
        if self.over().is_some() {
            return;
        }
        let Some(packet) = Packet::read(bytes) else {
            return self.end(Over::Malformed);
        };
        (self.heard, self.pinged) = (now, None);
        match (self.state, packet) {
            (_, Packet::Fin) => self.end(Over::ByPeer),
            (State::Calling, Packet::Syn { window }) => self.answered(now, window),
            (State::Listening | State::Answered, Packet::Syn { window }) => self.answer(window),
            // Of a connection that was before.
            (State::Calling | State::Listening, _) => {}
            (State::Answered, Packet::SynAck) => self.open(now),
            // The confirmation was lost, or comes later.
            (State::Answered, packet @ Packet::Data(_)) => {
                self.open(now);
                self.take(now, packet);
            }
            (State::Answered, _) => {}
            (_, packet) => self.take(now, packet),
        }
    }

    /// Does what is due.
    pub fn advance(&mut self, now: Instant) {
        match self.state {
            State::Calling if now >= self.called + self.timing.handshake => {
                self.called = now;
                let window = self.timing.window;
                self.output.push_back(Packet::Syn { window });
            }
            State::Open => self.keep_up(now),
            _ => {}
        }
    }

    /// When [`GoBackN::advance`] is due.
    pub fn next_due(&self) -> Option<Instant> {
        match self.state {
            State::Calling => Some(self.called + self.timing.handshake),
            State::Open => {
                let alive = match self.pinged {
                    Some(at) => at + self.timing.pong,
                    None => self.heard + self.timing.ping,
                };
                let resend = self.resend_due();
                Some(resend.map_or(alive, |resend| resend.min(alive)))
            }
            State::Listening | State::Answered | State::Over(_) => None,
        }
    }

    // -- The handshake.

    fn answered(&mut self, now: Instant, window: u8) {
        if window != self.timing.window {
            return self.end(Over::Window);
        }
        self.output.push_back(Packet::SynAck);
        self.open(now);
    }

    fn answer(&mut self, window: u8) {
        if window == 0 || window == u8::MAX {
            return self.end(Over::Window);
        }
        self.timing.window = window;
        self.output.push_back(Packet::Syn { window });
        self.state = State::Answered;
    }

    fn open(&mut self, now: Instant) {
        self.state = State::Open;
        self.fill_window(now);
    }

    fn end(&mut self, over: Over) {
        self.output.clear();
        self.state = State::Over(over);
    }

    // -- Packets of an open connection.

    fn take(&mut self, now: Instant, packet: Packet) {
        match packet {
            Packet::Data(data) => self.take_data(now, data),
            Packet::Ack { sequence } => {
                let count = self.place_of(sequence).map(|place| place + 1);
                self.acknowledged(now, count.unwrap_or(0));
            }
            Packet::Nack { sequence } => self.asked_again(now, sequence),
            // The client repeats its call when the answer came late.
            Packet::Syn { .. } if self.role == Role::Client => {}
            Packet::Syn { .. } => self.end(Over::Restarted),
            Packet::SynAck | Packet::Fin => {}
        }
    }

    fn take_data(&mut self, now: Instant, data: Data) {
        if data.sequence != self.received.next {
            return self.ask_again(now);
        }
        if self.received.message_bytes + data.payload.len() > MAX_WAITING_BYTES {
            // Not acknowledged, it comes again when the messages before it were read.
            return;
        }
        self.received.next = self.after(data.sequence);
        self.received.asked = None;
        let sequence = data.sequence;
        self.output.push_back(Packet::Ack { sequence });
        if data.is_ping {
            return;
        }
        self.received.parts.extend(data.payload);
        if self.received.parts.len() > MAX_MESSAGE_BYTES {
            return self.end(Over::TooLong);
        }
        if data.is_final {
            let message = std::mem::take(&mut self.received.parts);
            self.received.message_bytes += message.len();
            self.received.messages.push_back(message);
        }
    }

    /// Asks for the packet that comes next, unless that was done a moment ago.
    fn ask_again(&mut self, now: Instant) {
        let sequence = self.received.next;
        let pause = 2 * self.resend_after();
        let is_recent = |(asked, at): &(u8, Instant)| *asked == sequence && now < *at + pause;
        if !self.received.asked.as_ref().is_some_and(is_recent) {
            self.received.asked = Some((sequence, now));
            self.output.push_back(Packet::Nack { sequence });
        }
    }

    fn asked_again(&mut self, now: Instant, sequence: u8) {
        if sequence == self.top() {
            let all = self.sent.under_way.len();
            return self.acknowledged(now, all);
        }
        if let Some(place) = self.place_of(sequence) {
            self.acknowledged(now, place);
            self.resend(now);
        }
    }

    /// The first `count` packets under way have come.
    fn acknowledged(&mut self, now: Instant, count: usize) {
        let numbers = self.numbers();
        for it in self.sent.under_way.drain(..count) {
            if !it.is_resent {
                self.sent.round_trip = now.saturating_duration_since(it.at);
            }
            self.sent.waiting_bytes -= it.data.payload.len();
            self.sent.base = (self.sent.base + 1) % numbers;
        }
        self.fill_window(now);
    }

    fn fill_window(&mut self, now: Instant) {
        while self.state == State::Open && self.has_room() {
            let Some(data) = self.sent.waiting.pop_front() else {
                return;
            };
            self.number(now, data);
        }
    }

    fn number(&mut self, now: Instant, data: Data) {
        let sequence = self.top();
        let data = Data { sequence, ..data };
        self.output.push_back(Packet::Data(data.clone()));
        self.sent.under_way.push_back(UnderWay {
            data,
            at: now,
            is_resent: false,
        });
    }

    // -- Time.

    fn keep_up(&mut self, now: Instant) {
        if self.pinged.is_some_and(|at| now >= at + self.timing.pong) {
            return self.end(Over::Silent);
        }
        if self.resend_due().is_some_and(|due| now >= due) {
            self.resend(now);
        }
        if self.pinged.is_none() && now >= self.heard + self.timing.ping {
            self.pinged = Some(now);
            if self.has_room() {
                self.number(
                    now,
                    Data {
                        sequence: 0,
                        is_final: false,
                        is_ping: true,
                        payload: Vec::new(),
                    },
                );
            }
        }
    }

    fn resend_due(&self) -> Option<Instant> {
        let first = self.sent.under_way.front()?;
        let last = self.sent.resent.map_or(first.at, |at| at.max(first.at));
        Some(last.max(self.heard) + self.resend_after())
    }

    fn resend_after(&self) -> Duration {
        let by_round_trip = (5 * self.sent.round_trip).min(LONGEST_RESEND);
        self.timing.resend.max(by_round_trip)
    }

    /// Sends all again that is under way, unless it was done a moment ago: two ends that ask each other again and again would never end.
    fn resend(&mut self, now: Instant) {
        let is_recent = |at: Instant| now < at + self.timing.resend;
        if self.sent.resent.is_some_and(is_recent) {
            return;
        }
        self.sent.resent = Some(now);
        for it in &mut self.sent.under_way {
            it.is_resent = true;
            self.output.push_back(Packet::Data(it.data.clone()));
        }
    }

    // -- Numbers.

    /// How many there are: one more than the window, so that a repeated packet is told from a new one.
    fn numbers(&self) -> u8 {
        self.timing.window.saturating_add(1)
    }

    fn after(&self, sequence: u8) -> u8 {
        (sequence + 1) % self.numbers()
    }

    /// The number of the next packet.
    fn top(&self) -> u8 {
        let place = usize::from(self.sent.base) + self.sent.under_way.len();
        (place % usize::from(self.numbers())) as u8
    }

    fn has_room(&self) -> bool {
        self.sent.under_way.len() < usize::from(self.timing.window)
    }

    /// The place of a number among the packets under way.
    fn place_of(&self, sequence: u8) -> Option<usize> {
        let numbers = usize::from(self.numbers());
        let places: Range<usize> = 0..self.sent.under_way.len();
        let mut places = places.into_iter();
        places
            .find(|place| (usize::from(self.sent.base) + place) % numbers == usize::from(sequence))
    }
}

#[cfg(test)]
#[path = "tests/go_back_n.rs"]
mod tests;
