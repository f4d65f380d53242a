//! `longhand bench`: makes the figures that the documentation states, one subcommand each.
//!
//! A figure is made in one process of the real parts ([`World`]): a devnet reached over its RPC, a host on SQLite, and
//! phones with ledgers on the disk at the ends of real links over gRPC on loopback. Each subcommand prints its figures
//! beside their targets, and exits with code 1 when a target is missed. Progress goes to standard error.

mod attach;
mod carriers;
mod figure;
mod hostile;
mod latency;
mod memory;
mod outage;
mod refusals;
mod resident;
mod rtt;
mod throughput;
mod tor;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use longhand_testkit::KitError;
use longhand_testkit::host::World;
use tempfile::TempDir;

use figure::Report;

/// Measure, and compare each figure with its target.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Print one JSON object
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    figure: Figure,
}

#[derive(Debug, Subcommand)]
enum Figure {
    /// Signer round trips that wait for each other: counted, not timed
    Rtt,
    /// From attach to the first payment possible
    Attach(attach::AttachArgs),
    /// Payments and attaches over each carrier, against gRPC
    Carriers(carriers::CarriersArgs),
    /// A payment between two phones that are far away
    Latency(latency::LatencyArgs),
    /// A host under attack: its memory, and the latency of honest payments
    Hostile(hostile::HostileArgs),
    /// The memory of a dormant node
    Memory(memory::MemoryArgs),
    /// Attacks of a lying host that the phone refuses, rule by rule
    Refusals,
    /// Payments and attaches over Tor, and its memory
    Tor(tor::TorArgs),
    /// Payments a second, against the same node with its keys in process
    Throughput(throughput::ThroughputArgs),
}

/// Makes one figure.
pub async fn run(args: BenchArgs) -> ExitCode {
    let made = match args.figure {
        Figure::Rtt => rtt::run().await,
        Figure::Attach(figure) => attach::run(figure).await,
        Figure::Carriers(figure) => carriers::run(figure).await,
        Figure::Latency(figure) => latency::run(figure).await,
        Figure::Hostile(figure) if figure.is_child() => return hostile::run_child(figure).await,
        Figure::Hostile(figure) => hostile::run(figure).await,
        Figure::Memory(figure) if figure.is_child() => return memory::run_child(figure).await,
        Figure::Memory(figure) => memory::run(figure).await,
        Figure::Refusals => return refusals::run(args.json),
        Figure::Throughput(figure) => throughput::run(figure).await,
        Figure::Tor(figure) => tor::run(figure).await,
    };
    match made {
        Ok(report) => finish(&report, args.json),
        Err(error) => {
            eprintln!("the figure could not be made: {error}");
            ExitCode::from(2)
        }
    }
}

fn finish(report: &Report, json: bool) -> ExitCode {
    match json {
        true => println!("{}", report.json()),
        false => print!("{}", report.table()),
    }
    match report.is_reached() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// A host with a funded hub.
async fn world() -> Result<World, KitError> {
    World::new(temporary_directory()?).await
}

fn temporary_directory() -> std::io::Result<TempDir> {
    tempfile::Builder::new().prefix("longhand-bench-").tempdir()
}

/// Shows progress to a person.
fn say(line: &str) {
    eprintln!("{line}");
}
