//! Payments: owners who pay each other, and try again when it fails.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use longhand_phone::{Phone, PhoneError};
use longhand_proto::Code;
use longhand_proto::command::error::Action;
use longhand_proto::operator::HubPayRequest;

use super::Outcome;
use crate::world::plan::Kind;
use crate::world::simulator::{ANN, BOB, OWNERS, PATIENCE, Simulator, text};

pub const PAYMENT_MSAT: u64 = 50_000_000;
/// More than one channel of an owner's can carry, and less than two.
const LARGE_MSAT: u64 = 1_500_000_000;
/// How often an owner retries a payment that failed, and after how long.
const TRIES: u32 = 3;
const TRY_AGAIN: Duration = Duration::from_secs(30);
const HUB_TRIES_AGAIN: Duration = Duration::from_secs(5);
/// More than the hub holds a payment, and less than the scenario may last.
pub const HELD_AT_MOST: Duration = Duration::from_secs(3600);

/// Pays an invoice of `to`'s, and waits until both sides report its end.
pub async fn pay(sim: &Arc<Simulator>, from: usize, to: usize) -> Result<Outcome, String> {
    pay_amount(sim, from, to, PAYMENT_MSAT).await
}

/// A payment that one channel cannot carry.
pub async fn pay_in_parts(sim: &Arc<Simulator>) -> Result<Outcome, String> {
    pay_amount(sim, ANN, BOB, LARGE_MSAT).await
}

async fn pay_amount(
    sim: &Arc<Simulator>,
    from: usize,
    to: usize,
    amount_msat: u64,
) -> Result<Outcome, String> {
    let bolt11 = invoice(sim, to, amount_msat).await?;
    let paid = pay_in_the_end(sim, from, &bolt11).await.map_err(text)?;
    is_received(sim, from, to, paid).await
}

/// Waits until the payee also reports the payment.
async fn is_received(
    sim: &Arc<Simulator>,
    from: usize,
    to: usize,
    paid: Payment,
) -> Result<Outcome, String> {
    let hash = &paid.payment_hash;
    let received = sim.owner(to, async |phone| payment(&phone, hash, false).await);
    let received = received.await.map_err(text)?;
    let mut outcome = Outcome::default();
    outcome.paid_msat[from] = paid.amount_msat;
    outcome.fee_msat[from] = paid.fee_msat;
    outcome.received_msat[to] = received.amount_msat;
    outcome.sees(paid.amount_msat, received.amount_msat);
    Ok(outcome)
}

/// A payment may fail, with nothing paid, when a channel was away as it was sent; an owner tries again, the last time
/// when no interruption has an effect, and none happens meanwhile.
pub async fn pay_in_the_end(
    sim: &Arc<Simulator>,
    from: usize,
    bolt11: &str,
) -> Result<Payment, PhoneError> {
    let mut tries = 0;
    loop {
        let happened = sim.plan.happened();
        let paid = sim.owner(from, async |phone| pay_once(&phone, bolt11).await);
        let paid = paid.await;
        tries += 1;
        match paid {
            Err(PhoneError::PaymentFailed(_)) if tries < TRIES => {}
            Err(PhoneError::PaymentFailed(_)) if tries == TRIES => {
                sim.plan.is_over().await;
                // The other's phone may only now be started again.
                tokio::time::sleep(PATIENCE.longest_pause).await;
            }
            Err(PhoneError::PaymentFailed(_)) if sim.plan.happened() > happened => {}
            ended => return ended,
        }
        tokio::time::sleep(TRY_AGAIN).await;
    }
}

pub type Payment = longhand_phone::command::Payment;

/// A payment that succeeded before its answer was lost counts as paid.
pub async fn pay_once(phone: &Phone, bolt11: &str) -> Result<Payment, PhoneError> {
    match phone.pay(bolt11, None, None).await {
        Err(error) if error.code() == Code::AlreadyPaid => {
            let hash = payment_hash(bolt11).map_err(|_| PhoneError::Answer("with an invoice"))?;
            let mut payments = phone.payments().await?.payments.into_iter();
            let paid = payments.find(|payment| payment.outbound && payment.payment_hash == hash);
            paid.ok_or(error)
        }
        outcome => outcome,
    }
}

/// A payment that has ended.
pub async fn payment(phone: &Phone, hash: &str, outbound: bool) -> Result<Payment, PhoneError> {
    use longhand_phone::command::PaymentState::Succeeded;
    let payments = phone.payments().await?.payments;
    let found = payments.into_iter().find(|payment| {
        payment.payment_hash == hash && payment.outbound == outbound && payment.state == Succeeded
    });
    found.ok_or_else(|| PhoneError::HostAway {
        last: "it has not ended yet".into(),
    })
}

/// An invoice of `owner`'s for a week.
pub async fn invoice(
    sim: &Arc<Simulator>,
    owner: usize,
    amount_msat: u64,
) -> Result<String, String> {
    let invoice = async |phone: Phone| {
        phone
            .invoice(Some(amount_msat), "simulated", 7 * 24 * 3600)
            .await
    };
    let invoice = sim.owner(owner, invoice).await.map_err(text)?;
    Ok(invoice.bolt11)
}

