//! Starting the Tor process.

use std::io::Result;
use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::process::{Child, Command};

use crate::HostError;
use crate::config::HostConfig;

/// Starts a process that speaks `longhand_tor::control`.
pub(crate) trait Launch: Send + Sync {
    /// One that runs until its input ends, or this is dropped.
    fn launch(&self) -> Result<Launched>;
}

/// A process that runs.
pub(crate) struct Launched {
    pub orders: Box<dyn AsyncWrite + Send + Unpin>,
    pub reports: Box<dyn AsyncRead + Send + Unpin>,
    /// Kills it when it is dropped.
    pub child: Option<Child>,
}

/// `longhand tor`.
pub(crate) struct Program(PathBuf);

impl Program {
    /// The program that is configured, or this one.
    pub fn of(config: &HostConfig) -> std::result::Result<Program, HostError> {
        let configured = &config.tor.program;
        if !configured.as_os_str().is_empty() {
            return Ok(Program(configured.clone()));
        }
        let own = std::env::current_exe();
        own.map(Program)
            .map_err(|error| HostError::Tor(format!("{error}; give tor.program")))
    }
}

impl Launch for Program {
    fn launch(&self) -> Result<Launched> {
        let mut command = Command::new(&self.0);
        // The host's settings may have passwords, and what a program that starts hosts gives them is not for it either.
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("LONGHAND_") && !text.starts_with("LONGHAND_LOG") {
                command.env_remove(&name);
            }
        }
        let mut child = command
            .arg("tor")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let closed = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let orders = child.stdin.take().ok_or_else(closed)?;
        let reports = child.stdout.take().ok_or_else(closed)?;
        Ok(Launched {
            orders: Box::new(orders),
            reports: Box::new(reports),
            child: Some(child),
        })
    }
}
