//! Keeping a link to the host: dialling again after one broke, moving to a better way, and following the phone from network to
//! network.
//!
//! A link over another way takes the place of the one before within one conversation: what was asked goes on over it.

use std::pin::pin;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use longhand_link::{CloseCode, CloseReason, Link, LinkError};
use longhand_proto::command::error::Action;
use tokio::sync::watch;

use crate::attachment::Attachment;
use crate::backoff::{Backoff, GOOD_AFTER};
use crate::error::PhoneError;
use crate::phone::{Phone, stopped};
use crate::vault::{PairedHost, VaultError, fill_random};
use crate::ways::Ways;

/// The pause before a better way than the one in use is tried, which doubles up to [`BETTER_AT_MOST`]: an attempt costs a handshake.
const BETTER_AFTER: Duration = Duration::from_secs(10);
const BETTER_AT_MOST: Duration = Duration::from_secs(600);

/// A link that lasted so long was alive: it has answered heartbeats since it was established.
const PROVED_AFTER: Duration = Duration::from_secs(40);
/// For an attempt over a better way whose success has ended the link before it: the host has answered by then.
const ALMOST: Duration = Duration::from_millis(500);

/// A link, and what it came over.
pub(crate) struct Live {
    pub(crate) link: Link,
    /// The index of its address in the pairing code, which has the best way first.
    pub(crate) way: usize,
    /// The network from which it was dialled.
    pub(crate) network: NetworkNow,
}

/// The end of a link.
struct Ended {
    reason: CloseReason,
    lasted: Duration,
}

/// The ways that are tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// All of them.
    All,
    /// Those that are better than this one.
    BetterThan(usize),
}

/// The network that the phone is on, as its platform last reported it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NetworkNow {
    /// Its name, of the platform's choice; `None` when there is none.
    name: Option<String>,
    /// Counts reports.
    reports: u64,
}

impl NetworkNow {
    /// On a phone whose platform has reported nothing yet.
    pub(crate) fn unknown() -> NetworkNow {
        NetworkNow {
            name: Some(String::new()),
            reports: 0,
        }
    }

    /// Whether it was reported after `seen`, and there is a network.
    pub(crate) fn is_newer_than(&self, seen: &NetworkNow) -> bool {
        self.name.is_some() && self.reports != seen.reports
    }
}

impl Phone {
    /// The platform reports another network, another address on it, or that the phone was suspended: the host is dialled over it at
    /// once, and a link that is alive is kept until the new one has taken its place. `network` is any name by which the platform
    /// recognises a network, so that the phone remembers which ways work there; `None` when there is no network: nothing is dialled
    /// until the next report.
    pub fn network_changed(&self, network: Option<&str>) {
        self.inner.network.send_modify(|now| {
            now.name = network.map(str::to_owned);
            now.reports = now.reports.wrapping_add(1);
        });
    }

    pub(crate) fn stay(&self, live: Live) {
        self.publish(Attachment::Up);
        let phone = self.clone();
        let task = self.inner.runtime.start(async move {
            phone.keep_attached(Some(live)).await;
        });
        if let Some(old) = self.lock_supervisor().replace(task) {
            old.abort();
        }
    }

    /// Keeps a link alive. Returns the error for which dialling again is of no use.
    pub(crate) async fn keep_attached(&self, mut live: Option<Live>) -> PhoneError {
        let mut backoff = Backoff::new();
        loop {
            let seen = self.inner.network.borrow().clone();
            let ended = self.live(live.take()).await;
            if self.inner.lifeline.is_cut() {
                return PhoneError::Reported(stopped());
            }
            let error = match ended {
                Ok(ended) => {
                    if ended.lasted >= GOOD_AFTER {
                        backoff = Backoff::new();
                    }
                    PhoneError::Ended(ended.reason)
                }
                Err(error) => error,
            };
            if !is_passing(&error) {
                self.publish(Attachment::Ended(error.report()));
                return error;
            }
            let wait = backoff.next(random());
            tracing::info!(last = %error, ?wait, "not attached, dialling again");
            self.publish(Attachment::Down(error.to_string()));
            if self.pause(wait, &seen).await {
                backoff = Backoff::new();
            }
        }
    }

