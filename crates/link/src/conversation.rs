//! Conversations: requests both ways between two processes, resumed on their next link when one breaks.
//!
//! The protocol itself is in [`crate::core`]. All of a conversation's state is behind one lock that is never held
//! across an await; a request is encrypted and handed to the writer by the task of its caller, so that no other task delays it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longhand_base::runtime::{Runtime, Task};
use longhand_proto::Code;
use longhand_proto::link::Request;
use tokio::sync::{mpsc, oneshot, watch};

use crate::carrier::Carrier;
use crate::core::handshake::Established;
use crate::core::requests::{Answer, Requests, refusal};
use crate::core::session::{Event, Session};
use crate::core::{Config, Side};
use crate::error::{CloseCode, CloseReason, LinkError};
use crate::incoming::{Incoming, IncomingRequests, Responder};
use crate::key::{Instance, LinkKey, random};
use crate::link::{Link, LinkEnd, Outbox};

/// The most of the largest frames that may wait for the carrier; a link with more is ended as lost.
const QUEUED_FRAMES: usize = 16;

pub(crate) const UNKNOWN_OWNER: &str = "this phone is not paired with the host: get a pairing code";

/// A conversation with another process, over one link after the other. Clones are handles on the same one. It is down until its
/// first link is live.
#[derive(Clone)]
pub struct Conversation {
    pub(crate) shared: Arc<Shared>,
}

/// A conversation's state, held by its handles, its live link's tasks and the requests in execution.
pub(crate) struct Shared {
    pub(crate) runtime: Arc<dyn Runtime>,
    config: Config,
    instance: Instance,
    /// The reason why there is no link and none is awaited; `None` while there is one or the grace runs.
    down: watch::Sender<Option<CloseReason>>,
    incoming: mpsc::UnboundedSender<Incoming>,
    state: Mutex<State>,
}

struct State {
    requests: Requests,
    waiting: HashMap<u64, oneshot::Sender<Result<Vec<u8>, LinkError>>>,
    /// Requests of the other side in execution; true once they are cancelled.
    executing: HashMap<(Instance, u64), watch::Sender<bool>>,
    live: Option<Live>,
    /// The other side's static key on the newest link.
    remote: Option<LinkKey>,
    admitted: Admitted,
    /// The number of times that the conversation went down.
    outages: u64,
    /// Tasks of the live link, and of earlier ones that have not ended yet.
    tasks: Vec<Task>,
    /// Counts links, so that tasks and handles of an old link recognise it.
    generation: u64,
}

struct Live {
    session: Session,
    outbox: Outbox,
    end: Arc<LinkEnd>,
}

/// The keys whose links may be live.
enum Admitted {
    Anyone,
    Nobody,
    Only(LinkKey),
}

impl Admitted {
    fn admits(&self, remote: &LinkKey) -> bool {
        match self {
            Admitted::Anyone => true,
            Admitted::Nobody => false,
            Admitted::Only(one) => one == remote,
        }
    }
}

impl Conversation {
    /// A conversation whose tasks and timers are on `runtime`, and the requests of the other side.
    ///
    /// # Errors
    /// [`LinkError::Randomness`].
    pub fn new(
        side: Side,
        config: Config,
        runtime: Arc<dyn Runtime>,
    ) -> Result<(Conversation, IncomingRequests), LinkError> {
        let instance = Instance(random()?);
        let (incoming, requests) = mpsc::unbounded_channel();
        let never = CloseReason::local(CloseCode::Lost, "there has been no link yet");
        let state = State {
            requests: Requests::new(side, config.clone(), instance),
            waiting: HashMap::new(),
            executing: HashMap::new(),
            live: None,
            remote: None,
            admitted: Admitted::Anyone,
            outages: 0,
            tasks: Vec::new(),
            generation: 0,
        };
        let shared = Shared {
            runtime,
            config,
            instance,
            down: watch::Sender::new(Some(never)),
            incoming,
            state: Mutex::new(state),
        };
        Ok((
            Conversation {
                shared: Arc::new(shared),
            },
            IncomingRequests::new(requests),
        ))
    }

    /// This process, as the other side knows it.
    pub fn instance(&self) -> Instance {
        self.shared.instance
    }

