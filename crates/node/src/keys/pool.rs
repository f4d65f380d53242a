//! The keys of all channels, among them a pool of keys for channels that do not exist yet.
//!
//! LDK asks for a new channel's keys inside a call that cannot wait for the phone, so they are fetched ahead.

use std::collections::{HashMap, VecDeque};

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{GetPoints, NewChannelKeys, NewChannelKeysAnswer, Points};

use super::channel_keys::{ChannelKeys, KeysId};
use super::desk::{Desk, channel_op, key_of, node_op};
use super::points::POINTS_AT_ONCE;
use crate::hex::{hex, unhex};
use crate::store::journal::Journal;
use crate::store::schema;

/// Channels with keys in advance.
const POOL_SIZE: usize = 2;

/// See the module.
#[derive(Default)]
pub(super) struct KeyPool {
    channels: HashMap<KeysId, ChannelKeys>,
    /// Keys of no channel yet, oldest first.
    free: VecDeque<KeysId>,
    /// The phone gave no usable keys: it is not asked again until [`KeyPool::clear_refusal`].
    is_refused: bool,
}

impl KeyPool {
    /// `None` when a record cannot be read.
    pub fn load(journal: &Journal) -> Option<KeyPool> {
        let mut pool = KeyPool::default();
        for (name, bytes) in journal.loaded(schema::key::KEYS) {
            let keys_id = unhex(&name)?;
            let keys = ChannelKeys::decode(&bytes)?;
            if keys.user_channel_id.is_none() {
                pool.free.push_back(keys_id);
            }
            pool.channels.insert(keys_id, keys);
        }
        Some(pool)
    }

    pub fn get(&self, keys_id: &KeysId) -> Option<&ChannelKeys> {
        self.channels.get(keys_id)
    }

    /// The keys that were reserved for a channel.
    pub fn keys_id_of(&self, user_channel_id: u128) -> Option<KeysId> {
        let mut all = self.channels.iter();
        all.find(|(_, keys)| keys.user_channel_id == Some(user_channel_id))
            .map(|(id, _)| *id)
    }

    /// Requests new keys until, together with those that are free, there are enough.
    pub fn fill(&mut self, desk: &mut Desk, random: impl Fn() -> [u8; 32]) {
        if self.is_refused {
            return;
        }
        let is_request = |op: &Op| matches!(op, Op::NewChannelKeys(_));
        let ops = desk.wanted_ops().filter_map(|op| op.op.as_ref());
        let requested = ops.filter(|op| is_request(op)).count();
        for _ in (self.free.len() + requested)..POOL_SIZE {
            let op = node_op(Op::NewChannelKeys(NewChannelKeys {
                channel_keys_id: random().to_vec(),
                points: POINTS_AT_ONCE,
            }));
            desk.want(key_of(&op), op);
        }
    }

    /// Takes the phone's answer to [`KeyPool::fill`].
    pub fn add(&mut self, journal: &Journal, answer: &NewChannelKeysAnswer) {
        let Some((keys_id, keys)) = ChannelKeys::from_answer(answer) else {
            tracing::error!("the signer gave channel keys that cannot be read");
            self.is_refused = true;
            return;
        };
        if self.channels.contains_key(&keys_id) {
            tracing::error!("the signer gave channel keys that it has given before");
            self.is_refused = true;
            return;
        }
        journal.put(path(&keys_id), keys.encode());
        self.channels.insert(keys_id, keys);
        self.free.push_back(keys_id);
    }

    /// The phone gives no keys.
    pub fn refused(&mut self) {
        self.is_refused = true;
    }

    /// The phone may be asked again.
    pub fn clear_refusal(&mut self) {
        self.is_refused = false;
    }

    /// Reserves free keys for a channel. `None` while there are none.
    pub fn reserve(&mut self, journal: &Journal, user_channel_id: u128) -> Option<KeysId> {
        let keys_id = self.free.pop_front()?;
        let keys = self.channels.get_mut(&keys_id)?;
        keys.user_channel_id = Some(user_channel_id);
        journal.put(path(&keys_id), keys.encode());
        Some(keys_id)
    }

    /// Removes the free keys: the phone has another ledger than when it gave them, and will accept none of them.
    pub fn remove_free(&mut self, journal: &Journal) {
        for keys_id in std::mem::take(&mut self.free) {
            self.remove(journal, &keys_id);
        }
    }

    /// Reserved keys of channels for which `is_over` and that the phone has not set up.
    pub fn unused(&self, is_over: impl Fn(u128) -> bool) -> Vec<KeysId> {
        let is_unused =
            |keys: &ChannelKeys| !keys.set_up && keys.user_channel_id.is_some_and(&is_over);
        let unused = self.channels.iter().filter(|(_, keys)| is_unused(keys));
        unused.map(|(keys_id, _)| *keys_id).collect()
    }

