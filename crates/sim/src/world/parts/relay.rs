//! The relay: a real mailbox in this process, at which the host and the phones meet, and all that it can do wrong.
//!
//! A step is a message that it passes on, but for pings and their answers, which come as time passes and carry nothing. What
//! goes wrong on the way to or from the relay is a connection's (`line`).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use longhand_link::carrier::mailbox::stream::StreamId;
use longhand_link::{Carrier, CarrierError, RecordSink, RecordStream};
use longhand_mailbox::Mailbox;
use longhand_mailbox::core::Limits;
use longhand_proto::mailbox::{ClientMessage, ServerMessage, client_message, server_message};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::line::{LineEnd, LineSink, LineStream, broken};
use super::{Client, Life, Line, News, hashmail, lock};
use crate::world::plan::{How, Interruption, Kind, Plan};

/// A message that was due so long ago has been taken.
const ARRIVED: Duration = Duration::from_millis(1);

/// One process of the relay, with all that it holds in memory.
pub struct SimRelay {
    mailbox: Mailbox,
    pub life: Arc<Life>,
    plan: Plan,
    news: mpsc::UnboundedSender<News>,
    /// Nothing that it passes on arrives before.
    slow_until: Mutex<Instant>,
    /// How long it stays away once it has died.
    away: Mutex<Duration>,
}

/// The streams that a client has attached on one connection, by their handles.
type Streams = Arc<Mutex<HashMap<u32, StreamId>>>;

impl SimRelay {
    /// A relay without connections. Needs a Tokio runtime.
    pub fn start(plan: &Plan, news: &mpsc::UnboundedSender<News>) -> Arc<SimRelay> {
        Arc::new(SimRelay {
            mailbox: Mailbox::embed(Limits::default()),
            life: Life::begin(News::RelayDied, news.clone()),
            plan: plan.clone(),
            news: news.clone(),
            slow_until: Mutex::new(Instant::now()),
            away: Mutex::default(),
        })
    }

    /// A new connection of a client at this distance.
    pub fn connect(
        self: &Arc<SimRelay>,
        client: Client,
        life: &Arc<Life>,
        distance: Duration,
        connected: &Arc<()>,
    ) -> Carrier {
        let lives = [life.clone(), self.life.clone()];
        let [near, LineEnd { sink, stream }] = Line::lay(
            client, lives, distance, &self.plan, is_step, &self.news, connected,
        );
        let streams = Streams::default();
        let sink = Leaving {
            relay: Arc::downgrade(self),
            client,
            distance,
            to: sink,
            streams: streams.clone(),
            held: None,
        };
        let stream = Coming {
            from: stream,
            streams,
        };
        self.mailbox.take(Carrier::new(sink, stream));
        near.into_carrier()
    }

    /// A new connection of a client to its hashmail.
    pub fn connect_hashmail(
        self: &Arc<SimRelay>,
        client: Client,
        life: &Arc<Life>,
        distance: Duration,
        connected: &Arc<()>,
    ) -> Option<LineEnd> {
        let lives = [life.clone(), self.life.clone()];
        let (plan, news) = (&self.plan, &self.news);
        let is_step = hashmail::is_step;
        let [near, far] = Line::lay(client, lives, distance, plan, is_step, news, connected);
        let connection = self.mailbox.hashmail()?;
        tokio::spawn(hashmail::serve(
            Arc::downgrade(self),
            connection,
            far,
            distance,
        ));
        Some(near)
    }

    /// How long it stays away once it has died.
    pub fn away(&self) -> Duration {
        *lock(&self.away)
    }

    /// A message is about to leave: how that is interrupted, if it is a step and is interrupted.
    pub fn step(&self, is_step: bool, to: &LineSink) -> Option<Interruption> {
        let interruption = is_step.then(|| self.plan.step(Kind::Relay)).flatten();
        if let Some(late) = interruption.filter(|it| it.how == How::Late) {
            self.slow_down(late);
        }
        to.hold_back(*lock(&self.slow_until));
        interruption
    }

    /// Dies when what it has just sent has arrived: what is in transit from a process that has ended does not.
    pub async fn die_after(&self, distance: Duration, interruption: Interruption) {
        tokio::time::sleep(distance + ARRIVED).await;
        self.die(interruption);
    }

    pub fn die(&self, interruption: Interruption) {
        *lock(&self.away) = interruption.length.time();
        self.life.end();
    }

    fn slow_down(&self, interruption: Interruption) {
        *lock(&self.slow_until) = Instant::now() + interruption.length.time();
    }
}

