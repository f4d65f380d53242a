//! Channels that end without an agreement: closed by force with payments in flight, and a hub that cheats.

use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::{OutPoint, Transaction};
use longhand_chain::OutputLookup;
use longhand_host::Operator;
use longhand_phone::command::PaymentState;
use longhand_phone::{Phone, PhoneError};
use longhand_proto::Code;
use longhand_proto::operator::{HubCloseChannelRequest, NodeView};
use longhand_testkit::accounts::ANCHOR_SAT;

use super::Outcome;
use super::paying::{
    HELD_AT_MOST, PAYMENT_MSAT, Payment, fall_asleep, hub_has_paid, hub_pays, invoice,
    nothing_happens_for, pay_once, payment_hash,
};
use crate::world::simulator::{ANN, BOB, OWNERS, Simulator, text};
use crate::world::template::CHANNEL_SAT;

/// Polls for payments in flight, each after less than a phone takes to answer; repeated when an interruption is over.
const GLANCES: u32 = 400;
/// Attempts to have one payment in flight each way.
const MEETINGS: u32 = 5;
const TRY_AGAIN: Duration = Duration::from_secs(5);
/// Fees paid from the spoils of a breach.
const FEES_OF_JUSTICE_SAT: u64 = 5_000;
/// Outputs of a commitment without HTLCs (BOLT 3).
const BALANCES_AND_ANCHORS: usize = 4;
/// Time after a block in which every node has reacted.
pub const AFTER_BLOCK: Duration = Duration::from_secs(40);
/// Depth from which a block counts as final (LDK's `ANTI_REORG_DELAY`).
const DEEP: u32 = 6;
/// Limit of rounds of a sweep.
const MOST_ROUNDS: usize = 40;
/// Rounds, and blocks of each: more than an HTLC may last (144, and up to as many that a payer adds to hide its length).
const EXPIRY: (u32, u32) = (7, 48);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// Blocks in a simulated day: fewer than in a real one, and in a week more than a cheater has to wait.
const BLOCKS_A_DAY: u32 = 22;

/// The hub closes while Ann's phone is away.
pub async fn close_by_hub(sim: &Arc<Simulator>) -> Result<Outcome, String> {
    closed_by_force(sim, async || {
        fall_asleep(sim, ANN).await?;
        close_hubs_channel(sim).await
    })
    .await
}

/// Ann closes.
pub async fn close_by_phone(sim: &Arc<Simulator>) -> Result<Outcome, String> {
    closed_by_force(sim, async || {
        let close = sim.owner(ANN, async |phone| {
            match phone.channels().await?.channels.first() {
                Some(channel) => phone.close(&channel.channel_id, true).await.map(drop),
                None => Ok(()),
            }
        });
        close.await.map_err(text)
    })
    .await
}

/// Ann's channel is closed with a payment in flight each way, and both end on the chain.
async fn closed_by_force(
    sim: &Arc<Simulator>,
    close: impl AsyncFn() -> Result<(), String>,
) -> Result<Outcome, String> {
    let to_bob = invoice(sim, BOB, PAYMENT_MSAT).await?;
    fall_asleep(sim, BOB).await?;
    let payment = Waiting::default();
    let closing = async {
        let to_ann = one_each_way(sim).await?;
        payment.is_met.set(true);
        close().await?;
        confirm_close(sim, 2).await?;
        sim.come_back(ANN);
        sim.come_back(BOB);
        sweep(sim, &payment.is_over).await?;
        if all_received(sim, &to_ann).await? < to_ann.len() as u64 * PAYMENT_MSAT {
            take_back(sim, &payment.is_over).await?;
        }
        Ok::<_, String>(to_ann)
    };
    let paying = pay_to_the_end(sim, &to_bob, &payment);
    let (paid, to_ann) = tokio::try_join!(paying, closing)?;
    let mut outcome = ended(sim, paid, &to_bob).await?;
    for bolt11 in &to_ann {
        let paid_msat = match hub_has_paid(sim, bolt11).await {
            true => PAYMENT_MSAT,
            false => 0,
        };
        let received_msat = received(sim, ANN, bolt11).await?;
        outcome.hub_paid_msat += paid_msat;
        outcome.received_msat[ANN] += received_msat;
        outcome.sees(paid_msat, received_msat);
    }
    Ok(outcome)
}

