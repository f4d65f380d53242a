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
    if !header.target().is_met_by(hash) {
        return Err(HeaderError::Work(height));
    }
    if params.has_bip94()
        && height.is_multiple_of(RETARGET_INTERVAL)
        && header.time < previous.time.saturating_sub(MAX_TIMEWARP_S)
    {
        return Err(HeaderError::Timewarp(height));
    }
    match params.has_time_rules() {
        true => check_time(line, height, header.time, now_unix_s),
        false => Ok(()),
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
