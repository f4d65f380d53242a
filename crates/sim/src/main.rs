//! `longhand-sim`: shows that nothing is lost, by interrupting it. The subcommands are in the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use longhand_sim::processes::{self, ProcessesArgs};
use longhand_sim::world::{self, SimArgs};

#[derive(Debug, Parser)]
#[command(
    name = "longhand-sim",
    version,
    about = "Interrupts Longhand, and shows that nothing is lost",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(flatten)]
    world: SimArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Kill real processes under payments, again and again
    Processes(ProcessesArgs),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Some(Command::Processes(args)) => processes::run(args),
        None => world::run(cli.world),
    }
}
