//! `longhand demo`: a chain, a host and two phones, each a process of its own, go through what may happen to them.
//!
//! Start reading at `steps`: the story. `world` is what it is told with, of the crate's [`cast`](longhand::cast).
//! `rounds` counts signer round trips, `view` shows what happens and `report` is what is left at the end.

mod board;
mod report;
mod rounds;
mod steps;
mod view;
mod world;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use longhand::cast::{CastError, asked_to_stop};

use report::Report;
use view::View;
use world::World;

/// See all of it at work: a chain, a host and two phones, each a process of its own.
///
/// Everything is on loopback and in a temporary directory, which stays when something goes wrong.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// End with one JSON object on standard output; what happens goes to standard error
    #[arg(long)]
    json: bool,
    /// Leave all of it running at the end, until Ctrl-C
    #[arg(long)]
    stay: bool,
}

/// Runs the demo; the exit code is 0 when everything was as it should be.
pub async fn run(args: DemoArgs) -> ExitCode {
    let view = Arc::new(View::new(args.json));
    let dir = match tempfile::Builder::new().prefix("longhand-demo-").tempdir() {
        Ok(dir) => dir,
        Err(error) => {
            eprintln!("error[TEMP_DIR]: there is no place for the demo's files: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mut report = Report::default();
    let ended = tell(&args, dir.path(), &view, &mut report).await;
    // The processes are killed when their world is dropped, which it is by now.
    tokio::time::sleep(REAPING).await;
    report.steps.extend(view.close());
    if let Err(error) = &ended {
        eprintln!("the demo has failed: {error}");
    }
    let ok = ended.is_ok() && report.is_ok();
    if ok {
        drop(dir);
    } else {
        eprintln!("what the processes wrote is in {}", dir.keep().display());
    }
    if args.json {
        println!("{}", report.json(ok));
    }
    if ok {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn tell(
    args: &DemoArgs,
    dir: &Path,
    view: &Arc<View>,
    report: &mut Report,
) -> Result<(), CastError> {
    let mut world = tokio::select! {
        told = steps::tell(dir, view, report) => told?,
        () = asked_to_stop() => return Err(CastError::Off("stopped".into())),
    };
    let holdings = board::holdings(world.host.client()?).await?;
    view.summary(&holdings, report);
    if args.stay {
        stay(&world, view).await?;
    }
    tokio::select! {
        () = world.stop() => Ok(()),
        () = asked_to_stop() => Err(CastError::Off("stopped before the processes had ended".into())),
    }
}

/// Leaves everything running and says how to use it.
async fn stay(world: &World, view: &View) -> Result<(), CastError> {
    world.mine_by_timer(MINING_PAUSE_S).await?;
    view.close();
    println!("{}", world.how_to_play(MINING_PAUSE_S));
    asked_to_stop().await;
    Ok(())
}

/// For the runtime to collect the processes that were killed.
const REAPING: Duration = Duration::from_millis(100);
/// Between two blocks, when the demo stays.
const MINING_PAUSE_S: u32 = 2;
