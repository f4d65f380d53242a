//! The host under attack, with its honest phones: a process of its own, whose memory is theirs alone. It is asked in
//! lines of JSON over its standard input, and ends with it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use longhand_phone::Phone;
use longhand_proto::operator::CreateOwnerRequest;
use longhand_testkit::KitError;
use longhand_testkit::host::World;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::cores::on_core;
use crate::bench::resident::{resident_at_rest, resident_bytes};

const CHANNEL_SAT: u64 = 5_000_000;
const PAYMENT_MSAT: u64 = 2_000_000;
/// Between two payments, so that one has settled before the next.
const SETTLED: Duration = Duration::from_millis(100);
/// The longest time in which it stops its host when it is asked to end.
const STOPPING: Duration = Duration::from_secs(30);

/// A question to the process.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ask {
    /// So many payments from one honest phone to the other, one after the other.
    Pay(u32),
    /// Its resident memory now.
    Resident,
    /// The same, once it stays the same.
    ResidentAtRest,
}

/// The lines that the process prints: `Ready` first, then an answer to each question.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Ready(Ready),
    /// Milliseconds of each payment, at the payer's phone.
    Paid(Vec<f64>),
    /// Bytes.
    Resident(u64),
    /// One line for a person.
    Failed(String),
}

/// Where it can be attacked.
#[derive(Debug, Serialize, Deserialize)]
pub struct Ready {
    /// The link's listener.
    pub link: SocketAddr,
    /// The pairing code of one more owner.
    pub code: String,
}

/// The process, seen from the program that started it. It is killed when this is dropped.
pub struct Victim {
    child: Child,
    questions: Option<ChildStdin>,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Victim {
    /// Starts it, with its files in this directory and on this core, and does not wait for anything.
    ///
    /// # Errors
    /// When the system cannot start it.
    pub fn start(dir: &Path, core: Option<usize>) -> Result<Victim, KitError> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["bench", "hostile", "--child"])
            .arg(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            // Ctrl-C goes to the program alone, which ends it.
            .process_group(0)
            .kill_on_drop(true);
        let runtime = Handle::current();
        let mut child = on_core(core, move || {
            let _entered = runtime.enter();
            command.spawn()
        })?;
        let questions = child.stdin.take();
        let answers = child.stdout.take();
        let answers = answers.ok_or_else(|| failed("it has no output"))?;
        Ok(Victim {
            child,
            questions,
            answers: BufReader::new(answers).lines(),
        })
    }

    /// Waits until its host and phones are ready.
    ///
    /// # Errors
    /// When they do not get there.
    pub async fn ready(&mut self) -> Result<Ready, KitError> {
        match self.answer().await? {
            Answer::Ready(ready) => Ok(ready),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes payments, one after the other. Returns the milliseconds of each.
    ///
    /// # Errors
    /// When one of them fails.
    pub async fn pay(&mut self, payments: u32) -> Result<Vec<f64>, KitError> {
        match self.ask(Ask::Pay(payments)).await? {
            Answer::Paid(ms) => Ok(ms),
            other => Err(unexpected(&other)),
        }
    }

    /// Its resident memory in bytes, now.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn resident(&mut self) -> Result<u64, KitError> {
        self.size(Ask::Resident).await
    }

    /// Its resident memory in bytes, once it stays the same.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn resident_at_rest(&mut self) -> Result<u64, KitError> {
        self.size(Ask::ResidentAtRest).await
    }

    /// Ends it, in order or else by SIGKILL, and waits until it has ended.
    pub async fn stop(mut self, in_order: bool) {
        drop(self.questions.take());
        let ended = in_order && timeout(STOPPING, self.child.wait()).await.is_ok();
        if !ended && let Err(error) = self.child.kill().await {
            eprintln!("the host under attack was not stopped: {error}");
        }
    }

    async fn size(&mut self, ask: Ask) -> Result<u64, KitError> {
        match self.ask(ask).await? {
            Answer::Resident(bytes) => Ok(bytes),
            other => Err(unexpected(&other)),
        }
    }

