//! The keys of an owner whose phone holds them: what is known of them here, and the desk
//! at which the rest is asked for.
//!
//! One lock guards it all. LDK calls in from under its own locks; nothing here calls out.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use lightning::ln::chan_utils::{
    ChannelPublicKeys, ChannelTransactionParameters, CommitmentTransaction,
    HolderCommitmentTransaction,
};
use lightning::ln::channel_keys::{DelayedPaymentBasepoint, HtlcBasepoint, RevocationBasepoint};
use lightning::types::payment::PaymentHash;
use lightning::util::ser::{Readable, Writeable};
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{
    Ecdh, GetPoints, NewChannelKeys, NewChannelKeysAnswer, PeelOnion, PeelOnionAnswer,
    SetupChannel, SignerBatch, SignerOp, SignerReply,
};
use prost::Message;

use super::desk::{Answered, Asked, Desk, OpKey, key_of};
use super::incoming::{IncomingHtlc, IncomingHtlcs};
use super::records::{ChannelKeys, FIRST_INDEX, POINTS_AT_ONCE, StoredPeel};
use crate::hex::{hex, unhex};
use crate::journal::{Journal, lock};
use crate::wallet::SharedWallet;

/// Channels keyed in advance.
const POOL_SIZE: usize = 2;

/// How long after its HTLC's expiry an onion's answer is kept, in blocks.
const PEEL_KEPT_BLOCKS: u32 = 1008;

/// See the module.
pub(crate) struct Remote {
    /// The owner's node id.
    pub node_id: PublicKey,
    journal: Arc<Journal>,
    wallet: SharedWallet,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    desk: Desk,
    channels: HashMap<[u8; 32], ChannelKeys>,
    /// Keys ids of channels that do not exist yet, oldest first.
    pool: VecDeque<[u8; 32]>,
    /// Peers of channels, for `SetupChannel`.
    counterparties: HashMap<[u8; 32], PublicKey>,
    /// Parameters seen but not known to be with the phone.
    parameters_seen: HashMap<[u8; 32], Vec<u8>>,
    /// Payment hashes of the incoming HTLCs in the peer's newest signed commitment.
    signed_htlcs: HashMap<[u8; 32], HashSet<PaymentHash>>,
    /// Those in our own.
    incoming: IncomingHtlcs,
    /// Shared secrets of onions, by the other side's key.
    shared_secrets: HashMap<PublicKey, [u8; 32]>,
    /// Those of handshakes. Apart, since a peer may use one key for both and the onion's is needed for longer.
    handshakes: HashMap<PublicKey, [u8; 32]>,
    /// The signer gave no usable keys for the pool: it is not asked all the time.
    pool_refused: bool,
    peels: HashMap<OpKey, StoredPeel>,
    /// Order of the next stored operation.
    next_order: u64,
    /// Channels that the phone does not take, and why.
    setups_refused: HashMap<[u8; 32], String>,
}

/// The rule by which a phone refuses channel keys that it did not give with the ledger it has.
const SETUP_LEDGER: &str = "setup-ledger";

fn keys_path(keys_id: &[u8; 32]) -> String {
    format!("keys/{}", hex(keys_id))
}

fn op_path(key: &OpKey) -> String {
    format!("op/{}", hex(key))
}

fn peel_path(key: &OpKey) -> String {
    format!("peel/{}", hex(key))
}

fn channel_op(keys_id: [u8; 32], op: Op) -> SignerOp {
    SignerOp {
        channel_keys_id: keys_id.to_vec(),
        op: Some(op),
    }
}

/// An operation of the node as a whole.
pub(crate) fn node_op(op: Op) -> SignerOp {
    SignerOp {
        channel_keys_id: Vec::new(),
        op: Some(op),
    }
}

