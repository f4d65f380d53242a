//! A process of the `longhand` binary. Whatever happens, it does not outlive the program that started it.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::CastError;

/// What a process may take to say that it runs, or to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(60);

/// Says whose end is a process's own end: the id of the process that started it.
const PARENT: &str = "LONGHAND_PARENT";

/// Where processes run.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The `longhand` binary.
    pub binary: PathBuf,
    /// Their files and their logs.
    pub dir: PathBuf,
}

/// How a process is started.
pub struct Start<'a> {
    /// Where.
    pub stage: &'a Stage,
    /// For people, and of its log file.
    pub name: &'a str,
    /// Arguments of `longhand`.
    pub args: Vec<String>,
    /// Variables of the environment. What `LONGHAND_...` the program itself was given does not count.
    pub env: Vec<(&'static str, String)>,
}

/// A process that was started. Killed, by its id, when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: String,
    child: Child,
    /// Kept open, so that the process never writes to nobody.
    out: Lines<BufReader<ChildStdout>>,
    ready: Value,
}

impl Process {
    /// Starts a process, and does not wait for anything.
    ///
    /// # Errors
    /// When the system cannot start it.
    pub fn spawn(start: Start<'_>) -> Result<Process, CastError> {
        let mut child = start.spawn()?;
        let out = child.stdout.take();
        let out = out.ok_or_else(|| start.failed("it has no output".into()))?;
        Ok(Process {
            name: start.name.to_owned(),
            log: start.log(),
            child,
            out: BufReader::new(out).lines(),
            ready: Value::Null,
        })
    }

    /// Starts a process, and waits for the one JSON object that says that it is ready.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn start(start: Start<'_>) -> Result<Process, CastError> {
        let mut process = Process::spawn(start)?;
        process.wait_until_ready().await?;
        Ok(process)
    }

    /// Waits until it has said that it is ready.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn wait_until_ready(&mut self) -> Result<(), CastError> {
        if !self.ready.is_null() {
            return Ok(());
        }
        let first = tokio::time::timeout(PATIENCE, self.out.next_line()).await;
        let first = first.map_err(|_| self.failed("it does not get ready".into()))??;
        let first = first.ok_or_else(|| self.failed("it ended before it was ready".into()))?;
        self.ready = serde_json::from_str(&first).map_err(|e| self.failed(e.to_string()))?;
        Ok(())
    }

    /// What it said when it was ready; null before.
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// How it ended, when it did so by itself.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn has_ended(&mut self) -> Result<Option<ExitStatus>, CastError> {
        Ok(self.child.try_wait()?)
    }

    /// SIGKILL: it has no chance to say goodbye.
    ///
    /// # Errors
    /// When the system does not do it.
    pub async fn kill(mut self) -> Result<(), CastError> {
        Ok(self.child.kill().await?)
    }

    /// SIGTERM, and waits for the end.
    ///
    /// # Errors
    /// When it does not end, or not well.
    pub async fn stop(mut self) -> Result<(), CastError> {
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
            Ok(Ok(status)) => Err(self.failed(format!("it ended with {status}"))),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(self.failed("it does not end when asked to".into())),
        }
    }

    fn failed(&self, reason: String) -> CastError {
        CastError::Process {
            name: self.name.clone(),
            reason,
            log: self.log.clone(),
        }
    }
}

/// Runs a process to its end, and returns the JSON object that it answered.
///
/// # Errors
/// When it does not end well, or answers something else.
pub async fn run(start: Start<'_>) -> Result<Value, CastError> {
    let ended = tokio::time::timeout(PATIENCE, start.spawn()?.wait_with_output()).await;
    let ended = ended.map_err(|_| start.failed("it does not end".into()))??;
    if !ended.status.success() {
        return Err(start.failed(format!("it ended with {}", ended.status)));
    }
    serde_json::from_slice(&ended.stdout).map_err(|e| start.failed(e.to_string()))
}

impl Stage {
    /// With the binary that is running, also when its file was replaced by a build since: the processes of one
    /// demo are of one version.
    ///
    /// # Errors
    /// When the system does not know it.
    pub fn of_this_binary(dir: &Path) -> std::io::Result<Stage> {
        let running = Path::new("/proc/self/exe");
        let binary = match running.exists() || running.is_symlink() {
            true => running.to_owned(),
            false => std::env::current_exe()?,
        };
        let dir = dir.to_owned();
        Ok(Stage { binary, dir })
    }

    /// Where the process of this name writes what it logs.
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }
}

impl Start<'_> {
    fn log(&self) -> String {
        self.stage.log(self.name).display().to_string()
    }

    fn failed(&self, reason: String) -> CastError {
        CastError::Process {
            name: self.name.to_owned(),
            reason,
            log: self.log(),
        }
    }

    fn spawn(&self) -> Result<Child, CastError> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.stage.log(self.name))?;
        let mut command = Command::new(&self.stage.binary);
        command.arg0("longhand");
        let ours = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        for name in ours.filter(|name| name.starts_with("LONGHAND_") && name != "LONGHAND_LOG") {
            command.env_remove(name);
        }
        command
            .args(&self.args)
            .env(PARENT, std::process::id().to_string())
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C is the program's: it ends them in order.
            .process_group(0)
            .kill_on_drop(true);
        Ok(command.spawn()?)
    }
}

/// In a process that was started here: ends it with the program that started it, also when that one is killed. In any
/// other process, and where the system cannot do it, nothing happens.
pub fn end_with_parent() {
    #[cfg(target_os = "linux")]
    if let Ok(parent) = std::env::var(PARENT) {
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        let now = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        // It may have ended before the signal was asked for.
        if parent != now.to_string() {
            std::process::exit(1);
        }
    }
}
