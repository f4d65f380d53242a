//! The host's end: waits at a mailbox for all whom it expects, over one trunk, or over one for each route.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::future::join_all;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{Duration, Instant};

use super::meetings::{Change, Expected, Meeting, Meetings};
use super::pump::{Pump, User};
use super::stream::{End, StreamKey};
use super::trunk::{Event, Line, Trunk};
use super::{ROUTE, below};
use crate::carrier::{Carrier, CarrierError, DialOptions, Listener};
use crate::key::random;
use crate::{Address, LinkError, PairingSecret, Rendezvous};

/// The routes of a mailbox of several processes.
const ROUTES: [char; 16] = [
    '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
];
/// Connections of phones that wait to be taken.
const ARRIVING: usize = 64;
/// Streams that are attached at once: each takes a signature.
const ATTACHED_AT_ONCE: usize = 64;
/// The pause before a mailbox is dialled again doubles from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A trunk that lasted so long, from the mailbox's first answer, was good.
const GOOD_AFTER: Duration = Duration::from_secs(10);
/// For dialling the mailbox.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause before a stream that the mailbox has ended is attached again doubles from the first to the longest, within
/// [`FORGIVEN_AFTER`] of the last time.
const FIRST_AGAIN: Duration = Duration::from_millis(100);
const LONGEST_AGAIN: Duration = Duration::from_secs(30);
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// See the module. Dropping it leaves the mailbox; links that came by it end.
pub struct MailboxListener {
    address: Address,
    arriving: mpsc::Receiver<Carrier>,
    connected: watch::Receiver<bool>,
    reconnect: Reconnect,
    task: AbortHandle,
}

/// Has a listener dial its mailbox anew. Clones are for the same listener.
#[derive(Clone, Debug, Default)]
pub struct Reconnect(pub(in crate::carrier) Arc<watch::Sender<u64>>);

impl Reconnect {
    /// At once, though the connection may look alive: the machine was suspended, or is on another network. The links that came by
    /// the mailbox end, and their phones come back.
    pub fn now(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl MailboxListener {
    /// Waits at the mailbox at `address` (`mailbox+wss://host:port`) for all of `meetings`, from now on and whatever becomes of the
    /// mailbox. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`LinkError::Address`] when it is no mailbox's address.
    pub fn open(
        address: &Address,
        options: DialOptions,
        meetings: &Meetings,
    ) -> Result<MailboxListener, LinkError> {
        let below = MailboxListener::check(address)?;
        let (arrived, arriving) = mpsc::channel(ARRIVING);
        let (is_connected, connected) = watch::channel(false);
        let reconnect = Reconnect::default();
        let waiting = Waiting {
            reconnect: reconnect.clone(),
            trunks_down: AtomicUsize::new(1),
            authority: address.authority().to_owned(),
            below,
            options,
            meetings: meetings.clone(),
            arrived,
            is_connected,
        };
        let task = tokio::spawn(async move { waiting.wait().await }).abort_handle();
        Ok(MailboxListener {
            address: address.clone(),
            arriving,
            connected,
            reconnect,
            task,
        })
    }

    /// For when the machine's network has changed.
    pub fn reconnect(&self) -> Reconnect {
        self.reconnect.clone()
    }

    /// The address of the mailbox itself.
    ///
    /// # Errors
    /// [`LinkError::Address`] when `address` is no mailbox's.
    pub fn check(address: &Address) -> Result<Address, LinkError> {
        let refused = |reason: &str| LinkError::Address {
            address: address.to_string(),
            reason: reason.into(),
        };
        if address.parameters().next().is_some() {
            return Err(refused("a mailbox's address has no parameters"));
        }
        below(address).ok_or_else(|| refused("a mailbox is written as mailbox+wss://host:port"))
    }

    /// Whether the host is connected to the mailbox now, to each of its processes.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.clone()
    }
}

#[async_trait]
impl Listener for MailboxListener {
    fn addresses(&self) -> Vec<Address> {
        vec![self.address.clone()]
    }

    async fn accept(&mut self) -> Option<Carrier> {
        self.arriving.recv().await
    }
}

impl Drop for MailboxListener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Waiting {
    authority: String,
    /// The mailbox, without `mailbox+`.
    below: Address,
    options: DialOptions,
    meetings: Meetings,
    arrived: mpsc::Sender<Carrier>,
    is_connected: watch::Sender<bool>,
    /// Of the trunks that there should be.
    trunks_down: AtomicUsize,
    reconnect: Reconnect,
}

impl Waiting {
    async fn wait(&self) {
        // Returns when there are several processes.
        self.keep(None).await;
        self.trunks_down.store(ROUTES.len(), Ordering::Relaxed);
        join_all(ROUTES.map(|route| self.keep(Some(route)))).await;
    }

