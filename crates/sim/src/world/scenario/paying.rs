//! Payments: owners who pay each other, and try again when it fails.

use std::sync::Arc;
use std::time::Duration;

use longhand_phone::{Phone, PhoneError};
use longhand_proto::operator::HubPayRequest;

use super::Outcome;
use crate::world::stage::{ANN, BOB, OWNERS, Stage, text};

pub const PAYMENT_MSAT: u64 = 50_000_000;
/// More than one channel of an owner's can carry, and less than two.
const LARGE_MSAT: u64 = 1_500_000_000;
/// How often an owner tries again to pay what failed, and after how long.
const TRIES: u32 = 3;
const TRY_AGAIN: Duration = Duration::from_secs(30);
const HUB_TRIES_AGAIN: Duration = Duration::from_secs(5);

/// Pays an invoice of `to`'s, and waits until both have heard of the end.
pub async fn pay(stage: &Arc<Stage>, from: usize, to: usize) -> Result<Outcome, String> {
    pay_amount(stage, from, to, PAYMENT_MSAT).await
}

/// A payment that one channel cannot carry.
pub async fn pay_in_parts(stage: &Arc<Stage>) -> Result<Outcome, String> {
    pay_amount(stage, ANN, BOB, LARGE_MSAT).await
}

async fn pay_amount(
    stage: &Arc<Stage>,
    from: usize,
    to: usize,
    amount_msat: u64,
) -> Result<Outcome, String> {
    let bolt11 = invoice(stage, to, amount_msat).await?;
    let paid = pay_in_the_end(stage, from, &bolt11).await.map_err(text)?;
    let hash = &paid.payment_hash;
    let received = stage.owner(to, async |phone| payment(&phone, hash, false).await);
    let received = received.await.map_err(text)?;
    let mut outcome = Outcome::default();
    outcome.paid_msat[from] = paid.amount_msat;
    outcome.fee_msat[from] = paid.fee_msat;
    outcome.received_msat[to] = received.amount_msat;
    Ok(outcome)
}

/// A payment may fail, with nothing paid, when a channel was away as it was sent; an owner tries again, at last when nothing
/// is wrong any more.
pub async fn pay_in_the_end(
    stage: &Arc<Stage>,
    from: usize,
    bolt11: &str,
) -> Result<Payment, PhoneError> {
    for _ in 0..TRIES {
        let paid = stage.owner(from, async |phone| pay_once(&phone, bolt11).await);
        match paid.await {
            Err(PhoneError::PaymentFailed(_)) => tokio::time::sleep(TRY_AGAIN).await,
            ended => return ended,
        }
    }
    stage.plan.is_over().await;
    stage
        .owner(from, async |phone| pay_once(&phone, bolt11).await)
        .await
}

pub type Payment = longhand_phone::command::Payment;

/// Paid before its answer was heard, it is paid all the same.
pub async fn pay_once(phone: &Phone, bolt11: &str) -> Result<Payment, PhoneError> {
    match phone.pay(bolt11, None, None).await {
        Err(error) if error.code() == "ALREADY_PAID" => {
            let payments = phone.payments().await?.payments;
            let last = payments.into_iter().rfind(|payment| payment.outbound);
            last.ok_or(error)
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
pub async fn invoice(stage: &Arc<Stage>, owner: usize, amount_msat: u64) -> Result<String, String> {
    let invoice = async |phone: Phone| {
        phone
            .invoice(Some(amount_msat), "simulated", 7 * 24 * 3600)
            .await
    };
    let invoice = stage.owner(owner, invoice).await.map_err(text)?;
    Ok(invoice.bolt11)
}

/// Has the hub pay, across hosts that die, until it has the preimage. Asked again it does not pay twice.
pub async fn hub_pays(stage: &Arc<Stage>, bolt11: &str) {
    loop {
        let pay = HubPayRequest {
            bolt11: bolt11.into(),
            ..HubPayRequest::default()
        };
        if let Some(operator) = stage.operator()
            && operator.hub_pay(pay).await.is_ok()
        {
            return;
        }
        tokio::time::sleep(HUB_TRIES_AGAIN).await;
    }
}

/// An invoice's, in hex.
pub fn payment_hash(bolt11: &str) -> Result<String, String> {
    let invoice: lightning_invoice::Bolt11Invoice = bolt11.parse().map_err(text)?;
    Ok(invoice.payment_hash().to_string())
}

/// A payment to somebody who sleeps: the hub gives it back.
pub async fn fail(stage: &Arc<Stage>) -> Result<Outcome, String> {
    let bolt11 = &invoice(stage, BOB, PAYMENT_MSAT).await?;
    // Before that the payment would be on its way to a node that may still get its phone back.
    fall_asleep(stage, BOB).await?;
    let paid = stage
        .owner(ANN, async |phone| pay_once(&phone, bolt11).await)
        .await;
    stage.come_back(BOB);
    match paid {
        Err(PhoneError::PaymentFailed(_)) => Ok(Outcome::default()),
        Err(error) => Err(format!("it failed otherwise: {error}")),
        Ok(_) => Err("it should not have been paid".into()),
    }
}

/// Takes an owner's phone off the network, and waits until the node has let its peers go.
pub async fn fall_asleep(stage: &Arc<Stage>, owner: usize) -> Result<(), String> {
    stage.put_to_sleep(owner);
    stage
        .until("the node is dormant", async |operator| {
            let mut nodes = operator.list_nodes().await.ok()?.nodes.into_iter();
            let node = nodes.find(|node| node.owner == OWNERS[owner])?;
            Some(node.state == "dormant")
        })
        .await
}
