//! `longhand demo`: a chain, a host and two phones, each a process of its own, with payments, crashes and closes.
//!
//! Start reading at `steps`, which are run with [`processes`](longhand_testkit::processes). `board` and `view` show
//! progress, and `report` has the result.

mod board;
mod report;
mod steps;
mod view;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use longhand_proto::Code;
use longhand_testkit::KitError;
use longhand_testkit::processes::{PASSPHRASE, PhoneProcess, World, asked_to_stop};
use serde_json::json;

use crate::tor;
use report::Report;
use steps::{ALICE, BOB};
use view::View;

/// Run a demo: a chain, a host and two phones, each a process of its own.
///
/// Everything is on loopback and in a temporary directory, which stays when something goes wrong.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// End with one JSON object on standard output; progress goes to standard error
    #[arg(long)]
    json: bool,
    /// How the host sees the chain
    #[arg(long, value_enum, default_value_t)]
    chain: ChainKind,
    /// Show a payment over Tor too: over the public network, or over the one of LONGHAND_TOR_NETWORK_FILE
    #[arg(long)]
    tor: bool,
    /// Leave all of it running at the end, until Ctrl-C
    #[arg(long)]
    stay: bool,
}

/// How the host sees the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum ChainKind {
    /// Over Bitcoin Core's JSON-RPC.
    #[default]
    Bitcoind,
    /// Over Esplora's REST.
    Esplora,
}

/// Runs the demo; the exit code is 0 when everything was as it should be.
pub async fn run(args: DemoArgs) -> ExitCode {
    if args.tor && !tor::IS_BUILT_IN {
        let message = format_args!("{}, or leave --tor out", tor::NOT_BUILT_IN);
        eprintln!("{}", Code::NoTor.line(message));
        return ExitCode::FAILURE;
    }
    let view = Arc::new(View::new(args.json));
    let dir = match tempfile::Builder::new().prefix("longhand-demo-").tempdir() {
        Ok(dir) => dir,
        Err(error) => {
            let message = format_args!("there is no place for the demo's files: {error}");
            eprintln!("{}", Code::Environment.line(message));
            return ExitCode::FAILURE;
        }
    };
    let mut report = Report {
        has_tor: args.tor,
        over_esplora: args.chain == ChainKind::Esplora,
        ..Report::default()
    };
    let ended = play(&args, dir.path(), &view, &mut report).await;
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

async fn play(
    args: &DemoArgs,
    dir: &Path,
    view: &Arc<View>,
    report: &mut Report,
) -> Result<(), KitError> {
    let mut world = tokio::select! {
        ended = steps::tell(dir, view, report) => ended?,
        () = asked_to_stop() => return Err(KitError::Unexpected("stopped".into())),
    };
    let holdings = board::holdings(world.host.client()?).await?;
    view.summary(&holdings, report);
    if args.stay {
        stay(&world, view).await?;
    }
    tokio::select! {
        // Those that do not exit when asked to are killed with the demo.
        _ = world.stop() => Ok(()),
        () = asked_to_stop() => Err(KitError::Unexpected("stopped before the processes had ended".into())),
    }
}

/// Leaves everything running and prints how to use it.
async fn stay(world: &World, view: &View) -> Result<(), KitError> {
    let pause_s = json!(MINING_PAUSE_S);
    let rpc = &world.chain.rpc;
    rpc.call("devnet_setminetimer", &[pause_s]).await?;
    view.close();
    println!("{}", how_to_play(world));
    asked_to_stop().await;
    Ok(())
}

/// Commands for a person to try.
fn how_to_play(world: &World) -> String {
    let binary = std::env::current_exe().unwrap_or_else(|_| "longhand".into());
    let binary = binary.display();
    let phone = |phone: &PhoneProcess| format!("{binary} phone --dir {}", phone.dir.display());
    let (alice, bob) = (phone(&world.phones[ALICE]), phone(&world.phones[BOB]));
    let socket = world.host.socket();
    let admin = format!("{binary} admin --operator unix:{}", socket.display());
    let devnet = format!("{binary} devnet --rpc-bind {}", world.chain.rpc_bind);
    format!(
        "Everything runs until Ctrl-C; a block comes every {MINING_PAUSE_S} s. In another terminal:

  export LONGHAND_PASSPHRASE={PASSPHRASE}
  {bob} balance
  {admin} hub invoice 1000000
  {bob} pay INVOICE
  {bob} payments
  {admin} hub open 500000 --owner alice --push-msat 50000000
  {alice} channels
  {alice} invoice 10000 --sat
  {bob} pay INVOICE
  {admin} nodes
  {devnet} faucet \"$({alice} address)\" 1000000
"
    )
}

/// For the runtime to collect the processes that were killed.
const REAPING: Duration = Duration::from_millis(100);
/// Between two blocks, when the demo stays.
const MINING_PAUSE_S: u32 = 2;