    /// Keeps a trunk for one route, or for all; returns when all need one each.
    async fn keep(&self, route: Option<char>) {
        let mut pause = FIRST_PAUSE;
        let mut reconnect = self.reconnect.0.subscribe();
        loop {
            let error = tokio::select! {
                biased;
                // Fails never: `self` has the sender.
                Ok(()) = reconnect.changed() => {
                    pause = FIRST_PAUSE;
                    continue;
                }
                ended = self.once(route) => match ended {
                    Ok(After::Split) => return,
                    Ok(After::Again { error, was_good }) => {
                        if was_good {
                            pause = FIRST_PAUSE;
                        }
                        error.to_string()
                    }
                    Err(error) => error.to_string(),
                },
            };
            if pause == FIRST_PAUSE {
                tracing::warn!(mailbox = %self.authority, "phones cannot come by the mailbox now: {error}");
            }
            tokio::select! {
                biased;
                Ok(()) = reconnect.changed() => pause = FIRST_PAUSE,
                () = tokio::time::sleep(pause.mul_f64(jitter())) => pause = LONGEST_PAUSE.min(pause * 2),
            }
        }
    }

    /// One trunk, from its beginning to its end.
    async fn once(&self, route: Option<char>) -> Result<After, LinkError> {
        let carrier = self.dial(route).await?;
        let mut user = Host::new(self, route);
        let ended = Pump::new(End::Host).run(carrier, &mut user).await;
        if user.must_split {
            return Ok(After::Split);
        }
        let was_good = user.ready_at.is_some_and(|at| at.elapsed() >= GOOD_AFTER);
        Ok(After::Again {
            error: ended,
            was_good,
        })
    }

    /// A trunk is connected.
    fn up(&self) {
        let before = self.trunks_down.fetch_sub(1, Ordering::Relaxed);
        self.is_connected.send_replace(before == 1);
    }

    /// A trunk that was connected is no longer.
    fn down(&self) {
        self.trunks_down.fetch_add(1, Ordering::Relaxed);
        self.is_connected.send_replace(false);
    }

    async fn dial(&self, route: Option<char>) -> Result<Carrier, LinkError> {
        let address = match route {
            Some(route) => self.below.clone().with(ROUTE, &route.to_string()),
            None => Ok(self.below.clone()),
        };
        let address = address.map_err(|_| LinkError::UnknownCarrier(self.below.to_string()))?;
        let nobody = Rendezvous::nobody();
        let dialled = self.options.carriers.dial(&address, &self.options, &nobody);
        let dialled = tokio::time::timeout(DIAL_TIMEOUT, dialled).await;
        dialled.unwrap_or_else(|_| {
            Err(LinkError::Unreachable {
                address: self.below.to_string(),
                reason: "it does not answer".into(),
            })
        })
    }
}

/// The end of a trunk.
enum After {
    /// It is dialled again.
    Again {
        /// Why it ended.
        error: CarrierError,
        /// It lasted: the mailbox works.
        was_good: bool,
    },
    /// Each route needs a trunk of its own.
    Split,
}

/// The host's use of one trunk.
struct Host<'a> {
    waiting: &'a Waiting,
    route: Option<char>,
    changes: mpsc::UnboundedReceiver<Change>,
    handles: HashMap<Expected, u32>,
    expected: HashMap<u32, (Expected, StreamKey)>,
    /// Streams to attach again, and when.
    again: Vec<(Instant, Expected, StreamKey)>,
    /// When a stream was last ended by the mailbox, and the pause after that.
    ended: HashMap<Expected, (Instant, Duration)>,
    /// Since when the streams are attached.
    ready_at: Option<Instant>,
    must_split: bool,
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        if self.ready_at.is_some() {
            self.waiting.down();
        }
    }
}