impl Remote {
    /// Reads back what the journal has loaded. `None` when a record cannot be read.
    pub fn load(node_id: PublicKey, journal: Arc<Journal>, wallet: SharedWallet) -> Option<Remote> {
        let mut state = State {
            incoming: IncomingHtlcs::load(&journal)?,
            ..State::default()
        };
        for (name, bytes) in journal.loaded("keys/") {
            let keys_id = unhex(&name)?;
            let keys = ChannelKeys::decode(&bytes)?;
            if keys.user_channel_id.is_none() {
                state.pool.push_back(keys_id);
            }
            state.channels.insert(keys_id, keys);
        }
        for (name, bytes) in journal.loaded("peel/") {
            let key = unhex(&name)?;
            state.restore_peel(key, StoredPeel::decode(&bytes[..]).ok()?)?;
        }
        let mut ops = Vec::new();
        for (_, bytes) in journal.loaded("op/") {
            ops.push(StoredOp::decode(&bytes[..]).ok()?);
        }
        ops.sort_by_key(|stored| stored.order);
        for stored in ops {
            let op = stored.op?;
            state.next_order = stored.order.saturating_add(1);
            // A channel of a peer's is validated, and stored, before it is set up; the phone needs it the other way round.
            match op.op {
                Some(Op::SetupChannel(_)) => state.desk.want_first(key_of(&op), op),
                _ => state.desk.want(key_of(&op), op),
            }
        }
        Some(Remote {
            node_id,
            journal,
            wallet,
            state: Mutex::new(state),
        })
    }

    // -- What LDK asks, from inside its locks.

    /// The answer to an operation of a channel, or `None` and it will be asked.
    pub fn ask(&self, keys_id: [u8; 32], op: Op) -> Option<Answer> {
        self.ask_channel(keys_id, op).answer()
    }

    /// The answer to an operation of the node, or `None` and it will be asked.
    pub fn ask_node(&self, op: Op) -> Option<Answer> {
        self.ask_owner(op).answer()
    }

    /// What came of an operation of a channel.
    pub fn ask_channel(&self, keys_id: [u8; 32], op: Op) -> Asked {
        lock(&self.state).desk.ask(channel_op(keys_id, op))
    }

    /// What came of an operation of the node.
    pub fn ask_owner(&self, op: Op) -> Asked {
        lock(&self.state).desk.ask(node_op(op))
    }

    /// An operation that must be answered before the channel goes on, across restarts too.
    pub fn must_reach_phone(&self, keys_id: [u8; 32], op: Op) {
        let op = channel_op(keys_id, op);
        let key = key_of(&op);
        let mut state = lock(&self.state);
        self.store_op(&mut state, key, &op);
        state.desk.want(key, op);
    }

    fn store_op(&self, state: &mut State, key: OpKey, op: &SignerOp) {
        let stored = StoredOp {
            order: state.next_order,
            op: Some(op.clone()),
        };
        state.next_order = state.next_order.saturating_add(1);
        self.journal.put(op_path(&key), stored.encode_to_vec());
    }

    /// Tells the phone a channel's parameters, once, before anything else of that channel.
    pub fn set_up(&self, keys_id: [u8; 32], parameters: &ChannelTransactionParameters) {
        let mut state = lock(&self.state);
        if state.channels.get(&keys_id).is_none_or(|keys| keys.set_up) {
            return;
        }
        let encoded = parameters.encode();
        if state.parameters_seen.get(&keys_id) == Some(&encoded) {
            return;
        }
        let counterparty = state.counterparties.get(&keys_id);
        let setup = SetupChannel {
            parameters: encoded.clone(),
            counterparty_node_id: counterparty
                .map(|node_id| node_id.serialize().to_vec())
                .unwrap_or_default(),
        };
        let op = channel_op(keys_id, Op::SetupChannel(setup));
        let key = key_of(&op);
        self.store_op(&mut state, key, &op);
        state.parameters_seen.insert(keys_id, encoded);
        state.desk.want_first(key, op);
    }

    /// Why the phone does not take this channel.
    pub fn setup_refusal(&self, keys_id: &[u8; 32]) -> Option<String> {
        lock(&self.state).setups_refused.get(keys_id).cloned()
    }

    /// A per-commitment point from the prefetched window.
    pub fn point(&self, keys_id: &[u8; 32], index: u64) -> Option<PublicKey> {
        let mut state = lock(&self.state);
        let keys = state.channels.get(keys_id)?;
        let point = keys.point(index);
        let missing = if point.is_none() {
            Some(index)
        } else {
            keys.points_to_fetch(index)
        };
        if let Some(first_index) = missing {
            let op = Op::GetPoints(GetPoints {
                first_index,
                count: POINTS_AT_ONCE,
            });
            let _ = state.desk.ask(channel_op(*keys_id, op));
        }
        point
    }