/// Whether a message on a connection to the relay is a step, in this direction.
fn is_step(way: usize, message: &[u8]) -> bool {
    use {client_message::Body as Asked, server_message::Body};
    match way {
        0 => !matches!(
            ClientMessage::decode(message).map(|message| message.body),
            Ok(Some(Asked::Ping(_) | Asked::Pong(_)))
        ),
        _ => !matches!(
            ServerMessage::decode(message).map(|message| message.body),
            Ok(Some(Body::Ping(_) | Body::Pong(_)))
        ),
    }
}

/// The handle of the stream that a message of the relay's is about.
fn handle(message: &[u8]) -> Option<u32> {
    use server_message::Body;
    match ServerMessage::decode(message).ok()?.body? {
        Body::Attached(attached) => Some(attached.handle),
        Body::Ended(ended) => Some(ended.handle),
        Body::Data(data) => Some(data.handle),
        Body::Welcome(_) | Body::Ping(_) | Body::Pong(_) => None,
    }
}

/// Messages of one connection that leave the relay.
struct Leaving {
    relay: Weak<SimRelay>,
    client: Client,
    distance: Duration,
    to: LineSink,
    streams: Streams,
    held: Option<Held>,
}

/// Messages that others overtake.
struct Held {
    handle: Option<u32>,
    messages: Vec<Vec<u8>>,
}

impl Leaving {
    /// Passes a message on, and then what it has overtaken. On the host's connection only another stream's overtakes: the
    /// order within a stream stays. On a phone's, which has one stream, the next message does.
    async fn pass(&mut self, message: Vec<u8>) -> Result<(), CarrierError> {
        let is_host = self.client == Client::Host;
        let same = |held: &Held| is_host && held.handle == handle(&message);
        match self.held.take() {
            Some(mut held) if same(&held) => {
                held.messages.push(message);
                self.held = Some(held);
            }
            held => {
                self.to.send(message).await?;
                for overtaken in held.into_iter().flat_map(|held| held.messages) {
                    self.to.send(overtaken).await?;
                }
            }
        }
        Ok(())
    }

    async fn hold(&mut self, message: Vec<u8>) -> Result<(), CarrierError> {
        let held = Held {
            handle: handle(&message),
            messages: vec![message],
        };
        for older in self
            .held
            .replace(held)
            .into_iter()
            .flat_map(|it| it.messages)
        {
            self.to.send(older).await?;
        }
        Ok(())
    }

    fn stream_of(&self, message: &[u8]) -> Option<StreamId> {
        lock(&self.streams).get(&handle(message)?).copied()
    }
}

#[async_trait]
impl RecordSink for Leaving {
    async fn send(&mut self, message: Vec<u8>) -> Result<(), CarrierError> {
        let relay = self.relay.upgrade().filter(|it| !it.life.has_ended());
        let relay = relay.ok_or_else(broken)?;
        let interruption = relay.step(is_step(1, &message), &self.to);
        let Some(interruption) = interruption else {
            return self.pass(message).await;
        };
        match interruption.how {
            How::Late => self.pass(message).await,
            How::Twice => {
                self.pass(message.clone()).await?;
                self.pass(message).await
            }
            How::Swapped => self.hold(message).await,
            How::Lost => Ok(()),
            How::Dropped => {
                if let Some(stream) = self.stream_of(&message) {
                    relay.mailbox.drop_stream(stream);
                }
                Ok(())
            }
            How::After => {
                let passed = self.pass(message).await;
                relay.die_after(self.distance, interruption).await;
                passed
            }
            _ => {
                relay.die(interruption);
                Err(broken())
            }
        }
    }
}

/// Messages of one connection that come to the relay.
struct Coming {
    from: LineStream,
    streams: Streams,
}

#[async_trait]
impl RecordStream for Coming {
    async fn recv(&mut self) -> Result<Option<Vec<u8>>, CarrierError> {
        let received = self.from.recv().await;
        if let Ok(Some(message)) = &received
            && let Some((handle, stream)) = attached(message)
        {
            lock(&self.streams).insert(handle, stream);
        }
        received
    }
}

/// The stream that a client attaches by this message, and its handle.
fn attached(message: &[u8]) -> Option<(u32, StreamId)> {
    match ClientMessage::decode(message).ok()?.body? {
        client_message::Body::Attach(attach) => {
            let key = attach.public_key.as_slice().try_into().ok()?;
            Some((attach.handle, StreamId::of(key)))
        }
        _ => None,
    }
}