impl<'a> Host<'a> {
    fn new(waiting: &'a Waiting, route: Option<char>) -> Host<'a> {
        Host {
            waiting,
            route,
            changes: waiting.meetings.follow(),
            handles: HashMap::new(),
            expected: HashMap::new(),
            again: Vec::new(),
            ended: HashMap::new(),
            ready_at: None,
            must_split: false,
        }
    }

    fn take(&mut self, trunk: &mut Trunk, change: Change) {
        match change {
            // Only hashmail mailboxes have those.
            #[cfg(feature = "hashmail")]
            Change::Added(_, Meeting::Words(_)) => {}
            Change::Added(expected, Meeting::Shared(meeting)) => {
                self.detach(trunk, &expected);
                let key = StreamKey::new(&meeting, &self.waiting.authority);
                if self.route.is_none_or(|route| route == key.id().route()) {
                    self.attach(trunk, expected, key);
                }
            }
            Change::Removed(expected) => {
                self.again.retain(|(_, other, _)| *other != expected);
                self.ended.remove(&expected);
                if let Some(handle) = self.handles.remove(&expected) {
                    trunk.leave(handle);
                }
            }
        }
    }

    /// The pause before a stream that the mailbox has ended is attached again.
    fn pause_of(&mut self, expected: Expected) -> Duration {
        let now = Instant::now();
        let before = self.ended.get(&expected);
        let recent = before.filter(|(at, _)| now.duration_since(*at) < FORGIVEN_AFTER);
        let pause = recent.map_or(FIRST_AGAIN, |(_, pause)| LONGEST_AGAIN.min(*pause * 2));
        self.ended.insert(expected, (now, pause));
        pause
    }

    fn attach(&mut self, trunk: &mut Trunk, expected: Expected, key: StreamKey) {
        let handle = trunk.attach(key.clone());
        self.handles.insert(expected, handle);
        self.expected.insert(handle, (expected, key));
    }

    fn detach(&mut self, trunk: &mut Trunk, expected: &Expected) {
        self.again.retain(|(_, other, _)| other != expected);
        if let Some(handle) = self.handles.remove(expected) {
            self.expected.remove(&handle);
            trunk.detach(handle);
        }
    }
}

impl User for Host<'_> {
    const ENDS_WITH_CARRIERS: bool = false;

    async fn change(&mut self, trunk: &mut Trunk) -> Result<(), CarrierError> {
        // Before the mailbox has answered it is not known whether all streams belong on this trunk.
        if self.ready_at.is_none() {
            return std::future::pending().await;
        }
        let due = self.again.iter().map(|(at, ..)| *at).min();
        tokio::select! {
            biased;
            Some(change) = self.changes.recv() => {
                self.take(trunk, change);
                for _ in 1..ATTACHED_AT_ONCE {
                    let Ok(change) = self.changes.try_recv() else { break };
                    self.take(trunk, change);
                }
            }
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                let now = Instant::now();
                let (due, later) = self.again.drain(..).partition(|(at, ..)| *at <= now);
                self.again = later;
                let due: Vec<(Instant, Expected, StreamKey)> = due;
                for (_, expected, key) in due {
                    self.attach(trunk, expected, key);
                }
            }
        }
        Ok(())
    }

    fn event(&mut self, trunk: &mut Trunk, event: Event) -> Result<(), CarrierError> {
        match event {
            Event::Ready { has_routes } => {
                if has_routes && self.route.is_none() {
                    self.must_split = true;
                    return Err(CarrierError("each route needs a connection".into()));
                }
                self.ready_at = Some(Instant::now());
                // A mailbox closes a connection without a stream, and this host may expect nobody here yet.
                if let Ok(secret) = PairingSecret::generate() {
                    let meeting = Rendezvous::of_pairing(&secret);
                    trunk.attach(StreamKey::new(&meeting, &self.waiting.authority));
                }
                self.waiting.up();
                tracing::info!(mailbox = %self.waiting.authority, "phones can come by the mailbox");
                Ok(())
            }
            Event::Ended {
                handle,
                code,
                message,
            } => {
                if let Some((expected, key)) = self.expected.remove(&handle)
                    && self.handles.get(&expected) == Some(&handle)
                {
                    self.handles.remove(&expected);
                    tracing::warn!(stream = %key.id().for_logs(), code, "the mailbox ended a stream: {message}");
                    let pause = self.pause_of(expected);
                    self.again.push((Instant::now() + pause, expected, key));
                }
                Ok(())
            }
            Event::Left(handle) => {
                self.expected.remove(&handle);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn opened(&mut self, _: Line, carrier: Carrier) {
        // Too many phones come at once: this one dials again.
        if self.waiting.arrived.try_send(carrier).is_err() {
            tracing::debug!("too many phones come by the mailbox at once: one was not let in");
        }
    }
}

/// A factor from one half to one, so that the hosts of a mailbox that was restarted do not dial it at once.
fn jitter() -> f64 {
    let bytes: [u8; 2] = random().unwrap_or_default();
    0.5 + f64::from(u16::from_be_bytes(bytes)) / f64::from(u16::MAX) / 2.0
}