    /// Refuses a released secret that does not belong to the point the peer was given.
    pub fn check_secret(
        &self,
        keys_id: &[u8; 32],
        index: u64,
        secret: &SecretKey,
    ) -> Result<(), ()> {
        let mut state = lock(&self.state);
        let keys = state.channels.get_mut(keys_id).ok_or(())?;
        let point = PublicKey::from_secret_key(&Secp256k1::signing_only(), secret);
        if keys.point(index).is_some_and(|known| known != point) {
            tracing::error!("the signer gave a wrong per-commitment secret; it was not sent");
            return Err(());
        }
        keys.passed(index);
        self.journal.put(keys_path(keys_id), keys.encode());
        Ok(())
    }

    /// Public keys of a channel; LDK asks only for ids that it got from the pool.
    pub fn public_keys(&self, keys_id: &[u8; 32]) -> ChannelPublicKeys {
        if let Some(keys) = lock(&self.state).channels.get(keys_id) {
            return keys.public_keys.clone();
        }
        // Not reached, see `reserve`. Such a channel could never be signed for, so never funded.
        tracing::error!("channel keys were asked for that are not from the pool");
        ChannelPublicKeys {
            funding_pubkey: self.node_id,
            revocation_basepoint: RevocationBasepoint(self.node_id),
            payment_point: self.node_id,
            delayed_payment_basepoint: DelayedPaymentBasepoint(self.node_id),
            htlc_basepoint: HtlcBasepoint(self.node_id),
        }
    }

    /// Keychain and index of a script of the owner's wallet, so that the phone can see that it is its own.
    pub fn path_of(&self, script: &bitcoin::Script) -> Option<(u32, u32)> {
        lock(&self.wallet).path_of(script)
    }

    pub fn revocation_basepoint_secret(&self, keys_id: &[u8; 32]) -> Option<SecretKey> {
        lock(&self.state)
            .channels
            .get(keys_id)?
            .revocation_basepoint_secret
    }

    /// The shared secret of the node key with `other`, when it was fetched.
    pub fn shared_secret(&self, other: &PublicKey) -> Option<[u8; 32]> {
        let state = lock(&self.state);
        let secret = state.shared_secrets.get(other);
        secret.or_else(|| state.handshakes.get(other)).copied()
    }

    /// Keys id that was reserved for this channel.
    pub fn keys_id_of(&self, user_channel_id: u128) -> Option<[u8; 32]> {
        let state = lock(&self.state);
        let mut all = state.channels.iter();
        all.find(|(_, keys)| keys.user_channel_id == Some(user_channel_id))
            .map(|(id, _)| *id)
    }

    // -- What the actor does, outside of LDK.

    /// Takes keys from the pool for a channel about to be made. `None` while the pool is empty.
    pub fn reserve(&self, user_channel_id: u128, counterparty: PublicKey) -> Option<[u8; 32]> {
        let mut state = lock(&self.state);
        let keys_id = state.pool.pop_front()?;
        state.counterparties.insert(keys_id, counterparty);
        let keys = state.channels.get_mut(&keys_id)?;
        keys.user_channel_id = Some(user_channel_id);
        self.journal.put(keys_path(&keys_id), keys.encode());
        Some(keys_id)
    }

    /// A channel came to nothing: forgets its keys, unless the phone was told of it. Strangers may begin as many
    /// channels as they like.
    pub fn forget_channel(&self, user_channel_id: u128) {
        self.forget_channels(|id| id == user_channel_id);
    }

    /// As [`Remote::forget_channel`], for all but these.
    pub fn retain_channels(&self, alive: &HashSet<u128>) {
        self.forget_channels(|id| !alive.contains(&id));
    }

    fn forget_channels(&self, is_over: impl Fn(u128) -> bool) {
        let mut state = lock(&self.state);
        let unused = |(keys_id, keys): (&[u8; 32], &ChannelKeys)| {
            let over = !keys.set_up && keys.user_channel_id.is_some_and(&is_over);
            (over && !state.desk.must_hear_of(keys_id)).then_some(*keys_id)
        };
        let unused: Vec<[u8; 32]> = state.channels.iter().filter_map(unused).collect();
        for keys_id in unused {
            state.channels.remove(&keys_id);
            state.counterparties.remove(&keys_id);
            self.journal.delete(keys_path(&keys_id));
        }
    }

    /// Asks for new channel keys when the pool is low.
    pub fn fill_pool(&self, random: impl Fn() -> [u8; 32]) {
        let mut state = lock(&self.state);
        if state.pool_refused {
            return;
        }
        let asked = state
            .desk
            .wanted_ops()
            .filter(|op| matches!(op.op, Some(Op::NewChannelKeys(_))))
            .count();
        for _ in (state.pool.len() + asked)..POOL_SIZE {
            let op = NewChannelKeys {
                channel_keys_id: random().to_vec(),
                points: POINTS_AT_ONCE,
            };
            let op = node_op(Op::NewChannelKeys(op));
            state.desk.want(key_of(&op), op);
        }
    }

