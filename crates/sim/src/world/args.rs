//! The command line of the simulated world.

use std::process::ExitCode;
use std::time::Instant;

use clap::Args;

use crate::world::campaign::Campaign;
use crate::world::plan::{Interruption, Kind};
use crate::world::route::Route;
use crate::world::scenario::Scenario;

/// Runs to be done. Without arguments: every single interruption.
#[derive(Debug, Args)]
pub struct SimArgs {
    /// Pairs of interruptions, drawn at random
    #[arg(long, value_name = "N")]
    runs: Option<usize>,
    /// Seed of all randomness
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Every single interruption of every scenario, also when pairs are run
    #[arg(long)]
    report: bool,
    /// Only this scenario
    #[arg(long, value_name = "NAME", value_parser = scenario)]
    scenario: Option<Scenario>,
    /// How phones reach the host
    #[arg(long, value_name = "NAME", default_value = "direct", value_parser = route)]
    carrier: Route,
    /// Only interruptions of this kind; may be given again
    #[arg(long, value_name = "KIND", value_parser = kind)]
    kind: Vec<Kind>,
    /// Without those that last a day, which take long
    #[arg(long)]
    short: bool,
    /// One run with this interruption, as a fault names it; may be given again
    #[arg(long, value_name = "KIND:STEP:HOW[:LENGTH]", requires = "scenario")]
    #[arg(conflicts_with_all = ["runs", "report"])]
    at: Vec<Interruption>,
    /// Which run of its process that one was, as a fault names it
    #[arg(long, value_name = "N", default_value_t = 0, requires = "at")]
    nth: u32,
}

fn scenario(name: &str) -> Result<Scenario, String> {
    let mut all = Scenario::ALL.into_iter();
    let names = Scenario::ALL.map(Scenario::name).join(", ");
    all.find(|scenario| scenario.name() == name)
        .ok_or(format!("there is none of that name; there are {names}"))
}

fn route(name: &str) -> Result<Route, String> {
    let mut all = Route::ALL.into_iter();
    let names = Route::ALL.map(Route::name).join(", ");
    all.find(|route| route.name() == name)
        .ok_or(format!("there is none of that name; there are {names}"))
}

fn kind(name: &str) -> Result<Kind, String> {
    let mut all = Kind::ALL.into_iter();
    let names = Kind::ALL.map(Kind::name).join(", ");
    all.find(|kind| kind.name() == name)
        .ok_or(format!("there is none of that name; there are {names}"))
}

/// Runs what the arguments ask for, and prints the report. Fails when anything is wrong.
pub fn run(args: SimArgs) -> ExitCode {
    // Logs serve to inspect one run; with many runs, errors of the processes are expected.
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
            .with_writer(std::io::stderr)
            .init();
    }
    match run_in_world(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the world cannot be made: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_in_world(args: &SimArgs) -> Result<bool, String> {
    let campaign = Campaign::over(args.carrier)?;
    let scenarios = match args.scenario {
        Some(scenario) => vec![scenario],
        None => Scenario::ALL.to_vec(),
    };
    if !args.at.is_empty() {
        let mut is_clean = true;
        for scenario in scenarios {
            is_clean &= replay(&campaign, scenario, args)?;
        }
        return Ok(is_clean);
    }
    let mut is_clean = true;
    let wanted = |interruption: &Interruption| {
        let is_of_kind = args.kind.is_empty() || args.kind.contains(&interruption.kind);
        is_of_kind && !(args.short && interruption.lasts_a_day())
    };
    if args.report || args.runs.is_none() {
        let report = campaign.singles(&scenarios, args.seed, wanted);
        println!("{report}");
        is_clean &= report.is_clean();
    }
    if let Some(runs) = args.runs {
        let report = campaign.pairs(&scenarios, runs, args.seed, wanted);
        println!("{report}");
        is_clean &= report.is_clean();
    }
    Ok(is_clean)
}

fn replay(campaign: &Campaign, scenario: Scenario, args: &SimArgs) -> Result<bool, String> {
    let since = Instant::now();
    let verdict = campaign.play_nth(args.nth, scenario, &args.at, args.seed)?;
    campaign.tell(scenario, &args.at, args.seed, &verdict);
    println!(
        "{}: {} of {} interruptions happened, {} faults, trace {:016x}, {} s in {} ms",
        scenario.name(),
        verdict.happened,
        args.at.len(),
        verdict.wrong.len(),
        verdict.trace,
        verdict.lasted.as_secs(),
        since.elapsed().as_millis()
    );
    Ok(verdict.wrong.is_empty())
}
