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

/// The bytes that wait, to be sent or to be read: of messages, and what each takes beside its own.
const MAX_WAITING_BYTES: usize = 8 << 20;
const BYTES_PER_MESSAGE: usize = 64;
/// The longest message.
const MAX_JOINED_BYTES: usize = 4 << 20;
/// What packets are sent again after is not longer than this part of the time after which a silent end is given up.
const RESENDS_PER_PONG: u32 = 3;
const LONGEST_RESEND: Duration = Duration::from_secs(15);

/// Times and sizes. The defaults fit stock ends.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timing {
    /// Packets that may be on their way, 1 to 254; the client's counts.
    pub window: u8,
    /// The most bytes of a message in one packet.
    pub chunk_bytes: usize,
    /// After so long a `SYN` is sent again.
    pub handshake: Duration,
    /// After so long without an acknowledgement, or five round trips if that is longer, packets are sent again; after twice as long the
    /// next time.
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

impl Timing {
    /// With values that can be.
    fn bounded(self) -> Timing {
        const SHORTEST: Duration = Duration::from_millis(10);
        const LONGEST: Duration = Duration::from_secs(3_600);
        let bounded = |time: Duration| time.clamp(SHORTEST, LONGEST);
        Timing {
            window: self.window.clamp(1, u8::MAX - 1),
            chunk_bytes: self.chunk_bytes.max(1),
            handshake: bounded(self.handshake),
            resend: bounded(self.resend),
            ping: bounded(self.ping),
            pong: bounded(self.pong),
        }
    }
}

impl Data {
    fn waiting_bytes(&self) -> usize {
        self.payload.len() + BYTES_PER_MESSAGE
    }
}

