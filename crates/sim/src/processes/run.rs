//! The loop.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use longhand_proto::Code;
use longhand_testkit::KitError;
use longhand_testkit::processes::{Launcher, asked_to_stop};
use tokio::task::JoinSet;

use super::ProcessesArgs;
use super::check::{Checked, check, wait_until_quiet};
use super::disk::Disk;
use super::logs::Logs;
use super::payments::{Answer, Tried, carry_out};
use super::plan::{Act, Blow, Plan, Targets, Timed};
use super::report::Report;
use super::setup::Setup;
use super::view::View;

/// After so many rounds all payments end, and everything is checked.
const CHECK_EVERY: u32 = 4;
/// Time limit for answers to payments when nothing else is under way: the hub is asked again for two minutes.
const ANSWERS: Duration = Duration::from_secs(180);
/// Time for the runtime to reap the processes that were killed.
const REAPING: Duration = Duration::from_millis(100);

/// Runs the rounds, and prints the report.
pub(super) async fn run(args: &ProcessesArgs, targets: Targets, binary: PathBuf) -> ExitCode {
    let dir = match tempfile::Builder::new().prefix("longhand-sim-").tempdir() {
        Ok(dir) => dir,
        Err(error) => {
            let message = format_args!("there is no place for the files: {error}");
            eprintln!("{}", Code::Environment.line(message));
            return ExitCode::FAILURE;
        }
    };
    let mut run = Run::new(args, targets, dir.path(), binary);
    run.all(Duration::from_secs(args.minutes * 60)).await;
    run.view.close();
    let Run { report, .. } = &run;
    for fault in &report.faults {
        eprintln!("off: {fault}");
    }
    match args.json {
        true => println!("{}", report.json()),
        false => println!("{}", report.table()),
    }
    if report.is_ok() || report.was_stopped && report.is_clean() {
        drop(dir);
    } else {
        let seed = report.seed;
        let dir = dir.keep();
        eprintln!("seed {seed}; logs and data are in {}", dir.display());
    }
    match (report.is_ok(), report.was_stopped) {
        (_, true) => ExitCode::from(130),
        (true, false) => ExitCode::SUCCESS,
        (false, false) => ExitCode::FAILURE,
    }
}

struct Run {
    launcher: Launcher,
    targets: Targets,
    phones: usize,
    plan: Plan,
    view: View,
    report: Report,
    setup: Option<Setup>,
    paying: JoinSet<Option<Tried>>,
    tried: Vec<Tried>,
    logs: Logs,
    /// Since the last search of the logs.
    disk_was_full: bool,
    began: Instant,
}

impl Run {
    fn new(args: &ProcessesArgs, targets: Targets, dir: &Path, binary: PathBuf) -> Run {
        let seed = args.seed.unwrap_or_else(|| u64::from(another_seed()));
        let phones = usize::try_from(args.phones).unwrap_or(2);
        // A build may replace the file meanwhile: all processes are of one version.
        let own = dir.join("longhand");
        let binary = std::fs::hard_link(&binary, &own).map_or(binary, |()| own);
        Run {
            launcher: Launcher {
                binary,
                dir: dir.to_owned(),
            },
            targets,
            phones,
            plan: Plan::new(seed, phones, targets),
            view: View::new(args.json),
            report: Report {
                seed,
                ..Report::default()
            },
            setup: None,
            paying: JoinSet::new(),
            tried: Vec::new(),
            logs: Logs::default(),
            disk_was_full: false,
            began: Instant::now(),
        }
    }

    /// Everything, from the first process to the end of the last.
    async fn all(&mut self, time: Duration) {
        let seed = self.report.seed;
        self.view.line(&format!("seed {seed}"));
        let ended = tokio::select! {
            ended = self.rounds(time) => ended,
            () = asked_to_stop() => {
                self.report.was_stopped = true;
                Ok(())
            }
        };
        if let Err(error) = ended {
            self.report.faults.push(error.to_string());
        }
        tokio::select! {
            () = self.end() => {}
            // A second signal: the processes are killed with this one.
            () = asked_to_stop() => self.report.was_stopped = true,
        }
        self.setup = None;
        tokio::time::sleep(REAPING).await;
        self.report.seconds = self.began.elapsed().as_secs();
    }

