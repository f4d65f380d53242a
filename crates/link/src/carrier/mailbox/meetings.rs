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
    /// The holder of ten words, who gets a pairing code for them.
    #[cfg(feature = "hashmail")]
    Words(PairingId),
}

/// How one of them is met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meeting {
    /// By what both ends know.
    Shared(Rendezvous),
    /// By ten words, at mailboxes with Lightning Node Connect alone.
    #[cfg(feature = "hashmail")]
    Words(Words),
}

impl From<Rendezvous> for Meeting {
    fn from(shared: Rendezvous) -> Meeting {
        Meeting::Shared(shared)
    }
}

/// Ten words, and the pairing code that their holder gets.
#[cfg(feature = "hashmail")]
#[derive(Clone, PartialEq, Eq)]
pub struct Words {
    /// The words.
    pub phrase: longhand_lnc::Phrase,
    /// The code as text.
    pub code: zeroize::Zeroizing<String>,
}

#[cfg(feature = "hashmail")]
impl std::fmt::Debug for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Words(..)")
    }
}

/// A change of a host's meetings.
#[derive(Debug)]
pub(in crate::carrier) enum Change {
    Added(Expected, Meeting),
    Removed(Expected),
}

/// See the module. Clones share them; every [`super::MailboxListener`] of the host follows them.
#[derive(Clone, Default)]
pub struct Meetings(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    all: HashMap<Expected, Meeting>,
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
    pub fn add(&self, expected: Expected, meeting: impl Into<Meeting>) {
        let meeting = meeting.into();
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
    pub(in crate::carrier) fn follow(&self) -> mpsc::UnboundedReceiver<Change> {
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
