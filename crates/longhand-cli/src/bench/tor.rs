//! Tor: a payment over it against a direct one that is as far away, cold attaches, and memory.
//!
//! Over the public network, or over the one of LONGHAND_TOR_NETWORK_FILE.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use longhand_link::Carriers;
use longhand_link::carrier::tor::Tor;
use longhand_phone::{DialOptions, Phone};
use longhand_proto::operator::CreateOwnerRequest;
use longhand_testkit::KitError;
use longhand_testkit::host::World;
use longhand_testkit::processes::{Launcher, PhoneProcess};

use super::figure::{Measured, Report, Target, median};
use super::resident::{children, resident_bytes_of};
use super::{say, temporary_directory};
use crate::tor;

const CHANNEL_SAT: u64 = 5_000_000;
const PAYMENT_MSAT: u64 = 1_000_000;
/// Between two payments, so that one has settled before the next.
const SETTLED: Duration = Duration::from_millis(40);
/// After which a process with Tor is at rest.
const REST: Duration = Duration::from_secs(10);

#[derive(Debug, Args)]
pub struct TorArgs {
    /// How many payments are made each way of reaching the host, in turns
    #[arg(long, default_value_t = 51, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    runs: u32,
    /// How often a phone attaches with an empty directory, and with the one from before
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    attaches: u32,
}

/// What is measured.
#[derive(Default)]
struct Figures {
    round_trip_ms: f64,
    tor_ms: f64,
    direct_ms: f64,
    fresh_s: f64,
    cached_s: f64,
    host_mb: f64,
    phone_mb: f64,
}

pub async fn run(args: TorArgs) -> Result<Report, KitError> {
    if !tor::IS_BUILT_IN {
        return Err(KitError::Unexpected(tor::NOT_BUILT_IN.into()));
    }
    let world = World::with(temporary_directory()?, |config| {
        config.tor.enabled = true;
        config.tor.network_file = network_file().unwrap_or_default();
    })
    .await?;
    let mut figures = Figures::default();
    // A client writes its state when it is dropped, which is later than the phone.
    let directory = temporary_directory()?;
    payments(&world, &args, directory.path(), &mut figures).await?;
    attaches(&world, &args, &mut figures).await?;
    world.stop().await?;
    Ok(report(&args, &figures))
}

fn network_file() -> Option<PathBuf> {
    std::env::var_os(tor::NETWORK_FILE).map(PathBuf::from)
}

/// A phone over Tor, and a direct one that is as far away: its records take half of the difference of the round trips each way.
async fn payments(
    world: &World,
    args: &TorArgs,
    directory: &Path,
    figures: &mut Figures,
) -> Result<(), KitError> {
    say("pairing over Tor");
    let dialer = tor::dialer(directory.join("tor"), network_file());
    let over_tor = DialOptions {
        carriers: Tor::beside(Carriers::default(), dialer),
        schemes: Some(vec![longhand_tor::SCHEME.to_owned()]),
        ..DialOptions::default()
    };
    let tor = world.phone_with("tor", over_tor).await?;
    let near = world.phone("near", Duration::ZERO).await?;
    let (over_tor_ms, near_ms) = (round_trip_ms(&tor).await?, round_trip_ms(&near).await?);
    figures.round_trip_ms = over_tor_ms;
    let distance_ms = (over_tor_ms - near_ms).max(0.0) / 2.0;
    let direct = Duration::from_secs_f64(distance_ms / 1e3);
    let direct = world.phone("direct", direct).await?;
    say("opening a channel to each phone");
    let phones = [("tor", &tor), ("direct", &direct)];
    for (owner, _) in phones {
        let opened = world
            .operator
            .hub_open(owner, CHANNEL_SAT, CHANNEL_SAT * 900);
        opened.await?;
    }
    world.confirm_channels(phones.len()).await?;
    for (owner, _) in phones {
        world.operator.usable(owner, 1).await?;
    }
    say(&format!("paying {} times each way", args.runs));
    let mut times_ms = [Vec::new(), Vec::new()];
    for _ in 0..args.runs {
        for ((_, phone), times_ms) in phones.iter().zip(&mut times_ms) {
            let invoice = world.operator.hub_invoice(PAYMENT_MSAT).await?;
            tokio::time::sleep(SETTLED).await;
            let since = Instant::now();
            phone.pay(&invoice, None, None).await?;
            times_ms.push(since.elapsed().as_secs_f64() * 1e3);
        }
    }
    [figures.tor_ms, figures.direct_ms] = times_ms.map(median);
    for phone in [&tor, &near, &direct] {
        phone.detach().await?;
    }
    Ok(())
}

