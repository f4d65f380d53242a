//! A host under attack: its memory, and the latency of honest payments, against the same host before.
//!
//! The host and two honest phones are one process (`victim.rs`), the attackers are a thread of this one
//! (`attackers.rs`), each on a core of its own (`cores.rs`). An attack (`attacks.rs`) goes on until it has sent as much
//! as was asked for and the honest payments are made, whichever is later; so payments are always made under attack. The
//! memory is read at the end of the attack, while its connections are open, and again after it.

mod attackers;
mod attacks;
mod cores;
mod http2;
mod report;
mod tally;
mod victim;

use std::future::Future;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use longhand_testkit::processes::asked_to_stop;
use longhand_testkit::{KitError, Patience};

use self::attackers::Attackers;
use self::attacks::Pace;
use self::cores::Cores;
use self::report::{Attack, Measurements};
use self::tally::Tally;
use self::victim::Victim;
use super::figure::{Report, median};
use super::{say, temporary_directory};

/// Commands of each attack that sends them.
const COMMANDS: u64 = 1_000;
/// Longer than an attack takes to send what was asked for.
const SENDING: Patience = Patience {
    longest: Duration::from_secs(3_600),
    ..Patience::REAL
};

#[derive(Debug, Args)]
pub struct HostileArgs {
    /// How many streams are opened at the link's port
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    streams: u64,
    /// How many payments are made before and during each attack, one after the other
    #[arg(long, default_value_t = 21, value_parser = clap::value_parser!(u32).range(1..=200))]
    runs: u32,
    /// How many `ConnectPeer`s the attacker sends in a second; without it, as many as the link takes
    #[arg(long, value_name = "N")]
    commands_a_second: Option<NonZeroU32>,
    /// Be the host under attack, with files in this directory
    #[arg(long, hide = true)]
    child: Option<PathBuf>,
}

impl HostileArgs {
    pub fn is_child(&self) -> bool {
        self.child.is_some()
    }
}

pub async fn run(args: HostileArgs) -> Result<Report, KitError> {
    let dir = temporary_directory()?;
    let cores = Cores::of_this_process();
    let attackers = Attackers::start(cores.attackers)?;
    let mut victim = Victim::start(dir.path(), cores.host)?;
    let measured = tokio::select! {
        measured = measure(&args, &mut victim, &attackers, dir.path()) => measured,
        () = asked_to_stop() => Err(KitError::Unexpected("it was stopped".into())),
    };
    attackers.stop();
    victim.stop(measured.is_ok()).await;
    Ok(measured?.report(&cores))
}

/// Is the host under attack.
pub async fn run_child(args: HostileArgs) -> ExitCode {
    match victim::run(&args.child.unwrap_or_default()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the host under attack: {error}");
            ExitCode::from(2)
        }
    }
}

async fn measure(
    args: &HostileArgs,
    victim: &mut Victim,
    attackers: &Attackers,
    dir: &Path,
) -> Result<Measurements, KitError> {
    say("a host with two honest phones");
    let ready = victim.ready().await?;
    let dir = dir.join("attacker");
    let mut pairing = attackers.run(async move { attacks::paired(&dir, &ready.code).await });
    let phone = pairing.result().await??;
    say(&format!("paying {} times without an attack", args.runs));
    // The first payments fill caches, which are no part of the growth.
    victim.pay(args.runs).await?;
    let calm_ms = median(victim.pay(args.runs).await?);
    let before = victim.resident_at_rest().await?;
    let mut trial = Trial {
        runs: args.runs,
        before,
        victim,
        attackers,
    };
    let link = ready.link;
    let streams = trial.round("stream opens", args.streams, |tally| {
        attacks::streams(link, tally)
    });
    let streams = streams.await?;
    let again = phone.clone();
    let pace = Pace(args.commands_a_second);
    let nobody = trial.round("ConnectPeers to nobody", COMMANDS, |tally| {
        attacks::connect_to_nobody(again, pace, tally)
    });
    let nobody = nobody.await?;
    let tarpits = trial.round("ConnectPeers to tarpits", COMMANDS, |tally| {
        attacks::connect_to_tarpits(phone, pace, tally)
    });
    let tarpits = tarpits.await?;
    Ok(Measurements {
        runs: args.runs,
        calm_ms,
        before,
        attacks: [streams, nobody, tarpits],
    })
}

/// Attacks on one host, one after the other.
struct Trial<'a> {
    runs: u32,
    /// Resident bytes before the first attack.
    before: u64,
    victim: &'a mut Victim,
    attackers: &'a Attackers,
}

impl Trial<'_> {
    /// Makes the payments under this attack, and reads the memory at its end and after it.
    async fn round<F>(
        &mut self,
        what: &'static str,
        count: u64,
        attack: impl FnOnce(Tally) -> F,
    ) -> Result<Attack, KitError>
    where
        F: Future<Output = Result<(), KitError>> + Send + 'static,
    {
        say(&format!("paying {} times, under {what}", self.runs));
        let tally = Tally::default();
        let since = Instant::now();
        let mut running = self.attackers.run(attack(tally.clone()));
        let under_attack = async {
            sent(&tally, 1).await?;
            let ms = median(self.victim.pay(self.runs).await?);
            sent(&tally, count).await?;
            let counts = tally.counts();
            let seconds = since.elapsed().as_secs_f64();
            let resident = self.victim.resident().await?;
            Ok::<_, KitError>((ms, counts, seconds, resident))
        };
        let (ms, counts, seconds, during) = tokio::select! {
            measured = under_attack => measured?,
            ended = running.result() => {
                ended??;
                return Err(KitError::Unexpected(format!("the attack of {what} ended by itself")));
            }
        };
        drop(running);
        let after = self.victim.resident_at_rest().await?;
        Ok(Attack {
            what,
            ms,
            counts,
            seconds,
            growth: during.max(after).saturating_sub(self.before),
        })
    }
}

/// Waits until an attack has sent so many.
async fn sent(tally: &Tally, count: u64) -> Result<(), KitError> {
    let all = async || Ok((tally.counts().made >= count).then_some(()));
    SENDING.until("the attack is made", all).await
}
