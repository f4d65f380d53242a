//! The one binary: a host, a phone, a chain to try them on, and a demo of all of it.
//!
//! A process takes its request from its arguments, and writes its answer to standard output and its log to standard
//! error.

mod admin_cli;
mod bench;
mod demo;
mod devnet_cli;
mod host_cli;
mod logging;
mod mailbox_cli;
mod no_dump;
mod phone_cli;
mod serving;
mod tor;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The features of tests have no place in a program for use: they cut the power of a phone's disk, say, and open entries that check nothing.
/// A build of the whole workspace would switch them on for every crate in it.
#[cfg(not(debug_assertions))]
const _: () = assert!(
    !(longhand_chain::IS_FOR_TESTS
        || longhand_host::IS_FOR_TESTS
        || longhand_link::IS_FOR_TESTS
        || longhand_node::IS_FOR_TESTS
        || longhand_phone::IS_FOR_TESTS),
    "features of tests are on: build the program by itself, with `cargo build --release -p longhand-cli`"
);

#[derive(Debug, Parser)]
#[command(
    name = "longhand",
    version,
    about = "Lightning nodes whose keys stay on phones"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a phone: keys, link and an owner's commands
    Phone(phone_cli::PhoneArgs),
    /// Run a host: many nodes whose keys are on phones
    Host(Box<host_cli::HostArgs>),
    /// Run a mailbox: a relay at which hosts and phones meet, when neither can dial the other
    Mailbox(mailbox_cli::MailboxArgs),
    /// Ask a running host, as its operator
    Admin(admin_cli::AdminArgs),
    /// Run a Bitcoin chain to try things on: a regtest on Bitcoin Core's consensus library
    Devnet(devnet_cli::DevnetArgs),
    /// Run a demo: a chain, a host and two phones, each a process of its own
    Demo(demo::DemoArgs),
    /// Measure, and compare each figure with its target
    Bench(bench::BenchArgs),
    /// The Tor process of a host, which starts it
    #[command(hide = true)]
    Tor,
}

impl Command {
    /// Whether the keys of somebody's money are in this process: the phone's, or the hub's.
    fn holds_keys(&self) -> bool {
        matches!(self, Command::Phone(_) | Command::Host(_) | Command::Tor)
    }

    /// Log filter unless LONGHAND_LOG is set. A host and a mailbox have theirs in their configuration.
    fn default_log(&self) -> Option<&'static str> {
        match self {
            Command::Host(_) | Command::Mailbox(_) => None,
            Command::Phone(_) | Command::Devnet(_) => {
                Some("info,arti=warn,tor=warn,tor_netdir=error")
            }
            Command::Admin(_) | Command::Demo(_) | Command::Bench(_) => {
                Some("warn,tor_netdir=error")
            }
            Command::Tor => Some("warn,longhand_tor=info,tor_netdir=error"),
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    longhand_testkit::processes::end_with_parent();
    let Cli { command } = Cli::parse();
    if command.holds_keys() {
        no_dump::turn_core_dumps_off();
    }
    if let Some(default) = command.default_log()
        && let Err(line) = logging::start_from_environment(default)
    {
        eprintln!("{line}");
        return ExitCode::FAILURE;
    }
    match command {
        Command::Phone(args) => phone_cli::run(args).await,
        Command::Host(args) => host_cli::run(*args).await,
        Command::Mailbox(args) => mailbox_cli::run(args).await,
        Command::Admin(args) => admin_cli::run(args).await,
        Command::Devnet(args) => devnet_cli::run(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Bench(args) => bench::run(args).await,
        Command::Tor => tor::run().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_taken(args: &[&str]) -> bool {
        Cli::try_parse_from([&["longhand", "phone"], args].concat()).is_ok()
    }

    #[test]
    fn the_command_line_has_no_contradictions() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn a_pairing_code_comes_from_one_place() {
        assert!(is_taken(&["pair", "-"]));
        assert!(is_taken(&["pair", "--code-file", "code"]));
        assert!(!is_taken(&["pair"]));
        assert!(!is_taken(&["pair", "CODE", "--code-file", "code"]));
    }

    #[test]
    fn an_amount_may_be_left_to_the_uri() {
        assert!(is_taken(&["send-onchain", "bitcoin:bcrt1q?amount=1"]));
        assert!(is_taken(&["send-onchain", "bcrt1q", "all"]));
        assert!(!is_taken(&["send-onchain", "bcrt1q", "much"]));
    }

    #[test]
    fn payments_are_listed_with_or_without_a_limit() {
        assert!(is_taken(&["payments", "--json"]));
        assert!(is_taken(&["payments", "--limit", "5", "--before", "00"]));
        assert!(!is_taken(&["payments", "--limit", "0"]));
    }
}