    async fn ask(&mut self, ask: Ask) -> Result<Answer, KitError> {
        let mut line = to_line(&ask)?;
        line.push('\n');
        let questions = self.questions.as_mut();
        let questions = questions.ok_or_else(|| failed("it was stopped"))?;
        questions.write_all(line.as_bytes()).await?;
        questions.flush().await?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Answer, KitError> {
        let line = self.answers.next_line().await?;
        let line = line.ok_or_else(|| failed("it ended"))?;
        match serde_json::from_str(&line) {
            Ok(Answer::Failed(reason)) => Err(failed(&reason)),
            Ok(answer) => Ok(answer),
            Err(_) => Err(failed(&format!("it printed {line}"))),
        }
    }
}

/// Is the host under attack until standard input ends.
///
/// # Errors
/// When it does not get ready, or cannot stop in order.
pub async fn run(dir: &Path) -> Result<(), KitError> {
    let dir = tempfile::Builder::new().prefix("host-").tempdir_in(dir)?;
    let world = World::new(dir).await?;
    let honest = Honest::join(&world).await?;
    let link = world.addresses.link.first();
    let link = link.and_then(|link| link.authority().parse().ok());
    let link = link.ok_or_else(|| failed("it has no listener for links"))?;
    let request = CreateOwnerRequest {
        name: "mallory".into(),
        ..CreateOwnerRequest::default()
    };
    let invited = world.operator.client()?.create_owner(request).await?;
    print(&Answer::Ready(Ready {
        link,
        code: invited.into_inner().code,
    }))?;
    let mut questions = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = questions.next_line().await? {
        let answered = honest.answer(&line).await;
        print(&answered.unwrap_or_else(|error| Answer::Failed(error.to_string())))?;
    }
    honest.leave().await?;
    world.stop().await?;
    Ok(())
}

/// Two owners with a channel from the hub each; the first has money in hers.
struct Honest {
    payer: Phone,
    payee: Phone,
}

impl Honest {
    async fn join(world: &World) -> Result<Honest, KitError> {
        let payer = world.phone("ann", Duration::ZERO).await?;
        let payee = world.phone("bob", Duration::ZERO).await?;
        let operator = &world.operator;
        operator
            .hub_open("ann", CHANNEL_SAT, CHANNEL_SAT * 900)
            .await?;
        operator.hub_open("bob", CHANNEL_SAT, 0).await?;
        world.confirm_channels(2).await?;
        operator.usable("ann", 1).await?;
        operator.usable("bob", 1).await?;
        Ok(Honest { payer, payee })
    }

    async fn answer(&self, line: &str) -> Result<Answer, KitError> {
        let ask = serde_json::from_str(line).map_err(|e| failed(&e.to_string()))?;
        Ok(match ask {
            Ask::Pay(payments) => Answer::Paid(self.pay(payments).await?),
            Ask::Resident => Answer::Resident(resident_bytes()?),
            Ask::ResidentAtRest => Answer::Resident(resident_at_rest().await?),
        })
    }

    async fn pay(&self, payments: u32) -> Result<Vec<f64>, KitError> {
        let mut ms = Vec::new();
        for _ in 0..payments {
            let invoice = self
                .payee
                .invoice(Some(PAYMENT_MSAT), "bench", 3_600)
                .await?;
            tokio::time::sleep(SETTLED).await;
            let since = Instant::now();
            self.payer.pay(&invoice.bolt11, None, None).await?;
            ms.push(since.elapsed().as_secs_f64() * 1e3);
        }
        Ok(ms)
    }

    async fn leave(&self) -> Result<(), KitError> {
        self.payer.detach().await?;
        self.payee.detach().await?;
        Ok(())
    }
}

fn print(answer: &Answer) -> Result<(), KitError> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", to_line(answer)?)?;
    Ok(out.flush()?)
}

fn to_line(value: &impl Serialize) -> Result<String, KitError> {
    serde_json::to_string(value).map_err(|e| failed(&e.to_string()))
}

fn failed(reason: &str) -> KitError {
    KitError::Unexpected(format!("the host under attack: {reason}"))
}

/// An answer to another question. It may have a pairing code in it, which is not shown.
fn unexpected(answer: &Answer) -> KitError {
    failed(match answer {
        Answer::Ready(_) => "it says that it is ready, and was asked for something else",
        Answer::Paid(_) => "it made payments, and was asked for something else",
        Answer::Resident(_) => "it reported its memory, and was asked for something else",
        Answer::Failed(_) => "it failed",
    })
}
