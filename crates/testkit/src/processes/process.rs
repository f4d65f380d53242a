//! A process of the `longhand` binary. It never outlives the program that started it, also when that is killed.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::KitError;

/// The longest that a process takes to report that it is ready, or to exit when it is asked to.
const PATIENCE: Duration = Duration::from_secs(60);

/// The id of the process that started this one, and with which it exits.
const PARENT: &str = "LONGHAND_PARENT";

/// Starts processes of one binary in one directory.
#[derive(Clone, Debug)]
pub struct Launcher {
    /// The `longhand` binary.
    pub binary: PathBuf,
    /// The processes' files and logs.
    pub dir: PathBuf,
}

/// How a process is started.
pub struct Start<'a> {
    /// Binary and directory.
    pub launcher: &'a Launcher,
    /// For people, and for the name of its log file.
    pub name: &'a str,
    /// Arguments of `longhand`.
    pub args: Vec<String>,
    /// Variables of the environment. Those of the program itself that begin with `LONGHAND_` are not passed on.
    pub env: Vec<(&'static str, String)>,
}

/// A process that was started. It is killed, by its id, when this is dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    log: String,
    child: Child,
    /// Kept open: a process that writes to a closed pipe gets SIGPIPE.
    out: Lines<BufReader<ChildStdout>>,
    ready: Value,
}

impl Process {
    /// Starts a process, and does not wait for anything.
    ///
    /// # Errors
    /// When the system cannot start it.
    pub fn spawn(start: Start<'_>) -> Result<Process, KitError> {
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

    /// Waits until it has reported that it is ready.
    ///
    /// # Errors
    /// When it does not get there.
    pub async fn wait_until_ready(&mut self) -> Result<(), KitError> {
        if !self.ready.is_null() {
            return Ok(());
        }
        let first = tokio::time::timeout(PATIENCE, self.out.next_line()).await;
        let first = first.map_err(|_| self.failed("it does not get ready".into()))??;
        let first = first.ok_or_else(|| self.failed("it ended before it was ready".into()))?;
        self.ready = serde_json::from_str(&first).map_err(|e| self.failed(e.to_string()))?;
        Ok(())
    }

    /// The JSON object that it reported when it was ready; null before.
    pub fn ready(&self) -> &Value {
        &self.ready
    }

    /// Its exit status, when it has exited by itself.
    ///
    /// # Errors
    /// When the system does not report it.
    pub fn has_exited(&mut self) -> Result<Option<ExitStatus>, KitError> {
        Ok(self.child.try_wait()?)
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When the system does not do it.
    pub async fn kill(mut self) -> Result<(), KitError> {
        Ok(self.child.kill().await?)
    }

    /// SIGTERM, and waits until it has exited.
    ///
    /// # Errors
    /// When it does not exit, or with an error.
    pub async fn stop(mut self) -> Result<(), KitError> {
        let pid = self
            .child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have exited just now.
            let _ = kill_process(pid, Signal::TERM);
        }
        match tokio::time::timeout(PATIENCE, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(self.failed(format!("it ended with {status}"))),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(self.failed("it does not end when asked to".into())),
        }
    }

    fn failed(&self, reason: String) -> KitError {
        KitError::Process {
            name: self.name.clone(),
            reason,
            log: self.log.clone(),
        }
    }
}

/// A process that is started again after it was stopped or killed.
#[derive(Debug)]
pub struct Restartable {
    name: String,
    process: Option<Process>,
}

impl Restartable {
    /// Not started yet; `name` is for errors.
    pub fn new(name: &str) -> Restartable {
        Restartable {
            name: name.to_owned(),
            process: None,
        }
    }

    /// Starts it, and does not wait until it is ready.
    ///
    /// # Errors
    /// When the system cannot start it.
    pub fn spawn(&mut self, start: Start<'_>) -> Result<(), KitError> {
        self.process = Some(Process::spawn(start)?);
        Ok(())
    }

    /// The process, while it runs.
    pub fn running(&mut self) -> Option<&mut Process> {
        self.process.as_mut()
    }

    /// Waits until it is ready, and returns the JSON object that it reported then.
    ///
    /// # Errors
    /// When it does not get there, or does not run.
    pub async fn wait_until_ready(&mut self) -> Result<&Value, KitError> {
        let process = self.process.as_mut();
        let process = process.ok_or_else(|| KitError::Away(self.name.clone()))?;
        process.wait_until_ready().await?;
        Ok(process.ready())
    }

    /// SIGKILL, when it runs.
    ///
    /// # Errors
    /// When the system does not do it.
    pub async fn kill(&mut self) -> Result<(), KitError> {
        match self.process.take() {
            Some(process) => process.kill().await,
            None => Ok(()),
        }
    }

    /// SIGTERM, when it runs, and waits until it has exited.
    ///
    /// # Errors
    /// When it does not exit, or with an error.
    pub async fn stop(&mut self) -> Result<(), KitError> {
        match self.process.take() {
            Some(process) => process.stop().await,
            None => Ok(()),
        }
    }
}

/// Runs a process until it exits, and returns the JSON object that it printed.
///
/// # Errors
/// When it exits with an error, or prints anything else.
pub async fn run(start: Start<'_>) -> Result<Value, KitError> {
    let ended = tokio::time::timeout(PATIENCE, start.spawn()?.wait_with_output()).await;
    let ended = ended.map_err(|_| start.failed("it does not end".into()))??;
    if !ended.status.success() {
        return Err(start.failed(format!("it ended with {}", ended.status)));
    }
    serde_json::from_slice(&ended.stdout).map_err(|e| start.failed(e.to_string()))
}

impl Launcher {
    /// With the binary that is running, also when a build has replaced its file since: all processes are of one version.
    ///
    /// # Errors
    /// When the system does not know the binary.
    pub fn of_this_binary(dir: &Path) -> std::io::Result<Launcher> {
        let running = Path::new("/proc/self/exe");
        let binary = match running.exists() || running.is_symlink() {
            true => running.to_owned(),
            false => std::env::current_exe()?,
        };
        let dir = dir.to_owned();
        Ok(Launcher { binary, dir })
    }

    /// The log file of the process of this name.
    pub fn log(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }
}

impl Start<'_> {
    fn log(&self) -> String {
        self.launcher.log(self.name).display().to_string()
    }

    fn failed(&self, reason: String) -> KitError {
        KitError::Process {
            name: self.name.to_owned(),
            reason,
            log: self.log(),
        }
    }

    fn spawn(&self) -> Result<Child, KitError> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.launcher.log(self.name))?;
        let mut command = Command::new(&self.launcher.binary);
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
            // Ctrl-C goes to the program alone, which stops them in order.
            .process_group(0)
            .kill_on_drop(true);
        Ok(command.spawn()?)
    }
}

/// Has a process that was started here exit with the program that started it, also when that is killed. In any other
/// process, and where the system cannot do it, this does nothing.
pub fn end_with_parent() {
    #[cfg(target_os = "linux")]
    if let Ok(parent) = std::env::var(PARENT) {
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
        let now = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        // The parent may have exited before the signal was asked for.
        if parent != now.to_string() {
            std::process::exit(1);
        }
    }
}
