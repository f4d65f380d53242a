//! The parts that all servers on the command line share: settings, signals, and the addresses that they show.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The variables that are text; those of a server all are.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |os: std::ffi::OsString| os.into_string().ok();
    std::env::vars_os().filter_map(move |(name, value)| Some((text(name)?, text(value)?)))
}

/// Reads an argument of `--set`.
///
/// # Errors
/// A line for a person.
pub fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("give KEY=VALUE, such as log.filter=debug")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Writes the addresses of a server that runs to standard output. An output that is closed is no reason to stop.
pub fn show(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// The signals that stop a server.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Listens from now on.
    ///
    /// # Errors
    /// A line for a person.
    pub fn new() -> Result<StopSignals, String> {
        let listen = |kind| signal(kind).map_err(|e| format!("signals cannot be listened to: {e}"));
        Ok(StopSignals {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// The next SIGTERM or SIGINT.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// So many days from now, in seconds since 1970.
pub(crate) fn days_from_now(days: u32) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    now.saturating_add(u64::from(days) * 86_400)
}
