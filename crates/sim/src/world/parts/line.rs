//! A link's carrier.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use longhand_link::{Carrier, CarrierError, RecordSink, RecordStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::{Client, Life, News, lock};
use crate::world::plan::{How, Interruption, Kind, Plan};

/// A record, and when it arrives.
type Sent = (Instant, Vec<u8>);

/// Whether a message in this direction is a step.
pub type IsStep = fn(usize, &[u8]) -> bool;

/// One connection of a phone to the host, or of either to the relay. It ends with either process, or when it is cut.
pub struct Line {
    client: Client,
    lives: [Arc<Life>; 2],
    /// From the client, and to it.
    ways: [Mutex<Way>; 2],
    distance: Duration,
    plan: Plan,
    is_step: IsStep,
    news: mpsc::UnboundedSender<News>,
    /// Counts the connection, as long as one of its ends is held.
    _connected: Arc<()>,
}

/// One direction.
struct Way {
    /// `None` once it has ended: records in transit still arrive.
    sender: Option<mpsc::UnboundedSender<Sent>>,
    /// No record arrives any more, nor the end of the stream; sending returns no error.
    is_silent: bool,
    /// The next record overtakes this one.
    held: Option<Vec<u8>>,
    /// No record arrives before.
    not_before: Instant,
    distance: Duration,
}

impl Line {
    /// The client's end and the other. `lives` are the client's and the other's.
    pub fn lay(
        client: Client,
        lives: [Arc<Life>; 2],
        distance: Duration,
        plan: &Plan,
        is_step: IsStep,
        news: &mpsc::UnboundedSender<News>,
        connected: &Arc<()>,
    ) -> [LineEnd; 2] {
        let (up, beyond) = Way::open(distance);
        let (down, at_client) = Way::open(distance);
        let line = Arc::new(Line {
            client,
            lives,
            ways: [up, down].map(Mutex::new),
            distance,
            plan: plan.clone(),
            is_step,
            news: news.clone(),
            _connected: connected.clone(),
        });
        [line.end(0, at_client), line.end(1, beyond)]
    }

    /// The end that sends on `way`.
    fn end(self: &Arc<Line>, way: usize, arriving: mpsc::UnboundedReceiver<Sent>) -> LineEnd {
        let sink = LineSink {
            line: self.clone(),
            way,
        };
        let stream = LineStream {
            line: self.clone(),
            way: 1 - way,
            arriving,
            next: None,
            breaks: self.lives.each_ref().map(|life| life.breaks.subscribe()),
            ends: self.lives.each_ref().map(|life| life.ended.subscribe()),
        };
        LineEnd { sink, stream }
    }

    /// Drops the connection; the client cannot reconnect for a while.
    fn cut(&self, interruption: Interruption) -> CarrierError {
        for way in &self.ways {
            lock(way).sender = None;
        }
        let (client, away) = (self.client, interruption.length.time());
        let _ = self.news.send(News::LinkDropped { client, away });
        broken()
    }

    fn send(&self, way: usize, record: Vec<u8>) -> Result<(), CarrierError> {
        let is_dead = self.lives.iter().any(|life| life.has_ended());
        if is_dead || lock(&self.ways[way]).sender.is_none() {
            return Err(broken());
        }
        self.plan.trace(Kind::Frame, (self.client, way, &record));
        let is_step = (self.is_step)(way, &record);
        let interruption = is_step.then(|| self.plan.step(Kind::Frame)).flatten();
        let mut to = lock(&self.ways[way]);
        let Some(interruption) = interruption else {
            to.send(record);
            return Ok(());
        };
        match interruption.how {
            How::Twice => {
                to.send(record.clone());
                to.send(record);
            }
            How::Swapped => {
                if let Some(held) = to.held.replace(record) {
                    to.send_now(held);
                }
            }
            How::Late => {
                to.not_before = Instant::now() + self.distance + interruption.length.time();
                to.send(record);
            }
            How::OneWay => to.is_silent = true,
            How::Silent => {
                to.is_silent = true;
                lock(&self.ways[1 - way]).is_silent = true;
            }
            how => {
                if how == How::After {
                    to.send(record);
                }
                drop(to);
                return Err(self.cut(interruption));
            }
        }
        Ok(())
    }
}

