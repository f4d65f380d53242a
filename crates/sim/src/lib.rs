//! Shows that nothing is lost, by interrupting it.
//!
//! - [`processes`]: the real processes, killed at random moments and started again.
//! - [`world`]: everything in one thread, on a schedule that a seed decides, interrupted at every step.

pub mod processes;
pub mod world;
