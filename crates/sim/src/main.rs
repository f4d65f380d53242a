//! `longhand-sim`: shows that nothing is lost, by interrupting it. What each subcommand does is in the library.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use longhand_sim::processes::{self, ProcessesArgs};

#[derive(Debug, Parser)]
#[command(
    name = "longhand-sim",
    version,
    about = "Interrupts Longhand, and shows that nothing is lost"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Kill real processes under payments, again and again
    Processes(ProcessesArgs),
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Processes(args) => processes::run(args),
    }
}
