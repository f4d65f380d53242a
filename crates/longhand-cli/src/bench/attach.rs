//! From attach to the first payment possible: a dormant node with one channel, its phone on loopback.

use std::time::{Duration, Instant};

use clap::Args;
use longhand_phone::Phone;
use longhand_testkit::KitError;

use super::figure::{Measured, Report, Target, median};
use super::{World, say, world};

const CHANNEL_SAT: u64 = 2_000_000;
/// Pause between two polls of the node's state.
const POLL: Duration = Duration::from_millis(1);
/// The phone stays away for this long, so that the work of the last detach is done.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Debug, Args)]
pub struct AttachArgs {
    /// How often the phone detaches and attaches
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// How often it does so with a week of blocks between
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    weeks: u32,
}

/// Blocks of a week.
const WEEK_BLOCKS: u32 = 1_008;

pub async fn run(args: AttachArgs) -> Result<Report, KitError> {
    let world = world().await?;
    let phone = world.phone("ann", Duration::ZERO).await?;
    say("opening a channel");
    world
        .operator
        .hub_open("ann", CHANNEL_SAT, CHANNEL_SAT * 500)
        .await?;
    world.confirm_channels(1).await?;
    world.operator.usable("ann", 1).await?;
    say(&format!("attaching {} times", args.runs));
    let mut times_ms = Vec::new();
    for _ in 0..args.runs {
        times_ms.push(away_and_back(&world, &phone, 0).await?);
    }
    say(&format!(
        "attaching {} times after {WEEK_BLOCKS} blocks",
        args.weeks
    ));
    let mut weeks_ms = Vec::new();
    for _ in 0..args.weeks {
        weeks_ms.push(away_and_back(&world, &phone, WEEK_BLOCKS).await?);
        let (seen, height) = (phone.chain().await?.height, world.devnet.tip().height);
        if seen != height {
            return Err(KitError::Unexpected(format!(
                "the phone has seen block {seen}, and the chain is at {height}"
            )));
        }
    }
    phone.detach().await?;
    world.stop().await?;
    let slowest = times_ms.iter().copied().fold(0.0, f64::max);
    let figure = |what, key, measured, target| Measured {
        what,
        key,
        unit: "ms",
        measured,
        target,
    };
    Ok(Report {
        bench: "attach",
        figures: vec![
            figure(
                "attach to first payment possible, median",
                "attach_ms_median",
                median(times_ms),
                Some(Target::AtMost(150.0)),
            ),
            figure("the slowest", "attach_ms_slowest", slowest, None),
            figure(
                "the same with a week of blocks to catch up, median",
                "attach_after_a_week_ms_median",
                median(weeks_ms),
                Some(Target::AtMost(50.0)),
            ),
        ],
        notes: vec![format!(
            "Of {} attaches, and {} after {WEEK_BLOCKS} blocks, whose headers the phone has checked then. From the moment the phone \
             dials until its node says that the channel is usable; after each, a payment was made.",
            args.runs, args.weeks
        )],
    })
}

/// Detaches, has so many blocks mined, and attaches again; how long the attach takes.
async fn away_and_back(world: &World, phone: &Phone, blocks: u32) -> Result<f64, KitError> {
    phone.detach().await?;
    world.operator.dormant("ann").await?;
    if blocks > 0 {
        world.mine(blocks).await?;
    }
    tokio::time::sleep(PAUSE).await;
    let time_ms = attach_ms(phone).await?;
    // A payment must succeed, not only be reported as possible.
    let invoice = world.operator.hub_invoice(1_000_000).await?;
    phone.pay(&invoice, None, None).await?;
    Ok(time_ms)
}

/// Dials, and polls until the node is active with a usable channel.
async fn attach_ms(phone: &Phone) -> Result<f64, KitError> {
    let since = Instant::now();
    phone.attach().await?;
    loop {
        let info = phone.info().await?;
        if info.state == "active" && info.usable_channels == 1 {
            return Ok(since.elapsed().as_secs_f64() * 1e3);
        }
        tokio::time::sleep(POLL).await;
    }
}