/// Returns with two HTLCs in flight: one of Ann's, which the hub holds, and one to her, which she settles as soon as
/// her phone has been asked. Returns the invoices that it took; the payments of all but the last may have ended.
async fn one_each_way(sim: &Arc<Simulator>) -> Result<Vec<String>, String> {
    let mut invoices = Vec::new();
    for _ in 0..MEETINGS {
        in_flight(sim, 1).await;
        let to_ann = invoice(sim, ANN, PAYMENT_MSAT).await?;
        invoices.push(to_ann.clone());
        let paying = async {
            hub_pays(sim, &to_ann).await;
            std::future::pending().await
        };
        let are_there = tokio::select! {
            biased;
            are_there = in_flight(sim, 2) => are_there,
            () = paying => false,
        };
        if are_there || sim.plan.happened() == 0 {
            break;
        }
    }
    Ok(invoices)
}

/// A hub with old state closes with a revoked commitment, with an HTLC in it, while Ann's phone sleeps for a week: her
/// node takes all that the hub has in it, and the HTLC. Ann's own output waits for her phone.
pub async fn breach(sim: &Arc<Simulator>) -> Result<Outcome, String> {
    let to_bob = invoice(sim, BOB, PAYMENT_MSAT).await?;
    let to_ann = invoice(sim, ANN, PAYMENT_MSAT).await?;
    fall_asleep(sim, BOB).await?;
    let payment = Waiting::default();
    let copying = async {
        in_flight(sim, 1).await;
        payment.is_met.set(true);
        sim.copy_hub().await
    };
    let paying = pay_who_sleeps(sim, &to_bob, &payment);
    let (paid, mut old) = tokio::try_join!(paying, copying)?;
    if sim.plan.is_beside() {
        // The copy must be outdated in the hub's channel with Ann alone.
        sim.quiet().await?;
        fall_asleep(sim, BOB).await?;
        old = sim.copy_hub().await?;
    }
    hub_pays(sim, &to_ann).await;
    is_received(sim, &to_ann).await;
    sim.quiet().await?;
    let balance = sim.owner(ANN, async |phone| phone.balance().await);
    let balance = balance.await.map_err(text)?;
    let hers_msat = balance.lightning_msat;
    fall_asleep(sim, ANN).await?;

    // More than the cheater's balance in the end.
    let spoils_sat = CHANNEL_SAT - hers_msat.div_ceil(1_000);
    sim.roll_back_hub(old).await?;
    close_hubs_channel(sim).await?;
    let revoked = confirm_close(sim, 1).await?;
    for _ in 0..7 {
        tokio::time::sleep(DAY).await;
        sim.mine(BLOCKS_A_DAY).await?;
    }
    sim.until("the cheater's side is hers", async |operator| {
        let ann = node(operator, ANN).await?;
        Some(ann.onchain_sat + FEES_OF_JUSTICE_SAT >= balance.onchain_confirmed_sat + spoils_sat)
    })
    .await?;
    let left = unspent(sim, &revoked).await?;
    if left != 1 {
        return Err(format!("{left} outputs are left, and hers alone should be"));
    }
    sim.come_back(ANN);
    sim.come_back(BOB);
    // All sweeps but those that need her own signature are deep in the chain.
    tokio::time::sleep(AFTER_BLOCK).await;
    sim.mine(DEEP).await?;
    if is_swept(sim).await != Some(true) {
        sweep(sim, &payment.is_over).await?;
    }
    let outcome = ended(sim, paid, &to_bob).await?;
    let mut outcome = Outcome {
        hub_cheated: true,
        hub_paid_msat: PAYMENT_MSAT,
        ..outcome
    };
    outcome.received_msat[ANN] = received(sim, ANN, &to_ann).await?;
    outcome.spoils_msat[ANN] = CHANNEL_SAT * 1_000 - hers_msat;
    Ok(outcome)
}

/// A payment that is in flight when a channel is closed.
#[derive(Default)]
struct Waiting {
    /// It was in flight when it had to be, and is not tried again.
    is_met: Cell<bool>,
    /// It has ended.
    is_over: Cell<bool>,
}

/// Pays, and again when it failed before it was met; waits for its end, on or off the chain. `None` when it failed.
async fn pay_to_the_end(
    sim: &Arc<Simulator>,
    bolt11: &str,
    payment: &Waiting,
) -> Result<Option<Payment>, String> {
    let paid = loop {
        let paid = pay_if_possible(sim, bolt11).await;
        if payment.is_met.get() || !matches!(paid, Ok(None)) {
            break paid;
        }
        tokio::time::sleep(TRY_AGAIN).await;
    };
    payment.is_over.set(true);
    paid.map_err(text)
}

