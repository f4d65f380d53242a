//! What outlives links: requests both ways, resumed on the next link of the same two processes.
//!
//! The protocol itself is in [`crate::core`]. All of a peer's state is behind one lock that is never held
//! across an await; a request is encrypted and handed to the writer by the task that asks, so that nothing
//! stands between it and the carrier.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use longhand_proto::link::Request;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Duration, Instant};

use crate::carrier::{Carrier, RecordSink, RecordStream};
use crate::core::handshake::Established;
use crate::core::requests::{Answer, Requests, refusal};
use crate::core::session::{Event, Session};
use crate::core::{Config, Side};
use crate::error::{CloseCode, CloseReason, LinkError};
use crate::key::{Instance, random};

/// How long a closed link goes on trying to hand over what was already queued.
const LINGER: Duration = Duration::from_secs(5);
/// A link on which this many of the largest frames wait for the carrier is given up.
const QUEUED_FRAMES: usize = 16;

/// One side of the conversation with one other process, over however many links it takes. Clones are handles
/// on the same one. It is down until its first link is live.
#[derive(Clone)]
pub struct Peer {
    shared: Arc<Shared>,
}

struct Shared {
    started: Instant,
    config: Config,
    instance: Instance,
    /// Why there is no link and none is waited for; `None` while there is one or the grace runs.
    down: watch::Sender<Option<CloseReason>>,
    incoming: mpsc::UnboundedSender<Incoming>,
    state: Mutex<State>,
}

struct State {
    requests: Requests,
    waiting: HashMap<u64, oneshot::Sender<Result<Vec<u8>, LinkError>>>,
    /// Requests of the other side in execution; true once they are no longer wanted.
    executing: HashMap<(Instance, u64), watch::Sender<bool>>,
    live: Option<Live>,
    /// Counts links, so that what belongs to an old one can tell.
    generation: u64,
}

struct Live {
    session: Session,
    outbox: Outbox,
    end: Arc<LinkEnd>,
}

struct Outbox {
    records: mpsc::UnboundedSender<Vec<u8>>,
    /// Bytes queued and not yet taken by the carrier.
    queued: Arc<AtomicUsize>,
}

/// What a [`Link`] still knows when its session is gone.
struct LinkEnd {
    generation: u64,
    closed: watch::Sender<Option<CloseReason>>,
    detach: watch::Sender<bool>,
    ended: watch::Sender<bool>,
}

impl Peer {
    /// A peer, and what is asked of it.
    ///
    /// # Errors
    /// [`LinkError::Randomness`].
    pub fn new(side: Side, config: Config) -> Result<(Peer, IncomingRequests), LinkError> {
        let instance = Instance(random()?);
        let (incoming, requests) = mpsc::unbounded_channel();
        let never = CloseReason::local(CloseCode::Lost, "there has been no link yet");
        let state = State {
            requests: Requests::new(side, config.clone(), instance),
            waiting: HashMap::new(),
            executing: HashMap::new(),
            live: None,
            generation: 0,
        };
        let shared = Shared {
            started: Instant::now(),
            config,
            instance,
            down: watch::Sender::new(Some(never)),
            incoming,
            state: Mutex::new(state),
        };
        Ok((
            Peer {
                shared: Arc::new(shared),
            },
            IncomingRequests { inner: requests },
        ))
    }

    /// This process, as the other side knows it.
    pub fn instance(&self) -> Instance {
        self.shared.instance
    }

    /// As given to [`Peer::new`].
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Asks the other side and waits for the answer, also across a new link within the grace. Dropping the
    /// future cancels the request.
    ///
    /// # Errors
    /// [`LinkError::Down`] at once when the peer is down, or when it becomes so; [`LinkError::Restarted`];
    /// [`LinkError::Refused`]; [`LinkError::TooLarge`].
    pub async fn request(&self, kind: &str, payload: Vec<u8>) -> Result<Vec<u8>, LinkError> {
        let (id, answer) = self.shared.ask(kind, payload)?;
        let mut withdrawal = Withdrawal {
            shared: &self.shared,
            id: Some(id),
        };
        let answer = answer.await;
        withdrawal.id = None;
        answer.unwrap_or(Err(LinkError::Restarted))
    }