    /// As given to [`Conversation::new`].
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Sets what this side says of the layer above at the beginning of each link from now on, at most 4 KiB.
    pub fn set_greeting(&self, greeting: Vec<u8>) {
        self.shared.lock().requests.set_greeting(greeting);
    }

    /// What the other side has said so on the live link, or on the last one.
    pub fn greeting(&self) -> Vec<u8> {
        self.shared.lock().requests.remote_greeting.clone()
    }

    /// Sends a request and waits for the response, also across a new link within the grace. Dropping the future cancels the
    /// request.
    ///
    /// # Errors
    /// [`LinkError::Down`] at once when the conversation is down, or when it becomes so; [`LinkError::Restarted`];
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

    /// Waits until the conversation is down: its link closed for good, or broke and the grace is over. Returns at once
    /// when it is.
    pub async fn down(&self) -> CloseReason {
        let mut down = self.shared.down.subscribe();
        let reason = down
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|reason| reason.clone());
        reason.unwrap_or_else(|| CloseReason::local(CloseCode::Lost, "the conversation is gone"))
    }

    /// The number of times that this conversation went down. By it a caller of [`Conversation::down`] recognises one that is up
    /// again.
    pub fn outages(&self) -> u64 {
        self.shared.lock().outages
    }

    /// From now on only links with the static key `remote` become live, and none at all without one. A live link of
    /// another is closed with `UNKNOWN_OWNER`, its grace is over, and pending requests fail. A new conversation admits every key.
    pub fn admit(&self, remote: Option<LinkKey>) {
        let mut state = self.shared.lock();
        state.admitted = remote.map_or(Admitted::Nobody, Admitted::Only);
        let is_out = |remote: &LinkKey| !state.admitted.admits(remote);
        if state.remote.as_ref().is_some_and(is_out) && self.shared.down.borrow().is_none() {
            self.shared
                .give_up(&mut state, CloseCode::UnknownOwner, UNKNOWN_OWNER);
        }
    }

    /// Closes the live link with `code` and fails pending requests, without waiting for the grace.
    pub fn give_up(&self, code: CloseCode, message: &str) {
        self.shared.give_up(&mut self.shared.lock(), code, message);
    }

    /// Ends the live link and its tasks at once, without a `Close`: the other side sees the connection break, as when this process
    /// is killed. Pending requests fail.
    pub fn abandon(&self) {
        let mut state = self.shared.lock();
        for task in state.tasks.drain(..) {
            task.abort();
        }
        let reason = CloseReason::local(CloseCode::Lost, "this side has gone");
        if let Some(live) = state.live.take() {
            live.end.closed.send_replace(Some(reason.clone()));
        }
        self.shared.go_down(&mut state, reason);
    }

    /// Sends `Hello` over an authenticated carrier, and makes it the live link when the `Hello` of the other side arrives. An older
    /// link is closed with `REPLACED`; a key that is no longer admitted is refused.
    pub(crate) async fn establish(
        &self,
        mut carrier: Carrier,
        established: Established,
    ) -> Result<Link, LinkError> {
        let shared = &self.shared;
        let remote = established.remote;
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
            if !state.admitted.admits(&remote) {
                session.close(CloseCode::UnknownOwner, UNKNOWN_OWNER, shared.now_ms());
                continue;
            }
            session.receive(&mut state.requests, &record, shared.now_ms());
            if session.is_open() {
                return Ok(shared.install(&mut state, session, remote, carrier));
            }
        }
    }
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Conversation({})", self.shared.instance)
    }
}

/// Withdraws a request whose caller no longer waits.
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
        if state.requests.withdraw(id)
            && let Some(live) = &mut state.live
        {
            live.session.cancel(id, now_ms);
            self.shared.flush(&mut state);
        }
    }
}

