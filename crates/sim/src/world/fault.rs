//! Faults of a run.

/// The kinds of faults that a run may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A channel was closed that nobody asked to close, or one is missing.
    Closed,
    /// A payment that its two sides see differently.
    Payment,
    /// Somebody has more or less than should be.
    Unaccounted,
    /// A phone signed what was revoked, or two things where there can be one, or gave away what it must keep.
    Signed,
    /// A panic, caught or not.
    Panic,
    /// A task that outlived what it belongs to.
    Leak,
    /// It did not come to its end, or a process could not go on.
    Stuck,
}

impl Class {
    /// In order, as in a table.
    pub const NAMES: [&str; 7] = [
        "closed unasked",
        "payments lost",
        "unaccounted",
        "signed twice or revoked",
        "panics",
        "tasks left",
        "stuck",
    ];
}

/// One fault, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Of what kind.
    pub class: Class,
    /// For a person.
    pub what: String,
}

impl Fault {
    pub(crate) fn new(class: Class, what: impl Into<String>) -> Fault {
        let what = what.into();
        Fault { class, what }
    }
}