    /// The live link, if there is one.
    pub fn link(&self) -> Option<Link> {
        let state = self.shared.lock();
        let live = state.live.as_ref()?;
        Some(Link {
            shared: self.shared.clone(),
            end: live.end.clone(),
        })
    }

    /// Waits until the peer is down: its link closed for good, or broke and the grace is over. Returns at once
    /// when it is.
    pub async fn down(&self) -> CloseReason {
        let mut down = self.shared.down.subscribe();
        let reason = down
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|reason| reason.clone());
        reason.unwrap_or_else(|| CloseReason::local(CloseCode::Lost, "the peer is gone"))
    }

    /// Ends the live link with `code` and fails what is asked, without waiting for the grace.
    pub fn give_up(&self, code: CloseCode, message: &str) {
        let mut state = self.shared.lock();
        let now_ms = self.shared.now_ms();
        if let Some(live) = &mut state.live {
            live.session.close(code.clone(), message, now_ms);
            self.shared.flush(&mut state);
        }
        self.shared
            .go_down(&mut state, CloseReason::local(code, message));
    }

    /// Says `Hello` over an authenticated carrier and, when the other side has answered, makes it the live
    /// link. An older one is closed with `REPLACED`.
    pub(crate) async fn establish(
        &self,
        mut carrier: Carrier,
        established: Established,
    ) -> Result<Link, LinkError> {
        let shared = &self.shared;
        let mut session = Session::new(established, &shared.lock().requests, shared.now_ms());
        loop {
            while let Some(record) = session.poll_record() {
                let sent = carrier.sink.send(record).await;
                sent.map_err(|e| LinkError::Carrier(e.to_string()))?;
            }
            while let Some(event) = session.poll_event() {
                if let Event::Closed(reason) = event {
                    return Err(LinkError::Closed(reason));
                }
            }
            let received = carrier.stream.recv().await;
            let record = received.map_err(|e| LinkError::Carrier(e.to_string()))?;
            let record =
                record.ok_or_else(|| LinkError::Carrier("the other side hung up".into()))?;
            let mut state = shared.lock();
            session.receive(&mut state.requests, &record, shared.now_ms());
            if session.is_open() {
                return Ok(shared.install(&mut state, session, carrier));
            }
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({})", self.shared.instance)
    }
}

/// Withdraws a request whose asker no longer waits.
struct Withdrawal<'a> {
    shared: &'a Arc<Shared>,
    id: Option<u64>,
}

impl Drop for Withdrawal<'_> {
    fn drop(&mut self) {
        let Some(id) = self.id else { return };
        let mut state = self.shared.lock();
        state.waiting.remove(&id);
        let now_ms = self.shared.now_ms();
        if state.requests.withdraw(id) {
            if let Some(live) = &mut state.live {
                live.session.cancel(id, now_ms);
                self.shared.flush(&mut state);
            }
        }
    }
}