    /// Asks for what LDK will need to read this onion.
    pub fn peel(&self, onion: &PublicKey, path_key: Option<&PublicKey>, cltv_expiry: u32) {
        let path_key = path_key
            .map(|key| key.serialize().to_vec())
            .unwrap_or_default();
        let peel = StoredPeel {
            onion_public_key: onion.serialize().to_vec(),
            path_key,
            cltv_expiry,
            ..StoredPeel::default()
        };
        let op = peel_op(&peel);
        let key = key_of(&op);
        let mut state = lock(&self.state);
        if let Some(known) = state.peels.get_mut(&key) {
            // Used again, and needed for longer.
            if known.cltv_expiry < cltv_expiry {
                known.cltv_expiry = cltv_expiry;
                self.journal.put(peel_path(&key), known.encode_to_vec());
            }
            return;
        }
        self.journal.put(peel_path(&key), peel.encode_to_vec());
        state.peels.insert(key, peel);
        state.desk.want(key, op);
    }

    /// True while LDK must not process forwards: it would `unwrap` an onion secret that is not here yet.
    pub fn peels_pending(&self) -> bool {
        lock(&self.state).desk.peels_pending()
    }

    /// Asks for the one secret a handshake needs; true when it is there.
    pub fn prefetch_handshake(&self, ephemeral: &PublicKey) -> bool {
        let mut state = lock(&self.state);
        if state.handshakes.contains_key(ephemeral) {
            return true;
        }
        let op = Op::Ecdh(Ecdh {
            public_key: ephemeral.serialize().to_vec(),
        });
        let Some(Answer::SharedSecret(secret)) = state.desk.ask(node_op(op)).answer() else {
            return false;
        };
        // Answered before, to a peer that uses its key again.
        let secret = <[u8; 32]>::try_from(&secret[..]);
        secret.is_ok_and(|secret| {
            state.handshakes.insert(*ephemeral, secret);
            true
        })
    }

    /// Forgets the handshakes that are over, or whose connection is gone: all but those with `waiting`.
    pub fn retain_handshakes(&self, waiting: &[PublicKey]) {
        let mut state = lock(&self.state);
        state.handshakes.retain(|key, _| waiting.contains(key));
        let is_over = |op: &SignerOp| match &op.op {
            Some(Op::Ecdh(ecdh)) => {
                let mut waiting = waiting.iter();
                !waiting.any(|key| key.serialize()[..] == ecdh.public_key[..])
            }
            _ => false,
        };
        let over: Vec<OpKey> = state
            .desk
            .wanted_ops()
            .filter(|op| is_over(op))
            .map(key_of)
            .collect();
        for key in over {
            state.desk.withdraw(&key);
        }
    }

    /// Drops the answers of onions whose HTLCs are long over.
    pub fn prune(&self, height: u32) {
        let mut state = lock(&self.state);
        let over = |peel: &StoredPeel| peel.cltv_expiry.saturating_add(PEEL_KEPT_BLOCKS) < height;
        let old: Vec<OpKey> = state
            .peels
            .iter()
            .filter(|(_, peel)| over(peel))
            .map(|(key, _)| *key)
            .collect();
        for key in old {
            if let Some(peel) = state.peels.remove(&key)
                && let Ok(onion) = PublicKey::from_slice(&peel.onion_public_key)
            {
                state.shared_secrets.remove(&onion);
            }
            state.desk.withdraw(&key);
            self.journal.delete(peel_path(&key));
        }
    }

    /// Whether [`Remote::next_batch`] has one.
    pub fn has_batch(&self) -> bool {
        lock(&self.state).desk.has_batch()
    }

    pub fn next_batch(&self) -> Option<(Vec<OpKey>, SignerBatch)> {
        lock(&self.state).desk.next_batch()
    }

    pub fn lost(&self, keys: &[OpKey]) {
        lock(&self.state).desk.lost(keys);
    }

    /// No operation waits for the phone.
    pub fn is_idle(&self) -> bool {
        lock(&self.state).desk.is_idle()
    }

    /// The peer has signed a commitment of ours.
    pub fn validated(&self, keys_id: [u8; 32], commitment: &HolderCommitmentTransaction) {
        let incoming = &mut lock(&self.state).incoming;
        incoming.signed(&self.journal, keys_id, commitment);
    }

