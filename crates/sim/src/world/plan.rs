//! At which step a run is interrupted, how, and for how long.

use std::fmt;
use std::hash::Hash;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::world::parts::lock;
use crate::world::trace::Trace;

/// Kinds of steps. Each kind is counted by itself, from 1, over all processes of a run.
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
    /// A question to the host's chain source, but for those whose answer is still the same as the last time.
    ChainCall,
    /// A wake call.
    WakeCall,
    /// A message that the relay passes on.
    Relay,
}

/// How a step is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    /// Just before it is done the link or connection is dropped, or the process dies.
    Before,
    /// The same in the middle of it.
    Torn,
    /// The same when it is done, before its result is reported.
    After,
    /// It arrives twice.
    Twice,
    /// It arrives behind the next one of its direction.
    Swapped,
    /// It takes its time; steps behind it wait.
    Late,
    /// It is lost, and so is all that follows in its direction. No error is reported.
    OneWay,
    /// The same in both directions.
    Silent,
    /// It fails with an error, and nothing is done. If that lasts, all other steps of its kind fail too.
    Fails,
    /// The same, because the disk is full.
    Full,
    /// It is done, but reported as failed.
    Unheard,
    /// The last block is replaced by others just before.
    Reorg1,
    /// The last two blocks are.
    Reorg2,
    /// It is lost, and nothing else is. No error is reported.
    Lost,
    /// It is lost with all that waits in its stream, which both ends of the stream learn.
    Dropped,
    /// It is reported as done and is not, and the process dies a few steps later. No usable disk does this: it shows
    /// that the checks find such a fault.
    Forgotten,
}

/// For how long: a phone whose link was dropped stays away, an answer is late, a disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Length {
    /// No longer than the step itself.
    Now,
    /// Twenty seconds: longer than a heartbeat, and tolerated.
    Seconds,
    /// Two minutes: silence is not tolerated so long, and the host has given up its requests.
    PastGrace,
    /// A day.
    Day,
}

/// One interruption: at step `step` of `kind`, `how`, for `length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interruption {
    /// Kind of the step.
    pub kind: Kind,
    /// Number of the step among its kind, from 1.
    pub step: u32,
    /// How the step is interrupted.
    pub how: How,
    /// For how long.
    pub length: Length,
}

/// Steps of each kind, in the order of [`Kind::ALL`].
pub type Counts = [u32; Kind::ALL.len()];

impl Kind {
    /// In the order in which they are counted.
    pub const ALL: [Kind; 7] = [
        Kind::Frame,
        Kind::StoreWrite,
        Kind::LedgerWrite,
        Kind::PeerMessage,
        Kind::ChainCall,
        Kind::WakeCall,
        Kind::Relay,
    ];

    /// Those of runs without a relay.
    pub const DIRECT: &[Kind] = Kind::ALL.split_at(6).0;

