//! The simulated world: the real host, hub, nodes, links, phones, ledgers and chain in one thread, on a schedule that a
//! seed decides, with something that goes wrong at a chosen step.
//!
//! - `plan`: the steps at which a run can be interrupted, how, and what happened.
//! - `trace`: a digest by which two runs are seen to be the same.
//! - `parts`: what stands behind the seams instead of sockets and a disk: each counts its steps and breaks when told.
//! - `stage`: the processes (a host, phones), which die and are started again.
//! - `template`: a world with channels, made once, from which every run begins.
//! - `scenario`: what is done in a run. `check`: what must be so after it, by `coins` to the satoshi.
//! - `planted`: what the checks must find.
//! - `run`: one run on a thread of its own. `campaign`: many of them. `report`, `args`: the outside.

mod args;
mod campaign;
mod check;
mod coins;
mod parts;
mod plan;
mod planted;
mod report;
mod run;
mod scenario;
mod stage;
mod template;
mod trace;
mod witness;

pub use args::{SimArgs, run};
pub use campaign::Campaign;
pub use check::{Class, Fault};
pub use plan::{Counts, How, Interruption, Kind, Length};
pub use planted::Planted;
pub use report::Report;
pub use run::Verdict;
pub use scenario::Scenario;
