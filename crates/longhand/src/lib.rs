//! What the `longhand` binary shares with other programs: [`cast`], its own processes as a program starts, asks and
//! kills them.

pub mod cast;