    /// As in `--at`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Frame => "frame",
            Kind::StoreWrite => "store",
            Kind::LedgerWrite => "ledger",
            Kind::PeerMessage => "peer",
            Kind::ChainCall => "chain",
            Kind::WakeCall => "wake",
            Kind::Relay => "relay",
        }
    }

    /// Every way in which a step of this kind is interrupted.
    pub fn ways(self) -> &'static [(How, Length)] {
        use How::{
            After, Before, Dropped, Fails, Full, Late, Lost, OneWay, Reorg1, Reorg2, Silent,
            Swapped, Torn, Twice, Unheard,
        };
        use Length::{Day, Now, PastGrace, Seconds};
        match self {
            Kind::Frame => &[
                (Before, Now),
                (Before, PastGrace),
                (Before, Day),
                (After, Now),
                (After, PastGrace),
                (After, Day),
                (Twice, Now),
                (Swapped, Now),
                (Late, Seconds),
                (Late, PastGrace),
                (OneWay, Now),
                (Silent, Now),
            ],
            // A batch is atomic: there is nothing to tear.
            Kind::StoreWrite => &[
                (Before, Now),
                (After, Now),
                (Late, Seconds),
                (Late, PastGrace),
                (Fails, Now),
                (Fails, PastGrace),
                (Full, PastGrace),
                (Full, Day),
                (Unheard, Now),
            ],
            Kind::LedgerWrite => &[
                (Before, Now),
                (Torn, Now),
                (After, Now),
                (Late, Seconds),
                (Late, PastGrace),
                (Fails, Now),
                (Fails, PastGrace),
                (Full, PastGrace),
                (Full, Day),
                (Unheard, Now),
            ],
            Kind::PeerMessage => &[
                (Before, Now),
                (Torn, Now),
                (After, Now),
                (Late, Seconds),
                (OneWay, Now),
                (Silent, Now),
            ],
            Kind::ChainCall => &[
                (Late, Seconds),
                (Fails, Now),
                (Fails, PastGrace),
                (Fails, Day),
                (Unheard, Now),
                (Reorg1, Now),
                (Reorg2, Now),
            ],
            Kind::WakeCall => &[
                (Twice, Now),
                (Late, Seconds),
                (Silent, Now),
                (Fails, Now),
                (Fails, PastGrace),
                (Unheard, Now),
            ],
            Kind::Relay => &[
                (Before, Now),
                (Before, PastGrace),
                (Before, Day),
                (After, Now),
                (Twice, Now),
                (Swapped, Now),
                (Late, Seconds),
                (Late, PastGrace),
                (Lost, Now),
                (Dropped, Now),
            ],
        }
    }

    /// Whether a step of this kind can be interrupted so.
    fn knows(self, how: How) -> bool {
        let is_lie = self == Kind::StoreWrite && how == How::Forgotten;
        is_lie || self.ways().iter().any(|(known, _)| *known == how)
    }
}

impl Length {
    /// In virtual time.
    pub fn time(self) -> Duration {
        Duration::from_secs(match self {
            Length::Now => 0,
            Length::Seconds => 20,
            Length::PastGrace => 120,
            Length::Day => 24 * 3600,
        })
    }
}

impl Interruption {
    /// Whether it lasts a day: virtual time is cheap, but not without optimisation.
    pub fn lasts_a_day(&self) -> bool {
        self.length == Length::Day
    }

    /// A silent connection is detected only by a timeout, which takes a while.
    fn is_felt_for(&self) -> Duration {
        match self.how {
            How::OneWay | How::Silent => Length::PastGrace.time(),
            _ => self.length.time(),
        }
    }

    /// Whether other steps of its kind fail the same way for a while.
    fn is_spell(&self) -> bool {
        matches!(self.how, How::Fails | How::Full) && self.length != Length::Now
    }
}

const HOWS: [(&str, How); 16] = [
    ("before", How::Before),
    ("torn", How::Torn),
    ("after", How::After),
    ("twice", How::Twice),
    ("swapped", How::Swapped),
    ("late", How::Late),
    ("oneway", How::OneWay),
    ("silent", How::Silent),
    ("fails", How::Fails),
    ("full", How::Full),
    ("unheard", How::Unheard),
    ("reorg1", How::Reorg1),
    ("reorg2", How::Reorg2),
    ("lost", How::Lost),
    ("dropped", How::Dropped),
    ("forgotten", How::Forgotten),
];
const LENGTHS: [(&str, Length); 4] = [
    ("now", Length::Now),
    ("20s", Length::Seconds),
    ("grace", Length::PastGrace),
    ("day", Length::Day),
];

/// As in `--at`.
impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Interruption {
            kind,
            step,
            how,
            length,
        } = *self;
        let (how, length) = (name(&HOWS, how), name(&LENGTHS, length));
        write!(f, "{}:{step}:{how}:{length}", kind.name())
    }
}

impl FromStr for Interruption {
    type Err = String;
    fn from_str(text: &str) -> Result<Interruption, String> {
        let parts: Vec<&str> = text.split(':').collect();
        let (kind, step, how, length) = match parts[..] {
            [kind, step, how] => (kind, step, how, "now"),
            [kind, step, how, length] => (kind, step, how, length),
            _ => return Err("write it as KIND:STEP:HOW[:LENGTH], such as frame:3:late:20s".into()),
        };
        let kinds = Kind::ALL.map(|kind| (kind.name(), kind));
        let kind = value(&kinds, kind)?;
        let step = step.parse().ok().filter(|step| *step > 0);
        let hows: Vec<_> = HOWS
            .into_iter()
            .filter(|(_, how)| kind.knows(*how))
            .collect();
        Ok(Interruption {
            kind,
            step: step.ok_or("a step is a number from 1")?,
            how: value(&hows, how)?,
            length: value(&LENGTHS, length)?,
        })
    }
}

