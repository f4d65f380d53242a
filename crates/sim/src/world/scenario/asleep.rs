//! Scenarios in which a phone is away for long.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use longhand_chain::FeeRates;
use longhand_host::Operator;
use longhand_phone::command::PaymentState;

use super::Outcome;
use super::forced::{AFTER_BLOCK, node, sweep};
use super::paying::{PAYMENT_MSAT, Payment, fall_asleep, hub_pays, invoice, pay, payment_hash};
use crate::world::simulator::{ANN, BOB, OWNERS, Simulator, text};
use crate::world::template::all_usable;

/// Blocks before an HTLC's expiry in which it is resolved on chain (LDK's `HTLC_FAIL_BACK_BUFFER`).
const ON_CHAIN_BLOCKS: u32 = 39;
const FEW: u32 = 5;
/// Blocks for which the phone gets wake calls.
const CALLED_BLOCKS: u32 = 72;
/// More time than a wake call and its repetitions take.
const CALL: Duration = Duration::from_secs(3600);
/// LDK closes channels whose fee rate is below the lowest that it was given in so many blocks
/// (`FEERATE_TRACKING_BLOCKS`).
const TRACKED_BLOCKS: u32 = 144;
/// Blocks in the days of a spike, mined one by one.
const SPIKE_BLOCKS: u32 = 150;
/// The host polls fee rates every five minutes, and LDK each minute.
const FEE_UPDATE: Duration = Duration::from_secs(400);
const SPIKE: Duration = Duration::from_secs(2 * 24 * 3600);

/// Ann's phone has given a preimage, and is gone before the HTLC is settled. Only the wake call for its deadline brings
/// it back.
pub async fn deadline(sim: &Arc<Simulator>) -> Result<Outcome, String> {
    let to_ann = invoice(sim, ANN, PAYMENT_MSAT).await?;
    let Some(deadline) = gone_with_an_htlc(sim, &to_ann).await? else {
        return settled_early(sim, &to_ann).await;
    };
    sim.can_be_called(ANN);
    mine_to(sim, deadline - CALLED_BLOCKS - FEW).await?;
    tokio::time::sleep(CALL).await;
    // A reorganisation brings more blocks than were asked for.
    let is_early = sim.devnet.tip().height + CALLED_BLOCKS < deadline;
    if is_early && is_awake(sim).await {
        return Err("the phone was called long before its deadline".into());
    }
    mine_to(sim, deadline - CALLED_BLOCKS + FEW).await?;
    is_called(sim).await?;
    sim.come_back(ANN);
    sim.come_back(BOB);
    all_usable(sim, OWNERS.len()).await?;
    sim.plan.is_over().await;
    sim.quiet().await?;
    mine_to(sim, deadline + ON_CHAIN_BLOCKS + FEW).await?;
    // The phone came in time, so no channel may be closed, whatever is reported.
    let outcome = outcome_at_ann(sim, &to_ann).await?;
    Ok(Outcome {
        forced: 0,
        ..outcome
    })
}

/// As above, but the phone comes too late: the hub has taken the HTLC back, on the chain.
pub async fn deadline_missed(sim: &Arc<Simulator>) -> Result<Outcome, String> {
    let to_ann = invoice(sim, ANN, PAYMENT_MSAT).await?;
    let Some(deadline) = gone_with_an_htlc(sim, &to_ann).await? else {
        return settled_early(sim, &to_ann).await;
    };
    mine_to(sim, deadline - 1).await?;
    tokio::time::sleep(AFTER_BLOCK).await;
    all_are_open(sim).await?;
    let expiry = deadline + ON_CHAIN_BLOCKS;
    // Ann's node closes the channel for it, which needs the phone; then the hub closes, which does not.
    for height in [deadline + FEW, expiry + 3, expiry + 6, expiry + 9] {
        mine_to(sim, height).await?;
        tokio::time::sleep(AFTER_BLOCK).await;
    }
    sim.come_back(ANN);
    sim.come_back(BOB);
    sweep(sim, &Cell::new(true)).await?;
    let outcome = outcome_at_ann(sim, &to_ann).await?;
    if (outcome.forced, outcome.received()) == (1, 0) {
        return Ok(outcome);
    }
    if sim.plan.happened() == 0 {
        return Err(format!("the HTLC should have been lost: {outcome:?}"));
    }
    sim.plan.goes_beside();
    Ok(outcome)
}