impl Way {
    fn open(distance: Duration) -> (Way, mpsc::UnboundedReceiver<Sent>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let way = Way {
            sender: Some(sender),
            is_silent: false,
            held: None,
            not_before: Instant::now(),
            distance,
        };
        (way, receiver)
    }

    fn send(&mut self, record: Vec<u8>) {
        self.send_now(record);
        if let Some(held) = self.held.take() {
            self.send_now(held);
        }
    }

    fn send_now(&mut self, record: Vec<u8>) {
        let due = self.not_before.max(Instant::now() + self.distance);
        if let Some(sender) = self.sender.as_ref().filter(|_| !self.is_silent) {
            // Fails when the receiver is gone, which is no error here.
            let _ = sender.send((due, record));
        }
    }
}

pub fn broken() -> CarrierError {
    CarrierError("the line is dead".into())
}

/// One end of a line.
pub struct LineEnd {
    pub sink: LineSink,
    pub stream: LineStream,
}

impl LineEnd {
    pub fn into_carrier(self) -> Carrier {
        Carrier::new(self.sink, self.stream)
    }
}

pub struct LineSink {
    line: Arc<Line>,
    way: usize,
}

impl LineSink {
    /// Nothing that is sent from now on arrives before.
    pub fn hold_back(&self, until: Instant) {
        let mut way = lock(&self.line.ways[self.way]);
        way.not_before = way.not_before.max(until);
    }
}

#[async_trait]
impl RecordSink for LineSink {
    async fn send(&mut self, record: Vec<u8>) -> Result<(), CarrierError> {
        self.line.send(self.way, record)
    }
}

impl Drop for LineSink {
    /// The other end gets the end of the stream, unless this direction is silent.
    fn drop(&mut self) {
        let mut way = lock(&self.line.ways[self.way]);
        if !way.is_silent {
            way.sender = None;
        }
    }
}

pub struct LineStream {
    line: Arc<Line>,
    way: usize,
    arriving: mpsc::UnboundedReceiver<Sent>,
    /// In transit, and not due yet.
    next: Option<Sent>,
    breaks: [watch::Receiver<u32>; 2],
    ends: [watch::Receiver<bool>; 2],
}

impl Drop for LineStream {
    /// The other end's next send fails, unless this direction is silent.
    fn drop(&mut self) {
        let mut way = lock(&self.line.ways[self.way]);
        if !way.is_silent {
            way.sender = None;
        }
    }
}

/// The next record once it is due; `None` at the end of the stream.
async fn arrived(
    arriving: &mut mpsc::UnboundedReceiver<Sent>,
    next: &mut Option<Sent>,
) -> Option<Vec<u8>> {
    if next.is_none() {
        *next = arriving.recv().await;
    }
    if let Some((due, _)) = next {
        sleep_until(*due).await;
    }
    next.take().map(|(_, record)| record)
}

#[async_trait]
impl RecordStream for LineStream {
    /// Records in transit when the line was cut still arrive; none come from or to a process that has ended.
    async fn recv(&mut self) -> Result<Option<Vec<u8>>, CarrierError> {
        let LineStream {
            arriving,
            next,
            breaks: [first, second],
            ends: [one, other],
            ..
        } = self;
        tokio::select! {
            biased;
            _ = one.wait_for(|ended| *ended) => Err(broken()),
            _ = other.wait_for(|ended| *ended) => Err(broken()),
            received = arrived(arriving, next) => Ok(received),
            _ = first.changed() => Err(broken()),
            _ = second.changed() => Err(broken()),
        }
    }
}