    /// Waits until it is time to dial again: for `wait`, for a call that needs the link, or for a network that is reported after
    /// `seen`, and for as long as there is no network. Returns whether there was a call or a report: the next wait is a short one.
    async fn pause(&self, wait: Duration, seen: &NetworkNow) -> bool {
        let mut network = self.inner.network.subscribe();
        let has_none = network.borrow().name.is_none();
        tokio::select! {
            biased;
            reported = network.wait_for(|now| now.is_newer_than(seen)) => reported.is_ok(),
            () = self.inner.lifeline.is_over() => false,
            () = self.inner.wanted.notified(), if !has_none => true,
            () = self.inner.runtime.sleep(wait), if !has_none => false,
        }
    }

    /// Waits for the end of a link, which is dialled if there is none, and of those that take its place.
    async fn live(&self, live: Option<Live>) -> Result<Ended, PhoneError> {
        let mut live = match live {
            Some(live) => live,
            None => self.connect(Reach::All).await?,
        };
        self.publish(Attachment::Up);
        tracing::info!(node_id = %self.inner.node_id, way = live.way, "attached");
        let mut since = self.inner.runtime.uptime();
        loop {
            live = match self.renewed_or_closed(&live).await {
                Ok(renewed) => renewed,
                Err(reason) => {
                    let lasted = self.inner.runtime.uptime().saturating_sub(since);
                    let is_lost = matches!(reason.code, CloseCode::Lost | CloseCode::Dead);
                    if lasted < PROVED_AFTER && is_lost {
                        self.distrust(&live);
                    }
                    return Ok(Ended { reason, lasted });
                }
            };
            since = self.inner.runtime.uptime();
            tracing::info!(way = live.way, "the link goes on over another connection");
        }
    }

    /// The link that takes the place of this one, or the reason why this one has ended before.
    async fn renewed_or_closed(&self, live: &Live) -> Result<Live, CloseReason> {
        let attempts = watch::Sender::new(None);
        let attempt = attempts.subscribe();
        let mut renewed = pin!(self.renewed(live, &attempts));
        let reason = tokio::select! {
            // The other way round, the end of the link that was replaced would count as the end of all.
            biased;
            renewed = &mut renewed => return Ok(renewed),
            reason = live.link.closed() => reason,
        };
        // The new connection may be the reason: a mailbox lets a stream be read once. An attempt that has begun is finished first.
        tokio::select! {
            biased;
            renewed = &mut renewed => Ok(renewed),
            () = self.finished(attempt) => Err(reason),
        }
    }

    /// A link that has taken the place of this one: over a better way, or over any way on another network. Pends while there is none.
    async fn renewed(&self, live: &Live, attempts: &watch::Sender<Option<Reach>>) -> Live {
        let mut network = self.inner.network.subscribe();
        let mut pause = BETTER_AFTER;
        while network.borrow().reports == live.network.reports {
            let can_be_better = live.way > 0;
            tokio::select! {
                biased;
                // Fails when the phone is gone, and this with it.
                Ok(()) = network.changed() => continue,
                () = self.inner.runtime.sleep(pause), if can_be_better => {}
            }
            let better = tokio::select! {
                biased;
                // On another network all ways are tried: this attempt is dropped.
                Ok(()) = network.changed() => continue,
                better = self.attempt(Reach::BetterThan(live.way), attempts) => better,
            };
            if let Some(better) = better {
                return better;
            }
            pause = BETTER_AT_MOST.min(pause * 2);
        }
        self.on_network(network, attempts).await
    }

    /// A link on the network that was reported, as soon as the host can be reached there.
    async fn on_network(
        &self,
        mut network: watch::Receiver<NetworkNow>,
        attempts: &watch::Sender<Option<Reach>>,
    ) -> Live {
        let mut backoff = Backoff::new();
        loop {
            let seen = network.borrow_and_update().clone();
            if seen.name.is_some()
                && let Some(live) = self.attempt(Reach::All, attempts).await
            {
                return live;
            }
            if self.pause(backoff.next(random()), &seen).await {
                backoff = Backoff::new();
            }
        }
    }

