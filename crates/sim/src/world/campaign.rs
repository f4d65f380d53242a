//! Many runs: every single interruption of every scenario, and pairs of them at random.

use std::fmt::Write as _;
use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rand::Rng;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::world::parts::lock;
use crate::world::plan::{Counts, Interruption, Kind};
use crate::world::report::{Report, Row};
use crate::world::route::Route;
use crate::world::run::{self, Play, Verdict};
use crate::world::scenario::Scenario;
use crate::world::seeded_faults::SeededFault;
use crate::world::template::Template;

/// Faults that are printed one by one, as they are found.
const PRINTED: u32 = 20;

/// Attempts at a run in which not all interruptions have happened: whether a step occurs may depend on earlier steps,
/// and on the run's number in its process.
const TRIES: u32 = 20;

/// The worlds that runs begin from, and runs in them.
pub struct Campaign {
    /// With one channel for each owner, and with two.
    templates: &'static [Template; 2],
    route: Route,
}

/// One run to be done, repeated until all its interruptions have happened.
struct Job {
    scenario: Scenario,
    seed: u64,
    drawn: Drawn,
}

/// Interruptions of a job.
enum Drawn {
    /// This one.
    Single(Interruption),
    /// Two at random, where the undisturbed run has so many steps.
    Pair(Counts, &'static [Kind]),
}

impl Campaign {
    /// Makes the world that every run begins from, in which phones dial their host.
    ///
    /// # Errors
    /// Why it could not be made.
    pub fn new() -> Result<Campaign, String> {
        Campaign::over(Route::Direct)
    }

    /// As [`Campaign::new`], with phones that reach their host this way.
    ///
    /// # Errors
    /// Why it could not be made.
    pub fn over(route: Route) -> Result<Campaign, String> {
        // Made once, before all runs: templates depend, as runs do, on how many runtimes the process had before.
        static TEMPLATES: [OnceLock<Result<[Template; 2], String>>; Route::ALL.len()] =
            [const { OnceLock::new() }; Route::ALL.len()];
        let make = || Ok([run::make_template(1, route)?, run::make_template(2, route)?]);
        match TEMPLATES[route as usize].get_or_init(make) {
            Ok(templates) => Ok(Campaign { templates, route }),
            Err(error) => Err(error.clone()),
        }
    }

    /// One run. The same arguments give the same run, if it has the same number in its process: see [`Verdict::nth`].
    pub fn play(&self, scenario: Scenario, interruptions: &[Interruption], seed: u64) -> Verdict {
        let play = Play {
            scenario,
            interruptions,
            seed,
            fault: None,
        };
        run::run(self.template(scenario), play)
    }

    /// One run whose only fault is a seeded one.
    pub fn play_with_fault(&self, scenario: Scenario, fault: SeededFault) -> Verdict {
        let play = Play {
            scenario,
            interruptions: &[],
            seed: 1,
            fault: Some(fault),
        };
        run::run(self.template(scenario), play)
    }

    fn template(&self, scenario: Scenario) -> &Template {
        &self.templates[scenario.channels() - 1]
    }

    /// One run, as the `nth` of this process if there were not so many yet.
    ///
    /// # Errors
    /// When those before it cannot be begun.
    pub fn play_nth(
        &self,
        nth: u32,
        scenario: Scenario,
        interruptions: &[Interruption],
        seed: u64,
    ) -> Result<Verdict, String> {
        run::skip_to(nth)?;
        Ok(self.play(scenario, interruptions, seed))
    }

    /// Every single interruption of each scenario that is `wanted`.
    pub fn singles(
        &self,
        scenarios: &[Scenario],
        seed: u64,
        wanted: impl Fn(&Interruption) -> bool + Sync,
    ) -> Report {
        let rows = self.undisturbed(scenarios, seed);
        let jobs: Vec<Job> = rows
            .iter()
            .flat_map(|row| singles(row, seed, &wanted))
            .collect();
        self.play_all(&jobs, rows, &wanted)
    }

    /// `runs` pairs of interruptions that are `wanted`, drawn from `seed`, of the scenarios in turn. A pair of which one did
    /// not happen is drawn again.
    pub fn pairs(
        &self,
        scenarios: &[Scenario],
        runs: usize,
        seed: u64,
        wanted: impl Fn(&Interruption) -> bool + Sync,
    ) -> Report {
        let rows = self.undisturbed(scenarios, seed);
        let jobs = pairs(&rows, self.route, runs, seed);
        self.play_all(&jobs, rows, &wanted)
    }

    /// Each scenario once, to count its steps.
    fn undisturbed(&self, scenarios: &[Scenario], seed: u64) -> Vec<Row> {
        let play = |scenario: &Scenario| {
            let verdict = self.play(*scenario, &[], seed);
            self.tell(*scenario, &[], seed, &verdict);
            Row::new(*scenario, &verdict)
        };
        scenarios.iter().map(play).collect()
    }

