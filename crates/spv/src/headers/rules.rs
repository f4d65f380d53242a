//! What a header has to keep.

use bitcoin::{BlockHash, block::Header};

use super::error::HeaderError;
use super::line::Line;
use crate::params::{MAX_FUTURE_S, MAX_TIMEWARP_S, Params, RETARGET_INTERVAL};

/// Whether a header with this hash may follow the block at the height before it; `Line` has that block. The caller has seen that it
/// names it. Without a time the limit of the future is not checked: for headers that were once.
pub(super) fn check(
    params: &Params,
    line: &Line,
    height: u32,
    header: &Header,
    hash: BlockHash,
    now_unix_s: Option<u64>,
) -> Result<(), HeaderError> {
    let previous_height = height.checked_sub(1).ok_or(HeaderError::Height)?;
    let previous = line.header(previous_height).ok_or(HeaderError::Height)?;
    let expected = line.next_bits(params, height, previous, header.time);
    if header.bits != expected {
        return Err(HeaderError::Bits {
            height,
            expected,
            found: header.bits,
        });
    }
    if params.has_bip94()
        && height.is_multiple_of(RETARGET_INTERVAL)
        && header.time < previous.time.saturating_sub(MAX_TIMEWARP_S)
    {
        return Err(HeaderError::Timewarp(height));
    }
    if params.has_time_rules() {
        check_time(line, height, header.time, now_unix_s)?;
    }
    match header.target().is_met_by(hash) {
        true => Ok(()),
        false => Err(HeaderError::Work(height)),
    }
}

fn check_time(
    line: &Line,
    height: u32,
    time: u32,
    now_unix_s: Option<u64>,
) -> Result<(), HeaderError> {
    let median = line.median_time(height - 1);
    if time <= median {
        return Err(HeaderError::TooOld {
            height,
            time,
            median,
        });
    }
    match now_unix_s {
        Some(now) if u64::from(time) > now.saturating_add(MAX_FUTURE_S) => {
            Err(HeaderError::TooNew { height, time, now })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::hashes::Hash;
    use bitcoin::{CompactTarget, Network};

    use super::*;
    use crate::checkpoint::Checkpoint;

    /// What is said of a header at this height and of this time, after blocks of 601 seconds each, which keep the lowest difficulty, from the genesis block on. None of them is
    /// mined: one that keeps all other rules lacks work.
    fn said(network: Network, height: u32, time: impl Fn(u32) -> u32, bits: u32) -> HeaderError {
        let params = Params::of(network);
        let checkpoint = Checkpoint::genesis(network);
        let mut best = vec![*checkpoint.header()];
        for _ in 1..height {
            let mut next = best[best.len() - 1];
            next.time += 601;
            best.push(next);
        }
        let last = best[best.len() - 1];
        let line = Line {
            checkpoint: &checkpoint,
            best: &best,
            fork: height - 1,
            side: &[],
        };
        let header = Header {
            time: time(last.time),
            bits: CompactTarget::from_consensus(bits),
            ..last
        };
        let hash = BlockHash::from_byte_array([0xff; 32]);
        match check(&params, &line, height, &header, hash, Some(u64::MAX)) {
            Err(error) => error,
            Ok(()) => unreachable!("nothing was mined"),
        }
    }

    /// BIP 94, rule 3.
    #[test]
    fn the_first_block_of_a_period_of_testnet4_is_not_much_older_than_the_last_one() {
        const LIMIT: u32 = 0x1d00_ffff;
        let on = |network, height, older: u32| said(network, height, |last| last - older, LIMIT);
        for (network, height, older, expected) in [
            (Network::Testnet4, 2016, 600, HeaderError::Work(2016)),
            (Network::Testnet4, 2016, 601, HeaderError::Timewarp(2016)),
            (Network::Testnet4, 4032, 601, HeaderError::Timewarp(4032)),
            (Network::Testnet4, 2015, 601, HeaderError::Work(2015)),
            (Network::Testnet, 2016, 601, HeaderError::Work(2016)),
            (Network::Bitcoin, 2016, 601, HeaderError::Work(2016)),
        ] {
            assert_eq!(on(network, height, older), expected, "{network} {height}");
        }
    }

    /// BIP 94, rule 1.
    #[test]
    fn a_late_block_has_the_lowest_difficulty_but_at_the_beginning_of_a_period() {
        const LIMIT: u32 = 0x1d00_ffff;
        let late = |height, bits| said(Network::Testnet4, height, |last| last + 1_201, bits);
        assert_eq!(late(2015, LIMIT), HeaderError::Work(2015));
        let real = late(2015, 0x1c00_ffff);
        assert!(matches!(real, HeaderError::Bits { height: 2015, .. }));
    }

    #[test]
    fn other_difficulties_than_the_rules_give_are_refused() {
        for bits in [
            0,
            0x1c00_ffff,
            0x1d00_fffe,
            0x1d01_0000,
            0x207f_ffff,
            0xff7f_ffff,
            u32::MAX,
        ] {
            let error = said(Network::Bitcoin, 100, |last| last + 600, bits);
            assert!(
                matches!(error, HeaderError::Bits { height: 100, .. }),
                "{bits:x}"
            );
        }
    }
}