    /// One attempt, which `attempts` shows while it goes on.
    async fn attempt(&self, reach: Reach, attempts: &watch::Sender<Option<Reach>>) -> Option<Live> {
        attempts.send_replace(Some(reach));
        let connected = self.connect(reach).await;
        attempts.send_replace(None);
        connected
            .inspect_err(|error| tracing::debug!(%error, "no other way to the host yet"))
            .ok()
    }

    /// The ways to the host that are tried on a network, in this order, as indices of its addresses.
    pub(crate) fn ways_to(
        &self,
        host: &PairedHost,
        network: &NetworkNow,
        reach: Reach,
    ) -> Vec<usize> {
        let network = network.name.as_deref().unwrap_or_default();
        let mut order = self
            .lock_ways()
            .order(network, &host.addresses, self.now_unix_s());
        if let Reach::BetterThan(way) = reach {
            order.retain(|other| *other < way);
        }
        order
    }

    /// Remembers which of the addresses that were tried, in this order, worked.
    pub(crate) fn learn(&self, network: &NetworkNow, tried: &[String], worked: usize) {
        let name = network.name.as_deref().unwrap_or_default();
        let (failed, rest) = tried.split_at(worked);
        let Some(worked) = rest.first() else { return };
        let mut ways = self.lock_ways();
        if ways.learn(name, worked, failed.iter(), self.now_unix_s())
            && let Err(error) = self.inner.vault.save_ways(&ways.to_bytes())
        {
            tracing::debug!(%error, "which way worked is not remembered");
        }
    }

    /// A link that was lost so soon shows that its way lets a handshake through, and no more: it is tried last, and all others before.
    fn distrust(&self, live: &Live) {
        let host = self.inner.vault.host().ok().flatten();
        let Some(address) = host.and_then(|host| host.addresses.get(live.way).cloned()) else {
            return;
        };
        let name = live.network.name.as_deref().unwrap_or_default();
        let mut ways = self.lock_ways();
        ways.distrust(name, &address, self.now_unix_s());
        if let Err(error) = self.inner.vault.save_ways(&ways.to_bytes()) {
            tracing::debug!(%error, "which way failed is not remembered");
        }
    }

    /// Returns when the attempt in progress, if any, need not be waited for any more: one over all ways, when it is finished; one over
    /// better ways after [`ALMOST`], since the link that has ended has to be dialled over all of them.
    async fn finished(&self, mut attempt: watch::Receiver<Option<Reach>>) {
        // Fails never: the sender outlives this.
        let now = attempt.wait_for(|reach| *reach != Some(Reach::All)).await;
        let is_going_on = now.is_ok_and(|reach| reach.is_some());
        if is_going_on {
            self.inner.runtime.sleep(ALMOST).await;
        }
    }

    fn lock_ways(&self) -> MutexGuard<'_, Ways> {
        let ways = &self.inner.ways;
        ways.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether the next attempt may succeed after this error.
fn is_passing(error: &PhoneError) -> bool {
    use CloseCode::{Replaced, UnknownOwner, Version};
    match error {
        PhoneError::Ended(reason)
        | PhoneError::Link(LinkError::Closed(reason) | LinkError::Down(reason)) => {
            !matches!(reason.code, Replaced | UnknownOwner | Version)
        }
        PhoneError::Link(LinkError::UnknownCarrier(_)) => false,
        // Errors from before the host was authenticated: anybody on the network can send "another version".
        PhoneError::Link(_) => true,
        PhoneError::Host(error) => {
            matches!(error.action(), Action::Retry | Action::WaitForPhone)
        }
        // A disk that is full, or fails, may recover.
        PhoneError::Vault(VaultError::Full | VaultError::Io(_) | VaultError::NeedsReopening) => {
            true
        }
        _ => false,
    }
}

/// A random number for the backoff; no secret depends on it.
fn random() -> u32 {
    let mut bytes = [0; 4];
    // Zero without randomness: the waits are the shortest then, which is safe.
    let _ = fill_random(&mut bytes);
    u32::from_be_bytes(bytes)
}
