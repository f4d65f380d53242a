//! What becomes of a phone's payments and channels, as events.
//!
//! The host sends a phone no events. While somebody listens, the phone reads its payments and channels whenever its signer was asked, since
//! nearly every change needs a signature, and from time to time for the rest; the difference to the reading before is reported.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::{Stream, stream};
use longhand_base::runtime::Runtime;
use tokio::sync::broadcast;

use crate::attachment::Attachment;
use crate::command::{Channels, Payment, PaymentState};
use crate::error::PhoneError;
use crate::events::{Events, PhoneEvent};
use crate::input::InputError;
use crate::phone::{Inner, Phone};

/// Payments that are read at once. More of them between two readings are not reported one by one.
const MOST: usize = 10_000;
/// The pause after the signer was asked: a payment takes several batches.
const SETTLES_IN: Duration = Duration::from_millis(200);
/// The interval of readings for changes without a signature, such as a forced close by the peer.
const AT_LEAST_EACH: Duration = Duration::from_secs(10);

impl Phone {
    /// The phone's events from now on, in order; a stream for each reader. Payments and channels are compared with their state when the
    /// phone is first attached while somebody listens: what changed before is no event, what changes later is one, also while the
    /// phone is away. A reader that is more than 256 events behind gets [`PhoneEvent::Lagged`], and goes on with those that are kept.
    ///
    /// The stream ends with the last handle on the phone.
    pub fn events(&self) -> impl Stream<Item = PhoneEvent> + Send + Unpin + use<> {
        let events = &self.inner.events;
        let reader = events.sender.subscribe();
        if !events.is_watched.swap(true, Ordering::SeqCst) {
            let runtime = &self.inner.runtime;
            runtime.start(watch(
                Arc::downgrade(&self.inner),
                events.clone(),
                runtime.clone(),
            ));
        }
        Box::pin(stream::unfold(reader, |mut reader| async move {
            let event = match reader.recv().await {
                Ok(event) => event,
                Err(broadcast::error::RecvError::Lagged(missed)) => PhoneEvent::Lagged(missed),
                Err(broadcast::error::RecvError::Closed) => return None,
            };
            Some((event, reader))
        }))
    }

    /// The payments and channels, and the events that lead to them from those before.
    async fn read_changes(&self, known: &mut Option<Known>) -> Result<(), PhoneError> {
        let channels = self.channels().await?;
        let mut payments = self.payments_after(known.as_ref()).await?;
        let pending = known.iter().flat_map(Known::pending);
        let is_listed = |hash: &String| payments.iter().any(|it| it.payment_hash == *hash);
        let unlisted: Vec<_> = pending.filter(|hash| !is_listed(hash)).cloned().collect();
        for hash in unlisted {
            match self.payment(&hash).await {
                Ok(payment) => payments.push(payment),
                // The host has forgotten it: no later reading would find it either.
                Err(PhoneError::Input(InputError::PaymentUnknown)) => {}
                Err(error) => return Err(error),
            }
        }
        let now = Known::new(&channels, &payments);
        if let Some(before) = known {
            let changes = before.changes(channels, payments);
            changes.for_each(|event| self.inner.events.report(event));
        }
        *known = Some(now);
        Ok(())
    }

    /// The newest payments, down to one that is known.
    async fn payments_after(&self, known: Option<&Known>) -> Result<Vec<Payment>, PhoneError> {
        let mut page = self.payments_page(None, None).await?;
        let mut payments = std::mem::take(&mut page.payments);
        let Some(known) = known else {
            return Ok(payments);
        };
        let is_known = |it: &Payment| known.payments.contains_key(&it.payment_hash);
        while !page.next.is_empty() && payments.len() < MOST && !payments.iter().any(is_known) {
            page = self.payments_page(None, Some(&page.next)).await?;
            payments.append(&mut page.payments);
        }
        Ok(payments)
    }
}