/// Pays Bob, whose phone sleeps: the hub fails the payment. If interrupted, it may have been sent to a node that was
/// gone: then it is paid when his phone is back.
async fn pay_who_sleeps(
    sim: &Arc<Simulator>,
    to_bob: &str,
    payment: &Waiting,
) -> Result<Option<Payment>, String> {
    let mut paying = pin!(pay_to_the_end(sim, to_bob, payment));
    let given_back = tokio::select! {
        biased;
        paid = &mut paying => Some(paid?),
        () = nothing_happens_for(sim, HELD_AT_MOST) => None,
    };
    match given_back {
        Some(None) => Ok(None),
        Some(Some(_)) => Err("the payment to who sleeps has been paid".into()),
        None if sim.plan.happened() == 0 => Err("it was not given back".into()),
        None => {
            sim.plan.goes_beside();
            sim.come_back(BOB);
            paying.await
        }
    }
}

async fn pay_if_possible(
    sim: &Arc<Simulator>,
    bolt11: &str,
) -> Result<Option<Payment>, PhoneError> {
    let pay = async |phone: Phone| match pay_once(&phone, bolt11).await {
        Ok(payment) => Ok(Some(payment)),
        Err(PhoneError::PaymentFailed(_)) => Ok(None),
        // A retry after the channel was closed: the list of payments has the result, if it was ever sent.
        Err(error) if error.code() == Code::InsufficientFunds => {
            let hash = payment_hash(bolt11).map_err(|_| PhoneError::Answer("with an invoice"))?;
            let mut payments = phone.payments().await?.payments.into_iter();
            let sent = payments.find(|payment| payment.outbound && payment.payment_hash == hash);
            match sent.as_ref().map(|payment| payment.state) {
                Some(PaymentState::Succeeded) => Ok(sent),
                Some(PaymentState::Failed) | None => Ok(None),
                _ => Err(PhoneError::HostAway {
                    last: "it has not ended yet".into(),
                }),
            }
        }
        Err(error) => Err(error),
    };
    sim.owner(ANN, pay).await
}

/// The outcome when a channel was closed by force, and Ann's payment to Bob ended as `paid`.
async fn ended(
    sim: &Arc<Simulator>,
    paid: Option<Payment>,
    to_bob: &str,
) -> Result<Outcome, String> {
    let mut outcome = Outcome {
        forced: 1,
        ..Outcome::default()
    };
    if let Some(paid) = paid {
        outcome.paid_msat[ANN] = paid.amount_msat;
        outcome.fee_msat[ANN] = paid.fee_msat;
    }
    outcome.received_msat[BOB] = received(sim, BOB, to_bob).await?;
    outcome.sees(outcome.paid_msat[ANN], outcome.received_msat[BOB]);
    Ok(outcome)
}

/// Amount that Ann received for these invoices together.
async fn all_received(sim: &Arc<Simulator>, invoices: &[String]) -> Result<u64, String> {
    let mut all = 0;
    for bolt11 in invoices {
        all += received(sim, ANN, bolt11).await?;
    }
    Ok(all)
}

/// Amount that an owner received for an invoice.
async fn received(sim: &Arc<Simulator>, owner: usize, bolt11: &str) -> Result<u64, String> {
    let hash = payment_hash(bolt11)?;
    let payments = sim.owner(owner, async |phone| phone.payments().await);
    let mut payments = payments.await.map_err(text)?.payments.into_iter();
    let paid = payments.find(|payment| {
        !payment.outbound
            && payment.payment_hash == hash
            && payment.state == PaymentState::Succeeded
    });
    Ok(paid.map_or(0, |payment| payment.amount_msat))
}

