//! Payments while everything is being killed: how each is made, and how it must have ended once all is quiet.

use std::time::{Duration, Instant};

use bitcoin::hex::DisplayHex;
use lightning_invoice::Bolt11Invoice;
use longhand_phone::PhoneError;
use longhand_phone::command::{Payment, PaymentState};
use longhand_proto::Code;
use longhand_testkit::KitError;
use longhand_testkit::operator::OperatorClient;
use longhand_testkit::processes::PhoneClient;

use super::plan::Order;

/// Time limit for an invoice; without one there is no payment.
const INVOICE_PATIENCE: Duration = Duration::from_secs(5);
/// How long the hub is asked again for a payment whose answer was lost, and how often.
const HUB_PATIENCE: Duration = Duration::from_secs(120);
const HUB_PAUSE: Duration = Duration::from_millis(200);

/// One that can pay and be paid.
#[derive(Clone)]
pub(super) enum Party {
    Hub(OperatorClient),
    Phone(PhoneClient),
}

/// Answer to the payer's command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Paid,
    /// It failed, and nothing was paid.
    Failed(String),
    /// No answer on how it ended, for example because the phone was killed.
    Lost(String),
    /// No answer for a minute, from a process that ran all the time.
    Late(String),
}

impl Answer {
    /// For a person.
    pub fn line(&self) -> String {
        match self {
            Answer::Paid => "paid".into(),
            Answer::Failed(line) | Answer::Lost(line) | Answer::Late(line) => line.clone(),
        }
    }
}

/// A payment that was begun: its payer got the command to pay.
#[derive(Clone, Debug)]
pub(super) struct Tried {
    pub order: Order,
    /// The invoice.
    pub bolt11: String,
    /// Hex.
    pub hash: String,
    pub answer: Answer,
    /// Its end at the last check.
    pub ended: Option<End>,
}

impl Tried {
    /// Records its end, which must not change any more.
    ///
    /// # Errors
    /// When it had ended otherwise before, for a person.
    pub fn ends(&mut self, end: End) -> Result<End, String> {
        match self.ended.replace(end) {
            Some(before) if before != end => Err(format!(
                "payment {} ({:?}) was {before:?} and is {end:?} now",
                self.hash, self.order
            )),
            _ => Ok(end),
        }
    }
}

/// How a payment ended, on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Succeeded,
    /// Or was never sent.
    Failed,
}

/// Carries a payment out as far as it goes. `None` when the payee gave no invoice, or the payer's phone does not run.
pub(super) async fn carry_out(order: Order, payer: Party, payee: Party) -> Option<Tried> {
    let invoice = tokio::time::timeout(INVOICE_PATIENCE, payee.invoice(order.amount_msat));
    let bolt11 = invoice.await.ok()?.ok()?;
    let invoice: Bolt11Invoice = bolt11.parse().ok()?;
    let hash = invoice.payment_hash().0.to_lower_hex_string();
    let answer = match payer {
        Party::Phone(owner) => phone_answer(owner.pay(bolt11.clone()).await)?,
        Party::Hub(operator) => hub_pays(&operator, &bolt11).await,
    };
    Some(Tried {
        order,
        bolt11,
        hash,
        answer,
        ended: None,
    })
}

impl Party {
    async fn invoice(&self, amount_msat: u64) -> Result<String, KitError> {
        match self {
            Party::Hub(operator) => operator.hub_invoice(amount_msat).await,
            Party::Phone(owner) => Ok(owner.invoice(amount_msat).await?.bolt11),
        }
    }
}

/// `None` when the phone never got the command.
fn phone_answer(answer: Result<Payment, KitError>) -> Option<Answer> {
    Some(match answer {
        Ok(_) => Answer::Paid,
        Err(KitError::Away(_)) => return None,
        Err(late @ KitError::Late(_)) => Answer::Late(late.to_string()),
        Err(KitError::Phone(PhoneError::Reported(report)))
            if report.code == Code::PaymentFailed =>
        {
            Answer::Failed(report.message)
        }
        Err(error) => Answer::Lost(error.to_string()),
    })
}

