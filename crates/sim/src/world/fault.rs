//! Faults of a run.

/// The kinds of faults that a run may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A channel was closed that nobody asked to close, or one is missing.
    Closed,
    /// A payment on which payer and payee do not agree.
    Payment,
    /// A party has more or less than it should.
    Unaccounted,
    /// A phone signed a revoked state, or two where there can be one, or released a secret that it must keep.
    Signed,
    /// A panic, caught or not.
    Panic,
    /// A task that outlived what it belongs to.
    Leak,
    /// The run did not end, or a process could not go on.
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
    /// Its kind.
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
