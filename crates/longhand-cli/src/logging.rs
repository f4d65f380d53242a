//! Logs: to standard error, filtered, as text or as one JSON object a line. Nothing else sets them up.

use std::io::IsTerminal;

use longhand_proto::Code;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// Log filter, such as `info,longhand_node=debug`, where no configuration has it.
const FILTER: &str = "LONGHAND_LOG";
/// `json` for one JSON object a line.
const FORMAT: &str = "LONGHAND_LOG_FORMAT";

/// Starts the log of a process. A log that is there already, as in a test, stays.
///
/// # Errors
/// When `filter` cannot be read.
pub fn start(filter: &str, json: bool) -> Result<(), ParseError> {
    let filter = EnvFilter::try_new(filter)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let _ = match json {
        true => builder.json().try_init(),
        false => builder.try_init(),
    };
    Ok(())
}

/// Starts the log as the environment sets it, else with `default`.
///
/// # Errors
/// One line for a person.
pub fn start_from_environment(default: &str) -> Result<(), String> {
    let filter = std::env::var(FILTER).unwrap_or_else(|_| default.to_owned());
    let json = std::env::var(FORMAT).is_ok_and(|format| format == "json");
    start(&filter, json).map_err(|e| Code::Config.line(format_args!("{FILTER} is {filter:?}: {e}")))
}
