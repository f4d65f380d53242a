//! Signer round trips that wait for each other.
//!
//! Counted as [`rounds`](longhand_testkit::rounds) does.

use longhand_phone::Phone;
use longhand_testkit::KitError;
use longhand_testkit::host::World;
use longhand_testkit::rounds::{Counter, DISTANCE};

use super::figure::{Measured, Report, Target};
use super::{say, world};

const PAYMENTS: u32 = 3;
const PAYMENT_MSAT: u64 = 10_000_000;
const CHANNEL_SAT: u64 = 2_000_000;

/// The largest count of each.
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

pub async fn run() -> Result<Report, KitError> {
    let world = world().await?;
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
async fn opening(world: &World, ann: &Phone, counts: &mut Counts) -> Result<(), KitError> {
    say("opening two channels");
    world.fund_phone(ann, 2 * CHANNEL_SAT).await?;
    let (at_ann, at_bob) = count_both(world).await?;
    ann.open(CHANNEL_SAT, None, false, false, None).await?;
    world.operator.hub_open("bob", CHANNEL_SAT, 0).await?;
    world.confirm_channels(2).await?;
    world.operator.usable("ann", 1).await?;
    world.operator.usable("bob", 1).await?;
    counts.open = at_ann.settled().await?;
    counts.accept = at_bob.settled().await?;
    Ok(())
}

async fn payment(
    world: &World,
    payer: &Phone,
    payee: &Phone,
    counts: &mut Counts,
) -> Result<(), KitError> {
    say("a payment");
    let invoice = payee.invoice(Some(PAYMENT_MSAT), "bench", 3_600).await?;
    let (at_ann, at_bob) = count_both(world).await?;
    payer.pay(&invoice.bolt11, None, None).await?;
    // The answer took half a round trip to the payer: the batches that are counted by now began before it.
    most(&mut counts.pay, at_ann.now().await?);
    most(&mut counts.receive, at_bob.now().await?);
    most(&mut counts.pay_settled, at_ann.settled().await?);
    most(&mut counts.receive_settled, at_bob.settled().await?);
    Ok(())
}

async fn reconnecting(world: &World, ann: &Phone, counts: &mut Counts) -> Result<(), KitError> {
    say("an idle channel's reconnect");
    ann.detach().await?;
    world.operator.dormant("ann").await?;
    let at_ann = Counter::begin(&world.operator, "ann").await?;
    ann.attach().await?;
    world.operator.usable("ann", 1).await?;
    counts.reconnect = at_ann.settled().await?;
    Ok(())
}

async fn closing(world: &World, ann: &Phone, counts: &mut Counts) -> Result<(), KitError> {
    say("a cooperative close");
    let channels = ann.channels().await?.channels;
    let channel = channels
        .first()
        .ok_or_else(|| KitError::Unexpected("ann has no channel to close".into()))?;
    let at_ann = Counter::begin(&world.operator, "ann").await?;
    ann.close(&channel.channel_id, false).await?;
    world.mine(1).await?;
    counts.close = at_ann.settled().await?;
    let closing = ann.balance().await?;
    match closing.lightning_msat {
        0 => Ok(()),
        _ => Err(KitError::Unexpected("the channel did not close".into())),
    }
}

fn most(so_far: &mut u32, counted: u32) {
    *so_far = counted.max(*so_far);
}

/// Counts at both phones from now on.
async fn count_both(world: &World) -> Result<(Counter<'_>, Counter<'_>), KitError> {
    let at_ann = Counter::begin(&world.operator, "ann").await?;
    let at_bob = Counter::begin(&world.operator, "bob").await?;
    Ok((at_ann, at_bob))
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
