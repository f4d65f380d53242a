//! Changes of the host, for its operator: what has happened to owners, their phones and nodes, the hub, and problems.

use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::{Stream, StreamExt, stream};
use longhand_proto::operator::HostChange;
use tokio::sync::broadcast;

use crate::clock::now_unix_s;

/// Changes that are kept for a reader that is slow.
const KEPT: usize = 1_024;

/// What has changed. `operator.proto` has the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Present,
    Missed,
    OwnerCreated,
    PairingRenewed,
    PhoneRegistered,
    PhoneAttached,
    PhoneDetached,
    NodeStarted,
    NodeFailed,
    NodeRestarted,
    ProblemBegan,
    ProblemEnded,
}

impl Kind {
    /// Stable.
    fn name(self) -> &'static str {
        match self {
            Kind::Present => "present",
            Kind::Missed => "missed",
            Kind::OwnerCreated => "owner_created",
            Kind::PairingRenewed => "pairing_renewed",
            Kind::PhoneRegistered => "phone_registered",
            Kind::PhoneAttached => "phone_attached",
            Kind::PhoneDetached => "phone_detached",
            Kind::NodeStarted => "node_started",
            Kind::NodeFailed => "node_failed",
            Kind::NodeRestarted => "node_restarted",
            Kind::ProblemBegan => "problem_began",
            Kind::ProblemEnded => "problem_ended",
        }
    }
}

/// Where a host's changes come together.
pub(crate) struct Changes {
    sender: broadcast::Sender<HostChange>,
    /// Of the last change; held while a change is sent, so that changes are sent in the order of their numbers.
    number: Mutex<u64>,
}

impl Default for Changes {
    fn default() -> Changes {
        Changes {
            sender: broadcast::Sender::new(KEPT),
            number: Mutex::new(0),
        }
    }
}

impl Changes {
    /// Reports a change; `owner` is empty for one of the host or its hub. Nobody may listen.
    pub fn report(&self, kind: Kind, owner: &str, detail: impl Into<String>) {
        let mut number = self.number();
        *number += 1;
        let _ = self
            .sender
            .send(change(kind, *number, owner, detail.into()));
    }

    fn number(&self) -> MutexGuard<'_, u64> {
        self.number.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The changes from now on. The first one stands for the present state; a reader that is too slow gets one for those that it
    /// missed, and goes on with those that are kept.
    pub fn watch(&self) -> impl Stream<Item = HostChange> + Send + use<> {
        let (reader, number) = {
            let number = self.number();
            (self.sender.subscribe(), *number)
        };
        let present = change(Kind::Present, number, "", String::new());
        let later = stream::unfold((reader, number), |(mut reader, last)| async move {
            let change = match reader.recv().await {
                Ok(change) => change,
                Err(broadcast::error::RecvError::Lagged(missed)) => missed_after(last, missed),
                Err(broadcast::error::RecvError::Closed) => return None,
            };
            let number = change.number;
            Some((change, (reader, number)))
        });
        stream::iter([present]).chain(later)
    }
}

fn missed_after(last: u64, missed: u64) -> HostChange {
    let number = last.saturating_add(missed);
    let detail = format!("{missed} changes were missed: list again");
    change(Kind::Missed, number, "", detail)
}

fn change(kind: Kind, number: u64, owner: &str, detail: String) -> HostChange {
    HostChange {
        number,
        unix_s: now_unix_s(),
        kind: kind.name().into(),
        owner: owner.into(),
        detail,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn a_reader_begins_with_the_present_state_and_reads_each_change_after_it() {
        let changes = Changes::default();
        changes.report(Kind::OwnerCreated, "ann", "");
        let mut watched = pin!(changes.watch());
        changes.report(Kind::NodeFailed, "ann", "it is damaged");
        let present = watched.next().await.unwrap();
        assert_eq!((present.kind.as_str(), present.number), ("present", 1));
        let failed = watched.next().await.unwrap();
        assert_eq!((failed.kind.as_str(), failed.number), ("node_failed", 2));
        assert_eq!(
            (failed.owner.as_str(), failed.detail.as_str()),
            ("ann", "it is damaged")
        );
    }

    #[tokio::test]
    async fn a_reader_that_is_too_slow_reads_that_it_missed_changes() {
        let changes = Changes::default();
        let mut watched = pin!(changes.watch());
        for _ in 0..KEPT + 3 {
            changes.report(Kind::PhoneAttached, "ann", "");
        }
        drop(watched.next().await);
        let missed = watched.next().await.unwrap();
        assert_eq!((missed.kind.as_str(), missed.number), ("missed", 3));
        assert_eq!(watched.next().await.unwrap().number, 4);
    }

    #[tokio::test]
    async fn the_stream_ends_with_the_host() {
        let changes = Changes::default();
        let mut watched = pin!(changes.watch());
        drop(changes);
        assert_eq!(watched.next().await.unwrap().kind, "present");
        assert_eq!(watched.next().await, None);
    }
}