    /// Plays all, on as many threads as there are cores.
    fn play_all(
        &self,
        jobs: &[Job],
        rows: Vec<Row>,
        wanted: &(impl Fn(&Interruption) -> bool + Sync),
    ) -> Report {
        let since = Instant::now();
        let (next, rows) = (AtomicUsize::new(0), Mutex::new(rows));
        let progress = Progress::of(jobs.len());
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..cores {
                scope.spawn(|| {
                    while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        self.play_one(job, &rows, wanted, &progress);
                    }
                });
            }
        });
        progress.bar.finish_and_clear();
        let rows = rows
            .into_inner()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        Report::new(rows, self.route, since.elapsed())
    }

    fn play_one(
        &self,
        job: &Job,
        rows: &Mutex<Vec<Row>>,
        wanted: &impl Fn(&Interruption) -> bool,
        progress: &Progress,
    ) {
        let mut random = ChaCha12Rng::seed_from_u64(job.seed);
        // The run itself draws from another stream of this seed.
        random.set_stream(1);
        let is_felt = |it: &Interruption| job.scenario.feels(it.kind, it.how);
        let wanted = |it: &Interruption| wanted(it) && is_felt(it);
        for is_last in (1..=TRIES).map(|tries| tries == TRIES) {
            let since = Instant::now();
            let interruptions = job.drawn.interruptions(&mut random, &wanted);
            let verdict = self.play(job.scenario, &interruptions, job.seed);
            let all_happened = verdict.happened == interruptions.len();
            let mut rows = lock(rows);
            if let Some(row) = rows.iter_mut().find(|row| row.scenario == job.scenario) {
                match all_happened {
                    true => row.count(&interruptions, &verdict, since.elapsed()),
                    false => row.count_partly(is_last, &verdict),
                }
            }
            if rows.iter().flat_map(|row| row.faults).sum::<u32>() <= PRINTED {
                let bar = &progress.bar;
                bar.suspend(|| self.tell(job.scenario, &interruptions, job.seed, &verdict));
            }
            if all_happened {
                break;
            }
        }
        progress.step();
    }

    /// Prints the faults of a run, and the command that repeats it.
    pub fn tell(
        &self,
        scenario: Scenario,
        interruptions: &[Interruption],
        seed: u64,
        verdict: &Verdict,
    ) {
        if verdict.wrong.is_empty() {
            return;
        }
        let (route, scenario) = (self.route.name(), scenario.name());
        let mut again =
            format!("longhand-sim --carrier {route} --scenario {scenario} --seed {seed}");
        for interruption in interruptions {
            let _ = write!(again, " --at {interruption}");
        }
        eprintln!("{again} --nth {}", verdict.nth);
        for fault in &verdict.wrong {
            eprintln!("    {:?}: {}", fault.class, fault.what);
        }
    }
}

/// Every way to interrupt every step.
fn singles(
    row: &Row,
    seed: u64,
    wanted: &impl Fn(&Interruption) -> bool,
) -> impl Iterator<Item = Job> {
    let scenario = row.scenario;
    let kinds = Kind::ALL.into_iter().zip(row.steps);
    let all = kinds.flat_map(|(kind, steps)| {
        (1..=steps).flat_map(move |step| {
            let at = move |&(how, length)| Interruption {
                kind,
                step,
                how,
                length,
            };
            kind.ways().iter().map(at)
        })
    });
    let is_felt = move |it: &Interruption| scenario.feels(it.kind, it.how);
    let all = all.filter(is_felt).filter(wanted);
    all.map(move |interruption| Job {
        scenario,
        seed,
        drawn: Drawn::Single(interruption),
    })
}

/// Each scenario in turn.
fn pairs(rows: &[Row], route: Route, runs: usize, seed: u64) -> Vec<Job> {
    let rows = rows.iter().cycle().take(runs);
    rows.zip(seed..)
        .map(|(row, seed)| Job {
            scenario: row.scenario,
            seed,
            drawn: Drawn::Pair(row.steps, route.kinds()),
        })
        .collect()
}

impl Drawn {
    /// The first of a pair is at a step of the undisturbed run; the second may be at one that only the first makes.
    fn interruptions(
        &self,
        random: &mut ChaCha12Rng,
        wanted: &impl Fn(&Interruption) -> bool,
    ) -> Vec<Interruption> {
        match self {
            Drawn::Single(interruption) => vec![*interruption],
            Drawn::Pair(steps, kinds) => {
                let more = steps.map(|steps| steps.saturating_mul(5) / 4);
                let mut drawn = |steps| draw(random, kinds, steps, wanted);
                vec![drawn(steps), drawn(&more)]
            }
        }
    }
}

fn draw(
    random: &mut ChaCha12Rng,
    kinds: &[Kind],
    steps: &Counts,
    wanted: &impl Fn(&Interruption) -> bool,
) -> Interruption {
    loop {
        let kind = kinds[random.gen_range(0..kinds.len())];
        let (how, length) = kind.ways()[random.gen_range(0..kind.ways().len())];
        let most = steps[kind as usize];
        let step = random.gen_range(1..=most.max(1));
        let drawn = Interruption {
            kind,
            step,
            how,
            length,
        };
        // A day takes longer than other runs, and kinds without a step in the undisturbed run rarely have one: one in
        // three of those drawn is enough.
        let is_seldom = drawn.lasts_a_day() || most == 0;
        let is_rare = is_seldom && random.gen_range(0..3) > 0;
        if wanted(&drawn) && !is_rare {
            return drawn;
        }
    }
}

/// A bar in a terminal, and a line a minute in a log.
struct Progress {
    bar: ProgressBar,
    minutes: AtomicU64,
}

impl Progress {
    fn of(jobs: usize) -> Progress {
        let target = match std::io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let style = ProgressStyle::with_template("{bar:40} {pos} of {len} runs, {eta} left");
        let bar = ProgressBar::with_draw_target(Some(jobs as u64), target);
        Progress {
            bar: bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())),
            minutes: AtomicU64::new(0),
        }
    }

    /// One run is over.
    fn step(&self) {
        self.bar.inc(1);
        let minutes = self.bar.elapsed().as_secs() / 60;
        if self.bar.is_hidden() && self.minutes.fetch_max(minutes, Ordering::Relaxed) < minutes {
            let (done, all) = (self.bar.position(), self.bar.length().unwrap_or_default());
            eprintln!("{done} of {all} runs after {minutes} min");
        }
    }
}