    /// The incoming HTLCs of our newest commitment of a channel.
    pub fn incoming_htlcs(&self, user_channel_id: u128) -> Vec<IncomingHtlc> {
        let keys_id = self.keys_id_of(user_channel_id);
        keys_id.map_or_else(Vec::new, |id| lock(&self.state).incoming.of(&id).to_vec())
    }

    /// Remembers which incoming HTLCs the peer's newest signed commitment carries.
    pub fn signed(&self, keys_id: &[u8; 32], commitment: &CommitmentTransaction) {
        let hashes = commitment
            .nondust_htlcs()
            .iter()
            // The peer's commitment: what it offers is what comes in here.
            .filter(|htlc| htlc.offered)
            .map(|htlc| htlc.payment_hash)
            .collect();
        lock(&self.state).signed_htlcs.insert(*keys_id, hashes);
    }

    /// True while the phone is asked to sign a commitment without this HTLC, and the one signed before
    /// it has it: the next `commitment_signed` is then sure to take it away.
    pub fn is_signing_without(&self, keys_id: &[u8; 32], hash: &PaymentHash) -> bool {
        let state = lock(&self.state);
        if !state
            .signed_htlcs
            .get(keys_id)
            .is_some_and(|signed| signed.contains(hash))
        {
            return false;
        }
        state.desk.wanted_for(keys_id).any(|op| match &op.op {
            Some(Op::SignCounterpartyCommitment(sign)) => {
                let commitment = CommitmentTransaction::read(&mut &sign.commitment[..]);
                commitment.is_ok_and(|commitment| {
                    commitment
                        .nondust_htlcs()
                        .iter()
                        .all(|htlc| htlc.payment_hash != *hash)
                })
            }
            _ => false,
        })
    }

    /// The phone is gone, or a new link begins: LDK asks again for what it still needs.
    pub fn forget(&self) {
        let mut state = lock(&self.state);
        state.desk.forget();
        state.pool_refused = false;
    }

    /// What was refused for now may be asked again.
    pub fn clear_retries(&self) {
        let mut state = lock(&self.state);
        state.desk.clear_retries();
        state.pool_refused = false;
    }

    /// Takes in a reply. LDK has to try again what waits for its signer.
    pub fn take_reply(&self, keys: &[OpKey], reply: SignerReply) {
        let mut state = lock(&self.state);
        for answered in state.desk.take_reply(keys, reply) {
            if let Answer::Refusal(refusal) = &answered.answer {
                tracing::warn!(rule = %refusal.rule, "the signer refused: {}", refusal.message);
            }
            match <[u8; 32]>::try_from(&answered.op.channel_keys_id[..]) {
                Ok(keys_id) => self.take_channel_answer(&mut state, keys_id, &answered),
                Err(_) => self.take_node_answer(&mut state, &answered),
            }
        }
    }

    fn take_channel_answer(&self, state: &mut State, keys_id: [u8; 32], answered: &Answered) {
        match (&answered.op.op, &answered.answer) {
            (Some(Op::GetPoints(asked)), Answer::Points(points)) => {
                let Some(keys) = state.channels.get_mut(&keys_id) else {
                    return;
                };
                let points = points
                    .points
                    .iter()
                    .map(|point| PublicKey::from_slice(point));
                let indices = (0..=asked.first_index).rev();
                keys.add_points(indices.zip(points.map_while(Result::ok)));
                self.journal.put(keys_path(&keys_id), keys.encode());
            }
            (Some(Op::SetupChannel(_)), Answer::Refusal(no)) => {
                state.setups_refused.insert(keys_id, no.message.clone());
                if no.rule == SETUP_LEDGER {
                    self.journal.delete(op_path(&answered.key));
                    self.drop_pool(state);
                }
            }
            (Some(Op::SetupChannel(_)), Answer::Done(_)) => {
                state.parameters_seen.remove(&keys_id);
                if let Some(keys) = state.channels.get_mut(&keys_id) {
                    keys.set_up = true;
                    self.journal.put(keys_path(&keys_id), keys.encode());
                }
                self.journal.delete(op_path(&answered.key));
            }
            (
                Some(Op::ValidateHolderCommitment(_) | Op::CounterpartyRevocation(_)),
                Answer::Done(_),
            ) => {
                self.journal.delete(op_path(&answered.key));
                state.desk.clear_retries();
            }
            _ => {}
        }
    }