type Waiting = oneshot::Receiver<Result<Vec<u8>, LinkError>>;

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn ask(self: &Arc<Self>, kind: &str, payload: Vec<u8>) -> Result<(u64, Waiting), LinkError> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if let Some(reason) = self.down.borrow().clone() {
            return Err(LinkError::Down(reason));
        }
        let id = state.requests.ask(kind, payload)?;
        let (tell, answer) = oneshot::channel();
        state.waiting.insert(id, tell);
        if let Some(live) = &mut state.live {
            live.session.request(&mut state.requests, id, self.now_ms());
            self.flush(state);
        }
        Ok((id, answer))
    }

    fn answer(self: &Arc<Self>, remote: Instance, id: u64, answer: Answer) {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.executing.remove(&(remote, id));
        let to_send = state.requests.answer(remote, id, answer);
        if let (Some(answer), Some(live)) = (to_send, &mut state.live) {
            live.session.answer(id, answer, self.now_ms());
            self.flush(state);
        }
    }

    /// Makes an open session the live one and starts its tasks.
    fn install(self: &Arc<Self>, state: &mut State, session: Session, carrier: Carrier) -> Link {
        self.replace(state);
        state.generation += 1;
        let (records, leaving) = mpsc::unbounded_channel();
        let queued = Arc::new(AtomicUsize::new(0));
        let outbox = Outbox {
            records,
            queued: queued.clone(),
        };
        let end = Arc::new(LinkEnd {
            generation: state.generation,
            closed: watch::Sender::new(None),
            detach: watch::Sender::new(false),
            ended: watch::Sender::new(false),
        });
        state.live = Some(Live {
            session,
            outbox,
            end: end.clone(),
        });
        self.down.send_replace(None);
        self.flush(state);
        let link = Link {
            shared: self.clone(),
            end,
        };
        let writer = tokio::spawn(write(link.clone(), carrier.sink, leaving, queued));
        tokio::spawn(drive(link.clone(), carrier.stream, writer));
        link
    }

    /// Closes the live link, if there is one, in favour of a newer one: what is asked goes on there.
    fn replace(&self, state: &mut State) {
        let Some(mut old) = state.live.take() else {
            return;
        };
        let message = "a newer link of the same owner took over";
        old.session
            .close(CloseCode::Replaced, message, self.now_ms());
        while let Some(record) = old.session.poll_record() {
            old.outbox.push(record);
        }
        let reason = CloseReason::local(CloseCode::Replaced, message);
        old.end.closed.send_replace(Some(reason));
    }

    /// Moves on what the live session has for others.
    fn flush(self: &Arc<Self>, state: &mut State) {
        while let Some(live) = &mut state.live {
            while let Some(record) = live.session.poll_record() {
                live.outbox.push(record);
            }
            if live.outbox.queued.load(Ordering::Relaxed) > QUEUED_FRAMES * self.config.max_frame {
                live.session
                    .lost("the other side does not read what it is sent");
            }
            let Some(event) = live.session.poll_event() else {
                return;
            };
            self.handle(state, event);
        }
    }

    fn handle(self: &Arc<Self>, state: &mut State, event: Event) {
        match event {
            Event::Open { resumed, remote } => {
                tracing::debug!(%remote, resumed, "link open");
            }
            Event::Request { remote, request } => self.take_in(state, remote, request),
            Event::Cancelled { remote, id } => {
                if let Some(unwanted) = state.executing.get(&(remote, id)) {
                    unwanted.send_replace(true);
                }
            }
            Event::Answered { id, answer } => {
                if let Some(waiting) = state.waiting.remove(&id) {
                    // Whoever asked may have left.
                    let _ = waiting.send(answer);
                }
            }
            Event::DetachRequested => {
                if let Some(live) = &state.live {
                    live.end.detach.send_replace(true);
                }
            }
            Event::Closed(reason) => self.closed(state, reason),
        }
    }

    fn take_in(self: &Arc<Self>, state: &mut State, remote: Instance, request: Request) {
        let Request { id, kind, payload } = request;
        let (unwanted, cancelled) = watch::channel(false);
        state.executing.insert((remote, id), unwanted);
        let ticket = Some((self.clone(), remote, id));
        let incoming = Incoming {
            kind,
            payload,
            responder: Responder { ticket, cancelled },
        };
        if let Err(mut undelivered) = self.incoming.send(incoming) {
            // Nobody serves requests. The responder must not answer on its own: the lock is held here.
            undelivered.0.responder.ticket = None;
            state.executing.remove(&(remote, id));
            let nobody = refusal("UNANSWERED", "nobody answers requests here");
            let to_send = state.requests.answer(remote, id, Err(nobody));
            if let (Some(answer), Some(live)) = (to_send, &mut state.live) {
                live.session.answer(id, answer, self.now_ms());
            }
        }
    }

    fn closed(&self, state: &mut State, reason: CloseReason) {
        let Some(live) = state.live.take() else {
            return;
        };
        tracing::debug!(code = %reason.code, by_peer = reason.by_peer, "link closed: {}", reason.message);
        live.end.closed.send_replace(Some(reason.clone()));
        if !reason.code.is_resumable() {
            self.go_down(state, reason);
        }
    }

    fn go_down(&self, state: &mut State, reason: CloseReason) {
        state.requests.withdraw_all();
        self.down.send_replace(Some(reason.clone()));
        for (_, waiting) in state.waiting.drain() {
            // Whoever asked may have left.
            let _ = waiting.send(Err(LinkError::Down(reason.clone())));
        }
    }
}

