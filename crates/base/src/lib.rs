//! Functions that several crates need and no protocol defines: text from others, names of files that last, settings of a
//! program, calls of push services, the runtime of a program, and facts of the system.

#[cfg(not(target_family = "wasm"))]
pub mod files;
#[cfg(feature = "runtime")]
pub mod runtime;
#[cfg(feature = "settings")]
pub mod settings;
#[cfg(feature = "system")]
pub mod system;
pub mod text;
#[cfg(feature = "wake")]
pub mod wake;
