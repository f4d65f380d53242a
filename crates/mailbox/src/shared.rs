//! The relay behind a lock, with the clock, and what is done with its output.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use longhand_link::carrier::admission::SourceNetwork;
use longhand_link::carrier::tls::Certificate;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::connection::Signals;
use crate::core::{ConnectionId, Event, Limits, Output, Relay, Time};
use crate::hashmail::core::Counts as HashmailCounts;
use crate::metrics::Metrics;
use crate::wake::{Away, Wakes};

/// Between two looks for what has expired, at the most.
const TICK: Duration = Duration::from_secs(1);

/// The certificates of listeners with TLS, by the listeners' authorities.
pub(crate) type Certificates = Vec<(String, Certificate)>;

/// Used by all tasks of a mailbox. The lock is held for one call of the relay, never across a wait; signatures are checked
/// without it.
pub(crate) struct Shared {
    locked: Mutex<Locked>,
    began: Instant,
    metrics: Metrics,
    wakes: Option<Wakes>,
    has_routes: bool,
    certificates: Certificates,
    /// The next tick is due sooner.
    sooner: Notify,
}

struct Locked {
    relay: Relay,
    signals: HashMap<ConnectionId, Arc<Signals>>,
}

impl Shared {
    pub fn new(
        limits: Limits,
        metrics: Metrics,
        wakes: Option<Wakes>,
        has_routes: bool,
        certificates: Certificates,
    ) -> Shared {
        let locked = Locked {
            relay: Relay::new(limits),
            signals: HashMap::new(),
        };
        Shared {
            locked: Mutex::new(locked),
            began: Instant::now(),
            metrics,
            wakes,
            has_routes,
            certificates,
            sooner: Notify::new(),
        }
    }

    pub fn has_routes(&self) -> bool {
        self.has_routes
    }

    /// A time of the relay on tokio's clock.
    pub fn instant(&self, time: Time) -> Instant {
        self.began.checked_add(time).unwrap_or(self.began)
    }

    /// A connection begins, if there is room for it.
    pub fn open(&self, source: Option<SourceNetwork>) -> Option<(ConnectionId, Arc<Signals>)> {
        let mut locked = self.lock();
        let id = locked.relay.open(source, self.began.elapsed())?;
        let signals = Arc::new(Signals::default());
        locked.signals.insert(id, signals.clone());
        Some((id, signals))
    }

    /// A connection has ended.
    pub fn close(&self, id: ConnectionId) {
        self.lock().signals.remove(&id);
        self.with(|relay, _| relay.close(id));
    }

    /// Calls the relay, and does what comes out of it.
    pub fn with<R>(&self, call: impl FnOnce(&mut Relay, Time) -> R) -> R {
        let mut locked = self.lock();
        let now = self.began.elapsed();
        let result = call(&mut locked.relay, now);
        let output = locked.relay.output();
        locked.signal(&output);
        drop(locked);
        if output.is_sooner {
            self.sooner.notify_one();
        }
        for event in &output.events {
            self.report(event, now);
        }
        result
    }

    /// The metrics as of now.
    pub fn metrics_text(&self, hashmail: &HashmailCounts) -> String {
        let counts = self.lock().relay.counts();
        self.metrics.set(&counts);
        self.metrics.set_hashmail(hashmail);
        for (listener, certificate) in &self.certificates {
            let days = certificate.days_left();
            self.metrics.set_certificate_days_left(listener, days);
        }
        self.metrics.text()
    }

    /// Lets time pass in the relay, for as long as the mailbox runs.
    pub async fn tick(self: Arc<Self>) {
        loop {
            let next = self.lock().relay.next_tick();
            let latest = Instant::now() + TICK;
            let next = next.map_or(latest, |next| self.instant(next).min(latest));
            tokio::select! {
                biased;
                () = sleep_until(next) => {}
                () = self.sooner.notified() => {}
            }
            self.with(|relay, now| relay.tick(now));
        }
    }

    fn report(&self, event: &Event, now: Time) {
        self.metrics.count(event);
        match *event {
            Event::Waits { stream, end, by } => {
                if let Some(wakes) = &self.wakes {
                    wakes.reader_is_away(Away { stream, end }, by, now);
                }
            }
            Event::Ended { stream, code } => {
                tracing::debug!(stream = %stream.for_logs(), %code, "a stream has ended");
            }
            Event::Refused { code } => tracing::debug!(%code, "a request was refused"),
            Event::Silent => tracing::debug!("a connection was closed: it was silent or idle"),
            Event::Expired { messages } => tracing::debug!(messages, "no reader came in time"),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Locked> {
        self.locked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Locked {
    fn signal(&mut self, output: &Output) {
        let of = |id| self.signals.get(id);
        for signals in output.writable.iter().filter_map(of) {
            signals.writable.notify_one();
        }
        for signals in output.readable.iter().filter_map(of) {
            signals.readable.notify_one();
        }
        for signals in output.closed.iter().filter_map(of) {
            signals.closed.notify_one();
        }
    }
}
