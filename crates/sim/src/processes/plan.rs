//! Events of each round: a function of the seed alone, so that two runs with the same seed do the same things at the
//! same moments. Their effects depend on the machine.

use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A payer or a payee.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    Hub,
    /// By its number.
    Phone(usize),
}

/// One payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub payer: Who,
    pub payee: Who,
    pub amount_msat: u64,
}

/// Target of a blow: processes to kill, or a disk to fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blow {
    Host,
    Phone(usize),
    /// The host and a phone at once.
    Both(usize),
    Devnet,
    /// The host's disk is full for a while.
    Disk(Meanwhile),
}

/// State of the host while its disk is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meanwhile {
    Runs,
    /// It is killed, and starts when there is room.
    IsKilled,
    /// It is killed, and starts while there is none.
    Starts,
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    Pay(Order),
    /// A block.
    Mine,
    Strike(Blow),
    /// The target of a blow runs again.
    Recover(Blow),
}

/// An event and its time, from the beginning of the round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timed {
    pub at_ms: u64,
    pub act: Act,
}

/// Targets that are allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Targets {
    /// All processes.
    Processes,
    /// All processes, and the host's disk.
    ProcessesAndDisk,
    /// The host's disk.
    Disk,
}

/// Draws one round after the other.
pub(super) struct Plan {
    rng: ChaCha8Rng,
    phones: usize,
    targets: Targets,
}

/// Blocks are mined in one round of so many, so that no HTLC nears its deadline while processes are down.
const MINE_ONE_IN: u32 = 3;

impl Plan {
    /// `phones` is at least one.
    pub fn new(seed: u64, phones: usize, targets: Targets) -> Plan {
        Plan {
            rng: ChaCha8Rng::seed_from_u64(seed),
            phones,
            targets,
        }
    }

    /// The next round, in the order of time.
    pub fn round(&mut self) -> Vec<Timed> {
        let mut round = Vec::new();
        for _ in 0..self.rng.gen_range(8..=24) {
            let order = self.order();
            let at_ms = self.rng.gen_range(0..2_500);
            round.push(Timed {
                at_ms,
                act: Act::Pay(order),
            });
        }
        if self.rng.gen_ratio(1, MINE_ONE_IN) {
            let at_ms = self.rng.gen_range(0..2_500);
            round.push(Timed {
                at_ms,
                act: Act::Mine,
            });
        }
        let mut at_ms = self.rng.gen_range(50..1_500);
        for _ in 0..self.rng.gen_range(1..=3) {
            let blow = self.blow();
            round.push(Timed {
                at_ms,
                act: Act::Strike(blow),
            });
            at_ms += self.pause(blow);
            round.push(Timed {
                at_ms,
                act: Act::Recover(blow),
            });
            // Sometimes the next blow falls on a process that is still starting.
            at_ms += self.rng.gen_range(20..1_200);
        }
        round.sort_by_key(|timed| timed.at_ms);
        round
    }

    fn order(&mut self) -> Order {
        let mut all: Vec<Who> = (0..self.phones).map(Who::Phone).collect();
        all.push(Who::Hub);
        all.shuffle(&mut self.rng);
        let (payer, payee) = (all[0], all[1]);
        // Some are dust, which has no output in a commitment.
        let amount_msat = match self.rng.gen_ratio(1, 5) {
            true => self.rng.gen_range(1_000..300_000),
            false => self.rng.gen_range(400_000..30_000_000),
        };
        Order {
            payer,
            payee,
            amount_msat,
        }
    }

    fn blow(&mut self) -> Blow {
        let phone = self.rng.gen_range(0..self.phones);
        let meanwhile = match self.rng.gen_range(0..3) {
            0 => Meanwhile::Runs,
            1 => Meanwhile::IsKilled,
            _ => Meanwhile::Starts,
        };
        let disk = Blow::Disk(meanwhile);
        match (self.targets, self.rng.gen_range(0..10)) {
            (Targets::Disk, _) | (Targets::ProcessesAndDisk, 0) => disk,
            (_, 1..4) => Blow::Host,
            (_, 4..7) => Blow::Phone(phone),
            (_, 7..9) => Blow::Both(phone),
            _ => Blow::Devnet,
        }
    }

    /// How long it stays down.
    fn pause(&mut self, blow: Blow) -> u64 {
        match blow {
            Blow::Disk(_) => self.rng.gen_range(300..2_500),
            _ if self.rng.gen_ratio(1, 3) => 0,
            _ => self.rng.gen_range(1..1_500),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const ALL: Targets = Targets::ProcessesAndDisk;

    fn rounds(seed: u64, targets: Targets) -> Vec<Vec<Timed>> {
        let mut plan = Plan::new(seed, 2, targets);
        (0..200).map(|_| plan.round()).collect()
    }

    fn blows(targets: Targets) -> Vec<Blow> {
        let acts = rounds(1, targets).into_iter().flatten();
        acts.filter_map(|timed| match timed.act {
            Act::Strike(blow) => Some(blow),
            _ => None,
        })
        .collect()
    }

    #[test]
    fn the_same_seed_is_the_same_plan_and_another_is_not() {
        assert_eq!(rounds(7, ALL), rounds(7, ALL));
        assert_ne!(rounds(7, ALL), rounds(8, ALL));
    }

    #[test]
    fn what_was_struck_recovers_before_the_next_blow() {
        for round in rounds(1, ALL) {
            let mut down = None;
            for timed in round {
                match timed.act {
                    Act::Strike(blow) => assert_eq!(down.replace(blow), None),
                    Act::Recover(blow) => assert_eq!(down.take(), Some(blow)),
                    Act::Pay(_) | Act::Mine => {}
                }
            }
            assert_eq!(down, None);
        }
    }

    #[test]
    fn everything_is_struck_that_may_be_and_nothing_else() {
        let all = blows(ALL);
        for blow in [
            Blow::Host,
            Blow::Phone(0),
            Blow::Phone(1),
            Blow::Both(0),
            Blow::Both(1),
            Blow::Devnet,
            Blow::Disk(Meanwhile::Runs),
            Blow::Disk(Meanwhile::IsKilled),
            Blow::Disk(Meanwhile::Starts),
        ] {
            assert!(all.contains(&blow), "{blow:?}");
        }
        let is_disk = |blow: &Blow| matches!(blow, Blow::Disk(_));
        assert!(blows(Targets::Disk).iter().all(is_disk));
        assert!(!blows(Targets::Processes).iter().any(is_disk));
    }

    #[test]
    fn nobody_pays_itself() {
        for timed in rounds(1, ALL).into_iter().flatten() {
            if let Act::Pay(order) = timed.act {
                assert_ne!(order.payer, order.payee);
            }
        }
    }
}
