//! The boxes behind a lock, with the clock, and the tasks that use them.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use longhand_link::carrier::admission::SourceNetwork;
use longhand_link::carrier::guest::{Share, Visit};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};

use super::core::{BoxId, Core, Counts, EndId, Pace, Role, Standing, Taken};
use super::limits::HashmailLimits;
use super::refusal::Refusal;
use super::{PING_EVERY, SILENCE};
use crate::core::Time;
use crate::metrics::Metrics;

/// For an end that is in use to become free. Stock clients know this time.
const OCCUPIED_WAIT: Duration = Duration::from_millis(250);
/// For a box that is not there yet to be created: by a server that has just been told to, from the other side of the world.
const ABSENT_WAIT: Duration = Duration::from_millis(500);
/// For a large message to arrive: its memory is reserved.
const MESSAGE_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks for what is due, at the most.
const TICK: Duration = Duration::from_secs(1);

/// Used by all requests. The lock is held for one call of the core, never across a wait.
pub(crate) struct Shared {
    locked: Mutex<Locked>,
    began: Instant,
    metrics: Metrics,
    /// The next tick is due sooner.
    sooner: Notify,
    /// Of this process: a name in its logs says nothing about an id elsewhere.
    names: RandomState,
}

struct Locked {
    core: Core,
    users: HashMap<EndId, User>,
    is_stopped: bool,
}

/// Who uses an end, or waits for it.
struct User {
    signal: Arc<Signal>,
    visit: Option<Visit>,
}

#[derive(Default)]
struct Signal {
    /// There is something to do.
    work: Notify,
    /// The use may have ended.
    end: Notify,
}

impl Shared {
    pub fn new(limits: HashmailLimits, metrics: Metrics) -> Shared {
        let locked = Locked {
            core: Core::new(limits),
            users: HashMap::new(),
            is_stopped: false,
        };
        Shared {
            locked: Mutex::new(locked),
            began: Instant::now(),
            metrics,
            sooner: Notify::new(),
            names: RandomState::new(),
        }
    }

    /// Calls the core, and wakes those whom it names.
    pub fn with<R>(&self, call: impl FnOnce(&mut Core, Time) -> R) -> R {
        self.locked_with(|locked, now| call(&mut locked.core, now))
    }

    fn locked_with<R>(&self, call: impl FnOnce(&mut Locked, Time) -> R) -> R {
        let mut locked = self.lock();
        let result = call(&mut locked, self.began.elapsed());
        let Locked { core, users, .. } = &mut *locked;
        for end in core.woken() {
            if let Some(user) = users.get(&end) {
                user.signal.work.notify_one();
                user.signal.end.notify_one();
            }
        }
        let is_sooner = core.is_sooner();
        drop(locked);
        if is_sooner {
            self.sooner.notify_one();
        }
        result
    }

    /// Creates a box.
    pub fn create(&self, id: BoxId, by: Option<SourceNetwork>) -> Result<(), Refusal> {
        self.locked_with(|locked, now| {
            if locked.is_stopped {
                return Err(Refusal::Stopping);
            }
            locked.core.create(id, by, now)
        })?;
        tracing::debug!(stream = %self.name(&id), "a hashmail box was created");
        Ok(())
    }

    /// Removes a box.
    pub fn delete(&self, id: BoxId) -> Result<(), Refusal> {
        self.with(|core, _| core.delete(id))?;
        tracing::debug!(stream = %self.name(&id), "a hashmail box was deleted");
        Ok(())
    }

