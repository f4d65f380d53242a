//! Signer round trips that wait for each other.
//!
//! A node counts the longest run of signer batches of which each was sent only after the one before it was answered.
//! The phones are far enough away that all that does not depend on them is long done when they answer, so that
//! the protocol is counted and not the machine.

use std::time::{Duration, Instant};

use longhand_phone::Phone;
use longhand_proto::operator::{NodeView, ResetSignerChainRequest};

use super::BenchError;
use super::figure::{Measured, Report, Target};
use super::world::{World, say};

/// One way.
const DISTANCE: Duration = Duration::from_millis(50);
/// A node whose phone was asked nothing for this long has settled.
const QUIET: Duration = DISTANCE.saturating_mul(6);
const PAYMENTS: u32 = 3;
const PAYMENT_MSAT: u64 = 10_000_000;
const CHANNEL_SAT: u64 = 2_000_000;

/// The largest of what was counted.
#[derive(Default)]
struct Counts {
    pay: u32,
    receive: u32,
    pay_settled: u32,
    receive_settled: u32,
    open: u32,
    accept: u32,
    reconnect: u32,
    close: u32,
}

pub async fn run() -> Result<Report, BenchError> {
    let world = World::new().await?;
    say("two phones, 50 ms away one way");
    let ann = world.phone("ann", DISTANCE).await?;
    let bob = world.phone("bob", DISTANCE).await?;
    let mut counts = Counts::default();
    opening(&world, &ann, &mut counts).await?;
    for _ in 0..PAYMENTS {
        payment(&world, &ann, &bob, &mut counts).await?;
    }
    reconnecting(&world, &ann, &mut counts).await?;
    closing(&world, &ann, &mut counts).await?;
    for phone in [&ann, &bob] {
        phone.detach().await?;
    }
    world.stop().await?;
    Ok(counts.report())
}

/// Ann opens to the hub from her own wallet; the hub opens to Bob.
async fn opening(world: &World, ann: &Phone, counts: &mut Counts) -> Result<(), BenchError> {
    say("opening two channels");
    world.fund_phone(ann, 2 * CHANNEL_SAT).await?;
    reset(world, "ann").await?;
    reset(world, "bob").await?;
    ann.open(CHANNEL_SAT, None, false, false).await?;
    world.hub_opens("bob", CHANNEL_SAT, 0).await?;
    world.confirm_channels(2).await?;
    world.usable("ann", 1).await?;
    world.usable("bob", 1).await?;
    counts.open = settled(world, "ann").await?;
    counts.accept = settled(world, "bob").await?;
    Ok(())
}

async fn payment(
    world: &World,
    payer: &Phone,
    payee: &Phone,
    counts: &mut Counts,
) -> Result<(), BenchError> {
    say("a payment");
    let invoice = payee.invoice(Some(PAYMENT_MSAT), "bench", 3_600).await?;
    reset(world, "ann").await?;
    reset(world, "bob").await?;
    payer.pay(&invoice.bolt11, None, None).await?;
    // The news took half a round trip to the payer: what is counted by now began before it.
    let paid = (world.node("ann").await?, world.node("bob").await?);
    most(&mut counts.pay, paid.0.signer_chain);
    most(&mut counts.receive, paid.1.signer_chain);
    most(&mut counts.pay_settled, settled(world, "ann").await?);
    most(&mut counts.receive_settled, settled(world, "bob").await?);
    Ok(())
}

async fn reconnecting(world: &World, ann: &Phone, counts: &mut Counts) -> Result<(), BenchError> {
    say("an idle channel's reconnect");
    ann.detach().await?;
    world.dormant("ann").await?;
    reset(world, "ann").await?;
    ann.attach().await?;
    world.usable("ann", 1).await?;
    counts.reconnect = settled(world, "ann").await?;
    Ok(())
}

async fn closing(world: &World, ann: &Phone, counts: &mut Counts) -> Result<(), BenchError> {
    say("a cooperative close");
    let channels = ann.channels().await?.channels;
    let channel = channels
        .first()
        .ok_or_else(|| BenchError::Off("ann has no channel to close".into()))?;
    reset(world, "ann").await?;
    ann.close(&channel.channel_id, false).await?;
    world.mine(1).await?;
    counts.close = settled(world, "ann").await?;
    let closing = ann.balance().await?;
    match closing.lightning_msat {
        0 => Ok(()),
        _ => Err(BenchError::Off("the channel did not close".into())),
    }
}

fn most(so_far: &mut u32, counted: u32) {
    *so_far = counted.max(*so_far);
}

/// Begins a new count, when nothing is under way.
async fn reset(world: &World, owner: &str) -> Result<(), BenchError> {
    settled(world, owner).await?;
    let request = ResetSignerChainRequest {
        owner: owner.into(),
    };
    world.operator.clone().reset_signer_chain(request).await?;
    Ok(())
}

/// The count once nothing happens any more.
async fn settled(world: &World, owner: &str) -> Result<u32, BenchError> {
    let counts = |node: &NodeView| (node.signer_batches, node.signer_chain);
    let mut last = world.node(owner).await?;
    let mut since = Instant::now();
    while since.elapsed() < QUIET {
        tokio::time::sleep(DISTANCE / 10).await;
        let node = world.node(owner).await?;
        if counts(&node) != counts(&last) {
            since = Instant::now();
        }
        last = node;
    }
    Ok(last.signer_chain)
}

impl Counts {
    fn report(&self) -> Report {
        let figure = |what, key, counted: u32, most: u32| Measured {
            what,
            key,
            unit: "round trips",
            measured: counted.into(),
            target: Some(Target::AtMost(most.into())),
        };
        let figures = vec![
            figure(
                "pay, until the payer knows: payer's phone",
                "pay_to_success",
                self.pay,
                2,
            ),
            figure(
                "pay, until the payer knows: payee's phone",
                "receive_to_success",
                self.receive,
                2,
            ),
            figure(
                "pay, until settled: payer's phone",
                "pay_total",
                self.pay_settled,
                3,
            ),
            figure(
                "pay, until settled: payee's phone",
                "receive_total",
                self.receive_settled,
                4,
            ),
            figure("open a channel: opener's phone", "open", self.open, 2),
            figure("open a channel: acceptor's phone", "accept", self.accept, 1),
            figure("reconnect an idle channel", "reconnect", self.reconnect, 0),
            figure("close together", "close", self.close, 2),
        ];
        let notes = vec![
            "Counted is the longest run of signer batches of which each was sent only after the one before it was \
             answered. Not counted is what no step of a channel waits for: stocking keys and points, gossip \
             signatures, and the one ECDH with which a connection to a peer begins (BOLT 8)."
                .into(),
        ];
        Report {
            bench: "rtt",
            figures,
            notes,
        }
    }
}