/// Fees rise twentyfold for two days in which both phones are away, and fall again.
pub async fn fee_spike(sim: &Arc<Simulator>) -> Result<Outcome, String> {
    fall_asleep(sim, ANN).await?;
    fall_asleep(sim, BOB).await?;
    let calm = FeeRates::FLOOR;
    let spike = FeeRates {
        urgent: calm.urgent * 20,
        normal: calm.normal * 20,
        background: calm.background * 20,
        minimum: calm.minimum * 20,
        is_estimate: true,
    };
    sim.devnet.set_fee_rates(spike);
    tokio::time::sleep(FEE_UPDATE).await;
    let before = sim.tips();
    for _ in 0..SPIKE_BLOCKS {
        // Longer than between two polls of the host.
        tokio::time::sleep(SPIKE / SPIKE_BLOCKS).await;
        sim.devnet.mine_to_wallet(1).map_err(text)?;
    }
    tokio::time::sleep(FEE_UPDATE).await;
    if sim.tips() - before < TRACKED_BLOCKS {
        if sim.plan.happened() == 0 {
            return Err("the host has not polled each block by itself".into());
        }
        sim.plan.goes_beside();
    }
    sim.devnet.set_fee_rates(calm);
    sim.mine(1).await?;
    // A node that does not have that rate yet would rightly raise the fee rate of commitments.
    sim.plan.is_over().await;
    tokio::time::sleep(FEE_UPDATE).await;
    sim.come_back(ANN);
    sim.come_back(BOB);
    // Over both channels.
    pay(sim, ANN, BOB).await
}

/// The hub pays Ann, whose phone goes to sleep as soon as its preimage is on the host. Bob, who has no part in it, sleeps
/// too.
///
/// Returns the height before which the phone has to be there; `None` if an interruption has ended the HTLC.
async fn gone_with_an_htlc(sim: &Arc<Simulator>, to_ann: &str) -> Result<Option<u32>, String> {
    fall_asleep(sim, BOB).await?;
    // Ann's phone is then being asked for the signature that settles the HTLC.
    hub_pays(sim, to_ann).await;
    fall_asleep(sim, ANN).await?;
    let deadline = Cell::new(0);
    sim.until("ann's node is there", async |operator| {
        deadline.set(node(operator, ANN).await?.deadline_height);
        Some(true)
    })
    .await?;
    match deadline.get() {
        0 if sim.plan.happened() == 0 => Err("there is no HTLC".into()),
        0 => Ok(None),
        deadline => Ok(Some(deadline)),
    }
}

/// The HTLC has ended, so that nothing has to be closed.
async fn settled_early(sim: &Arc<Simulator>, to_ann: &str) -> Result<Outcome, String> {
    sim.plan.goes_beside();
    sim.come_back(ANN);
    sim.come_back(BOB);
    all_usable(sim, OWNERS.len()).await?;
    outcome_at_ann(sim, to_ann).await
}

/// Waits until Ann's phone gets a wake call, and comes, or there is no deadline any more.
async fn is_called(sim: &Arc<Simulator>) -> Result<(), String> {
    let called = async |operator: &Operator| {
        let ann = node(operator, ANN).await?;
        Some(ann.state != "dormant" || ann.deadline_height == 0)
    };
    loop {
        sim.plan.is_over().await;
        let happened = sim.plan.happened();
        let waiting = sim.until("the phone is called", called);
        if let Ok(called) = tokio::time::timeout(CALL, waiting).await {
            return called;
        }
        if sim.plan.happened() == happened {
            return Err("the phone was not called in time".into());
        }
    }
}

async fn all_are_open(sim: &Arc<Simulator>) -> Result<(), String> {
    let open = Cell::new(0);
    sim.until("the hub lists its channels", async |operator| {
        open.set(operator.hub_channels().await.ok()?.channels.len());
        Some(true)
    })
    .await?;
    match open.get() == OWNERS.len() {
        true => Ok(()),
        false => Err("a channel was closed before the deadline".into()),
    }
}

async fn mine_to(sim: &Arc<Simulator>, height: u32) -> Result<(), String> {
    let blocks = height.saturating_sub(sim.devnet.tip().height);
    match blocks {
        0 => Ok(()),
        blocks => sim.mine(blocks).await,
    }
}

async fn is_awake(sim: &Arc<Simulator>) -> bool {
    let Some(operator) = sim.operator() else {
        return false;
    };
    let ann = node(&operator, ANN).await;
    ann.is_some_and(|ann| ann.state != "dormant")
}

/// Outcome by Ann's phone: the payment that the hub has made, and her channel.
async fn outcome_at_ann(sim: &Arc<Simulator>, to_ann: &str) -> Result<Outcome, String> {
    let asked = sim.owner(ANN, async |phone| {
        let payments = phone.payments().await?.payments;
        Ok((payments, phone.channels().await?.closed))
    });
    let (payments, closed) = asked.await.map_err(text)?;
    let hash = payment_hash(to_ann)?;
    let is_it = |payment: &Payment| !payment.outbound && payment.payment_hash == hash;
    let payment = payments.into_iter().find(is_it);
    // The hub's payment was reported as paid: it has the preimage.
    let mut outcome = Outcome {
        forced: u32::try_from(closed.len()).unwrap_or(u32::MAX),
        hub_paid_msat: PAYMENT_MSAT,
        ..Outcome::default()
    };
    match payment {
        Some(payment) if payment.state == PaymentState::Succeeded => {
            outcome.received_msat[ANN] = payment.amount_msat;
        }
        Some(payment) if payment.failure.starts_with("DEADLINE_MISSED: 50000 sat") => {
            outcome.lost_msat = PAYMENT_MSAT;
        }
        _ => {}
    }
    Ok(outcome)
}
