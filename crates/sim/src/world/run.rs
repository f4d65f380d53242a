//! One run: a thread of its own, a world from the template, a scenario, interruptions, and a verdict.

use std::cell::Cell;
use std::panic;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use longhand_chain::Devnet;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use crate::world::check::Books;
use crate::world::fault::{Class, Fault};
use crate::world::parts::lock;
use crate::world::plan::{Counts, Interruption, Plan};
use crate::world::route::Route;
use crate::world::scenario::{Pace, Scenario};
use crate::world::seeded_faults::SeededFault;
use crate::world::simulator::{ANN, BOB, OWNERS, Simulator, text};
use crate::world::template::{Template, all_usable};

/// When simulated time begins.
const EPOCH: Duration = Duration::from_secs(1_800_000_000);
/// Time limit until all processes are back and nothing is under way, once no interruption lasts.
const HOURS: Duration = Duration::from_secs(6 * 3600);
/// Limit of blocks until the last sweep is in one.
const MOST_BLOCKS: u32 = 10;
/// One in so many runs has its chain validated as a whole at its end. One without an interruption always has, and one
/// with a reorganisation validates it meanwhile.
const VALIDATED: u32 = 64;
/// Room for LDK's deepest calls in a build without optimisation.
const STACK: usize = 16 << 20;

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
    static IS_SIMULATED: Cell<bool> = const { Cell::new(false) };
}

/// Panics in threads that all runs share, which no run has counted yet.
static PANICS_ELSEWHERE: AtomicU32 = AtomicU32::new(0);

/// Result of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Faults that were found.
    pub wrong: Vec<Fault>,
    /// Steps of each kind in the scenario.
    pub steps: Counts,
    /// Interruptions that happened (a scenario may be over before its last one comes).
    pub happened: usize,
    /// An interruption has prevented the event that the scenario is about.
    pub is_beside: bool,
    /// How often a phone began to compact its ledger.
    pub compactions: u32,
    /// How long it took in simulated time.
    pub lasted: Duration,
    /// A digest of all data that passed through the parts of the world, with its times: equal runs have equal digests.
    pub trace: u64,
    /// Number of its runtime in its process. With the seed it decides the run: the order in which tokio wakes several
    /// tasks that wait for one thing is drawn from both.
    pub nth: u32,
    /// Panics, also those that were caught.
    pub panics: u32,
}

/// Makes the template with so many channels for each owner, on a thread of its own.
pub fn make_template(channels: usize, route: Route) -> Result<Template, String> {
    // Once in a process the consensus library gathers randomness for a time that it measures, which takes a real clock.
    drop(Devnet::in_process(0).map_err(text)?);
    on_thread(0, EPOCH, || {
        let dir = scratch()?;
        let (runtime, _) = runtime()?;
        runtime.block_on(async {
            longhand_sim_os::follow_tokio();
            Template::make(dir.path().into(), channels, route).await
        })
    })?
}

/// A scenario, and how it is disturbed.
#[derive(Clone, Copy, Debug)]
pub struct Play<'a> {
    pub scenario: Scenario,
    pub interruptions: &'a [Interruption],
    pub seed: u64,
    /// A fault that the checks must find.
    pub fault: Option<SeededFault>,
}

/// Plays in a world from `template`.
pub fn run(template: &Template, play: Play<'_>) -> Verdict {
    let played = on_thread(play.seed, template.unix, || {
        count_panics();
        let plan = Plan::new(play.interruptions);
        let (runtime, nth) = runtime().map_err(text)?;
        let played = self::play(template, play, plan.clone(), &runtime, nth);
        let (wrong, lasted) = played.unwrap_or_else(|error| {
            let wrong = vec![Fault::new(Class::Stuck, error)];
            (wrong, Duration::ZERO)
        });
        Ok(Verdict {
            wrong,
            steps: plan.counts(),
            happened: plan.happened(),
            is_beside: plan.is_beside(),
            compactions: plan.compactions(),
            lasted,
            trace: plan.digest(),
            nth,
            panics: PANICS.get() + PANICS_ELSEWHERE.swap(0, Ordering::Relaxed),
        })
    });
    let played = played.and_then(|played| played);
    let mut verdict = played.unwrap_or_else(|error| Verdict {
        wrong: vec![Fault::new(Class::Panic, error)],
        ..Verdict::default()
    });
    if verdict.panics > 0 {
        let what = format!("{} panics", verdict.panics);
        verdict.wrong.push(Fault::new(Class::Panic, what));
    }
    verdict
}

