//! How the phones of a world reach their host.

use crate::world::plan::Kind;

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// They dial it.
    #[default]
    Direct,
    /// Both dial out to a relay, and meet there.
    Mailbox,
}

impl Route {
    /// In the order of the names on the command line.
    pub const ALL: [Route; 2] = [Route::Direct, Route::Mailbox];

    /// As in `--carrier`.
    pub fn name(self) -> &'static str {
        match self {
            Route::Direct => "direct",
            Route::Mailbox => "mailbox",
        }
    }

    /// The address in pairing codes. No system's network has it.
    pub(crate) fn address(self) -> &'static str {
        match self {
            Route::Direct => "grpc://simulated:1",
            Route::Mailbox => "mailbox+sim://relay:1",
        }
    }

    /// The kinds of steps that its runs have.
    pub fn kinds(self) -> &'static [Kind] {
        match self {
            Route::Direct => Kind::DIRECT,
            Route::Mailbox => &Kind::ALL,
        }
    }
}
