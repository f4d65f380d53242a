//! One line of blocks: the best chain up to a fork, and what follows there.

use bitcoin::{CompactTarget, Work, block::Header};

use crate::checkpoint::{Checkpoint, MEDIAN_SPAN, PeriodStart};
use crate::params::{Params, RETARGET_INTERVAL};

/// A view of one chain. `best` begins with the checkpoint's header.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    pub checkpoint: &'a Checkpoint,
    pub best: &'a [Header],
    /// The height of the last block that is taken from `best`; above it are those of `side`.
    pub fork: u32,
    pub side: &'a [Header],
}

impl Line<'_> {
    /// `None` below the checkpoint and above the tip.
    pub fn header(&self, height: u32) -> Option<&Header> {
        match height.checked_sub(self.fork) {
            None | Some(0) => {
                let at = height.checked_sub(self.checkpoint.height())?;
                self.best.get(usize::try_from(at).ok()?)
            }
            Some(above) => self.side.get(usize::try_from(above - 1).ok()?),
        }
    }

    fn time(&self, height: u32) -> Option<u32> {
        let Some(below) = self.checkpoint.height().checked_sub(height) else {
            return self.header(height).map(|header| header.time);
        };
        if below == 0 {
            return Some(self.checkpoint.header().time);
        }
        let earlier = self.checkpoint.earlier_times();
        let at = earlier.len().checked_sub(usize::try_from(below).ok()?)?;
        earlier.get(at).copied()
    }

    /// The median of the times of eleven blocks, of which this height is the last. Times that are not known, before a checkpoint, count as
    /// 0: the result is never more than the true one, so that no valid header is refused for it.
    pub fn median_time(&self, height: u32) -> u32 {
        let mut times = [0; MEDIAN_SPAN];
        let mut count = 0;
        for (slot, back) in times.iter_mut().zip(0..) {
            let Some(height) = height.checked_sub(back) else {
                break;
            };
            *slot = self.time(height).unwrap_or(0);
            count += 1;
        }
        let times = &mut times[..count];
        times.sort_unstable();
        times.get(count / 2).copied().unwrap_or(0)
    }

    /// What the period of this height began with.
    fn period(&self, height: u32) -> Option<PeriodStart> {
        let start = height - height % RETARGET_INTERVAL;
        match start < self.checkpoint.height() {
            true => Some(self.checkpoint.period()),
            false => self.header(start).map(PeriodStart::from),
        }
    }

    /// The difficulty that a block has to have that follows `previous`, which is at the height before it.
    ///
    /// Within a period every block has the bits of its first block, or on testnets, when it is late, the lowest difficulty; so the search of
    /// Bitcoin Core for the last block that is not of the lowest difficulty ends with the bits of the first one too.
    pub fn next_bits(
        &self,
        params: &Params,
        height: u32,
        previous: &Header,
        time: u32,
    ) -> CompactTarget {
        let Some(period) = height.checked_sub(1).and_then(|last| self.period(last)) else {
            return previous.bits;
        };
        if !params.retargets() {
            return previous.bits;
        }
        if height.is_multiple_of(RETARGET_INTERVAL) {
            return retarget(params, period, previous);
        }
        let late = previous
            .time
            .checked_add(crate::params::MIN_DIFFICULTY_AFTER_S)
            .is_some_and(|limit| time > limit);
        match params.has_min_difficulty_blocks() && late {
            true => params.pow_limit_bits(),
            false => period.bits,
        }
    }
}

/// The difficulty of the next period, from the first and the last block of this one.
fn retarget(params: &Params, period: PeriodStart, last: &Header) -> CompactTarget {
    let base = match params.has_bip94() {
        true => period.bits,
        false => last.bits,
    };
    // A last block that is older than the first one is the shortest period there is.
    let took = u64::from(last.time.saturating_sub(period.time));
    CompactTarget::from_next_work_required(base, took, params.consensus())
}

/// The work of some headers.
pub(super) fn total_work(headers: &[Header]) -> Work {
    let mut total = no_work();
    let mut last = None;
    for header in headers {
        // Most have the difficulty of the one before, and the division is slow.
        let work = match last {
            Some((bits, work)) if bits == header.bits => work,
            _ => header.work(),
        };
        last = Some((header.bits, work));
        // All of it was done, so that it is far below 2^256.
        total = total + work;
    }
    total
}