    /// Begins to use an end of a box, for a request of this connection. A box that is not there has a little time to be created, and
    /// an end that is in use to become free; a user of whom nothing was heard for long has to give it up.
    pub async fn attach(
        self: &Arc<Self>,
        id: BoxId,
        role: Role,
        visit: Option<Visit>,
    ) -> Result<Attached, Refusal> {
        let signal = Arc::new(Signal::default());
        let source = visit.as_ref().and_then(Visit::source);
        let user = User {
            signal: signal.clone(),
            visit: visit.clone(),
        };
        let (end, is_absent) = self.locked_with(|locked, now| {
            if locked.is_stopped {
                return Err(Refusal::Stopping);
            }
            let end = locked.core.attach(id, role, source, now)?;
            locked.users.insert(end, user);
            locked.take_over_if_silent(end, now);
            let is_absent = locked.core.refusal(end) == Refusal::NotFound;
            Ok((end, is_absent))
        })?;
        let mut attached = Attached {
            shared: self.clone(),
            end,
            signal,
            _share: None,
        };
        let wait = if is_absent {
            ABSENT_WAIT
        } else {
            OCCUPIED_WAIT
        };
        // Ends with an error when the time is over: the standing tells.
        let _ = timeout(wait, attached.seated()).await;
        match self.with(|core, _| (core.standing(end), core.refusal(end))) {
            (Standing::Holds, _) => {}
            (Standing::Ended(refusal), _) | (Standing::Waits, refusal) => return Err(refusal),
        }
        attached._share = visit.as_ref().map(Visit::share);
        tracing::debug!(stream = %self.name(&id), ?role, "an end of a hashmail box is used");
        Ok(attached)
    }

    /// Counts a refusal.
    pub fn refused(&self, refusal: Refusal) {
        self.metrics.count_hashmail_refusal(refusal);
        tracing::debug!(refusal = refusal.name(), "a hashmail request was refused");
    }

    /// How much there is.
    pub fn counts(&self) -> Counts {
        self.lock().core.counts()
    }

    /// Ends all use, and refuses any other.
    pub fn stop(&self) {
        self.locked_with(|locked, _| {
            locked.is_stopped = true;
            locked.core.stop();
        });
    }

    /// Lets time pass, for as long as the mailbox runs.
    pub async fn tick(self: Arc<Self>) {
        loop {
            let latest = Instant::now() + TICK;
            let next = self.lock().core.next_tick();
            let next = next.map_or(latest, |next| self.instant(next).min(latest));
            tokio::select! {
                biased;
                () = sleep_until(next) => {}
                () = self.sooner.notified() => {}
            }
            self.with(|core, now| core.tick(now));
        }
    }

    fn instant(&self, time: Time) -> Instant {
        self.began.checked_add(time).unwrap_or(self.began)
    }

    /// What an id is called in logs.
    fn name(&self, id: &BoxId) -> impl fmt::Display + use<> {
        format!("{:016x}", self.names.hash_one(id))
    }

    fn lock(&self) -> MutexGuard<'_, Locked> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Locked {
    /// Whoever is alive has answered a ping by then.
    fn take_over_if_silent(&mut self, waiting: EndId, now: Time) {
        let holder = self.core.holder(waiting);
        let visit = holder
            .and_then(|holder| self.users.get(&holder))
            .and_then(|user| user.visit.as_ref());
        if visit.is_some_and(|visit| visit.heard().elapsed() >= SILENCE) {
            self.core.take_over(waiting, now);
        }
    }
}

/// The use of an end of a box. It is over when this is dropped.
pub(crate) struct Attached {
    shared: Arc<Shared>,
    end: EndId,
    signal: Arc<Signal>,
    _share: Option<Share>,
}

impl Attached {
    /// The next message of a reader. May be cancelled without losing one.
    pub async fn take(&self) -> Result<Vec<u8>, Refusal> {
        loop {
            match self.shared.with(|core, now| core.take(self.end, now)) {
                Taken::Message(message) => return Ok(message),
                Taken::Ended(refusal) => return Err(refusal),
                Taken::Nothing => self.signal.work.notified().await,
            }
        }
    }

    /// A writer's message, and what was reserved for it.
    pub fn put(&self, message: Vec<u8>, reserved: Option<Reservation>) -> Result<(), Refusal> {
        self.shared.with(|core, now| {
            if let Some(reserved) = reserved {
                reserved.give_back(core);
            }
            core.put(self.end, message, now)
        })
    }

