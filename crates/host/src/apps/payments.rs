//! Payments that an app asks for, and the history.

use std::time::Duration;

use longhand_lnd::NodeError;
use longhand_lnd::node::{Page, Pay, Payment, PaymentFailure, PaymentState, Updates, index_of};
use longhand_proto::command::app_reply::Reply as Answer;
use longhand_proto::command::app_request::Ask as AppAsk;
use longhand_proto::command::command::Command as Ask;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::payment::State;
use longhand_proto::command::{self as proto, AppPay};
use tokio::time::sleep;

use super::node::{AppNode, reply_of};
use super::questions::unreadable;

/// How often the node is asked whether a payment has begun that the owner is asked about.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Payments that the node lists at once.
const PER_PAGE: u32 = 1_000;
/// The most pages that are read for one call.
const MOST_PAGES: usize = 100;

impl AppNode {
    /// Asks the owner's phone, and returns when the payment has begun.
    pub(super) async fn asked_to_pay(&self, pay: Pay) -> Result<Updates<Payment>, NodeError> {
        let before = self.found(pay.payment_hash).await?.filter(|it| it.outbound);
        match before.as_ref().map(proto::Payment::state) {
            Some(State::Pending) => return Err(NodeError::InFlight),
            Some(State::Succeeded) => return Err(NodeError::AlreadyPaid),
            _ => {}
        }
        let within = Duration::from_secs(pay.timeout_s.into());
        let hash = pay.payment_hash;
        let ask = AppAsk::Pay(AppPay {
            bolt11: pay.bolt11,
            amount_msat: pay.amount_msat.unwrap_or(0),
            max_fee_msat: Some(pay.max_fee_msat),
        });
        let asking = self.ask_phone(ask, within);
        tokio::pin!(asking);
        loop {
            tokio::select! {
                biased;
                answered = &mut asking => return self.answered(hash, answered).await,
                () = sleep(LOOK_EVERY) => {
                    if let Some(begun) = self.begun(hash).await? {
                        return Ok(self.updates(begun));
                    }
                }
            }
        }
    }

    /// The phone answers when the payment has ended, or when it has not begun.
    async fn answered(
        &self,
        hash: [u8; 32],
        answered: Result<Answer, NodeError>,
    ) -> Result<Updates<Payment>, NodeError> {
        let known = self.payment_of(hash).await?;
        match (answered, known) {
            // It has begun, whatever became of the answer.
            (_, Some(payment)) if payment.state == PaymentState::InFlight => {
                Ok(self.updates(payment))
            }
            (Ok(Answer::Paid(_)), Some(payment)) => Ok(self.updates(payment)),
            (Ok(_), _) => Err(unreadable()),
            (Err(error), _) => Err(error),
        }
    }

    async fn begun(&self, hash: [u8; 32]) -> Result<Option<Payment>, NodeError> {
        let payment = self.payment_of(hash).await?;
        Ok(payment.filter(|payment| payment.state == PaymentState::InFlight))
    }

    /// An outgoing payment.
    pub(super) async fn payment_of(&self, hash: [u8; 32]) -> Result<Option<Payment>, NodeError> {
        let found = self.found(hash).await?;
        Ok(found.filter(|it| it.outbound).and_then(sent))
    }

    /// The states of a payment from this one on.
    pub(super) fn updates(&self, now: Payment) -> Updates<Payment> {
        let updates = futures::stream::unfold(
            (self.clone(), Some(now), true),
            |(node, now, is_first)| async move {
                let payment = now?;
                if is_first {
                    let goes_on = payment.state == PaymentState::InFlight;
                    let next = goes_on.then(|| payment.clone());
                    return Some((Ok(payment), (node, next, false)));
                }
                let ended = node.ended(payment.payment_hash).await;
                Some((ended, (node, None, false)))
            },
        );
        Box::pin(updates)
    }

    /// Waits for the end of a payment.
    async fn ended(&self, hash: [u8; 32]) -> Result<Payment, NodeError> {
        loop {
            let wait = Ask::AwaitPayment(proto::AwaitPayment {
                payment_hash: hash.to_vec(),
            });
            let payment = reply_of!(self.command(wait).await?, Payment)?;
            let payment = sent(payment).ok_or_else(unreadable)?;
            if payment.state != PaymentState::InFlight {
                return Ok(payment);
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// A payment in or out, as the node has it.
    pub(super) async fn found(&self, hash: [u8; 32]) -> Result<Option<proto::Payment>, NodeError> {
        let get = Ask::GetPayment(proto::GetPayment {
            payment_hash: hash.to_vec(),
        });
        Ok(reply_of!(self.command(get).await?, FoundPayment)?.payment)
    }

    /// The payments of a page that are wanted, newest first. Of a page whose oldest are wanted all that are on it.
    pub(super) async fn history(
        &self,
        page: Page,
        is_wanted: impl Fn(&proto::Payment) -> bool,
    ) -> Result<Vec<proto::Payment>, NodeError> {
        let (mut found, mut before) = (Vec::new(), Vec::new());
        for _ in 0..MOST_PAGES {
            let list = Ask::ListPayments(proto::ListPayments {
                limit: PER_PAGE,
                before,
            });
            let listed = reply_of!(self.command(list).await?, Payments)?;
            let mut is_last = listed.next.is_empty();
            for payment in listed.payments {
                let index = index(&payment);
                is_last |= index <= page.above;
                if index > page.above && index < page.below && is_wanted(&payment) {
                    found.push(payment);
                }
            }
            if is_last || (page.newest_first && found.len() >= page.limit) {
                break;
            }
            before = listed.next;
        }
        Ok(found)
    }
}

fn index(payment: &proto::Payment) -> u64 {
    let hash = payment
        .payment_hash
        .as_slice()
        .try_into()
        .unwrap_or([0; 32]);
    index_of(payment.created_unix_s, &hash)
}

/// An outgoing payment.
pub(super) fn sent(payment: proto::Payment) -> Option<Payment> {
    let state = match payment.state() {
        State::Unknown => return None,
        State::Pending => PaymentState::InFlight,
        State::Succeeded => PaymentState::Succeeded,
        State::Failed => PaymentState::Failed(failure(&payment.failure)),
    };
    Some(Payment {
        payment_hash: payment.payment_hash.try_into().ok()?,
        preimage: payment
            .preimage
            .try_into()
            .ok()
            .filter(|_| state == PaymentState::Succeeded),
        amount_msat: payment.amount_msat,
        fee_msat: payment.fee_msat,
        state,
        created_unix_s: payment.created_unix_s,
        bolt11: payment.bolt11,
    })
}

/// The node says it for people.
fn failure(reason: &str) -> PaymentFailure {
    let says = |what: &str| reason.to_ascii_lowercase().contains(what);
    match () {
        () if says("route") || says("fee") => PaymentFailure::NoRoute,
        () if says("expired") || says("in time") => PaymentFailure::Timeout,
        () if says("payee") || says("recipient") => PaymentFailure::RefusedByPayee,
        () => PaymentFailure::Other,
    }
}
