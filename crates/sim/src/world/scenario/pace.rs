//! Pace of a run: its blocks, chain polls and latency.

use std::time::Duration;

use rand::Rng;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;

use super::Scenario;

/// Blocks of each round of a sweep; the last goes on. A claim is tried with the first ones, a delay (BOLT 2,
/// `to_self_delay`: 144) is over with three of 48, and claims that an interruption has made late have many after it.
const SWEEPS: [&[u32]; 2] = [
    &[1, 1, 6, 48, 48, 48, 6, 6, 6, 6, 6, 6, 6, 6, 48],
    &[1, 1, 1, 48],
];

/// Between two polls of the host's chain source, in seconds.
const POLLS: [u64; 3] = [30, 15, 10];
/// Where days pass: they are to pass quickly.
const POLLS_OF_DAYS: [u64; 3] = [300, 200, 150];

/// Latency from a phone to its host, in milliseconds.
const DISTANCES: [u64; 3] = [5, 40, 150];

/// Blocks in all simulated days of a run together: less than an HTLC has until it is resolved on chain (144 blocks,
/// LDK's 39 before its end). A phone that is away for longer loses it, which is another scenario.
const BLOCKS_OF_DAYS: u32 = 96;

/// Drawn from a run's seed, since the effect of an interruption depends on it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub chain_poll: Duration,
    /// Latency from a phone to its host.
    pub distance: Duration,
    /// While an interruption lasts a day; none where the scenario itself says when there are blocks.
    pub blocks_of_days: u32,
    sweep: &'static [u32],
}

impl Pace {
    pub fn of(scenario: Scenario, seed: u64) -> Pace {
        let mut random = ChaCha12Rng::seed_from_u64(seed);
        let polls = if scenario.lasts_days() {
            POLLS_OF_DAYS
        } else {
            POLLS
        };
        Pace {
            chain_poll: Duration::from_secs(polls[random.gen_range(0..polls.len())]),
            sweep: SWEEPS[random.gen_range(0..SWEEPS.len())],
            distance: Duration::from_millis(DISTANCES[random.gen_range(0..DISTANCES.len())]),
            blocks_of_days: match scenario.has_its_own_blocks() {
                true => 0,
                false => BLOCKS_OF_DAYS,
            },
        }
    }

    /// Blocks in this round of a sweep, from 0.
    pub fn blocks(&self, round: usize) -> u32 {
        let blocks = self.sweep.get(round).or(self.sweep.last());
        blocks.copied().unwrap_or(1)
    }
}