/// Repeats the command until there is an answer: the same invoice is never paid twice, so the last attempt counts.
pub(super) async fn hub_pays(operator: &OperatorClient, bolt11: &str) -> Answer {
    let since = Instant::now();
    loop {
        let error = match operator.hub_pay(bolt11.to_owned()).await {
            Ok(_) => return Answer::Paid,
            Err(error) => error,
        };
        match error {
            KitError::Status(status)
                if matches!(
                    status.code(),
                    tonic::Code::Aborted
                        | tonic::Code::InvalidArgument
                        | tonic::Code::FailedPrecondition
                ) =>
            {
                return Answer::Failed(status.message().to_owned());
            }
            late @ KitError::Late(_) => return Answer::Late(late.to_string()),
            error if since.elapsed() > HUB_PATIENCE => return Answer::Lost(error.to_string()),
            _ => tokio::time::sleep(HUB_PAUSE).await,
        }
    }
}

/// How a payment has ended, by the answer to its payer and the books of both sides; a side without books is `None`, and
/// one whose books do not have the payment is `Some(None)`.
///
/// # Errors
/// The inconsistency, for a person.
pub(super) fn judge(
    tried: &Tried,
    payer: Option<Option<&Payment>>,
    payee: Option<Option<&Payment>>,
) -> Result<End, String> {
    let off = |what: &str| {
        let answer = &tried.answer;
        let show = |side: Option<Option<&Payment>>| match side {
            None => "no books".to_owned(),
            Some(None) => "nothing".to_owned(),
            Some(Some(payment)) => format!("{} {}", payment.state.as_str(), payment.failure),
        };
        format!(
            "payment {} ({:?}): {what}; the payer got {answer:?} and has {}, the payee has {}",
            tried.hash,
            tried.order,
            show(payer),
            show(payee)
        )
    };
    let sent = match payer {
        Some(None) => Some(End::Failed),
        Some(Some(payment)) => end(payment.state),
        None => match tried.answer {
            Answer::Paid => Some(End::Succeeded),
            Answer::Failed(_) => Some(End::Failed),
            Answer::Lost(_) | Answer::Late(_) => None,
        },
    };
    let sent = sent.ok_or_else(|| off("it never ends"))?;
    match (&tried.answer, sent) {
        (Answer::Paid, End::Failed) => return Err(off("it succeeded and then failed")),
        (Answer::Failed(_), End::Succeeded) => return Err(off("it failed and then succeeded")),
        _ => {}
    }
    let Some(received) = payee else {
        return Ok(sent);
    };
    match (sent, received.map(|payment| payment.state)) {
        (End::Succeeded, Some(PaymentState::Succeeded)) => {}
        (End::Succeeded, _) => return Err(off("it was paid and not received")),
        (End::Failed, Some(PaymentState::Succeeded)) => {
            return Err(off("it was received and not paid"));
        }
        (End::Failed, Some(PaymentState::Pending | PaymentState::Unknown)) => {
            return Err(off("it never ends for the payee"));
        }
        (End::Failed, None | Some(PaymentState::Failed)) => {}
    }
    match received {
        Some(payment) if sent == End::Succeeded => {
            match payment.amount_msat == tried.order.amount_msat {
                true => Ok(sent),
                false => Err(off("another amount was received")),
            }
        }
        _ => Ok(sent),
    }
}

fn end(state: PaymentState) -> Option<End> {
    match state {
        PaymentState::Succeeded => Some(End::Succeeded),
        PaymentState::Failed => Some(End::Failed),
        PaymentState::Pending | PaymentState::Unknown => None,
    }
}