impl Outbox {
    fn push(&self, record: Vec<u8>) {
        self.queued.fetch_add(record.len(), Ordering::Relaxed);
        // The writer is gone only when the carrier broke, and then the link is closed too.
        let _ = self.records.send(record);
    }
}

/// Hands records to the carrier, in order, until the link's session has dropped its end of the queue.
async fn write(
    link: Link,
    mut sink: Box<dyn RecordSink>,
    mut leaving: mpsc::UnboundedReceiver<Vec<u8>>,
    queued: Arc<AtomicUsize>,
) {
    let hand_over = async {
        while let Some(record) = leaving.recv().await {
            let length = record.len();
            if let Err(error) = sink.send(record).await {
                link.with_session(|session, _, _| session.lost(&error.to_string()));
                return;
            }
            queued.fetch_sub(length, Ordering::Relaxed);
        }
    };
    let too_long = async {
        link.closed().await;
        tokio::time::sleep(LINGER).await;
    };
    tokio::select! {
        () = hand_over => {}
        () = too_long => {}
    }
}

/// Feeds the link's session with records and the time; then sees the connection and the grace to their ends.
async fn drive(link: Link, mut stream: Box<dyn RecordStream>, writer: JoinHandle<()>) {
    while let Some(deadline) = link.deadline() {
        tokio::select! {
            received = stream.recv() => link.with_session(|session, requests, now_ms| match &received {
                Ok(Some(record)) => session.receive(requests, record, now_ms),
                Ok(None) => session.lost("the other side hung up"),
                Err(error) => session.lost(&error.to_string()),
            }),
            () = tokio::time::sleep_until(deadline) => {
                link.with_session(|session, _, now_ms| session.tick(now_ms));
            }
            _ = link.closed() => {}
        }
    }
    let drained = async {
        // Some carriers lose what was sent when the receiving half goes first.
        let _ = writer.await;
        let rest = async { while let Ok(Some(_)) = stream.recv().await {} };
        let _ = tokio::time::timeout(LINGER, rest).await;
        link.end.ended.send_replace(true);
    };
    tokio::join!(drained, link.wait_out_grace());
}

/// What the other side asks, in order of arrival; each request once, however often it was sent.
pub struct IncomingRequests {
    inner: mpsc::UnboundedReceiver<Incoming>,
}

impl IncomingRequests {
    /// The next request. `None` when every handle on the [`Peer`] is gone.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.inner.recv().await
    }
}

/// A request of the other side.
pub struct Incoming {
    /// What the payload is: `signer` or `command`.
    pub kind: String,
    /// The request itself.
    pub payload: Vec<u8>,
    /// Where the answer goes.
    pub responder: Responder,
}

/// Answers one request, over whichever link is there by then. Dropped without an answer it refuses with
/// `UNANSWERED`.
pub struct Responder {
    /// Taken by the answer.
    ticket: Option<(Arc<Shared>, Instance, u64)>,
    cancelled: watch::Receiver<bool>,
}

impl Responder {
    /// Answers.
    pub fn respond(mut self, payload: Vec<u8>) {
        self.answer(Ok(payload));
    }

    /// Refuses, with a stable code and one line for a person.
    pub fn refuse(mut self, code: &str, message: &str) {
        self.answer(Err(refusal(code, message)));
    }