/// The hub pays, across hosts that die, until it has the preimage. A repeated request does not pay twice.
pub async fn hub_pays(sim: &Arc<Simulator>, bolt11: &str) {
    loop {
        let pay = HubPayRequest {
            bolt11: bolt11.into(),
            ..HubPayRequest::default()
        };
        if let Some(operator) = sim.operator()
            && operator.hub_pay(pay).await.is_ok()
        {
            return;
        }
        tokio::time::sleep(HUB_TRIES_AGAIN).await;
    }
}

/// Whether the hub has paid, by its answer to a repeated request. For a payment that failed this is another attempt: no
/// way may be left by which it could succeed.
pub async fn hub_has_paid(sim: &Arc<Simulator>, bolt11: &str) -> bool {
    loop {
        let pay = HubPayRequest {
            bolt11: bolt11.into(),
            ..HubPayRequest::default()
        };
        if let Some(operator) = sim.operator() {
            match operator.hub_pay(pay).await {
                Ok(_) => return true,
                Err(error) if is_over(error.code) => return false,
                // The host stops, or starts.
                Err(_) => {}
            }
        }
        tokio::time::sleep(HUB_TRIES_AGAIN).await;
    }
}

fn is_over(code: Code) -> bool {
    let has_failed = [Code::PaymentFailed, Code::NoRoute, Code::PeerAway];
    has_failed.contains(&code) || matches!(code.action(), Action::FixInput | Action::GiveUp)
}

/// Payment hash of an invoice, in hex.
pub fn payment_hash(bolt11: &str) -> Result<String, String> {
    let invoice: lightning_invoice::Bolt11Invoice = bolt11.parse().map_err(text)?;
    Ok(invoice.payment_hash().to_string())
}

/// A payment to a phone that sleeps: the hub fails it. If interrupted, it may have been sent to a node that was gone:
/// then it ends when its phone is back.
pub async fn fail(sim: &Arc<Simulator>) -> Result<Outcome, String> {
    let bolt11 = &invoice(sim, BOB, PAYMENT_MSAT).await?;
    // Before that the payment would be sent to a node that may still get its phone back.
    fall_asleep(sim, BOB).await?;
    let pay = || sim.owner(ANN, async |phone| pay_once(&phone, bolt11).await);
    let waiting = async {
        sim.plan.is_over().await;
        tokio::time::sleep(HELD_AT_MOST).await;
    };
    let given_back = tokio::select! {
        biased;
        ended = pay() => Some(ended),
        () = waiting => None,
    };
    sim.come_back(BOB);
    let ended = match given_back {
        Some(Ok(_)) => return Err("it should not have been paid".into()),
        Some(failed) => failed,
        None if sim.plan.happened() == 0 => return Err("it was not given back".into()),
        None => pay().await,
    };
    let was_held = sim.plan.counts()[Kind::WakeCall as usize] > 0;
    if !was_held && sim.plan.happened() == 0 {
        return Err("nobody was called".into());
    }
    if !was_held || ended.is_ok() {
        sim.plan.goes_beside();
    }
    match ended {
        Ok(paid) => is_received(sim, ANN, BOB, paid).await,
        Err(PhoneError::PaymentFailed(_)) => Ok(Outcome::default()),
        Err(error) => Err(format!("it failed otherwise: {error}")),
    }
}

/// A payment to a phone that sleeps: the hub holds it and sends a wake call, the phone comes, and it is paid. If interrupted,
/// it may fail and is retried; or have been sent to a node that was gone: then it ends when the phone is back by itself.
pub async fn woken(sim: &Arc<Simulator>) -> Result<Outcome, String> {
    let bolt11 = invoice(sim, BOB, PAYMENT_MSAT).await?;
    fall_asleep(sim, BOB).await?;
    sim.can_be_called(BOB);
    let mut paying = pin!(pay_in_the_end(sim, ANN, &bolt11));
    let called = tokio::select! {
        biased;
        paid = &mut paying => Some(paid),
        () = nothing_happens_for(sim, HELD_AT_MOST) => None,
    };
    let paid = match called {
        Some(paid) => paid,
        None if sim.plan.happened() == 0 => return Err("nobody was called".into()),
        None => {
            sim.plan.goes_beside();
            sim.come_back(BOB);
            paying.await
        }
    };
    is_received(sim, ANN, BOB, paid.map_err(text)?).await
}

/// Returns when nothing was interrupted for so long, and no earlier interruption has an effect.
pub async fn nothing_happens_for(sim: &Arc<Simulator>, time: Duration) {
    let mut happened = None;
    while happened != Some(sim.plan.happened()) {
        happened = Some(sim.plan.happened());
        sim.plan.is_over().await;
        tokio::time::sleep(time).await;
    }
}

/// Takes an owner's phone off the network, and waits until its node is dormant.
pub async fn fall_asleep(sim: &Arc<Simulator>, owner: usize) -> Result<(), String> {
    sim.put_to_sleep(owner);
    sim.until("the node is dormant", async |operator| {
        let mut nodes = operator.list_nodes().await.ok()?.nodes.into_iter();
        let node = nodes.find(|node| node.owner == OWNERS[owner])?;
        Some(node.state == "dormant")
    })
    .await
}
