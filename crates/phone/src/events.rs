//! Events of a phone, and where they come together. `watching` reads what becomes of payments and channels.

use std::collections::BTreeSet;
use std::mem::discriminant;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

use longhand_base::text::plain;
use longhand_proto::signer::Refusal;
use tokio::sync::{Notify, broadcast};

use crate::attachment::Attachment;
use crate::command::{Channel, ClosedChannel, Deadline, Payment};
use crate::error::ErrorReport;

/// Events that are kept for a reader that is slow.
pub(crate) const KEPT: usize = 256;

/// Something that happened to a phone.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PhoneEvent {
    /// The phone is attached to its node.
    Attached,
    /// The link is down, for this reason; the host is dialled again.
    Away(String),
    /// The link is down, and nothing is dialled any more: the phone has detached, or dialling is of no use.
    Detached(ErrorReport),
    /// The signer has refused an operation of the node, for good or until the owner allows it.
    Refused {
        /// The stable name of the rule.
        rule: String,
        /// One line for a person.
        message: String,
    },
    /// The host reports that a payment was received: its word, which nothing here checks.
    PaymentReceived(Payment),
    /// The host reports that a payment was sent. [`Phone::pay`](crate::Phone::pay) has checked the proof of one that it has waited for.
    PaymentSent(Payment),
    /// A payment that was to be sent has failed: nothing was paid.
    PaymentFailed(Payment),
    /// A channel can carry payments from now on.
    ChannelReady(Channel),
    /// A channel was closed.
    ChannelClosed(ClosedChannel),
    /// An incoming payment needs the phone before a block that may come within hours, by the phone's own records.
    DeadlineNear(Deadline),
    /// The reader was too slow, and so many events are gone: read the present state.
    Lagged(u64),
}

/// Where a phone's events come together.
pub(crate) struct Events {
    pub sender: broadcast::Sender<PhoneEvent>,
    /// Notified when the signer was asked, and when the link has changed.
    pub asked: Notify,
    pub is_watched: AtomicBool,
    /// What waits for the owner and was reported: the node asks for it again and again. As many as the phone has channels.
    waiting: Mutex<BTreeSet<String>>,
}

impl Events {
    pub fn new() -> Events {
        Events {
            sender: broadcast::Sender::new(KEPT),
            asked: Notify::new(),
            is_watched: AtomicBool::new(false),
            waiting: Mutex::default(),
        }
    }

    /// Nobody may listen.
    pub fn report(&self, event: PhoneEvent) {
        let _ = self.sender.send(event);
    }

    /// The link is in another state, or in the same for another reason.
    pub fn link_changed(&self, before: &Attachment, now: &Attachment) {
        if discriminant(before) != discriminant(now) {
            self.report(now.into());
        }
        self.asked.notify_one();
    }

    /// The signer has answered the node, and refused these operations. Those that may be answered later are no events, unless the owner has
    /// to allow them.
    pub fn answered(&self, refusals: Vec<Refusal>) {
        for refusal in refusals.into_iter().filter(|it| self.is_news(it)) {
            self.report(PhoneEvent::Refused {
                rule: plain(&refusal.rule),
                message: plain(&refusal.message),
            });
        }
        self.asked.notify_one();
    }

    fn is_news(&self, refusal: &Refusal) -> bool {
        if !refusal.retry {
            return true;
        }
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        refusal.waits_for_the_owner() && waiting.insert(refusal.message.clone())
    }
}

impl From<&Attachment> for PhoneEvent {
    fn from(attachment: &Attachment) -> PhoneEvent {
        match attachment {
            Attachment::Up => PhoneEvent::Attached,
            Attachment::Down(reason) => PhoneEvent::Away(plain(reason)),
            Attachment::Ended(report) => PhoneEvent::Detached(report.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use longhand_proto::rule::Rule;

    use super::*;

    #[test]
    fn what_waits_for_the_owner_is_reported_once() {
        let events = Events::new();
        let mut reported = events.sender.subscribe();
        let refused = |rule: Rule, message: &str| Refusal {
            rule: rule.name().into(),
            message: message.into(),
            retry: true,
        };
        for _ in 0..3 {
            events.answered(vec![
                refused(Rule::HtlcRemovedEarly, "channel 1"),
                refused(Rule::CloseUnasked, "channel 1"),
                refused(Rule::CloseUnasked, "channel 2"),
            ]);
        }
        for message in ["channel 1", "channel 2"] {
            let (rule, message) = ("close-unasked".into(), message.into());
            assert_eq!(
                reported.try_recv(),
                Ok(PhoneEvent::Refused { rule, message })
            );
        }
        assert!(reported.try_recv().is_err());
    }
}