    pub fn remove(&mut self, journal: &Journal, keys_id: &KeysId) {
        self.channels.remove(keys_id);
        journal.delete(path(keys_id));
    }

    /// See [`ChannelKeys::set_up`].
    pub fn set_up(&mut self, journal: &Journal, keys_id: &KeysId, secret: &[u8]) {
        self.change(journal, keys_id, |keys| keys.set_up(secret));
    }

    /// A per-commitment point of a channel. Requests the next ones when few are left, or this one when it is missing.
    pub fn point(&self, desk: &mut Desk, keys_id: &KeysId, index: u64) -> Option<PublicKey> {
        let points = &self.channels.get(keys_id)?.points;
        if let Some(first_index) = points.first_to_fetch(index) {
            let op = Op::GetPoints(GetPoints {
                first_index,
                count: POINTS_AT_ONCE,
            });
            let _ = desk.ask(channel_op(*keys_id, op));
        }
        points.get(index)
    }

    /// Takes the phone's answer to [`KeyPool::point`], up to the first point that cannot be read, or was not asked for.
    pub fn add_points(
        &mut self,
        journal: &Journal,
        keys_id: &KeysId,
        asked: &GetPoints,
        answer: &Points,
    ) {
        let first_index = asked.first_index;
        let points = answer.points.iter().take(asked.count as usize);
        let points = points.map_while(|point| PublicKey::from_slice(point).ok());
        self.change(journal, keys_id, |keys| {
            keys.points.add(first_index, points)
        });
    }

    /// Takes a per-commitment secret that is about to be released.
    ///
    /// # Errors
    /// When it does not belong to the point that the peer was given, or the channel is unknown; nothing has changed.
    pub fn check_secret(
        &mut self,
        journal: &Journal,
        keys_id: &KeysId,
        index: u64,
        secret: &SecretKey,
    ) -> Result<(), ()> {
        let keys = self.channels.get(keys_id).ok_or(())?;
        let point = PublicKey::from_secret_key(&Secp256k1::signing_only(), secret);
        if keys.points.get(index).is_some_and(|known| known != point) {
            tracing::error!("the signer gave a wrong per-commitment secret; it was not sent");
            return Err(());
        }
        self.change(journal, keys_id, |keys| keys.points.released(index));
        Ok(())
    }

    fn change(
        &mut self,
        journal: &Journal,
        keys_id: &KeysId,
        change: impl FnOnce(&mut ChannelKeys),
    ) {
        if let Some(keys) = self.channels.get_mut(keys_id) {
            change(keys);
            journal.put(path(keys_id), keys.encode());
        }
    }
}

