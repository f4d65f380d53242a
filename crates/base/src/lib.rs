//! Functions that several crates need and no protocol defines: text from others, and names of files that last.

pub mod files;
pub mod text;
