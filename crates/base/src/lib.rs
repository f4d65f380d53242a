//! Functions that several crates need and no protocol defines: text from others, names of files that last, settings of a
//! program, and calls of push services.

pub mod files;
#[cfg(feature = "settings")]
pub mod settings;
pub mod text;
#[cfg(feature = "wake")]
pub mod wake;