    /// Waits until the other side no longer wants the answer. What has begun need not stop.
    pub async fn cancelled(&self) {
        if self
            .cancelled
            .clone()
            .wait_for(|cancelled| *cancelled)
            .await
            .is_err()
        {
            std::future::pending().await
        }
    }

    fn answer(&mut self, answer: Answer) {
        if let Some((shared, remote, id)) = self.ticket.take() {
            shared.answer(remote, id, answer);
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.answer(Err(refusal(
            "UNANSWERED",
            "the request was given up without an answer: ask again",
        )));
    }
}

/// One live connection. Clones are handles on the same one.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
    end: Arc<LinkEnd>,
}

impl Link {
    /// The conversation this link belongs to.
    pub fn peer(&self) -> Peer {
        Peer {
            shared: self.shared.clone(),
        }
    }

    /// See [`Peer::request`].
    ///
    /// # Errors
    /// As [`Peer::request`].
    pub async fn request(&self, kind: &str, payload: Vec<u8>) -> Result<Vec<u8>, LinkError> {
        self.peer().request(kind, payload).await
    }

    /// Waits until this link has ended, and says why. A peer may still be within its grace then: see
    /// [`Peer::down`].
    pub async fn closed(&self) -> CloseReason {
        let mut closed = self.end.closed.subscribe();
        let reason = closed
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|reason| reason.clone());
        reason.unwrap_or_else(|| CloseReason::local(CloseCode::Lost, "the link is gone"))
    }

    /// Waits until this link has ended and the carrier has taken, or given up, all that was to be sent: what
    /// a process does before it exits. Takes seconds at most once the link is closed.
    pub async fn ended(&self) {
        let _ = self.end.ended.subscribe().wait_for(|ended| *ended).await;
    }

    /// Asks the other side to finish the step in hand, waits until it has, and ends the link with `DETACHED`.
    ///
    /// # Errors
    /// [`LinkError::Down`] when the link ended before the other side agreed.
    pub async fn detach(&self) -> Result<(), LinkError> {
        self.with_session(|session, _, now_ms| session.detach(now_ms));
        match self.closed().await {
            reason if reason.code == CloseCode::Detached => Ok(()),
            reason => Err(LinkError::Down(reason)),
        }
    }

    /// Waits until the other side asks to detach; pends for ever when the link ends before.
    pub async fn detach_requested(&self) {
        let _ = self.end.detach.subscribe().wait_for(|asked| *asked).await;
    }

    /// Everything is settled: lets the other side go, and ends the link with `DETACHED`.
    pub fn confirm_detach(&self) {
        self.with_session(|session, _, now_ms| session.confirm_detach(now_ms));
    }

    /// Ends the link with a stable code and one line for a person.
    pub fn close(&self, code: CloseCode, message: &str) {
        self.with_session(|session, _, now_ms| session.close(code, message, now_ms));
    }

    /// Acts on the session while it is the live one.
    fn with_session(&self, act: impl FnOnce(&mut Session, &mut Requests, u64)) {
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        let Some(live) = &mut state.live else { return };
        if live.end.generation == self.end.generation {
            act(&mut live.session, &mut state.requests, self.shared.now_ms());
            self.shared.flush(state);
        }
    }

    /// When the session wants to be ticked; `None` once it is no longer the live one.
    fn deadline(&self) -> Option<Instant> {
        let state = self.shared.lock();
        let live = state.live.as_ref()?;
        let timeout_ms = live.session.next_timeout_ms()?;
        let mine = live.end.generation == self.end.generation;
        mine.then(|| self.shared.started + Duration::from_millis(timeout_ms))
    }

    async fn wait_out_grace(&self) {
        let reason = self.closed().await;
        if !reason.code.is_resumable() {
            return;
        }
        tokio::time::sleep(self.shared.config.grace).await;
        let mut state = self.shared.lock();
        let newest = state.generation == self.end.generation;
        if newest && self.shared.down.borrow().is_none() {
            self.shared.go_down(&mut state, reason);
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Link({} of {})",
            self.end.generation, self.shared.instance
        )
    }
}
