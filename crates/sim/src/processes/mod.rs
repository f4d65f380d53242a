//! `longhand-sim processes`: real processes under payments, killed at random moments and started again.
//!
//! A devnet, a host on SQLite and phones run as [`processes`](longhand_testkit::processes) of the `longhand` binary, as
//! in its demo. Round after round, payments go in all directions while one or two processes get SIGKILL, or the host's
//! disk is full; then all start again. Every few rounds all payments end, and all books are compared.
//!
//! Start reading at `run`, the loop. `plan` draws the events of a round from the seed; `setup` has the processes,
//! strikes them and starts them again; `payments` makes payments and judges how each has ended; `check` has the
//! conditions that must hold; `logs` searches the logs; `disk` fills a disk up; `report` and `view` show the results.

mod check;
mod disk;
mod logs;
mod payments;
mod plan;
mod report;
mod run;
mod setup;
mod view;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use longhand_proto::Code;
use plan::Targets;

/// Kill real processes under payments, again and again.
///
/// The host, a phone, both at once and the devnet get SIGKILL at random moments, and where the system allows it the
/// host's disk fills up. All is in a temporary directory, which stays when something is off.
#[derive(Debug, Args)]
pub struct ProcessesArgs {
    /// How long
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,
    /// Seed of all events: the same seed does the same again [default: another each time]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// How many phones
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=16))]
    phones: u64,
    /// Fill the host's disk and do nothing else
    #[arg(long)]
    full_disk: bool,
    /// End with one JSON object on standard output; what happens goes to standard error
    #[arg(long)]
    json: bool,
    /// The `longhand` binary [default: the one beside this program]
    #[arg(long, value_name = "PATH")]
    longhand: Option<PathBuf>,
    /// The program has run itself again where it can mount
    #[arg(long, hide = true)]
    own_mounts: bool,
}

/// Runs it; the exit code is 0 when nothing was off.
pub fn run(args: ProcessesArgs) -> ExitCode {
    let targets = match targets(&args) {
        Ok(targets) => targets,
        Err(line) => return failed(&line),
    };
    let binary = match binary(&args) {
        Ok(binary) => binary,
        Err(line) => return failed(&line),
    };
    // One thread: a process that is started ends with the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    match runtime {
        Ok(runtime) => runtime.block_on(run::run(&args, targets, binary)),
        Err(error) => failed(&Code::Environment.line(format_args!("nothing can be run: {error}"))),
    }
}

/// Targets that this system allows. May run the program again, where it can mount.
fn targets(args: &ProcessesArgs) -> Result<Targets, String> {
    if args.own_mounts {
        return Ok(match args.full_disk {
            true => Targets::Disk,
            false => Targets::ProcessesAndDisk,
        });
    }
    match (disk::is_possible(), args.full_disk) {
        (Ok(()), _) => {
            // Returns only when it fails.
            let error = disk::enter();
            let message = format_args!("the program cannot be run again by unshare: {error}");
            Err(Code::Environment.line(message))
        }
        (Err(why), true) => Err(Code::Environment.line(format_args!(
            "a small disk takes a mount in a user namespace, which this system does not allow \
             ({why}): allow unprivileged user namespaces, or run it without --full-disk"
        ))),
        (Err(why), false) => {
            eprintln!(
                "the disk is left out, because a small one cannot be mounted in a user namespace here ({why})"
            );
            Ok(Targets::Processes)
        }
    }
}

fn binary(args: &ProcessesArgs) -> Result<PathBuf, String> {
    let path = match &args.longhand {
        Some(path) => path.clone(),
        None => {
            let own = std::env::current_exe().map_err(|e| Code::Environment.line(e))?;
            own.with_file_name("longhand")
        }
    };
    match std::path::absolute(&path) {
        Ok(path) if path.is_file() => Ok(path),
        _ => Err(Code::Environment.line(format_args!(
            "there is no {}: build it (cargo build -p longhand-cli), or give --longhand PATH",
            path.display()
        ))),
    }
}

fn failed(line: &str) -> ExitCode {
    eprintln!("{line}");
    ExitCode::FAILURE
}
