//! What is done in a run, by owners and the operator, however often their processes die meanwhile.

use std::sync::Arc;

use longhand_phone::{Phone, PhoneError};
use longhand_proto::operator::HubOpenChannelRequest;

use crate::world::stage::{ANN, BOB, OWNERS, PATIENCE, Stage, text};
use crate::world::template::{CONFIRMATIONS, all_usable};

const PAYMENT_MSAT: u64 = 50_000_000;
/// How often an owner tries again to pay what failed, and after how long.
const TRIES: u32 = 3;
const TRY_AGAIN: std::time::Duration = std::time::Duration::from_secs(30);
const OPENED_SAT: u64 = 1_000_000;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scenario {
    /// One owner pays the other.
    Pay,
    /// Both pay each other at once.
    PayBothWays,
    /// A payment to somebody who sleeps: the hub holds it, calls, and gives up.
    Fail,
    /// The hub opens a channel to an owner.
    OpenByHub,
    /// An owner opens a channel to the hub from the wallet.
    OpenByPhone,
    /// Fees rise, and the hub agrees on higher ones with its peers.
    RaiseFees,
    /// An owner closes a channel, and both agree.
    Close,
}

/// What a scenario came to, in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Paid by each owner, without fees.
    pub paid_msat: [u64; 2],
    /// Received by each owner.
    pub received_msat: [u64; 2],
    /// Fees of each owner's payments.
    pub fee_msat: [u64; 2],
    /// Channels that were opened.
    pub opened: u32,
    /// Channels that were closed because somebody asked for it.
    pub closed: u32,
}

impl Scenario {
    /// From the simplest.
    pub const ALL: [Scenario; 7] = [
        Scenario::Pay,
        Scenario::PayBothWays,
        Scenario::Fail,
        Scenario::OpenByHub,
        Scenario::OpenByPhone,
        Scenario::RaiseFees,
        Scenario::Close,
    ];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Scenario::Pay => "pay",
            Scenario::PayBothWays => "pay-both-ways",
            Scenario::Fail => "fail",
            Scenario::OpenByHub => "open-by-hub",
            Scenario::OpenByPhone => "open-by-phone",
            Scenario::RaiseFees => "raise-fees",
            Scenario::Close => "close",
        }
    }

    /// Plays it to its end.
    pub(crate) async fn play(self, stage: &Arc<Stage>) -> Result<Outcome, String> {
        let played = async {
            match self {
                Scenario::Pay => pay(stage, ANN, BOB).await,
                Scenario::PayBothWays => {
                    let (one, other) = tokio::join!(pay(stage, ANN, BOB), pay(stage, BOB, ANN));
                    Ok(one?.and(other?))
                }
                Scenario::Fail => fail(stage).await,
                Scenario::OpenByHub => open_by_hub(stage).await,
                Scenario::OpenByPhone => open_by_phone(stage).await,
                Scenario::RaiseFees => raise_fees(stage).await,
                Scenario::Close => close(stage).await,
            }
        };
        let played = tokio::time::timeout(PATIENCE, played).await;
        played.map_err(|_| "the scenario did not end".to_owned())?
    }
}

impl Outcome {
    fn and(mut self, other: Outcome) -> Outcome {
        for owner in 0..OWNERS.len() {
            self.paid_msat[owner] += other.paid_msat[owner];
            self.received_msat[owner] += other.received_msat[owner];
            self.fee_msat[owner] += other.fee_msat[owner];
        }
        self
    }
}