fn path(keys_id: &KeysId) -> String {
    format!("{}{}", schema::key::KEYS, hex(keys_id))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::cell::Cell;

    use super::super::points::FIRST_INDEX;
    use super::super::testing::{new_keys, reloaded};
    use super::*;

    const KEYS: KeysId = [1; 32];
    const CHANNEL: u128 = 5;

    /// A pool with the keys `KEYS` free.
    fn with_keys(journal: &Journal) -> KeyPool {
        let mut pool = KeyPool::default();
        pool.add(journal, &new_keys(KEYS, 7));
        pool
    }

    /// How many keys it requests, all in all, on this desk.
    fn requested(pool: &mut KeyPool, desk: &mut Desk) -> usize {
        let count = Cell::new(desk.wanted_ops().count() as u8);
        pool.fill(desk, || {
            count.set(count.get() + 1);
            [count.get(); 32]
        });
        desk.wanted_ops().count()
    }

    #[test]
    fn it_requests_as_many_keys_as_are_missing_and_none_twice() {
        let (mut pool, mut desk) = (KeyPool::default(), Desk::default());
        assert_eq!(requested(&mut pool, &mut desk), POOL_SIZE);
        assert_eq!(requested(&mut pool, &mut desk), POOL_SIZE);
        let mut pool = with_keys(&Journal::default());
        assert_eq!(requested(&mut pool, &mut Desk::default()), POOL_SIZE - 1);
    }

    #[test]
    fn keys_are_reserved_once_and_still_are_after_a_restart() {
        let journal = Journal::default();
        let mut pool = with_keys(&journal);
        assert_eq!(pool.reserve(&journal, CHANNEL), Some(KEYS));
        assert_eq!(pool.reserve(&journal, CHANNEL + 1), None);

        let mut after = KeyPool::load(&reloaded(&journal)).unwrap();
        assert_eq!(after.keys_id_of(CHANNEL), Some(KEYS));
        assert_eq!(after.reserve(&journal, CHANNEL + 1), None);
    }

    #[test]
    fn a_phone_that_gives_no_usable_keys_is_not_asked_all_the_time() {
        let journal = Journal::default();
        let mut pool = KeyPool::default();
        let mut unreadable = new_keys(KEYS, 7);
        unreadable.public_keys.clear();
        pool.add(&journal, &unreadable);
        assert!(journal.is_empty());
        assert_eq!(requested(&mut pool, &mut Desk::default()), 0);
        pool.clear_refusal();
        assert_eq!(requested(&mut pool, &mut Desk::default()), POOL_SIZE);
        pool.refused();
        assert_eq!(requested(&mut pool, &mut Desk::default()), 0);
    }

    #[test]
    fn only_reserved_keys_that_are_not_set_up_are_unused() {
        let journal = Journal::default();
        let mut pool = with_keys(&journal);
        let unused = |pool: &KeyPool| pool.unused(|id| id == CHANNEL);
        assert_eq!(unused(&pool), [] as [KeysId; 0], "free");
        pool.reserve(&journal, CHANNEL);
        assert_eq!(unused(&pool), [KEYS]);
        pool.set_up(&journal, &KEYS, &[]);
        assert_eq!(unused(&pool), [] as [KeysId; 0], "the phone has it");
    }

    #[test]
    fn free_keys_are_removed_for_a_phone_with_another_ledger_and_reserved_ones_kept() {
        let journal = Journal::default();
        let mut pool = with_keys(&journal);
        pool.reserve(&journal, CHANNEL);
        pool.add(&journal, &new_keys([2; 32], 8));
        pool.remove_free(&journal);

        let after = KeyPool::load(&reloaded(&journal)).unwrap();
        assert!(after.get(&KEYS).is_some());
        assert!(after.get(&[2; 32]).is_none());
        assert_eq!(pool.reserve(&journal, CHANNEL + 1), None);
    }

    #[test]
    fn missing_points_are_requested_and_there_after_the_answer_and_a_restart() {
        let journal = Journal::default();
        let mut pool = with_keys(&journal);
        let mut desk = Desk::default();
        let index = FIRST_INDEX - 20;
        assert_eq!(pool.point(&mut desk, &KEYS, index), None);
        let requested = GetPoints {
            first_index: index,
            count: POINTS_AT_ONCE,
        };
        let ops: Vec<_> = desk.wanted_ops().cloned().collect();
        assert_eq!(ops, [channel_op(KEYS, Op::GetPoints(requested))]);

        let mut points = new_keys(KEYS, 9).points;
        points[1] = vec![0; 33];
        let first = PublicKey::from_slice(&points[0]).unwrap();
        pool.add_points(&journal, &KEYS, &requested, &Points { points });
        let after = KeyPool::load(&reloaded(&journal)).unwrap();
        assert_eq!(after.point(&mut desk, &KEYS, index), Some(first));
        assert_eq!(after.point(&mut desk, &KEYS, index - 2), None);
    }

    #[test]
    fn points_that_were_not_asked_for_are_not_kept() {
        let journal = Journal::default();
        let mut pool = with_keys(&journal);
        let index = FIRST_INDEX - 20;
        let asked = GetPoints {
            first_index: index,
            count: 2,
        };
        let points = new_keys(KEYS, 9).points;
        assert!(points.len() > 2);
        pool.add_points(&journal, &KEYS, &asked, &Points { points });
        let kept = &pool.get(&KEYS).unwrap().points;
        assert!(kept.get(index - 1).is_some());
        assert!(kept.get(index - 2).is_none());
    }

    #[test]
    fn keys_that_were_given_before_replace_none() {
        let journal = Journal::default();
        let mut pool = with_keys(&journal);
        pool.reserve(&journal, CHANNEL);
        journal.take();
        pool.add(&journal, &new_keys(KEYS, 5));
        assert!(journal.is_empty());
        assert_eq!(pool.keys_id_of(CHANNEL), Some(KEYS));
        assert_eq!(pool.reserve(&journal, CHANNEL + 1), None);
    }

    #[test]
    fn a_secret_that_is_not_of_the_point_the_peer_has_is_refused() {
        let journal = Journal::default();
        let mut pool = KeyPool::default();
        let secret = SecretKey::from_slice(&[3; 32]).unwrap();
        let mut keys = new_keys(KEYS, 7);
        let point = PublicKey::from_secret_key(&Secp256k1::new(), &secret);
        keys.points[0] = point.serialize().to_vec();
        pool.add(&journal, &keys);
        let mut check = |index, secret| pool.check_secret(&journal, &KEYS, index, secret);
        let other = SecretKey::from_slice(&[4; 32]).unwrap();
        assert_eq!(check(FIRST_INDEX, &other), Err(()));
        assert_eq!(check(FIRST_INDEX - 1, &secret), Err(()));
        assert_eq!(check(FIRST_INDEX, &secret), Ok(()));
        assert_eq!(pool.check_secret(&journal, &[2; 32], 1, &secret), Err(()));
    }

    #[test]
    fn a_record_that_cannot_be_read_is_no_pool() {
        let record = ("keys/00".to_owned(), vec![1, 2, 3]);
        assert!(KeyPool::load(&Journal::loading(vec![record])).is_none());
    }
}