/// Reads payments and channels for as long as the phone lives, and somebody listens.
async fn watch(phone: Weak<Inner>, events: Arc<Events>, runtime: Arc<dyn Runtime>) {
    let mut known = None;
    while let Some(inner) = phone.upgrade() {
        let phone = Phone::of(inner);
        if phone.inner.lifeline.is_cut() {
            return;
        }
        let is_attached = matches!(*phone.inner.attachment.borrow(), Attachment::Up);
        if events.sender.receiver_count() == 0 {
            known = None;
        } else if is_attached && let Err(error) = phone.read_changes(&mut known).await {
            tracing::debug!(%error, "payments and channels were not read");
        }
        drop(phone);
        let _ = runtime
            .timeout(AT_LEAST_EACH, events.asked.notified())
            .await;
        runtime.sleep(SETTLES_IN).await;
    }
}

/// The state of payments and channels at one reading.
struct Known {
    payments: HashMap<String, PaymentState>,
    /// Whether each channel is ready.
    channels: HashMap<String, bool>,
    closed: Vec<String>,
}

impl Known {
    fn new(channels: &Channels, payments: &[Payment]) -> Known {
        let payments = payments.iter();
        let open = channels.channels.iter();
        let closed = channels.closed.iter();
        Known {
            payments: payments
                .map(|it| (it.payment_hash.clone(), it.state))
                .collect(),
            channels: open.map(|it| (it.channel_id.clone(), it.ready)).collect(),
            closed: closed.map(|it| it.channel_id.clone()).collect(),
        }
    }

    fn pending(&self) -> impl Iterator<Item = &String> {
        let payments = self.payments.iter();
        let pending = payments.filter(|(_, state)| **state == PaymentState::Pending);
        pending.map(|(hash, _)| hash)
    }

    /// The events between this reading and a later one; payments the oldest first.
    fn changes(
        &self,
        channels: Channels,
        payments: Vec<Payment>,
    ) -> impl Iterator<Item = PhoneEvent> {
        let ready = channels.channels.into_iter();
        let ready = ready.filter(|it| it.ready && self.channels.get(&it.channel_id) != Some(&true));
        let closed = channels.closed.into_iter();
        let closed = closed.filter(|it| !self.closed.contains(&it.channel_id));
        let ended = payments.into_iter().rev();
        let ended = ended.filter(|it| self.payments.get(&it.payment_hash) != Some(&it.state));
        ready
            .map(PhoneEvent::ChannelReady)
            .chain(ended.filter_map(ended_payment))
            .chain(closed.map(PhoneEvent::ChannelClosed))
    }
}

fn ended_payment(payment: Payment) -> Option<PhoneEvent> {
    match (payment.state, payment.outbound) {
        (PaymentState::Succeeded, true) => Some(PhoneEvent::PaymentSent(payment)),
        (PaymentState::Succeeded, false) => Some(PhoneEvent::PaymentReceived(payment)),
        (PaymentState::Failed, true) => Some(PhoneEvent::PaymentFailed(payment)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::StreamExt;
    use longhand_link::DialOptions;

    use longhand_proto::signer::Refusal;

    use super::*;
    use crate::events::KEPT;
    use crate::tests::{WORDS, new_vault, start};

    fn refusal(rule: &str, retry: bool) -> Refusal {
        Refusal {
            rule: rule.into(),
            message: "no".into(),
            retry,
        }
    }

    #[tokio::test]
    async fn a_reader_that_is_too_slow_reads_how_many_events_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let phone = start(new_vault(dir.path(), WORDS), DialOptions::default()).unwrap();
        let mut events = phone.events();
        for _ in 0..KEPT + 4 {
            phone.inner.events.report(PhoneEvent::Attached);
        }
        assert_eq!(events.next().await, Some(PhoneEvent::Lagged(4)));
        for _ in 0..KEPT {
            assert_eq!(events.next().await, Some(PhoneEvent::Attached));
        }
    }

    #[tokio::test]
    async fn a_refusal_for_good_is_an_event_and_one_for_now_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let phone = start(new_vault(dir.path(), WORDS), DialOptions::default()).unwrap();
        let mut events = phone.events();
        let refusals = vec![refusal("for-now", true), refusal("for-good", false)];
        phone.inner.events.answered(refusals);
        let Some(PhoneEvent::Refused { rule, .. }) = events.next().await else {
            panic!("the refusal is an event");
        };
        assert_eq!(rule, "for-good");
    }
}