    async fn rounds(&mut self, time: Duration) -> Result<(), KitError> {
        self.view.now("a devnet, a host and phones start".into());
        let disk = match self.targets {
            Targets::Processes => None,
            _ => Some(Disk::mount(&self.launcher.dir.join("host")).map_err(KitError::Unexpected)?),
        };
        self.setup = Some(Setup::start(&self.launcher, self.phones, disk).await?);
        self.began = Instant::now();
        while self.began.elapsed() < time && self.report.is_clean() {
            self.round().await?;
            let is_last = self.began.elapsed() >= time;
            if is_last || self.report.rounds.is_multiple_of(CHECK_EVERY) {
                self.settle().await?;
            }
        }
        Ok(())
    }

    /// One round: the plan's events, and then a wait until all processes are back.
    async fn round(&mut self) -> Result<(), KitError> {
        let since = Instant::now();
        for Timed { at_ms, act } in self.plan.round() {
            let at = Duration::from_millis(at_ms);
            let pause = at.saturating_sub(since.elapsed());
            self.setup()?.wait(pause).await?;
            self.act(act).await?;
            self.collect();
        }
        self.setup()?.all_back().await?;
        self.look_for_dead()?;
        self.report.rounds += 1;
        self.show("");
        Ok(())
    }

    async fn act(&mut self, act: Act) -> Result<(), KitError> {
        match act {
            Act::Pay(order) => {
                let setup = self.setup()?;
                let (payer, payee) = (setup.party(order.payer), setup.party(order.payee));
                self.paying.spawn(carry_out(order, payer, payee));
            }
            Act::Mine => {
                // The devnet may be down, which is no reason to wait for it.
                let mined = self.setup()?.world.chain.rpc.mine(1);
                let _ = tokio::time::timeout(Duration::from_secs(1), mined).await;
            }
            Act::Strike(blow) => {
                self.look_for_dead()?;
                self.report.count(blow);
                self.disk_was_full |= matches!(blow, Blow::Disk(_));
                self.show(&format!("{blow:?} is down"));
                self.setup()?.strike(blow).await?;
            }
            Act::Recover(blow) => {
                self.look_for_dead()?;
                self.setup()?.recover(blow).await?;
                self.show("");
            }
        }
        Ok(())
    }

    fn look_for_dead(&mut self) -> Result<(), KitError> {
        let died = self.setup()?.died()?;
        match died.is_empty() {
            true => Ok(()),
            false => Err(KitError::Unexpected(died.join("; "))),
        }
    }

    fn setup(&mut self) -> Result<&mut Setup, KitError> {
        let missing = || KitError::Unexpected("nothing runs".into());
        self.setup.as_mut().ok_or_else(missing)
    }

    /// Takes the payments that have been answered.
    fn collect(&mut self) {
        while let Some(answered) = self.paying.try_join_next() {
            self.take(answered);
        }
    }

    fn take(&mut self, answered: Result<Option<Tried>, tokio::task::JoinError>) {
        match answered {
            Ok(Some(tried)) => {
                self.report.payments_tried += 1;
                if let Answer::Late(line) = &tried.answer {
                    self.report.payments_late += 1;
                    let line = format!("payment {} was late: {line}", tried.hash);
                    self.report.faults.push(line);
                }
                self.tried.push(tried);
            }
            Ok(None) => {}
            Err(error) => self.report.faults.push(error.to_string()),
        }
    }

