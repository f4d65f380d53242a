//! Those whom a host expects at mailboxes: the phones of its owners, and the holders of pairing codes that can be used.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use crate::key::random;
use crate::{LinkKey, PairingId, Rendezvous};

/// Whom a host expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Expected {
    /// The holder of a pairing code.
    Pairing(PairingId),
    /// A phone that is pinned.
    Phone(LinkKey),
}

/// A change of a host's meetings.
#[derive(Debug)]
pub(super) enum Change {
    Added(Expected, Rendezvous),
    Removed(Expected),
}

/// See the module. Clones share them; every [`super::MailboxListener`] of the host follows them.
#[derive(Clone, Default)]
pub struct Meetings(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    all: HashMap<Expected, Rendezvous>,
    followers: Vec<mpsc::UnboundedSender<Change>>,
}

impl Known {
    fn report(&mut self, change: impl Fn() -> Change) {
        self.followers
            .retain(|follower| follower.send(change()).is_ok());
    }
}

impl Meetings {
    /// From now on this one is expected.
    pub fn add(&self, expected: Expected, meeting: Rendezvous) {
        let mut known = self.lock();
        if known.all.get(&expected) != Some(&meeting) {
            known.all.insert(expected, meeting.clone());
            known.report(|| Change::Added(expected, meeting.clone()));
        }
    }

    /// From now on this one is no longer expected.
    pub fn remove(&self, expected: &Expected) {
        let mut known = self.lock();
        if known.all.remove(expected).is_some() {
            known.report(|| Change::Removed(*expected));
        }
    }

    /// How many are expected.
    pub fn len(&self) -> usize {
        self.lock().all.len()
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All who are expected, as changes from nobody in an order of chance, by which two mailboxes cannot tell whose streams are the
    /// same owner's; and each change from now on.
    pub(super) fn follow(&self) -> mpsc::UnboundedReceiver<Change> {
        let (follower, changes) = mpsc::unbounded_channel();
        let mut known = self.lock();
        let mut all: Vec<_> = known.all.iter().collect();
        all.sort_by_cached_key(|_| random::<8>().unwrap_or_default());
        for (expected, meeting) in all {
            // The receiver is here still.
            let _ = follower.send(Change::Added(*expected, meeting.clone()));
        }
        // Those of mailboxes that were connected before.
        known.followers.retain(|it| !it.is_closed());
        known.followers.push(follower);
        changes
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