/// The faults, and how long the run took.
fn play(
    template: &Template,
    play: Play<'_>,
    plan: Plan,
    runtime: &Runtime,
    nth: u32,
) -> Result<(Vec<Fault>, Duration), String> {
    let dir = scratch()?;
    let scenario = play.scenario;
    let metrics = runtime.metrics();
    let is_picked = nth.is_multiple_of(VALIDATED);
    let wrong = runtime.block_on(async {
        longhand_sim_os::follow_tokio();
        let (devnet, disk) = template.unpack(dir.path()).await?;
        let (sim, mut tasks) = Simulator::new(
            devnet,
            disk,
            dir.path().into(),
            Pace::of(scenario, play.seed),
            template.route,
            plan.clone(),
            template.audits.clone(),
        );
        sim.start_host().await?;
        for owner in [ANN, BOB] {
            sim.start_phone(owner).map_err(text)?;
        }
        all_usable(&sim, scenario.channels() * OWNERS.len()).await?;
        let before = Books::read(&sim).await?;
        let began = Instant::now();
        plan.arm();
        let outcome = scenario.play(&sim).await;
        plan.disarm();
        let judged = async {
            let mut outcome = outcome?;
            if let Some(fault) = play.fault {
                fault.inject(&sim, &mut outcome).await?;
            }
            let settling = settle(&sim, outcome.channels(before.channels()));
            let settled = in_time(HOURS + plan.lasts(), settling).await;
            let after = in_time(HOURS, Books::read(&sim)).await?;
            let alive = sim.alive();
            let mut wrong = before.compare(&after, &outcome, &template.coins, &sim);
            wrong.extend(settled.err().map(|error| Fault::new(Class::Stuck, error)));
            if alive != template.alive {
                let what = format!("{alive:?}, and there should be {:?}", template.alive);
                wrong.push(Fault::new(Class::Leak, what));
            }
            Ok(wrong)
        };
        let judged: Result<Vec<Fault>, String> = judged.await;
        let mut wrong = judged.unwrap_or_else(|error| vec![Fault::new(Class::Stuck, error)]);
        if (is_picked || plan.is_empty())
            && let Err(error) = sim.devnet.validate()
        {
            let what = format!("the chain is not valid: {error}");
            wrong.push(Fault::new(Class::Unaccounted, what));
        }
        let troubles = sim.take_troubles().into_iter();
        wrong.extend(troubles.map(|what| Fault::new(Class::Stuck, what)));
        sim.stop().await;
        tasks.shutdown().await;
        wrong.extend(sim.overheard());
        let connected = sim.connected.clone();
        drop(sim);
        // Tasks that still have something to do end within a moment.
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok::<_, String>((wrong, began.elapsed(), Arc::strong_count(&connected) - 1))
    });
    let (mut wrong, lasted, connections) = wrong?;
    let tasks = metrics.num_alive_tasks();
    if wrong.is_empty() && (tasks, connections) != (0, 0) {
        let what = format!("{tasks} tasks and {connections} connections were left");
        wrong.push(Fault::new(Class::Leak, what));
    }
    Ok((wrong, lasted))
}

async fn in_time<T>(
    time: Duration,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let done = tokio::time::timeout(time, work).await;
    done.unwrap_or_else(|_| Err("not everybody came back".into()))
}

/// Waits until all processes are back, nothing is under way and no transaction waits for a block.
async fn settle(sim: &Arc<Simulator>, channels: usize) -> Result<(), String> {
    for owner in [ANN, BOB] {
        sim.come_back(owner);
    }
    sim.plan.is_over().await;
    all_usable(sim, channels).await?;
    sim.quiet().await?;
    for _ in 0..MOST_BLOCKS {
        if sim.devnet.mempool().is_empty() {
            break;
        }
        sim.mine(1).await?;
        sim.quiet().await?;
    }
    Ok(())
}

/// A directory for the files of a run. The effect of a power cut on them is simulated, so that they need no real disk,
/// on which every write would wait: it is in memory (`/dev/shm`) where the system has that.
fn scratch() -> Result<TempDir, String> {
    // Simulated threads of other processes draw the same random part. After three names that exist, `tempfile` would ask for
    // randomness, and the run would go on with other keys.
    let prefix = format!("longhand-sim-{}-", std::process::id());
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix);
    let memory = Path::new("/dev/shm");
    let dir = match memory.is_dir() {
        true => builder.tempdir_in(memory).or_else(|_| builder.tempdir()),
        false => builder.tempdir(),
    };
    dir.map_err(text)
}

/// Runtimes that were made in this process.
static RUNTIMES: Mutex<u32> = Mutex::new(0);

/// A runtime for this new thread, and its number in the process.
fn runtime() -> Result<(Runtime, u32), String> {
    let mut made = lock(&RUNTIMES);
    *made += 1;
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    let runtime = builder.build().map_err(text)?;
    // A thread draws randomness when it first enters a runtime: that happens here, before the next runtime is made.
    runtime.block_on(async {});
    Ok((runtime, *made))
}

/// Lets the next run be the `nth` of this process, if there were not so many yet.
///
/// The order in which tokio wakes several tasks that wait for one `watch` is drawn from the thread's randomness, which
/// the seed decides, and from a counter of the process, to which each runtime adds the same: nothing else of a run
/// depends on earlier runs.
pub fn skip_to(nth: u32) -> Result<(), String> {
    while *lock(&RUNTIMES) + 1 < nth {
        on_thread(0, EPOCH, || runtime().map(drop))??;
    }
    Ok(())
}

/// Runs `work` on a new simulated thread.
fn on_thread<T: Send>(
    seed: u64,
    unix: Duration,
    work: impl FnOnce() -> T + Send,
) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .stack_size(STACK)
            .spawn_scoped(scope, move || {
                longhand_sim_os::enter(seed, unix);
                IS_SIMULATED.set(true);
                work()
            });
        let thread = thread.map_err(text)?;
        thread.join().map_err(|_| "the run panicked".to_owned())
    })
}

/// An assertion of LDK 0.3.0-rc3's debug builds, on a close whose negotiation a disconnection has undone while the
/// signer was asked: a release build goes on, in a debug build the node is loaded again and goes on too.
const KNOWN_ASSERTION: &str = "assertion failed: self.context.last_sent_closing_fee.is_some()";

/// Counts the panics of each run's thread, also those that are caught, and those of threads that all runs share.
fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if info.payload_as_str() == Some(KNOWN_ASSERTION) {
                return;
            }
            match IS_SIMULATED.get() {
                true => PANICS.set(PANICS.get() + 1),
                false => drop(PANICS_ELSEWHERE.fetch_add(1, Ordering::Relaxed)),
            }
            before(info);
        }));
    });
}
