//! Functions that several crates need and no protocol defines: text from others, names of files that last, settings of a
//! program, calls of push services, and facts of the system.

pub mod files;
#[cfg(feature = "settings")]
pub mod settings;
#[cfg(feature = "system")]
pub mod system;
pub mod text;
#[cfg(feature = "wake")]
pub mod wake;