type Waiting = oneshot::Receiver<Result<Vec<u8>, LinkError>>;

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.runtime.uptime().as_millis()).unwrap_or(u64::MAX)
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

    /// Calls `act` with the session of the link with this generation, if it is the live one.
    pub(crate) fn with_session(
        self: &Arc<Self>,
        generation: u64,
        act: impl FnOnce(&mut Session, &mut Requests, u64),
    ) {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(live) = &mut state.live else { return };
        if live.end.generation == generation {
            act(&mut live.session, &mut state.requests, self.now_ms());
            self.flush(state);
        }
    }

    /// The uptime at the next tick of this generation's session; `None` once it is no longer the live one.
    pub(crate) fn deadline(&self, generation: u64) -> Option<Duration> {
        let state = self.lock();
        let live = state
            .live
            .as_ref()
            .filter(|live| live.end.generation == generation)?;
        let timeout_ms = live.session.next_timeout_ms()?;
        Some(Duration::from_millis(timeout_ms))
    }

    /// Waits out the grace of the link with this generation, which ended for `reason`.
    pub(crate) async fn wait_out_grace(&self, generation: u64, reason: CloseReason) {
        if !reason.code.is_resumable() {
            return;
        }
        self.runtime.sleep(self.config.grace).await;
        let mut state = self.lock();
        if state.generation == generation && self.down.borrow().is_none() {
            self.go_down(&mut state, reason);
        }
    }

    /// Keeps the response to a request in execution, and sends it when there is a link.
    pub(crate) fn answer(self: &Arc<Self>, remote: Instance, id: u64, answer: Answer) {
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
    fn install(
        self: &Arc<Self>,
        state: &mut State,
        session: Session,
        remote: LinkKey,
        carrier: Carrier,
    ) -> Link {
        self.replace(state);
        state.generation += 1;
        let (outbox, leaving) = Outbox::new();
        let end = Arc::new(LinkEnd::new(state.generation));
        state.live = Some(Live {
            session,
            outbox,
            end: end.clone(),
        });
        state.remote = Some(remote);
        self.down.send_replace(None);
        self.flush(state);
        let link = Link {
            shared: self.clone(),
            end,
        };
        state.tasks.retain(|task| !task.is_ended());
        state.tasks.extend(link.start(carrier, leaving));
        link
    }

    fn give_up(self: &Arc<Self>, state: &mut State, code: CloseCode, message: &str) {
        if let Some(live) = &mut state.live {
            live.session.close(code.clone(), message, self.now_ms());
            self.flush(state);
        }
        self.go_down(state, CloseReason::local(code, message));
    }

    /// Closes the live link, if there is one, in favour of a newer one, on which pending requests go on.
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

    /// Hands the records of the live session to its writer, and acts on its events.
    fn flush(self: &Arc<Self>, state: &mut State) {
        while let Some(live) = &mut state.live {
            while let Some(record) = live.session.poll_record() {
                live.outbox.push(record);
            }
            if live.outbox.queued() > QUEUED_FRAMES * self.config.max_frame {
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
            Event::Open {
                resumed,
                remote,
                agent,
            } => {
                tracing::debug!(%remote, resumed, agent, "link open");
            }
            Event::Request { remote, request } => self.take_in(state, remote, request),
            Event::Cancelled { remote, id } => {
                if let Some(unwanted) = state.executing.get(&(remote, id)) {
                    unwanted.send_replace(true);
                }
            }
            Event::Answered { id, answer } => {
                if let Some(waiting) = state.waiting.remove(&id) {
                    // The caller may have dropped its future.
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
        let Some(from) = state.remote else { return };
        let Request { id, kind, payload } = request;
        let (unwanted, cancelled) = watch::channel(false);
        state.executing.insert((remote, id), unwanted);
        let responder = Responder::new(self.clone(), remote, id, cancelled);
        let incoming = Incoming {
            from,
            kind,
            payload,
            responder,
        };
        if let Err(mut undelivered) = self.incoming.send(incoming) {
            // The receiver of requests is gone. The responder must not answer when it is dropped: the lock is held here.
            undelivered.0.responder.disarm();
            state.executing.remove(&(remote, id));
            let nobody = refusal(Code::Unanswered, "nobody answers requests here");
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
        if reason.code == CloseCode::Detached {
            state.requests.forget_answers();
        }
        if !reason.code.is_resumable() {
            self.go_down(state, reason);
        }
    }

    fn go_down(&self, state: &mut State, reason: CloseReason) {
        state.requests.withdraw_all();
        state.outages += 1;
        self.down.send_replace(Some(reason.clone()));
        for (_, waiting) in state.waiting.drain() {
            // The caller may have dropped its future.
            let _ = waiting.send(Err(LinkError::Down(reason.clone())));
        }
    }
}
