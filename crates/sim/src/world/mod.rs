//! The simulated world: the real host, hub, nodes, links, phones, ledgers and chain in one thread, on a schedule that a
//! seed decides, with something that goes wrong at a chosen step.
//!
//! - `plan`: the steps at which a run can be interrupted, how, and which interruptions happened.
//! - `trace`: a digest that is the same for two runs that are the same.
//! - `parts`: the transports, disks and chain source of simulated processes: each counts its steps and breaks at one.
//! - `route`: whether the phones dial their host, or both meet at a relay.
//! - `simulator`: the processes (a host, phones, a relay), which die and are started again.
//! - `template`: a world with channels, made once, from which every run begins.
//! - `scenario`: the commands of a run. `check`: the conditions after it, by `coins` to the satoshi.
//! - `seeded_faults`: faults that the checks must find.
//! - `run`: one run on a thread of its own. `campaign`: many of them. `report`, `args`: the command line.

mod args;
mod campaign;
mod check;
mod coins;
mod fault;
mod parts;
mod plan;
mod report;
mod route;
mod run;
mod scenario;
mod seeded_faults;
mod simulator;
mod template;
mod trace;
mod witness;

pub use args::{SimArgs, run};
pub use campaign::Campaign;
pub use fault::{Class, Fault};
pub use plan::{Counts, How, Interruption, Kind, Length};
pub use report::Report;
pub use route::Route;
pub use run::Verdict;
pub use scenario::Scenario;
pub use seeded_faults::SeededFault;
