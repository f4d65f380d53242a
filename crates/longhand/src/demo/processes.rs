//! The demo's processes: this very binary in other roles. Whatever happens, they do not outlive the demo.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::DemoError;

/// What a process may take to say that it runs, or to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a process is started.
pub(super) struct Start<'a> {
    /// For people, and of its log file.
    pub name: &'a str,
    /// Where its log goes.
    pub dir: &'a Path,
    /// Arguments of `longhand`.
    pub args: Vec<String>,
    /// Variables of the environment. What `LONGHAND_...` the demo itself was given does not count.
    pub env: Vec<(&'static str, String)>,
}

/// A process that runs. Killed, by its id, when dropped.
pub(super) struct Process {
    name: String,
    child: Child,
    /// Kept open, so that the process never writes to nobody.
    _out: Lines<BufReader<ChildStdout>>,
    /// What it said when it was ready.
    pub ready: Value,
}

impl Process {
    /// Starts a process, and waits for the one JSON object that says that it is ready.
    pub async fn start(start: Start<'_>) -> Result<Process, DemoError> {
        let log = start.log();
        let mut child = start.spawn()?;
        let failed = |reason: String| DemoError::Process {
            name: start.name.to_owned(),
            reason,
            log: log.clone(),
        };
        let out = child
            .stdout
            .take()
            .ok_or_else(|| failed("it has no output".into()))?;
        let mut out = BufReader::new(out).lines();
        let first = tokio::time::timeout(PATIENCE, out.next_line()).await;
        let first = first.map_err(|_| failed("it does not get ready".into()))??;
        let first = first.ok_or_else(|| failed("it ended before it was ready".into()))?;
        let ready = serde_json::from_str(&first).map_err(|e| failed(e.to_string()))?;
        Ok(Process {
            name: start.name.to_owned(),
            child,
            _out: out,
            ready,
        })
    }

    /// SIGKILL: it has no chance to say goodbye.
    pub async fn kill(mut self) -> Result<(), DemoError> {
        Ok(self.child.kill().await?)
    }

    /// SIGTERM, and waits for the end.
    pub async fn stop(mut self) -> Result<(), DemoError> {
        let pid = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended just now.
            let _ = kill_process(pid, Signal::TERM);
        }
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(DemoError::Off(format!("{} ended with {status}", self.name))),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(DemoError::Off(format!(
                "{} does not end when asked to",
                self.name
            ))),
        }
    }
}

/// Runs a process to its end, and returns the JSON object that it answered.
pub(super) async fn run(start: Start<'_>) -> Result<Value, DemoError> {
    let failed = |reason: String| DemoError::Process {
        name: start.name.to_owned(),
        reason,
        log: start.log(),
    };
    let ended = tokio::time::timeout(PATIENCE, start.spawn()?.wait_with_output()).await;
    let ended = ended.map_err(|_| failed("it does not end".into()))??;
    if !ended.status.success() {
        return Err(failed(format!("it ended with {}", ended.status)));
    }
    serde_json::from_slice(&ended.stdout).map_err(|e| failed(e.to_string()))
}

/// This very binary, also when its file was replaced by a build since: the processes of one demo are of one version.
fn this_binary() -> std::io::Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    match running.exists() || running.is_symlink() {
        true => Ok(running.to_owned()),
        false => std::env::current_exe(),
    }
}

impl Start<'_> {
    fn log(&self) -> String {
        self.dir
            .join(format!("{}.log", self.name))
            .display()
            .to_string()
    }

    fn spawn(&self) -> Result<Child, DemoError> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log())?;
        let mut command = Command::new(this_binary()?);
        command.arg0("longhand");
        let ours = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        for name in ours.filter(|name| name.starts_with("LONGHAND_") && name != "LONGHAND_LOG") {
            command.env_remove(name);
        }
        command
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C is the demo's: it ends them in order.
            .process_group(0)
            .kill_on_drop(true);
        Ok(command.spawn()?)
    }
}
