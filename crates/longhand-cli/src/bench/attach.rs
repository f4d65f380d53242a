//! From attach to the first payment possible: a dormant node with one channel, its phone on loopback.

use std::time::{Duration, Instant};

use clap::Args;
use longhand_phone::Phone;
use longhand_testkit::KitError;

use super::figure::{Measured, Report, Target, median};
use super::{say, world};

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
}

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
        phone.detach().await?;
        world.operator.dormant("ann").await?;
        tokio::time::sleep(PAUSE).await;
        times_ms.push(attach_ms(&phone).await?);
        // A payment must succeed, not only be reported as possible.
        let invoice = world.operator.hub_invoice(1_000_000).await?;
        phone.pay(&invoice, None, None).await?;
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
        ],
        notes: vec![format!(
            "Of {} attaches. From the moment the phone dials until its node says that the channel is usable; after \
             each, a payment was made.",
            args.runs
        )],
    })
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
