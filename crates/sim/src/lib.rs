//! Shows that nothing is lost, by interrupting it.
//!
//! - [`processes`]: the real processes, killed at random moments and started again.

pub mod processes;