/// Pays an invoice of `to`'s, and waits until both have heard of the end.
async fn pay(stage: &Arc<Stage>, from: usize, to: usize) -> Result<Outcome, String> {
    let bolt11 = invoice(stage, to, PAYMENT_MSAT).await?;
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

/// A payment may fail, with nothing paid, when a channel was away as it was sent; an owner tries again.
async fn pay_in_the_end(
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
    stage
        .owner(from, async |phone| pay_once(&phone, bolt11).await)
        .await
}

type Payment = longhand_phone::command::Payment;

/// Paid before its answer was heard, it is paid all the same.
async fn pay_once(phone: &Phone, bolt11: &str) -> Result<Payment, PhoneError> {
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
async fn payment(phone: &Phone, hash: &str, outbound: bool) -> Result<Payment, PhoneError> {
    use longhand_phone::command::PaymentState::Succeeded;
    let payments = phone.payments().await?.payments;
    let found = payments.into_iter().find(|payment| {
        payment.payment_hash == hash && payment.outbound == outbound && payment.state == Succeeded
    });
    found.ok_or_else(|| PhoneError::HostAway {
        last: "it has not ended yet".into(),
    })
}

async fn invoice(stage: &Arc<Stage>, owner: usize, amount_msat: u64) -> Result<String, String> {
    let invoice = async |phone: Phone| {
        phone
            .invoice(Some(amount_msat), "simulated", 7 * 24 * 3600)
            .await
    };
    let invoice = stage.owner(owner, invoice).await.map_err(text)?;
    Ok(invoice.bolt11)
}

async fn fail(stage: &Arc<Stage>) -> Result<Outcome, String> {
    let bolt11 = &invoice(stage, BOB, PAYMENT_MSAT).await?;
    stage.put_to_sleep(BOB);
    // Before that the payment would be on its way to a node that may still get its phone back.
    stage
        .until("bob's node is dormant", async |operator| {
            let mut nodes = operator.list_nodes().await.ok()?.nodes.into_iter();
            let bob = nodes.find(|node| node.owner == OWNERS[BOB])?;
            Some(bob.state == "dormant")
        })
        .await?;
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

async fn open_by_hub(stage: &Arc<Stage>) -> Result<Outcome, String> {
    // Idempotent it is not: an operator looks before asking again.
    loop {
        let Some(operator) = stage.operator() else {
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            continue;
        };
        let known = operator.hub_channels().await.map(|hub| hub.channels.len());
        if known.as_ref().is_ok_and(|known| *known > OWNERS.len()) {
            break;
        }
        let open = HubOpenChannelRequest {
            owner: OWNERS[ANN].into(),
            amount_sat: OPENED_SAT,
            ..HubOpenChannelRequest::default()
        };
        if known.is_ok() && operator.hub_open_channel(open).await.is_ok() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    }
    opened(stage).await
}

async fn open_by_phone(stage: &Arc<Stage>) -> Result<Outcome, String> {
    stage
        .owner(ANN, async |phone| {
            if phone.channels().await?.channels.len() > 1 {
                return Ok(());
            }
            phone.open(OPENED_SAT, None, false, false).await.map(drop)
        })
        .await
        .map_err(text)?;
    opened(stage).await
}

async fn opened(stage: &Arc<Stage>) -> Result<Outcome, String> {
    for _ in 0..CONFIRMATIONS {
        stage.mine(1).await?;
    }
    all_usable(stage).await?;
    Ok(Outcome {
        opened: 1,
        ..Outcome::default()
    })
}

async fn raise_fees(stage: &Arc<Stage>) -> Result<Outcome, String> {
    let rates = longhand_chain::FeeRates {
        urgent: 5_000,
        normal: 3_000,
        background: 1_000,
        minimum: 253,
    };
    stage.devnet.set_fee_rates(rates);
    // LDK looks once a minute.
    tokio::time::sleep(std::time::Duration::from_secs(150)).await;
    pay(stage, ANN, BOB).await
}

async fn close(stage: &Arc<Stage>) -> Result<Outcome, String> {
    stage
        .owner(ANN, async |phone| {
            let channels = phone.channels().await?.channels;
            let Some(channel) = channels.first() else {
                return Ok(());
            };
            match phone.close(&channel.channel_id, false).await {
                // Asked again after the answer was lost, and the channel has gone meanwhile: so an owner would look.
                Err(_) if phone.channels().await?.channels.is_empty() => Ok(()),
                closed => closed.map(drop),
            }
        })
        .await
        .map_err(text)?;
    stage
        .until("the channel is closed", async |operator| {
            let hub = operator.hub_channels().await.ok()?.channels;
            Some(hub.len() < OWNERS.len())
        })
        .await?;
    stage.mine(CONFIRMATIONS).await?;
    Ok(Outcome {
        closed: 1,
        ..Outcome::default()
    })
}