    /// The phone has another ledger than the one that its keys were given with: it will take none of them.
    fn drop_pool(&self, state: &mut State) {
        for keys_id in std::mem::take(&mut state.pool) {
            state.channels.remove(&keys_id);
            self.journal.delete(keys_path(&keys_id));
        }
    }

    fn take_node_answer(&self, state: &mut State, answered: &Answered) {
        match (&answered.op.op, &answered.answer) {
            (Some(Op::NewChannelKeys(_)), Answer::NewChannelKeys(given)) => {
                let Some((keys_id, keys)) = read_new_keys(given) else {
                    tracing::error!("the signer gave channel keys that cannot be read");
                    state.pool_refused = true;
                    return;
                };
                self.journal.put(keys_path(&keys_id), keys.encode());
                state.channels.insert(keys_id, keys);
                state.pool.push_back(keys_id);
            }
            (Some(Op::PeelOnion(_)), Answer::PeelOnion(given)) => {
                self.take_peel(state, answered.key, given);
            }
            (Some(Op::Ecdh(asked)), Answer::SharedSecret(secret)) => {
                let point = PublicKey::from_slice(&asked.public_key);
                if let (Ok(point), Ok(secret)) = (point, <[u8; 32]>::try_from(&secret[..])) {
                    state.handshakes.insert(point, secret);
                }
            }
            (Some(Op::NewChannelKeys(_)), _) => state.pool_refused = true,
            _ => {}
        }
    }

    fn take_peel(&self, state: &mut State, key: OpKey, given: &PeelOnionAnswer) {
        let Some(peel) = state.peels.get(&key) else {
            return;
        };
        let answered = StoredPeel {
            onion_secret: given.onion_secret.clone(),
            path_secret: given.path_secret.clone(),
            ..peel.clone()
        };
        if state.learn_peel(&answered).is_none() {
            // Never stored: the node could not be loaded with it.
            tracing::error!("the signer gave onion secrets that cannot be read");
            return;
        }
        self.journal.put(peel_path(&key), answered.encode_to_vec());
        state.peels.insert(key, answered);
    }
}

impl State {
    fn restore_peel(&mut self, key: OpKey, peel: StoredPeel) -> Option<()> {
        if peel.onion_secret.is_empty() {
            self.desk.want(key, peel_op(&peel));
        } else {
            self.learn_peel(&peel)?;
        }
        self.peels.insert(key, peel);
        Some(())
    }

    fn learn_peel(&mut self, peel: &StoredPeel) -> Option<()> {
        let pairs = [
            (&peel.onion_public_key, &peel.onion_secret),
            (&peel.path_key, &peel.path_secret),
        ];
        for (key, secret) in pairs {
            if !key.is_empty() {
                let secret = <[u8; 32]>::try_from(&secret[..]).ok()?;
                self.shared_secrets
                    .insert(PublicKey::from_slice(key).ok()?, secret);
            }
        }
        Some(())
    }
}

fn peel_op(peel: &StoredPeel) -> SignerOp {
    node_op(Op::PeelOnion(PeelOnion {
        onion_public_key: peel.onion_public_key.clone(),
        path_key: peel.path_key.clone(),
    }))
}

fn read_new_keys(given: &NewChannelKeysAnswer) -> Option<([u8; 32], ChannelKeys)> {
    let keys_id = <[u8; 32]>::try_from(&given.channel_keys_id[..]).ok()?;
    let public_keys = ChannelPublicKeys::read(&mut &given.public_keys[..]).ok()?;
    let revocation_basepoint_secret = super::records::secret(&given.revocation_basepoint_secret)?;
    if let Some(secret) = &revocation_basepoint_secret {
        let point = PublicKey::from_secret_key(&Secp256k1::signing_only(), secret);
        if point != public_keys.revocation_basepoint.0 {
            return None;
        }
    }
    let mut points = Vec::new();
    for (at, point) in given.points.iter().enumerate() {
        points.push((
            FIRST_INDEX.checked_sub(at as u64)?,
            PublicKey::from_slice(point).ok()?,
        ));
    }
    let keys = ChannelKeys::new(public_keys, points, revocation_basepoint_secret);
    Some((keys_id, keys))
}

/// An operation that waits for the phone across restarts.
#[derive(Clone, PartialEq, Message)]
struct StoredOp {
    #[prost(fixed64, tag = "1")]
    order: u64,
    #[prost(message, optional, tag = "2")]
    op: Option<SignerOp>,
}