async fn is_received(sim: &Arc<Simulator>, bolt11: &str) {
    while received(sim, ANN, bolt11).await != Ok(PAYMENT_MSAT) {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

pub async fn node(operator: &Operator, owner: usize) -> Option<NodeView> {
    let mut nodes = operator.list_nodes().await.ok()?.nodes.into_iter();
    nodes.find(|node| node.owner == OWNERS[owner])
}

/// Waits until both sides are committed to so many of Ann's HTLCs. Not for ever, since an interruption may have ended
/// them.
async fn in_flight(sim: &Arc<Simulator>, htlcs: u32) -> bool {
    let glance = sim.pace.distance * 3 / 5;
    for _ in 0..2 {
        for _ in 0..GLANCES {
            if let Some(operator) = sim.operator()
                && node(&operator, ANN)
                    .await
                    .is_some_and(|ann| ann.pending_htlcs >= htlcs)
            {
                return true;
            }
            tokio::time::sleep(glance).await;
        }
        sim.plan.is_over().await;
    }
    false
}

/// Closes by force, on the operator's order; repeated until it is closed.
pub async fn close_hubs_channel(sim: &Arc<Simulator>) -> Result<(), String> {
    sim.until("the hub has closed the channel", async |operator| {
        let ann = node(operator, ANN).await?.node_id;
        let channels = operator.hub_channels().await.ok()?.channels;
        let mut channels = channels.into_iter();
        let Some(channel) = channels.find(|channel| channel.counterparty_node_id == ann) else {
            return Some(true);
        };
        let close = HubCloseChannelRequest {
            channel_id: channel.channel_id,
            force: true,
        };
        operator.hub_close_channel(close).await.ok()?;
        Some(false)
    })
    .await
}

/// Number of unspent outputs of a commitment, without its anchors.
async fn unspent(sim: &Arc<Simulator>, commitment: &Transaction) -> Result<usize, String> {
    let source = sim.devnet.direct_source();
    let mut unspent = 0;
    for (vout, output) in (0..).zip(&commitment.output) {
        let outpoint = OutPoint::new(commitment.compute_txid(), vout);
        let is_there = source.unspent(&outpoint).await.map_err(text)?.is_some();
        unspent += usize::from(is_there && output.value.to_sat() != ANCHOR_SAT);
    }
    Ok(unspent)
}

/// Waits until the commitment is broadcast, and confirms it. Undisturbed it has so many HTLCs.
async fn confirm_close(sim: &Arc<Simulator>, htlcs: usize) -> Result<Transaction, String> {
    sim.until("the commitment is sent", async |_| {
        Some(!sim.devnet.mempool().is_empty())
    })
    .await?;
    let sent = sim.devnet.mempool().into_iter();
    let commitment = sent.max_by_key(|tx| tx.output.len());
    let commitment = commitment.ok_or("it is not there any more")?;
    if commitment.output.len() != BALANCES_AND_ANCHORS + htlcs {
        if sim.plan.happened() == 0 {
            return Err(format!("there are not {htlcs} HTLCs in the commitment"));
        }
        sim.plan.goes_beside();
    }
    sim.mine(1).await?;
    Ok(commitment)
}

/// Mines until every coin of a closed channel is in a wallet, with blocks enough that it stays there, and a payment
/// `is_over`.
pub async fn sweep(sim: &Arc<Simulator>, is_over: &Cell<bool>) -> Result<(), String> {
    let mut mined = 0;
    for round in 0..MOST_ROUNDS {
        tokio::time::sleep(AFTER_BLOCK).await;
        if mined >= DEEP && is_over.get() && is_swept(sim).await == Some(true) {
            return Ok(());
        }
        // Blocks do not help while a phone or a disk is away.
        sim.plan.is_over().await;
        let blocks = sim.pace.blocks(round);
        sim.mine(blocks).await?;
        mined += blocks;
        // No other payment may reach its deadline meanwhile.
        bobs_are_over(sim).await?;
    }
    Err("coins of a closed channel are still to be swept".into())
}

/// The hub's own payment in flight counts as paid until the hub has taken it back. If interrupted, Ann may not have
/// been able to claim it.
async fn take_back(sim: &Arc<Simulator>, is_over: &Cell<bool>) -> Result<(), String> {
    let (rounds, blocks) = EXPIRY;
    for _ in 0..rounds {
        sim.mine(blocks).await?;
        bobs_are_over(sim).await?;
    }
    sweep(sim, is_over).await
}

async fn bobs_are_over(sim: &Arc<Simulator>) -> Result<(), String> {
    sim.until("no payment of bob's is in flight", async |operator| {
        Some(node(operator, BOB).await?.pending_htlcs == 0)
    })
    .await
}

async fn is_swept(sim: &Arc<Simulator>) -> Option<bool> {
    let operator = sim.operator()?;
    let hub = operator.hub_balance().await.ok()?;
    let nodes = operator.list_nodes().await.ok()?.nodes;
    let nodes_are = nodes.len() == OWNERS.len() && nodes.iter().all(|node| node.closing_sat == 0);
    Some(nodes_are && hub.closing_sat == 0 && sim.devnet.mempool().is_empty())
}