pub(super) fn no_work() -> Work {
    Work::from_be_bytes([0; 32])
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use bitcoin::{BlockHash, Network, TxMerkleNode};

    use super::*;

    fn header(time: u32, bits: u32) -> Header {
        Header {
            version: bitcoin::block::Version::ONE,
            prev_blockhash: BlockHash::all_zeros(),
            merkle_root: TxMerkleNode::all_zeros(),
            time,
            bits: CompactTarget::from_consensus(bits),
            nonce: 0,
        }
    }

    /// The bits after a period whose first and last blocks are these, and whose others have bits that do not matter.
    fn after(network: Network, first: (u32, u32), last: (u32, u32)) -> u32 {
        let mut best = vec![header(first.0, 0x1d00_ffff); RETARGET_INTERVAL as usize];
        best[0] = header(first.0, first.1);
        let last = header(last.0, last.1);
        best[RETARGET_INTERVAL as usize - 1] = last;
        let line = Line {
            checkpoint: &Checkpoint::genesis(network),
            best: &best,
            fork: RETARGET_INTERVAL - 1,
            side: &[],
        };
        let bits = line.next_bits(&Params::of(network), RETARGET_INTERVAL, &last, last.time);
        bits.to_consensus()
    }

    /// Periods of mainnet that Bitcoin Core's `pow_tests.cpp` names, with the bits that followed.
    #[test]
    fn retargets_of_mainnet() {
        for (first, last, bits, next) in [
            // Blocks 30,240 to 32,255: the first change of the difficulty.
            (1_261_130_161, 1_262_152_739, 0x1d00_ffff, 0x1d00_d86a),
            // 0 to 2,015: slower, at the limit.
            (1_231_006_505, 1_233_061_996, 0x1d00_ffff, 0x1d00_ffff),
            // 66,528 to 68,543: four times as fast, and more.
            (1_279_008_237, 1_279_297_671, 0x1c05_a3f4, 0x1c01_68fd),
            // Four times as slow, and more (the first time is not one of the chain).
            (1_263_163_443, 1_269_211_443, 0x1c38_7f6f, 0x1d00_e1fd),
        ] {
            assert_eq!(after(Network::Bitcoin, (first, bits), (last, bits)), next);
        }
    }

    #[test]
    fn retargets_of_signet() {
        for (first, last, bits, next) in [
            // Blocks 0 to 2,015, and 2,016 to 4,031.
            (1_598_918_400, 1_599_332_177, 503_543_726, 503_394_215),
            (1_599_332_844, 1_600_591_200, 503_394_215, 503_397_348),
        ] {
            assert_eq!(after(Network::Signet, (first, bits), (last, bits)), next);
        }
    }

    #[test]
    fn a_period_that_went_backwards_is_the_shortest() {
        let bits = after(
            Network::Bitcoin,
            (2_000_000_000, 0x1c05_a3f4),
            (1_000_000_000, 0x1c05_a3f4),
        );
        assert_eq!(bits, 0x1c01_68fd);
    }

    /// A last block of the lowest difficulty resets testnet3 (a block storm) and not testnet4 (BIP 94, rule 2).
    #[test]
    fn testnet4_retargets_from_the_first_block_of_the_period() {
        let two_weeks = 14 * 24 * 60 * 60;
        let first = (1_700_000_000, 0x1a01_0000);
        let last = (1_700_000_000 + two_weeks, 0x1d00_ffff);
        assert_eq!(after(Network::Testnet, first, last), 0x1d00_ffff);
        assert_eq!(after(Network::Testnet4, first, last), 0x1a01_0000);
        let half = (1_700_000_000 + two_weeks / 2, 0x1d00_ffff);
        assert_eq!(after(Network::Testnet4, first, half), 0x1a00_8000);
    }

    #[test]
    fn late_blocks_of_testnets_have_the_lowest_difficulty_and_the_next_the_real_one() {
        let real = 0x1a01_0000;
        let best = [
            header(1_000, real),
            header(1_600, real),
            header(9_000, 0x1d00_ffff),
        ];
        let genesis = |network| Checkpoint::genesis(network);
        for (network, late) in [
            (Network::Testnet, 0x1d00_ffff),
            (Network::Testnet4, 0x1d00_ffff),
            (Network::Bitcoin, real),
        ] {
            let line = Line {
                checkpoint: &genesis(network),
                best: &best,
                fork: 2,
                side: &[],
            };
            let next = |time| {
                let bits = line.next_bits(&Params::of(network), 3, &best[2], time);
                bits.to_consensus()
            };
            assert_eq!(next(9_000 + 1_200), real, "{network}");
            assert_eq!(next(9_000 + 1_201), late, "{network}");
        }
    }

    #[test]
    fn the_median_is_of_eleven_times_and_of_fewer_after_genesis() {
        let genesis = Checkpoint::genesis(Network::Regtest);
        let mut best = vec![*genesis.header()];
        best.extend([5, 3, 4, 9, 1, 8, 7, 6, 2, 10, 11, 12].map(|time| header(time, 0)));
        let line = Line {
            checkpoint: &genesis,
            best: &best,
            fork: 12,
            side: &[],
        };
        assert_eq!(line.median_time(0), genesis.header().time);
        assert_eq!(line.median_time(2), 5);
        assert_eq!(line.median_time(12), 7);
    }
}
