//! The binary.

mod admin_cli;
mod host_cli;
mod phone_cli;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "longhand", version, about = "Lightning nodes whose keys stay on phones")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Be a phone: keys, link and an owner's commands
    Phone(phone_cli::PhoneArgs),
    /// Be a host: many nodes whose keys are on phones
    Host(Box<host_cli::HostArgs>),
    /// Ask a running host, as its operator
    Admin(admin_cli::AdminArgs),
}

#[tokio::main]
async fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Phone(args) => phone_cli::run(args).await,
        Command::Host(args) => host_cli::run(*args).await,
        Command::Admin(args) => admin_cli::run(args).await,
    }
}
