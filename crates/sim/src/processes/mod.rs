//! `longhand-sim processes`: real processes under payments, killed at random moments and started again.

use std::process::ExitCode;

use clap::Args;

/// Kill real processes under payments, again and again.
#[derive(Debug, Args)]
pub struct ProcessesArgs {
    /// How long
    #[arg(long, default_value_t = 5)]
    minutes: u64,
}

/// Runs it; the exit code is 0 when nothing was off.
pub fn run(args: ProcessesArgs) -> ExitCode {
    eprintln!(
        "error[NOT_THERE]: `processes --minutes {}` is not in this version yet",
        args.minutes
    );
    ExitCode::FAILURE
}
