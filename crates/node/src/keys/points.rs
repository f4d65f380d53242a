//! Per-commitment points of one channel (BOLT 3), fetched from the phone ahead of LDK's use of them.
//!
//! LDK asks for a point inside a call that cannot wait, so a window of points around the one in use is kept here.

use std::collections::BTreeMap;

use bitcoin::secp256k1::PublicKey;
use bitcoin::secp256k1::constants::PUBLIC_KEY_SIZE;
use prost::Message;

/// Index of the first commitment: LDK counts down from here (BOLT 3).
pub(crate) const FIRST_INDEX: u64 = (1 << 48) - 1;

/// Points in one request; each commitment uses one.
pub(crate) const POINTS_AT_ONCE: u32 = 16;

/// More points are requested when fewer than this are left.
const POINTS_LEFT_LOW: u64 = 6;

/// Used points that are kept, for a peer that reestablishes one state behind.
const POINTS_KEPT_BEHIND: u64 = 3;

type SerializedPoint = [u8; PUBLIC_KEY_SIZE];

/// Points by index. Serialized, since a node holds a hundred of them and needs few, and parsing one costs a square root.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Points(BTreeMap<u64, SerializedPoint>);

impl Points {
    /// The point at `index`; `None` when it is not in the window, or cannot be parsed and has to be fetched again.
    pub fn get(&self, index: u64) -> Option<PublicKey> {
        PublicKey::from_slice(self.0.get(&index)?).ok()
    }

    /// First index of the points to request, when the one at `index` is in use: `index` itself when its point is missing,
    /// or the next below the window when few are left. `None` when there are enough.
    pub fn first_to_fetch(&self, index: u64) -> Option<u64> {
        if self.get(index).is_none() {
            return Some(index);
        }
        let lowest = *self.0.keys().next()?;
        (index.saturating_sub(lowest) < POINTS_LEFT_LOW && lowest > 0).then(|| lowest - 1)
    }

    /// Adds consecutive points, the first one at `first_index` and each next one at the index below.
    pub fn add(&mut self, first_index: u64, points: impl IntoIterator<Item = PublicKey>) {
        let indices = (0..=first_index).rev();
        let serialized = points.into_iter().map(|point| point.serialize());
        self.0.extend(indices.zip(serialized));
    }

    /// The secret of the point at `index` is released: removes the points that no peer can need any more.
    pub fn released(&mut self, index: u64) {
        let oldest = index.saturating_add(POINTS_KEPT_BEHIND);
        self.0.retain(|at, _| *at <= oldest);
    }

    /// As they are stored.
    pub fn stored(&self) -> Vec<StoredPoint> {
        let stored = |(index, point): (&u64, &SerializedPoint)| StoredPoint {
            index: *index,
            point: point.to_vec(),
        };
        self.0.iter().map(stored).collect()
    }

    /// `None` when one of them has another length than a point.
    pub fn read(stored: &[StoredPoint]) -> Option<Points> {
        let read = |stored: &StoredPoint| {
            let point = SerializedPoint::try_from(&stored.point[..]).ok()?;
            Some((stored.index, point))
        };
        let points: Vec<_> = stored.iter().map(read).collect::<Option<_>>()?;
        // Collected at once, a map takes half the memory that it takes when filled one by one.
        Some(Points(points.into_iter().collect()))
    }
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct StoredPoint {
    #[prost(fixed64, tag = "1")]
    index: u64,
    #[prost(bytes = "vec", tag = "2")]
    point: Vec<u8>,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use bitcoin::secp256k1::{Secp256k1, SecretKey};

    use super::*;

    fn point(byte: u8) -> PublicKey {
        let secret = SecretKey::from_slice(&[byte; 32]).unwrap();
        PublicKey::from_secret_key(&Secp256k1::new(), &secret)
    }

    fn window() -> Points {
        let mut points = Points::default();
        points.add(FIRST_INDEX, (1..=POINTS_AT_ONCE as u8).map(point));
        points
    }

    #[test]
    fn points_are_fetched_before_the_last_ones_are_used_and_at_once_when_one_is_missing() {
        let points = window();
        let lowest = FIRST_INDEX - u64::from(POINTS_AT_ONCE) + 1;
        assert_eq!(points.get(FIRST_INDEX), Some(point(1)));
        assert_eq!(points.get(lowest), Some(point(16)));
        assert_eq!(points.first_to_fetch(FIRST_INDEX), None);
        assert_eq!(points.first_to_fetch(lowest + POINTS_LEFT_LOW), None);
        let few = lowest + POINTS_LEFT_LOW - 1;
        assert_eq!(points.first_to_fetch(few), Some(lowest - 1));
        assert_eq!(points.first_to_fetch(lowest - 5), Some(lowest - 5));
        assert_eq!(Points::default().first_to_fetch(7), Some(7));
    }

    #[test]
    fn nothing_is_fetched_below_the_last_index() {
        let mut points = Points::default();
        points.add(2, (1..=16).map(point));
        assert_eq!(points.get(0), Some(point(3)), "the rest has no index");
        assert_eq!(points.first_to_fetch(2), None);
    }

    #[test]
    fn used_points_are_kept_for_a_peer_that_is_behind_and_then_removed() {
        let mut points = window();
        points.released(FIRST_INDEX - 10);
        assert_eq!(points.get(FIRST_INDEX - 7), Some(point(8)));
        assert_eq!(points.get(FIRST_INDEX - 6), None);
    }

    #[test]
    fn they_are_read_as_they_were_stored_and_refused_with_another_length() {
        let points = window();
        let mut stored = points.stored();
        assert_eq!(Points::read(&stored), Some(points));
        stored[3].point.pop();
        assert_eq!(Points::read(&stored), None);
    }

    #[test]
    fn a_stored_point_that_is_not_on_the_curve_is_fetched_again() {
        let mut stored = window().stored();
        let last = stored.len() - 1;
        stored[last].point = vec![0; PUBLIC_KEY_SIZE];
        let points = Points::read(&stored).unwrap();
        assert_eq!(points.get(FIRST_INDEX), None);
        assert_eq!(points.first_to_fetch(FIRST_INDEX), Some(FIRST_INDEX));
    }
}