fn name<T: PartialEq>(names: &[(&'static str, T)], value: T) -> &'static str {
    let found = names.iter().find(|(_, known)| *known == value);
    found.map_or("", |(name, _)| name)
}

fn value<T: Copy>(names: &[(&str, T)], name: &str) -> Result<T, String> {
    let found = names.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<_> = names.iter().map(|(known, _)| *known).collect();
        format!("{name} is none of {}", known.join("|"))
    })
}

/// Counts the steps of a run and decides when one is interrupted. Shared by all parts.
#[derive(Clone, Default)]
pub struct Plan {
    state: Arc<Mutex<State>>,
    /// Notified when an interruption that lasts a day begins.
    day: Arc<Notify>,
    lasts: Duration,
}

#[derive(Default)]
struct State {
    is_armed: bool,
    counts: Counts,
    to_come: Vec<Interruption>,
    spells: Vec<Spell>,
    /// Until then past interruptions have an effect.
    felt_until: Option<Instant>,
    done: usize,
    is_beside: bool,
    compactions: u32,
    trace: Trace,
}

/// An interruption that lasts, at one place.
struct Spell {
    interruption: Interruption,
    place: usize,
    until: Instant,
}

impl Plan {
    /// Interrupts at each of these, once counting has begun.
    pub fn new(interruptions: &[Interruption]) -> Plan {
        let to_come = interruptions.to_vec();
        Plan {
            state: Arc::new(Mutex::new(State {
                to_come,
                ..State::default()
            })),
            day: Arc::default(),
            lasts: interruptions.iter().map(Interruption::is_felt_for).sum(),
        }
    }

    /// Begins to count steps; until now the world was only set up.
    pub fn arm(&self) {
        lock(&self.state).is_armed = true;
    }

    /// Whether steps count now.
    pub fn is_armed(&self) -> bool {
        lock(&self.state).is_armed
    }

    /// Stops counting steps: the scenario is over. Interruptions that last go on.
    pub fn disarm(&self) {
        lock(&self.state).is_armed = false;
    }

    /// Steps of each kind.
    pub fn counts(&self) -> Counts {
        lock(&self.state).counts
    }

    /// Whether nothing was planned.
    pub fn is_empty(&self) -> bool {
        let state = lock(&self.state);
        state.done == 0 && state.to_come.is_empty()
    }

    /// Interruptions that have happened.
    pub fn happened(&self) -> usize {
        lock(&self.state).done
    }

    /// How long all that was planned lasts, together.
    pub fn lasts(&self) -> Duration {
        self.lasts
    }

    /// Records that an interruption has prevented the event that the scenario is about.
    pub fn goes_beside(&self) {
        lock(&self.state).is_beside = true;
    }

    /// See [`Plan::goes_beside`].
    pub fn is_beside(&self) -> bool {
        lock(&self.state).is_beside
    }

    /// Records that a phone begins to compact its ledger.
    pub fn compacts(&self) {
        lock(&self.state).compactions += 1;
    }

    /// See [`Plan::compacts`].
    pub fn compactions(&self) -> u32 {
        lock(&self.state).compactions
    }

    /// Adds data that passes through a part of the world, see [`Trace`].
    pub fn trace(&self, kind: Kind, what: impl Hash) {
        lock(&self.state).trace.add(kind, what);
    }

    /// See [`Trace::digest`].
    pub fn digest(&self) -> u64 {
        lock(&self.state).trace.digest()
    }

    /// Returns when no interruption has an effect any more.
    pub async fn is_over(&self) {
        loop {
            let until = lock(&self.state).felt_until;
            match until.filter(|until| *until > Instant::now()) {
                Some(until) => tokio::time::sleep_until(until).await,
                None => return,
            }
        }
    }

    /// Whether an interruption lasts now.
    pub fn is_in_a_spell(&self) -> bool {
        let mut state = lock(&self.state);
        state.end_spells();
        !state.spells.is_empty()
    }

    /// The interruption that lasts now, for a call that is no step.
    pub fn lasting(&self, kind: Kind) -> Option<Interruption> {
        let mut state = lock(&self.state);
        state.end_spells();
        state.lasting(kind, 0)
    }

    /// One more step of `kind`: how it is interrupted, if it is.
    pub fn step(&self, kind: Kind) -> Option<Interruption> {
        self.step_at(kind, 0)
    }

    /// [`Plan::step`] where several places have steps of one kind: one place's interruptions have no effect at another.
    pub fn step_at(&self, kind: Kind, place: usize) -> Option<Interruption> {
        let mut state = lock(&self.state);
        let happened = state.done;
        let interruption = state.step(kind, place);
        let is_new = state.done > happened;
        if is_new && interruption.is_some_and(|it| it.lasts_a_day()) {
            self.day.notify_one();
        }
        interruption
    }

    /// Returns when an interruption that lasts a day has begun.
    pub async fn day_begins(&self) {
        self.day.notified().await;
    }
}

impl State {
    fn step(&mut self, kind: Kind, place: usize) -> Option<Interruption> {
        let planned = self.take_planned(kind);
        if let Some(interruption) = planned {
            let until = Instant::now() + interruption.is_felt_for();
            self.felt_until = self.felt_until.max(Some(until));
        }
        if let Some(interruption) = planned.filter(Interruption::is_spell) {
            self.spells.push(Spell {
                interruption,
                place,
                until: Instant::now() + interruption.length.time(),
            });
        }
        self.end_spells();
        planned.or_else(|| self.lasting(kind, place))
    }

    fn lasting(&self, kind: Kind, place: usize) -> Option<Interruption> {
        let is_here = |spell: &&Spell| spell.interruption.kind == kind && spell.place == place;
        let lasting = self.spells.iter().find(is_here);
        lasting.map(|spell| spell.interruption)
    }

    fn take_planned(&mut self, kind: Kind) -> Option<Interruption> {
        if !self.is_armed {
            return None;
        }
        let count = &mut self.counts[kind as usize];
        *count += 1;
        let step = *count;
        let now = |planned: &Interruption| planned.kind == kind && planned.step == step;
        let at = self.to_come.iter().position(now)?;
        self.done += 1;
        Some(self.to_come.remove(at))
    }

    fn end_spells(&mut self) {
        if !self.spells.is_empty() {
            let now = Instant::now();
            self.spells.retain(|spell| now < spell.until);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn every_way_is_read_as_it_is_written() {
        for kind in Kind::ALL {
            for (how, length) in kind.ways() {
                let (how, length) = (*how, *length);
                let interruption = Interruption {
                    kind,
                    step: 7,
                    how,
                    length,
                };
                assert_eq!(interruption.to_string().parse(), Ok(interruption));
            }
        }
        let short: Interruption = "store:1:forgotten".parse().unwrap();
        assert_eq!(short.to_string(), "store:1:forgotten:now");
    }

    #[test]
    fn what_cannot_happen_is_refused() {
        for text in [
            "frame:3",
            "frame:0:before",
            "frame:3:full",
            "disk:1:full",
            "peer:1:late:1s",
        ] {
            text.parse::<Interruption>().unwrap_err();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_lasts_meets_every_step_at_its_place_until_it_is_over() {
        let plan = Plan::new(&["ledger:2:full:grace".parse().unwrap()]);
        plan.arm();
        let is_full = |place| plan.step_at(Kind::LedgerWrite, place).is_some();
        assert!(!is_full(0));
        assert!(is_full(0) && is_full(0));
        assert!(!is_full(1) && plan.step(Kind::StoreWrite).is_none());
        tokio::time::sleep(Length::PastGrace.time()).await;
        assert!(!is_full(0) && !plan.is_in_a_spell());
        assert_eq!(plan.happened(), 1);
    }
}
