//! The control socket of a running phone: a Unix socket in its directory, for its owner's processes only.
//!
//! One connection carries one command: a line of JSON each way, an [`OwnerCommand`] there and its reply or an
//! [`ErrorReport`] back.
//! A command goes on when the process that sent it has exited. Its result is not delivered then, and the same command returns it.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::command::{OwnerCommand, OwnerReply};
use crate::error::{ErrorReport, PhoneError};
use crate::phone::Phone;

const NAME: &str = "control.sock";

/// The longest command, in bytes; the longest invoice fits.
const MAX_COMMAND_BYTES: u64 = 64 << 10;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Ok(OwnerReply),
    Error(ErrorReport),
}

/// Accepts commands until it is dropped.
#[derive(Debug)]
pub struct ControlSocket {
    path: PathBuf,
    task: JoinHandle<()>,
}

impl ControlSocket {
    /// Listens in `dir`, the directory of the phone's vault, whose lock ensures that only one process does.
    pub fn listen(phone: Phone, dir: &Path) -> Result<ControlSocket, PhoneError> {
        let path = dir.join(NAME);
        let listener = bind(&path).map_err(|error| PhoneError::Control(error.to_string()))?;
        let task = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => drop(tokio::spawn(answer(stream, phone.clone()))),
                    Err(error) => {
                        tracing::warn!(%error, "the control socket does not accept");
                        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                    }
                }
            }
        });
        Ok(ControlSocket { path, task })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        self.task.abort();
        // A socket that cannot be removed refuses the next command, which then opens the vault itself.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn answer(stream: UnixStream, phone: Phone) {
    let (read, mut write) = stream.into_split();
    let mut line = String::new();
    let read = BufReader::new(read.take(MAX_COMMAND_BYTES))
        .read_line(&mut line)
        .await;
    let outcome = match read.map(|_| serde_json::from_str::<OwnerCommand>(&line)) {
        Ok(Ok(command)) => phone.carry_out(command).await,
        Ok(Err(error)) => Err(PhoneError::Control(error.to_string())).into(),
        Err(_) => return,
    };
    let answer = match outcome.result {
        Ok(reply) => Answer::Ok(reply),
        Err(error) => Answer::Error(error.report()),
    };
    let Ok(mut line) = serde_json::to_vec(&answer) else {
        return;
    };
    line.push(b'\n');
    // The process that sent the command may have exited.
    if write.write_all(&line).await.is_err() {
        return;
    }
    if let Err(error) = phone.delivered(outcome.ended).await {
        tracing::warn!(%error, "could not record that a result was delivered: the same command returns it again");
    }
}

/// Sends `command` to the process that runs the phone in `dir`. `None` when there is none.
pub async fn through_running(
    dir: &Path,
    command: &OwnerCommand,
) -> Option<Result<OwnerReply, PhoneError>> {
    use io::ErrorKind::{ConnectionRefused, NotFound};
    match UnixStream::connect(dir.join(NAME)).await {
        Ok(stream) => Some(ask(stream, command).await),
        Err(error) if matches!(error.kind(), ConnectionRefused | NotFound) => None,
        Err(error) => Some(Err(PhoneError::Control(error.to_string()))),
    }
}

async fn ask(stream: UnixStream, command: &OwnerCommand) -> Result<OwnerReply, PhoneError> {
    let failed = |error: io::Error| PhoneError::Control(error.to_string());
    let mut line = serde_json::to_vec(command).map_err(|error| failed(error.into()))?;
    line.push(b'\n');
    let (read, mut write) = stream.into_split();
    write.write_all(&line).await.map_err(failed)?;
    let mut answer = String::new();
    BufReader::new(read)
        .read_line(&mut answer)
        .await
        .map_err(failed)?;
    if answer.is_empty() {
        return Err(PhoneError::Control("it stopped before it answered".into()));
    }
    match serde_json::from_str(&answer).map_err(|error| failed(error.into()))? {
        Answer::Ok(reply) => Ok(reply),
        Answer::Error(report) => Err(PhoneError::Reported(report)),
    }
}
