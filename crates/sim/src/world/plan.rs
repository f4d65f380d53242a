//! At which step a run is interrupted, and how.

use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex};

use crate::world::parts::lock;

/// What is counted. Each kind has its own numbers, from 1, over all processes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A record of a link, in either direction.
    Frame,
    /// A commit of the host's store.
    StoreWrite,
    /// A durable write of a phone.
    LedgerWrite,
    /// Bytes from a node to its peer.
    PeerMessage,
}

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// Just before it is done.
    Before,
    /// In the middle of it, where it can be torn.
    Torn,
    /// When it is done, and nobody has heard of it.
    After,
    /// It is said to be done and is not, and the process dies a few steps later. No disk that can be used does this: it
    /// is there to show that the checks find what is wrong.
    Forgotten,
}

/// How long a phone whose link was dropped stays away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Away {
    /// It dials again at once.
    AtOnce,
    /// The host has given up its requests meanwhile.
    PastGrace,
    /// A day.
    Day,
}

impl Away {
    /// From the shortest.
    pub const ALL: [Away; 3] = [Away::AtOnce, Away::PastGrace, Away::Day];

    /// In virtual time.
    pub fn seconds(self) -> u64 {
        match self {
            Away::AtOnce => 0,
            Away::PastGrace => 120,
            Away::Day => 24 * 3600,
        }
    }
}

/// One interruption: at step `step` of `kind`, `how`. A phone stays away for as long as `away` (of frames).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interruption {
    /// Of which steps.
    pub kind: Kind,
    /// At which of them, from 1.
    pub step: u32,
    /// What happens there.
    pub how: How,
    /// How long a phone stays away then.
    pub away: Away,
}

impl How {
    const ALL: [How; 4] = [How::Before, How::Torn, How::After, How::Forgotten];
}

impl Interruption {
    /// Virtual time is cheap, but not without optimisation.
    pub fn lasts_a_day(&self) -> bool {
        self.away == Away::Day
    }
}

impl Kind {
    /// In the order in which they are counted.
    pub const ALL: [Kind; 4] = [
        Kind::Frame,
        Kind::StoreWrite,
        Kind::LedgerWrite,
        Kind::PeerMessage,
    ];

    /// For a table.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Frame => "link dropped at a frame",
            Kind::StoreWrite => "host killed at a write",
            Kind::LedgerWrite => "phone killed at a write",
            Kind::PeerMessage => "peer disconnected",
        }
    }

    /// Every way in which a step of this kind is interrupted.
    pub fn ways(self) -> Vec<(How, Away)> {
        match self {
            Kind::Frame => Away::ALL
                .into_iter()
                .flat_map(|away| [(How::Before, away), (How::After, away)])
                .collect(),
            Kind::LedgerWrite => [How::Before, How::Torn, How::After]
                .map(|how| (how, Away::AtOnce))
                .to_vec(),
            // The store's batches are atomic: there is nothing to tear.
            Kind::StoreWrite | Kind::PeerMessage => [How::Before, How::After]
                .map(|how| (how, Away::AtOnce))
                .to_vec(),
        }
    }
}

const KINDS: [&str; 4] = ["frame", "store", "ledger", "peer"];
const HOWS: [&str; 4] = ["before", "torn", "after", "forgotten"];
const AWAYS: [&str; 3] = ["now", "grace", "day"];

/// As in `--at`.
impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Interruption {
            kind,
            step,
            how,
            away,
        } = *self;
        let (kind, how) = (KINDS[kind as usize], HOWS[how as usize]);
        write!(f, "{kind}:{step}:{how}:{}", AWAYS[away as usize])
    }
}

impl FromStr for Interruption {
    type Err = String;
    fn from_str(text: &str) -> Result<Interruption, String> {
        let wrong = || {
            let kinds = KINDS.join("|");
            format!(
                "write it as KIND:STEP:HOW[:AWAY], with {kinds}, a number from 1, before|torn|after, now|grace|day"
            )
        };
        let place = |names: &[&str], name: &str| names.iter().position(|known| *known == name);
        let parts: Vec<&str> = text.split(':').collect();
        let (kind, step, how, away) = match parts[..] {
            [kind, step, how] => (kind, step, how, AWAYS[0]),
            [kind, step, how, away] => (kind, step, how, away),
            _ => return Err(wrong()),
        };
        Ok(Interruption {
            kind: Kind::ALL[place(&KINDS, kind).ok_or_else(wrong)?],
            step: step.parse().map_err(|_| wrong())?,
            how: How::ALL[place(&HOWS, how).ok_or_else(wrong)?],
            away: Away::ALL[place(&AWAYS, away).ok_or_else(wrong)?],
        })
    }
}

/// Counts the steps of a run and says when one is to be interrupted. Shared by all parts.
#[derive(Clone, Default)]
pub struct Plan(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    is_armed: bool,
    counts: [u32; 4],
    to_come: Vec<Interruption>,
    done: usize,
}

impl Plan {
    /// Interrupts at each of these, once counting has begun.
    pub fn new(interruptions: &[Interruption]) -> Plan {
        let to_come = interruptions.to_vec();
        Plan(Arc::new(Mutex::new(State {
            to_come,
            ..State::default()
        })))
    }

    /// From now on steps count; until now the world was only set up.
    pub fn arm(&self) {
        lock(&self.0).is_armed = true;
    }

    /// Steps count no more: the scenario is over.
    pub fn disarm(&self) {
        lock(&self.0).is_armed = false;
    }

    /// Steps of each kind, in the order of [`Kind::ALL`].
    pub fn counts(&self) -> [u32; 4] {
        lock(&self.0).counts
    }

    /// Interruptions that have happened.
    pub fn happened(&self) -> usize {
        lock(&self.0).done
    }

    /// One more step of `kind`: how it is interrupted, if it is.
    pub fn step(&self, kind: Kind) -> Option<Interruption> {
        let mut state = lock(&self.0);
        if !state.is_armed {
            return None;
        }
        let count = &mut state.counts[kind as usize];
        *count += 1;
        let step = *count;
        let now = |planned: &Interruption| planned.kind == kind && planned.step == step;
        let at = state.to_come.iter().position(now)?;
        state.done += 1;
        Some(state.to_come.remove(at))
    }
}
