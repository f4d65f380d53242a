//! For tests, also those of other crates: the tests that every store must pass, and a store that fails on request.

mod conformance;
mod failing;

pub use conformance::conformance;
pub use failing::{FailingStore, Paused};