/// The median time of a command that the host answers at once.
async fn round_trip_ms(phone: &Phone) -> Result<f64, KitError> {
    let mut times_ms = Vec::new();
    for _ in 0..101 {
        let since = Instant::now();
        phone.info().await?;
        times_ms.push(since.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(times_ms))
}

/// A phone's process, from its start until it is attached; and the memory of it and of the host's Tor process.
async fn attaches(world: &World, args: &TorArgs, figures: &mut Figures) -> Result<(), KitError> {
    let directory = temporary_directory()?;
    let launcher = Launcher::of_this_binary(directory.path())?;
    let mut phone = PhoneProcess::new(&launcher, "cold", Duration::ZERO);
    phone.only_over(Some("tor"));
    phone.make().await?;
    let request = CreateOwnerRequest {
        name: "cold".into(),
        ..CreateOwnerRequest::default()
    };
    let code = world.operator.client()?.create_owner(request).await?;
    phone.pair(&code.into_inner().code).await?;
    let tor_files = phone.dir.join("tor");
    say(&format!(
        "attaching {} times cold, and as often with a cached directory",
        args.attaches
    ));
    let (mut fresh_s, mut cached_s) = (Vec::new(), Vec::new());
    for _ in 0..args.attaches {
        match std::fs::remove_dir_all(&tor_files) {
            // It was paired over another carrier.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            removed => removed?,
        }
        for times_s in [&mut fresh_s, &mut cached_s] {
            let since = Instant::now();
            phone.start().await?;
            times_s.push(since.elapsed().as_secs_f64());
            phone.process.stop().await?;
        }
    }
    figures.fresh_s = median(fresh_s);
    figures.cached_s = median(cached_s);
    phone.start().await?;
    tokio::time::sleep(REST).await;
    for (command, pid) in children()? {
        let mb = resident_bytes_of(pid)? as f64 / 1e6;
        match command.as_str() {
            "tor" => figures.host_mb = mb,
            "phone" => figures.phone_mb = mb,
            _ => {}
        }
    }
    phone.process.stop().await
}

fn report(args: &TorArgs, figures: &Figures) -> Report {
    let figure = |key, what, unit, measured, target: Option<f64>| Measured {
        what,
        key,
        unit,
        measured,
        target: target.map(Target::AtMost),
    };
    Report {
        bench: "tor",
        figures: vec![
            figure(
                "tor_round_trip_ms",
                "a round trip over Tor, median",
                "ms",
                figures.round_trip_ms,
                None,
            ),
            figure(
                "tor_payment_ms",
                "a payment over Tor, median",
                "ms",
                figures.tor_ms,
                None,
            ),
            figure(
                "tor_payment_ratio",
                "against a direct one with the same round trip",
                "",
                figures.tor_ms / figures.direct_ms,
                Some(2.0),
            ),
            figure(
                "attach_cached_s",
                "cold attach, directory cached, median",
                "s",
                figures.cached_s,
                Some(2.0),
            ),
            figure(
                "attach_fresh_s",
                "cold attach, without a directory, median",
                "s",
                figures.fresh_s,
                Some(10.0),
            ),
            figure(
                "host_tor_mb",
                "memory of the host's Tor process",
                "MB",
                figures.host_mb,
                Some(40.0),
            ),
            figure(
                "phone_mb",
                "memory of a phone with Tor",
                "MB",
                figures.phone_mb,
                Some(40.0),
            ),
        ],
        notes: vec![format!(
            "{} payments to the hub each way, in turns. A cold attach is from the start of the phone's process until it is attached; \
             median of {}. Memory is resident, {} s after the last attach.",
            args.runs,
            args.attaches,
            REST.as_secs()
        )],
    }
}