/// Amounts that a phone's payments have moved: received, and sent with fees.
pub(super) fn moved_msat<'a>(payments: impl IntoIterator<Item = &'a Payment>) -> (u64, u64) {
    let mut moved = (0, 0);
    for payment in payments {
        match (payment.state, payment.outbound) {
            (PaymentState::Succeeded, false) => moved.0 += payment.amount_msat,
            (PaymentState::Succeeded, true) => moved.1 += payment.amount_msat + payment.fee_msat,
            _ => {}
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::super::plan::Who;
    use super::*;

    fn tried(answer: Answer) -> Tried {
        Tried {
            order: Order {
                payer: Who::Phone(0),
                payee: Who::Phone(1),
                amount_msat: 5_000,
            },
            bolt11: String::new(),
            hash: "aa".into(),
            answer,
            ended: None,
        }
    }

    fn payment(outbound: bool, state: PaymentState) -> Payment {
        Payment {
            payment_hash: "aa".into(),
            outbound,
            amount_msat: 5_000,
            fee_msat: if outbound { 7 } else { 0 },
            state,
            preimage: String::new(),
            created_unix_s: 0,
            failure: String::new(),
            ended_unix_s: 0,
            description: String::new(),
            payee_node_id: String::new(),
            bolt11: String::new(),
            expires_unix_s: 0,
        }
    }

    fn lost() -> Answer {
        Answer::Lost("killed".into())
    }

    #[test]
    fn both_sides_agree_or_it_is_off() {
        use PaymentState::{Failed, Pending, Succeeded};
        let cases = [
            (Some(Succeeded), Some(Succeeded), Some(End::Succeeded)),
            (Some(Succeeded), None, None),
            (Some(Succeeded), Some(Pending), None),
            (Some(Failed), None, Some(End::Failed)),
            (Some(Failed), Some(Failed), Some(End::Failed)),
            (Some(Failed), Some(Pending), None),
            (Some(Failed), Some(Succeeded), None),
            (Some(Pending), None, None),
            (Some(Pending), Some(Succeeded), None),
            (None, None, Some(End::Failed)),
            (None, Some(Succeeded), None),
        ];
        for (payer, payee, expected) in cases {
            let payer = payer.map(|state| payment(true, state));
            let payee = payee.map(|state| payment(false, state));
            let found = judge(&tried(lost()), Some(payer.as_ref()), Some(payee.as_ref()));
            assert_eq!(found.clone().ok(), expected, "{found:?}");
        }
    }

    #[test]
    fn the_answer_to_the_payer_stays_true() {
        let (succeeded, failed) = (
            payment(true, PaymentState::Succeeded),
            payment(true, PaymentState::Failed),
        );
        let paid = judge(&tried(Answer::Paid), Some(Some(&failed)), None);
        assert!(paid.unwrap_err().contains("succeeded and then failed"));
        let unpaid = tried(Answer::Failed("no route".into()));
        let off = judge(&unpaid, Some(Some(&succeeded)), None).unwrap_err();
        assert!(off.contains("failed and then succeeded"), "{off}");
    }

    #[test]
    fn what_has_ended_stays_as_it_was() {
        let mut tried = tried(lost());
        assert_eq!(tried.ends(End::Failed), Ok(End::Failed));
        assert_eq!(tried.ends(End::Failed), Ok(End::Failed));
        let off = tried.ends(End::Succeeded).unwrap_err();
        assert!(off.contains("was Failed and is Succeeded"), "{off}");
    }

    #[test]
    fn another_amount_is_off() {
        let sent = payment(true, PaymentState::Succeeded);
        let mut received = payment(false, PaymentState::Succeeded);
        received.amount_msat -= 1;
        let off = judge(&tried(lost()), Some(Some(&sent)), Some(Some(&received))).unwrap_err();
        assert!(off.contains("another amount"), "{off}");
    }

    #[test]
    fn only_what_succeeded_moves_money() {
        let payments = [
            payment(true, PaymentState::Succeeded),
            payment(true, PaymentState::Failed),
            payment(false, PaymentState::Succeeded),
            payment(false, PaymentState::Pending),
        ];
        assert_eq!(moved_msat(&payments), (5_000, 5_007));
    }
}