    /// Waits until all payments have ended, and checks everything.
    async fn settle(&mut self) -> Result<(), KitError> {
        self.show("everything comes to rest");
        let answers = async {
            while let Some(answered) = self.paying.join_next().await {
                self.take(answered);
            }
        };
        if tokio::time::timeout(ANSWERS, answers).await.is_err() {
            let open = self.paying.len();
            let line = format!(
                "{open} payments are not answered after {} s",
                ANSWERS.as_secs()
            );
            self.report.payments_lost += u32::try_from(open).unwrap_or(u32::MAX);
            self.report.faults.push(line);
        }
        let setup = self.setup()?;
        // Transactions that were broadcast are to be in the chain.
        setup.world.mine(1).await?;
        let quiet = wait_until_quiet(&setup.world).await;
        let setup = self.setup.as_ref();
        let setup = setup.ok_or_else(|| KitError::Unexpected("nothing runs".into()))?;
        let mut checked = Checked::default();
        // Checked in any case, since it adds details when something is off.
        let whole = check(setup, &mut self.tried, quiet.is_ok(), &mut checked).await;
        self.add(checked);
        self.look_for_dead()?;
        self.search_logs()?;
        quiet?;
        whole?;
        self.report.checks += 1;
        let report = &self.report;
        self.view.line(&format!(
            "{:>5} s  {:>4} rounds  {:>4} kills  {:>3} full disks  {:>5} payments: {} succeeded, {} failed, {} lost",
            self.began.elapsed().as_secs(),
            report.rounds,
            report.kills(),
            report.full_disk,
            report.payments_tried,
            report.payments_succeeded,
            report.payments_failed,
            report.payments_lost,
        ));
        Ok(())
    }

    fn add(&mut self, checked: Checked) {
        let count = |lines: &[String]| u32::try_from(lines.len()).unwrap_or(u32::MAX);
        let report = &mut self.report;
        report.payments_succeeded = checked.succeeded;
        report.payments_failed = checked.failed;
        report.failed_because = checked.because;
        report.payments_lost += count(&checked.lost);
        report.force_closes_unasked += count(&checked.closes);
        report.satoshis_unaccounted += checked.unaccounted_sat;
        report.panics += checked.panics;
        report.faults.extend(checked.lost);
        report.faults.extend(checked.closes);
        report.faults.extend(checked.unaccounted);
    }

    fn search_logs(&mut self) -> Result<(), KitError> {
        let was_full = std::mem::take(&mut self.disk_was_full);
        let found = self.logs.search(&self.launcher.dir, was_full)?;
        let report = &mut self.report;
        report.full_disk_lines += found.full_disk;
        report.panics += u32::try_from(found.panics.len()).unwrap_or(u32::MAX);
        report.faults.extend(found.panics);
        report.faults.extend(found.errors);
        Ok(())
    }

    /// Stops all processes in order, and searches the logs once more.
    async fn end(&mut self) {
        self.show("everything ends");
        self.paying.abort_all();
        if let Some(setup) = &mut self.setup {
            let off = setup.world.stop().await;
            // A process in the middle of a blow may get SIGTERM before it handles it.
            if !self.report.was_stopped {
                let lines = off.iter().map(KitError::to_string);
                self.report.faults.extend(lines);
            }
            if let Some(disk) = &setup.disk
                && !self.report.is_clean()
                && let Err(error) = disk.keep(&self.launcher.dir.join("host.kept"))
            {
                eprintln!("the host's files could not be kept: {error}");
            }
        }
        if let Err(error) = self.search_logs() {
            self.report.faults.push(error.to_string());
        }
    }

    fn show(&self, what: &str) {
        let report = &self.report;
        let elapsed = self.began.elapsed().as_secs();
        self.view.now(format!(
            "{}:{:02}  round {}  {} kills  {} full disks  {} payments ({} under way)  {what}",
            elapsed / 60,
            elapsed % 60,
            report.rounds + 1,
            report.kills(),
            report.full_disk,
            self.tried.len(),
            self.paying.len(),
        ));
    }
}

/// A seed that differs each time.
fn another_seed() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |now| now.subsec_nanos() ^ std::process::id())
}
