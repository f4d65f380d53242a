//! Whether this machine's clock is so wrong that Tor's certificates or directory look expired. Arti itself reports that only when it
//! has compared its clock with those of eight relays, which it does not get to with a wrong clock.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use arti_client::config::dir::FallbackDir;
use arti_client::{ErrorKind, HasKind, TorClient};
use tokio::time::{sleep, timeout};
use tor_chanmgr::ChannelUsage;

use super::Runtime;
use super::dormancy::Users;

/// A client that is used and not ready for so long asks a relay for its time; again after the same.
const STUCK: Duration = Duration::from_secs(5);
/// For one relay.
const ANSWER: Duration = Duration::from_secs(10);

/// What relays said of the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Clock {
    /// A relay's certificates are expired by it, or not valid yet.
    pub refuses_certificates: bool,
    /// By how much it is ahead of a relay's, in seconds.
    pub ahead_s: Option<f64>,
}

/// The last answer of a relay.
#[derive(Clone, Default)]
pub(super) struct ClockCheck(Arc<Mutex<Clock>>);

impl ClockCheck {
    pub fn last(&self) -> Clock {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Clock> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks relays whenever the client is stuck, until it is gone.
    pub fn watch(&self, client: Weak<TorClient<Runtime>>, users: &Users, relays: Vec<FallbackDir>) {
        let (check, count) = (self.clone(), users.count());
        tokio::spawn(async move {
            loop {
                sleep(STUCK).await;
                let Some(client) = client.upgrade() else {
                    return;
                };
                if client.bootstrap_status().ready_for_traffic() {
                    *check.lock() = Clock::default();
                } else if *count.borrow() > 0
                    && let Some(relay) = any_of(&relays)
                    && let Ok(Some(clock)) = timeout(ANSWER, ask(&client, relay)).await
                {
                    *check.lock() = clock;
                }
            }
        });
    }
}

/// `None` when the relay does not answer: another one may.
async fn ask(client: &TorClient<Runtime>, relay: &FallbackDir) -> Option<Clock> {
    let channels = client.chanmgr().ok()?;
    match channels.get_or_launch(relay, ChannelUsage::Dir).await {
        Ok((channel, _)) => Some(Clock {
            refuses_certificates: false,
            ahead_s: Some(channel.clock_skew().as_secs_f64()),
        }),
        Err(error) if error.kind() == ErrorKind::ClockSkew => Some(Clock {
            refuses_certificates: true,
            ahead_s: error.clock_skew().map(|skew| skew.as_secs_f64()),
        }),
        Err(_) => None,
    }
}

/// One by chance, so that clients do not all ask the same.
fn any_of(relays: &[FallbackDir]) -> Option<&FallbackDir> {
    let chance = RandomState::new().build_hasher().finish();
    let count = u64::try_from(relays.len()).ok()?;
    let index = chance.checked_rem(count)?;
    relays.get(usize::try_from(index).ok()?)
}
