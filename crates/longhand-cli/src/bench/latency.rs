//! A payment from one owner to another through the hub, both phones far away.

use std::time::{Duration, Instant};

use clap::Args;
use longhand_testkit::KitError;

use super::figure::{Measured, Report, Target, median};
use super::{say, world};

/// Between two payments, so that one has settled before the next.
const SETTLED: Duration = Duration::from_millis(100);
const CHANNEL_SAT: u64 = 5_000_000;
const PAYMENT_MSAT: u64 = 10_000_000;

#[derive(Debug, Args)]
pub struct LatencyArgs {
    /// How many payments are made, one after the other
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u32).range(1..=200))]
    runs: u32,
    /// One-way distance of the phones to the host
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(0..=1_000))]
    distance_ms: u64,
}

pub async fn run(args: LatencyArgs) -> Result<Report, KitError> {
    let distance = Duration::from_millis(args.distance_ms);
    let world = world().await?;
    let ann = world.phone("ann", distance).await?;
    let bob = world.phone("bob", distance).await?;
    say("opening two channels");
    world
        .operator
        .hub_open("ann", CHANNEL_SAT, CHANNEL_SAT * 900)
        .await?;
    world.operator.hub_open("bob", CHANNEL_SAT, 0).await?;
    world.confirm_channels(2).await?;
    world.operator.usable("ann", 1).await?;
    world.operator.usable("bob", 1).await?;
    say(&format!("paying {} times", args.runs));
    let mut at_phone_ms = Vec::new();
    for _ in 0..args.runs {
        let invoice = bob.invoice(Some(PAYMENT_MSAT), "bench", 3_600).await?;
        tokio::time::sleep(distance * 10 + SETTLED).await;
        let since = Instant::now();
        ann.pay(&invoice.bolt11, None, None).await?;
        at_phone_ms.push(since.elapsed().as_secs_f64() * 1e3);
    }
    for phone in [&ann, &bob] {
        phone.detach().await?;
    }
    world.stop().await?;
    Ok(report(&args, median(at_phone_ms)))
}

/// Four signer round trips, two on each side, and 100 ms for all else.
fn report(args: &LatencyArgs, at_phone_ms: f64) -> Report {
    let round_trip_ms = 2.0 * args.distance_ms as f64;
    let figure = |what, key, measured, target| Measured {
        what,
        key,
        unit: "ms",
        measured,
        target,
    };
    Report {
        bench: "latency",
        figures: vec![
            figure(
                "a payment, from the command at the payer's node until it knows, median",
                "payment_ms_median",
                at_phone_ms - round_trip_ms,
                Some(Target::AtMost(4.0 * round_trip_ms + 100.0)),
            ),
            figure(
                "the same, as the payer's phone sees it",
                "payment_at_phone_ms_median",
                at_phone_ms,
                None,
            ),
        ],
        notes: vec![format!(
            "{} payments through the hub, both phones {} ms away one way. Measured at the phone; the command's way to \
             the node and the answer's way back, {round_trip_ms} ms, are taken off for the first line.",
            args.runs, args.distance_ms
        )],
    }
}
