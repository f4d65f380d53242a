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
    /// As [`Route::Mailbox`], at its hashmail.
    Hashmail,
    /// As [`Route::Hashmail`], inside Lightning Node Connect.
    Lnc,
}

impl Route {
    /// In the order of the names on the command line.
    pub const ALL: [Route; 4] = [Route::Direct, Route::Mailbox, Route::Hashmail, Route::Lnc];

    /// As in `--carrier`.
    pub fn name(self) -> &'static str {
        match self {
            Route::Direct => "direct",
            Route::Mailbox => "mailbox",
            Route::Hashmail => "hashmail",
            Route::Lnc => "lnc",
        }
    }

    /// The address in pairing codes. No system's network has it.
    pub(crate) fn address(self) -> &'static str {
        match self {
            Route::Direct => "grpc://simulated:1",
            Route::Mailbox => "mailbox+sim://relay:1",
            Route::Hashmail => "hashmail+grpc://relay:1",
            Route::Lnc => "lnc+grpc://relay:1",
        }
    }

    /// The mailbox in the host's configuration, from which it knows that it has to expect its phones there. No phone is paired by words
    /// here, which threads of their own stretch: one with Lightning Node Connect is not named as such.
    pub(crate) fn mailbox(self) -> Option<&'static str> {
        match self {
            Route::Direct => None,
            Route::Mailbox | Route::Hashmail => Some(self.address()),
            Route::Lnc => Some(Route::Hashmail.address()),
        }
    }

    /// The kinds of steps that its runs have.
    pub fn kinds(self) -> &'static [Kind] {
        match self {
            Route::Direct => Kind::DIRECT,
            Route::Mailbox | Route::Hashmail | Route::Lnc => &Kind::ALL,
        }
    }

    /// Whether host and phones meet at a relay.
    pub(crate) fn has_relay(self) -> bool {
        self != Route::Direct
    }
}