impl Received {
    fn bytes(&self) -> usize {
        self.message_bytes + self.parts.len()
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
    #[error("a message of the other side is longer than {MAX_JOINED_BYTES} bytes")]
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
    #[error("a message of {0} bytes is too long: {MAX_JOINED_BYTES} at most")]
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
    /// When a ping was due that nothing has answered.
    pinged: Option<Instant>,
    /// When `SYN` was sent last.
    called: Option<Instant>,
    /// When a packet of an earlier connection was answered last.
    refused: Option<Instant>,
}

/// What this end sends.
struct Sent {
    /// Parts of messages that are not numbered yet.
    waiting: VecDeque<Data>,
    waiting_bytes: usize,
    /// Those that are not acknowledged, in order, the first with the number `base`.
    under_way: VecDeque<UnderWay>,
    base: u8,
    /// When packets were acknowledged, or sent again, last.
    moved: Instant,
    resent: Option<Instant>,
    round_trip: Duration,
    /// How often all were sent again since the last acknowledgement.
    tries: u32,
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
        let timing = timing.bounded();
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
                moved: now,
                resent: None,
                round_trip: Duration::ZERO,
                tries: 0,
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
            called: (role == Role::Client).then_some(now),
            refused: None,
        }
    }

    /// Whether all that was sent has come.
    pub fn is_all_acknowledged(&self) -> bool {
        self.sent.waiting.is_empty() && self.sent.under_way.is_empty()
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
        self.check_room(message.len())?;
        let chunks: Vec<&[u8]> = match message.is_empty() {
            true => vec![message],
            false => message.chunks(self.timing.chunk_bytes).collect(),
        };
        let last = chunks.len() - 1;
        let parts = chunks.into_iter().enumerate().map(|(at, part)| Data {
            sequence: 0,
            is_final: at == last,
            is_ping: false,
            payload: part.to_vec(),
        });
        let parts: Vec<Data> = parts.collect();
        self.sent.waiting_bytes += parts.iter().map(Data::waiting_bytes).sum::<usize>();
        self.sent.waiting.extend(parts);
        self.fill_window(now);
        Ok(())
    }

    /// Whether a message of this length can be sent now.
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn check_room(&self, length: usize) -> Result<(), SendError> {
        if let State::Over(over) = self.state {
            return Err(over.into());
        }
        if length > MAX_JOINED_BYTES {
            return Err(SendError::TooLong(length));
        }
        let parts = length.div_ceil(self.timing.chunk_bytes).max(1);
        let bytes = length.saturating_add(parts.saturating_mul(BYTES_PER_MESSAGE));
        match self.sent.waiting_bytes.saturating_add(bytes) > MAX_WAITING_BYTES {
            true => Err(SendError::Full),
            false => Ok(()),
        }
    }

    /// Closes it; one packet more is to be sent. What waits, or may not have come, is lost: see [`GoBackN::is_all_acknowledged`].
    pub fn close(&mut self) {
        if self.over().is_none() {
            self.end(Over::Closed);
        }
    }

    /// The next packet for the stream.
    pub fn next_packet(&mut self) -> Option<Vec<u8>> {
        self.output.pop_front().map(|packet| packet.write())
    }

    /// The next message of the other end.
    pub fn next_message(&mut self) -> Option<Vec<u8>> {
        let message = self.received.messages.pop_front()?;
        self.received.message_bytes -= message.len() + BYTES_PER_MESSAGE;
        Some(message)
    }

    /// Takes a packet from the stream. One after which it is [`Over::Restarted`] belongs to the next connection.
    pub fn received(&mut self, now: Instant, bytes: &[u8]) {
        if self.over().is_some() {
            return;
        }
        let Some(packet) = Packet::read(bytes) else {
            return self.end(Over::Malformed);
        };
        (self.heard, self.pinged) = (now, None);
        match (self.state, packet) {
            (State::Calling, Packet::Syn { window }) => self.answered(now, window),
            (State::Listening | State::Answered, Packet::Syn { window }) => {
                self.answer(now, window)
            }
            // Of a connection that was before. The other end of one that is open does not know yet that this end has gone.
            (State::Listening, Packet::Data(_) | Packet::Ack { .. } | Packet::Nack { .. }) => {
                self.refuse(now);
            }
            (State::Calling | State::Listening, _) => {}
            (_, Packet::Fin) => self.end(Over::ByPeer),
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
            State::Calling if self.call_due().is_some_and(|due| now >= due) => {
                self.called = Some(now);
                let window = self.timing.window;
                self.put_once(Packet::Syn { window });
            }
            State::Open => self.keep_up(now),
            _ => {}
        }
    }

    /// When [`GoBackN::advance`] is due.
    pub fn next_due(&self) -> Option<Instant> {
        match self.state {
            State::Calling => self.call_due(),
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

    fn call_due(&self) -> Option<Instant> {
        self.called.map(|at| at + self.timing.handshake)
    }

    fn answered(&mut self, now: Instant, window: u8) {
        if window != self.timing.window {
            return self.end(Over::Window);
        }
        self.output.push_back(Packet::SynAck);
        self.open(now);
    }

    /// Calls that have waited in the mailbox together have one answer: a stock client that is open ends with a second.
    fn answer(&mut self, now: Instant, window: u8) {
        if window == 0 || window == u8::MAX {
            return self.end(Over::Window);
        }
        let is_recent = |at: Instant| now < at + self.timing.handshake / 2;
        let has_answered = self.state == State::Answered && self.timing.window == window;
        if has_answered && self.called.is_some_and(is_recent) {
            return;
        }
        self.timing.window = window;
        self.called = Some(now);
        self.put_once(Packet::Syn { window });
        self.state = State::Answered;
    }

    /// The answer to the call has taken a round trip.
    fn open(&mut self, now: Instant) {
        let called = self.called.unwrap_or(now);
        self.sent.round_trip = now.saturating_duration_since(called);
        self.sent.moved = now;
        self.state = State::Open;
        self.fill_window(now);
    }

    /// Has the other end of a connection that is not here any more close it, in place of its pings. A client that calls takes no notice.
    fn refuse(&mut self, now: Instant) {
        let is_recent = |at: Instant| now < at + self.timing.handshake / 2;
        if !self.refused.is_some_and(is_recent) {
            self.refused = Some(now);
            self.put_once(Packet::Fin);
        }
    }

    fn end(&mut self, over: Over) {
        self.output.clear();
        if over != Over::ByPeer && over != Over::Restarted {
            self.output.push_back(Packet::Fin);
        }
        self.state = State::Over(over);
    }

    /// Puts a packet out that is not there already.
    fn put_once(&mut self, packet: Packet) {
        if !self.output.contains(&packet) {
            self.output.push_back(packet);
        }
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
        if !data.is_ping && self.received.bytes() + data.waiting_bytes() > MAX_WAITING_BYTES {
            // It comes again when the messages before it were read. The number of one that has come says that this end is there.
            let sequence = self.before(data.sequence);
            return self.put_once(Packet::Ack { sequence });
        }
        self.received.next = self.after(data.sequence);
        self.received.asked = None;
        let sequence = data.sequence;
        self.put_once(Packet::Ack { sequence });
        if data.is_ping {
            return;
        }
        self.received.parts.extend(data.payload);
        if self.received.parts.len() > MAX_JOINED_BYTES {
            return self.end(Over::TooLong);
        }
        if data.is_final {
            let message = std::mem::take(&mut self.received.parts);
            self.received.message_bytes += message.len() + BYTES_PER_MESSAGE;
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
            self.put_once(Packet::Nack { sequence });
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
        if count > 0 {
            self.sent.moved = now;
            self.sent.tries = 0;
        }
        for it in self.sent.under_way.drain(..count) {
            if !it.is_resent {
                self.sent.round_trip = now.saturating_duration_since(it.at);
            }
            self.sent.waiting_bytes -= it.data.waiting_bytes();
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
            match self.has_room() {
                true => self.ping(now),
                // What is under way asks for an answer as well.
                false => self.resend(now),
            }
        }
    }

    fn ping(&mut self, now: Instant) {
        let ping = Data {
            sequence: 0,
            is_final: false,
            is_ping: true,
            payload: Vec::new(),
        };
        self.sent.waiting_bytes += ping.waiting_bytes();
        self.number(now, ping);
    }

    fn resend_due(&self) -> Option<Instant> {
        let first = self.sent.under_way.front()?;
        Some(first.at.max(self.sent.moved) + self.resend_after())
    }

    /// Other packets of the other end do not count: it may acknowledge nothing, and be there.
    fn resend_after(&self) -> Duration {
        let longest = LONGEST_RESEND.min(self.timing.pong / RESENDS_PER_PONG);
        let patience = self.timing.resend.max(5 * self.sent.round_trip);
        let patience = patience.saturating_mul(1 << self.sent.tries.min(8));
        patience.min(longest.max(self.timing.resend))
    }

    /// Sends all again that is under way, unless the answer to the last time may still come: two ends that ask each other again and again
    /// would never end. Copies that have not left yet are not sent twice.
    fn resend(&mut self, now: Instant) {
        let pause = self.timing.resend.max(self.sent.round_trip * 3 / 2);
        if self.sent.resent.is_some_and(|at| now < at + pause) {
            return;
        }
        self.sent.resent = Some(now);
        self.sent.moved = now;
        self.sent.tries += 1;
        self.output
            .retain(|packet| !matches!(packet, Packet::Data(_)));
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

    fn before(&self, sequence: u8) -> u8 {
        match sequence {
            0 => self.timing.window,
            number => number - 1,
        }
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