    /// Waits until a writer's next message may be read.
    pub async fn may_put(&self) -> Result<(), Refusal> {
        loop {
            match self.shared.with(|core, now| core.pace(self.end, now)) {
                Pace::Now => return Ok(()),
                Pace::Ended(refusal) => return Err(refusal),
                Pace::Room => self.signal.work.notified().await,
                Pace::At(time) => {
                    let until = self.shared.instant(time);
                    tokio::select! {
                        biased;
                        () = sleep_until(until) => {}
                        () = self.signal.work.notified() => {}
                    }
                }
            }
        }
    }

    /// Waits until the use is over.
    pub async fn ended(&self) -> Refusal {
        loop {
            if let Standing::Ended(refusal) = self.shared.with(|core, _| core.standing(self.end)) {
                return refusal;
            }
            self.signal.end.notified().await;
        }
    }

    /// Waits until the end is this one's, or the wait is over.
    async fn seated(&mut self) {
        while self.shared.with(|core, _| core.standing(self.end)) == Standing::Waits {
            self.signal.work.notified().await;
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.shared.locked_with(|locked, now| {
            locked.users.remove(&self.end);
            locked.core.leave(self.end, now);
        });
    }
}

/// Whose messages are counted: the client of a connection.
#[derive(Clone)]
pub(crate) struct Account {
    shared: Arc<Shared>,
    visit: Option<Visit>,
    by: Option<SourceNetwork>,
}

impl Account {
    pub fn new(shared: &Arc<Shared>, visit: Option<&Visit>) -> Account {
        Account {
            shared: shared.clone(),
            visit: visit.cloned(),
            by: visit.and_then(Visit::source),
        }
    }

    /// Counts bytes of a message that is not complete.
    ///
    /// # Errors
    /// [`Refusal::Full`].
    pub fn reserve(&self, bytes: usize) -> Result<Reservation, Refusal> {
        let mut reservation = Reservation {
            account: self.clone(),
            bytes: 0,
            deadline: None,
            _share: self.visit.as_ref().map(Visit::share),
        };
        reservation.grow_to(bytes)?;
        Ok(reservation)
    }
}

/// Bytes of a message that is not complete, counted for its sender. While there is one, its connection is read as that of a client
/// who is known, but no longer than a while.
pub(crate) struct Reservation {
    account: Account,
    bytes: usize,
    /// From when it was first waited for: while its box is full, nobody does.
    deadline: Option<Pin<Box<Sleep>>>,
    _share: Option<Share>,
}

impl Reservation {
    /// As much at least in all.
    ///
    /// # Errors
    /// [`Refusal::Full`].
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), Refusal> {
        let more = bytes.saturating_sub(self.bytes);
        let by = self.account.by;
        if more > 0 && !self.account.shared.with(|core, _| core.reserve(by, more)) {
            return Err(Refusal::Full);
        }
        self.bytes = self.bytes.saturating_add(more);
        Ok(())
    }

    /// Ready when the message should have arrived.
    pub fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(sleep(MESSAGE_TIMEOUT)));
        deadline.as_mut().poll(cx)
    }

    fn give_back(mut self, core: &mut Core) {
        core.release(self.account.by, std::mem::take(&mut self.bytes));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            let account = &self.account;
            account
                .shared
                .with(|core, _| core.release(account.by, self.bytes));
        }
    }
}

/// Returns when nothing has come of a connection for so long that its client, or the network, is gone.
pub(crate) async fn silence(visit: Option<&Visit>, time: Duration) {
    let Some(visit) = visit else {
        return std::future::pending().await;
    };
    loop {
        let until = visit.heard() + time;
        if until <= Instant::now() {
            return;
        }
        sleep_until(until.min(Instant::now() + PING_EVERY)).await;
    }
}
