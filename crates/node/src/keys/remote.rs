//! The keys of an owner whose phone holds them: those that the host has, and the desk at which the phone is asked for the
//! rest.
//!
//! [`Remote`] is only the composition of its parts, each a value in a file of its own, and gives each answer of the phone to
//! the part that asked. One lock guards them all. LDK calls in from under its own locks; nothing here calls out.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use bitcoin::secp256k1::{PublicKey, SecretKey};
use lightning::ln::chan_utils::{
    ChannelPublicKeys, ChannelTransactionParameters, CommitmentTransaction,
    HolderCommitmentTransaction,
};
use lightning::ln::channel_keys::{DelayedPaymentBasepoint, HtlcBasepoint, RevocationBasepoint};
use lightning::ln::channel_state::ChannelDetails;
use lightning::types::payment::PaymentHash;
use lightning::util::ser::Readable;
use longhand_proto::rule::Rule;
use longhand_proto::signer::signer_answer::Answer;
use longhand_proto::signer::signer_op::Op;
use longhand_proto::signer::{ChannelTerms, SignerBatch, SignerOp, SignerReply, WantedFilters};

use super::channel_keys::KeysId;
use super::closes::Closes;
use super::desk::{Answered, Asked, Desk, OpKey, channel_op, key_of, node_op};
use super::durable_ops::DurableOps;
use super::handshakes::{Handshakes, PeerAct, Secret};
use super::incoming::{IncomingHtlc, IncomingHtlcs};
use super::onions::{IncomingOnion, OnionSecrets, OpenHtlcs};
use super::pool::KeyPool;
use super::setups::Setups;
use crate::store::journal::{Journal, lock};
use crate::wallet::SharedWallet;

/// See the module.
pub(crate) struct Remote {
    /// The owner's node id.
    pub node_id: PublicKey,
    journal: Arc<Journal>,
    wallet: SharedWallet,
    state: Mutex<State>,
}

struct State {
    desk: Desk,
    durable_ops: DurableOps,
    closes: Closes,
    pool: KeyPool,
    setups: Setups,
    incoming: IncomingHtlcs,
    onions: OnionSecrets,
    handshakes: Handshakes,
    /// The signer has refused headers that may be taken later, since this was last asked.
    has_refused_headers: bool,
    /// Channels of which the phone has taken a proof, since this was last asked.
    proven: Vec<KeysId>,
    /// The phone has refused a preimage until it sees that a channel is open, since this was last asked.
    has_unwatched: bool,
    /// Which filters the phone wants, since this was last asked; `Some(None)` when it has refused some.
    wanted_filters: Option<Option<WantedFilters>>,
}

impl Remote {
    /// Reads back what the journal has loaded. `None` when a record cannot be read.
    pub fn load(node_id: PublicKey, journal: Arc<Journal>, wallet: SharedWallet) -> Option<Remote> {
        let mut desk = Desk::default();
        let state = State {
            pool: KeyPool::load(&journal)?,
            incoming: IncomingHtlcs::load(&journal)?,
            onions: OnionSecrets::load(&journal, &mut desk)?,
            durable_ops: DurableOps::load(&journal, &mut desk)?,
            closes: Closes::default(),
            setups: Setups::default(),
            handshakes: Handshakes::default(),
            has_refused_headers: false,
            proven: Vec::new(),
            has_unwatched: false,
            wanted_filters: None,
            desk,
        };
        Some(Remote {
            node_id,
            journal,
            wallet,
            state: Mutex::new(state),
        })
    }
}

/// Operations of the node and of its channels.
impl Remote {
    /// The answer to an operation of a channel; `None` when it is requested or refused.
    pub fn ask(&self, keys_id: KeysId, op: Op) -> Option<Answer> {
        self.ask_channel(keys_id, op).answer()
    }

    /// The answer to an operation of the node; `None` when it is requested or refused.
    pub fn ask_node(&self, op: Op) -> Option<Answer> {
        self.ask_owner(op).answer()
    }

    /// The state of an operation of a channel, which is requested when it is new.
    pub fn ask_channel(&self, keys_id: KeysId, op: Op) -> Asked {
        lock(&self.state).desk.ask(channel_op(keys_id, op))
    }

    /// The state of an operation of the node, which is requested when it is new.
    pub fn ask_owner(&self, op: Op) -> Asked {
        lock(&self.state).desk.ask(node_op(op))
    }

    /// Requests an operation of the node before all others.
    pub fn ask_first(&self, op: Op) {
        lock(&self.state).desk.want_at_front(node_op(op));
    }

    /// Shows the phone a proof, in place of an earlier one of the same channel.
    pub fn show_proof(&self, keys_id: KeysId, op: Op) {
        let desk = &mut lock(&self.state).desk;
        let is_proof = |op: &&SignerOp| matches!(op.op, Some(Op::ProveTransaction(_)));
        let earlier = desk.wanted_for(&keys_id).filter(is_proof).map(key_of);
        let op = channel_op(keys_id, op);
        // Also the answer to the same proof before: a reorganisation may have brought the block back.
        for key in earlier.chain([key_of(&op)]).collect::<Vec<_>>() {
            desk.withdraw(&key);
        }
        desk.ask(op);
    }

    /// Channels of which the phone has taken a proof, since this was last asked.
    pub fn take_proven(&self) -> Vec<KeysId> {
        std::mem::take(&mut lock(&self.state).proven)
    }

    /// Whether the signer has refused headers that may be taken later, since this was last asked.
    pub fn take_refused_headers(&self) -> bool {
        std::mem::take(&mut lock(&self.state).has_refused_headers)
    }

    /// Whether the phone has refused a preimage until it sees that a channel is open, since this was last asked.
    pub fn take_unwatched(&self) -> bool {
        std::mem::take(&mut lock(&self.state).has_unwatched)
    }

    /// Which filters of blocks the phone wants, if it has said so since this was last asked; `Some(None)` when it has refused some.
    pub fn take_wanted_filters(&self) -> Option<Option<WantedFilters>> {
        lock(&self.state).wanted_filters.take()
    }

    /// Requests an operation that must be answered before the channel goes on, also after a restart.
    pub fn must_reach_phone(&self, keys_id: KeysId, op: Op) {
        lock(&self.state).want_durable(&self.journal, channel_op(keys_id, op));
    }
}

/// Keys of channels.
impl Remote {
    /// Requests new channel keys when the pool is low.
    pub fn fill_pool(&self, random: impl Fn() -> [u8; 32]) {
        let state = &mut *lock(&self.state);
        state.pool.fill(&mut state.desk, random);
    }

    /// Reserves keys for a channel that is about to be made. `None` while the pool is empty.
    pub fn reserve(&self, user_channel_id: u128, counterparty: PublicKey) -> Option<KeysId> {
        let mut state = lock(&self.state);
        let keys_id = state.pool.reserve(&self.journal, user_channel_id)?;
        state.setups.begin(keys_id, counterparty);
        Some(keys_id)
    }

    /// The keys that were reserved for a channel.
    pub fn keys_id_of(&self, user_channel_id: u128) -> Option<KeysId> {
        lock(&self.state).pool.keys_id_of(user_channel_id)
    }

    /// How many blocks the owner wants to confirm the channel for which keys were reserved, if it is of this size.
    pub fn funding_depth(&self, user_channel_id: u128, funding_sat: u64) -> Option<u32> {
        let pool = &lock(&self.state).pool;
        let keys_id = pool.keys_id_of(user_channel_id)?;
        pool.get(&keys_id)?.funding_depth(funding_sat)
    }

    /// Removes the keys of a channel that has failed, unless the phone was given its parameters: strangers may begin as
    /// many channels as they like.
    pub fn forget_channel(&self, user_channel_id: u128) {
        self.forget_channels(|id| id == user_channel_id);
    }

    /// As [`Remote::forget_channel`], for all channels but these.
    pub fn retain_channels(&self, alive: &HashSet<u128>) {
        self.forget_channels(|id| !alive.contains(&id));
    }

    fn forget_channels(&self, is_over: impl Fn(u128) -> bool) {
        let mut state = lock(&self.state);
        for keys_id in state.pool.unused(is_over) {
            if !state.desk.has_durable_op(&keys_id) {
                state.pool.remove(&self.journal, &keys_id);
                state.setups.remove(&keys_id);
            }
        }
    }

    /// The public keys of a channel. LDK asks only for keys that were reserved.
    pub fn public_keys(&self, keys_id: &KeysId) -> ChannelPublicKeys {
        if let Some(keys) = lock(&self.state).pool.get(keys_id) {
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

    /// A per-commitment point, when it was fetched.
    pub fn point(&self, keys_id: &KeysId, index: u64) -> Option<PublicKey> {
        let state = &mut *lock(&self.state);
        state.pool.point(&mut state.desk, keys_id, index)
    }

    /// Refuses a per-commitment secret, before it is released, that does not belong to the point that the peer was given.
    pub fn check_secret(&self, keys_id: &KeysId, index: u64, secret: &SecretKey) -> Result<(), ()> {
        let pool = &mut lock(&self.state).pool;
        pool.check_secret(&self.journal, keys_id, index, secret)
    }

    pub fn revocation_basepoint_secret(&self, keys_id: &KeysId) -> Option<SecretKey> {
        let state = lock(&self.state);
        state.pool.get(keys_id)?.revocation_basepoint_secret
    }

    /// Keychain and index of a script of the owner's wallet, by which the phone sees that it is its own.
    pub fn path_of(&self, script: &bitcoin::Script) -> Option<(u32, u32)> {
        lock(&self.wallet).path_of(script)
    }
}

/// Commitments of channels.
impl Remote {
    /// Gives the phone a channel's parameters, once, before anything else of that channel.
    pub fn set_up(&self, keys_id: KeysId, parameters: &ChannelTransactionParameters) {
        let mut state = lock(&self.state);
        let Some(keys) = state.pool.get(&keys_id).filter(|keys| !keys.set_up) else {
            return;
        };
        let id = keys.user_channel_id;
        if let Some(setup) = state.setups.request(keys_id, id, parameters) {
            state.want_durable(&self.journal, channel_op(keys_id, Op::SetupChannel(setup)));
        }
    }

    /// LDK has accepted these terms of a peer's, for a channel for which keys were reserved.
    pub fn set_terms(&self, user_channel_id: u128, terms: ChannelTerms) {
        let State { pool, setups, .. } = &mut *lock(&self.state);
        if let Some(keys_id) = pool.keys_id_of(user_channel_id) {
            setups.set_terms(keys_id, terms);
        }
    }

    /// The reason for which the phone refuses a channel.
    pub fn setup_refusal(&self, keys_id: &KeysId) -> Option<String> {
        lock(&self.state).setups.refusal(keys_id)
    }

    /// The peer has signed this commitment of ours.
    pub fn holder_signed(&self, keys_id: KeysId, commitment: &HolderCommitmentTransaction) {
        let incoming = &mut lock(&self.state).incoming;
        incoming.holder_signed(&self.journal, keys_id, commitment);
    }

    /// The phone has signed this commitment of the peer.
    pub fn counterparty_signed(&self, keys_id: KeysId, commitment: &CommitmentTransaction) {
        let incoming = &mut lock(&self.state).incoming;
        incoming.counterparty_signed(keys_id, commitment);
    }

    /// The incoming HTLCs of our own newest commitment of a channel.
    pub fn incoming_htlcs(&self, user_channel_id: u128) -> Vec<IncomingHtlc> {
        let state = lock(&self.state);
        let keys_id = state.pool.keys_id_of(user_channel_id);
        keys_id.map_or_else(Vec::new, |id| state.incoming.of(&id).to_vec())
    }

    /// Whether the phone is asked to sign a commitment of the peer without this HTLC, and the one signed before has it: the
    /// next `commitment_signed` is then certain to remove it.
    pub fn is_signing_without(&self, keys_id: &KeysId, hash: &PaymentHash) -> bool {
        let state = lock(&self.state);
        state.incoming.is_in_counterparty(keys_id, hash)
            && state
                .desk
                .wanted_for(keys_id)
                .any(|op| signs_without(op, hash))
    }
}

/// Cooperative closes.
impl Remote {
    /// LDK has asked for the signature of a close, and got it or not.
    pub fn close_asked(&self, keys_id: KeysId, is_signed: bool) {
        lock(&self.state).closes.asked(keys_id, is_signed);
    }

    /// The peer of these channels has disconnected.
    pub fn interrupt_closes(&self, channels: &[ChannelDetails]) {
        let State { closes, pool, .. } = &mut *lock(&self.state);
        for channel in channels {
            if let Some(keys_id) = pool.keys_id_of(channel.user_channel_id) {
                closes.interrupt(&keys_id);
            }
        }
    }

    /// Whether [`Remote::without_interrupted_closes`] removes any.
    pub fn has_interrupted_close(&self) -> bool {
        lock(&self.state).closes.any_interrupted()
    }

    /// Those of the node's open channels that LDK may be unblocked for.
    pub fn without_interrupted_closes(&self, mut open: Vec<ChannelDetails>) -> Vec<ChannelDetails> {
        let State { closes, pool, .. } = &mut *lock(&self.state);
        let keys_id = |channel: &ChannelDetails| pool.keys_id_of(channel.user_channel_id);
        closes.retain(&open.iter().filter_map(keys_id).collect::<Vec<_>>());
        let is_interrupted = |id: KeysId| closes.is_interrupted(&id);
        open.retain(|channel| !keys_id(channel).is_some_and(is_interrupted));
        open
    }
}

/// Secrets of onions and handshakes.
impl Remote {
    /// The shared secret of the node key with `other`, when it was fetched.
    pub fn shared_secret(&self, other: &PublicKey) -> Option<[u8; 32]> {
        let state = lock(&self.state);
        let of_onion = state.onions.secret(other);
        of_onion.or_else(|| state.handshakes.secret(other))
    }

    /// Requests the secrets that LDK needs to read this onion.
    pub fn peel(&self, incoming: &IncomingOnion<'_>) {
        let state = &mut *lock(&self.state);
        let (onions, desk) = (&mut state.onions, &mut state.desk);
        onions.request(&self.journal, desk, incoming);
    }

    /// Removes the secrets of onions whose HTLCs are no longer in their channels; `open` has those of the channels that are
    /// looked at.
    pub fn retain_onions(&self, open: &OpenHtlcs, is_disconnected: bool) {
        let state = &mut *lock(&self.state);
        let (onions, desk) = (&mut state.onions, &mut state.desk);
        onions.retain_open(&self.journal, desk, open, is_disconnected);
    }

    /// True while LDK must not process forwards: it would `unwrap` an onion secret that is not here yet.
    pub fn peels_pending(&self) -> bool {
        lock(&self.state).desk.peels_pending()
    }

    /// Removes the secrets of onions whose HTLCs have expired long before `height`.
    pub fn prune(&self, height: u32) {
        let state = &mut *lock(&self.state);
        let (onions, desk) = (&mut state.onions, &mut state.desk);
        onions.prune(&self.journal, desk, height);
    }

    /// Requests the secret of a handshake.
    pub fn prefetch_handshake(&self, act: &PeerAct) -> Secret {
        let state = &mut *lock(&self.state);
        state.handshakes.prefetch(&mut state.desk, act)
    }

    /// Keeps only the handshakes that are `waiting`: others are over, or their connection is closed.
    pub fn retain_handshakes(&self, waiting: &[PeerAct]) {
        let state = &mut *lock(&self.state);
        state.handshakes.retain(&mut state.desk, waiting);
    }
}

/// Batches to the phone, and its replies.
impl Remote {
    /// Whether [`Remote::next_batch`] returns one.
    pub fn has_batch(&self) -> bool {
        lock(&self.state).desk.has_batch()
    }

    /// See [`Desk::next_batch`].
    pub fn next_batch(&self) -> Option<(Vec<OpKey>, SignerBatch)> {
        lock(&self.state).desk.next_batch()
    }

    /// Whether the phone is asked to sign a cooperative close.
    pub fn is_signing_close(&self) -> bool {
        lock(&self.state).desk.is_signing_close()
    }

    /// The signer went away before it answered the batch of these operations.
    pub fn lost(&self, keys: &[OpKey]) {
        lock(&self.state).desk.lost(keys);
    }

    /// Whether no operation waits for the phone.
    pub fn is_idle(&self) -> bool {
        lock(&self.state).desk.is_idle()
    }

    /// The phone is gone, or a new link begins: LDK asks again for what it still needs.
    pub fn forget(&self) {
        let mut state = lock(&self.state);
        state.desk.forget();
        state.pool.clear_refusal();
    }

    /// Another phone has come: it has another ledger, and accepts no keys that are not in it.
    pub fn remove_free_keys(&self) {
        lock(&self.state).pool.remove_free(&self.journal);
    }

    /// Operations that were refused with `retry` may be asked again.
    pub fn clear_retries(&self) {
        let mut state = lock(&self.state);
        state.desk.clear_retries();
        state.pool.clear_refusal();
    }

    /// Takes the reply to a batch. Afterwards LDK has to retry whatever waits for its signer.
    pub fn take_reply(&self, keys: &[OpKey], reply: SignerReply) {
        let mut state = lock(&self.state);
        for answered in state.desk.take_reply(keys, reply) {
            match &answered.answer {
                // As a preimage before its HTLC is committed: it is asked for again.
                Answer::Refusal(refusal) if refusal.retry => {
                    tracing::debug!(rule = %refusal.rule, "the signer waits: {}", refusal.message);
                }
                Answer::Refusal(refusal) => {
                    tracing::warn!(rule = %refusal.rule, "the signer refused: {}", refusal.message);
                }
                _ => {}
            }
            match KeysId::try_from(&answered.op.channel_keys_id[..]) {
                Ok(keys_id) => state.take_channel_answer(&self.journal, keys_id, &answered),
                Err(_) => state.take_node_answer(&self.journal, &answered),
            }
        }
    }
}

impl State {
    fn want_durable(&mut self, journal: &Journal, op: SignerOp) {
        self.durable_ops.want(journal, &mut self.desk, op);
    }

    fn take_channel_answer(&mut self, journal: &Journal, keys_id: KeysId, answered: &Answered) {
        let Some(op) = &answered.op.op else { return };
        match (op, &answered.answer) {
            (Op::GetPoints(asked), Answer::Points(points)) => {
                let pool = &mut self.pool;
                pool.add_points(journal, &keys_id, asked, points);
            }
            // It is asked again then.
            (Op::SetupChannel(_), Answer::Refusal(refusal)) if refusal.retry => {}
            (Op::SetupChannel(_), Answer::Refusal(refusal)) => {
                self.setups.refused(keys_id, refusal.message.clone());
                // The phone did not give these keys with the ledger that it has.
                if refusal.is_by(Rule::SetupLedger) {
                    self.durable_ops.answered(journal, &answered.key);
                    self.pool.remove_free(journal);
                }
            }
            (Op::SetupChannel(_), Answer::Setup(setup)) => {
                let secret = &setup.revocation_basepoint_secret;
                self.setups.done(&keys_id);
                self.pool.set_up(journal, &keys_id, secret);
                self.durable_ops.answered(journal, &answered.key);
            }
            (Op::ValidateHolderCommitment(_) | Op::CounterpartyRevocation(_), Answer::Done(_)) => {
                self.durable_ops.answered(journal, &answered.key);
                self.desk.step_done();
            }
            (Op::ProveTransaction(_), Answer::Done(_)) => {
                self.proven.push(keys_id);
                self.desk.step_done();
            }
            _ => {}
        }
    }

    fn take_node_answer(&mut self, journal: &Journal, answered: &Answered) {
        let Some(op) = &answered.op.op else { return };
        match (op, &answered.answer) {
            (Op::NewChannelKeys(_), Answer::NewChannelKeys(keys)) => self.pool.add(journal, keys),
            (Op::NewChannelKeys(_), _) => self.pool.refused(),
            (Op::PeelOnion(_), Answer::SharedSecret(secret)) => {
                self.onions.add(journal, answered.key, secret);
            }
            (Op::Ecdh(asked), Answer::SharedSecret(secret)) => self.handshakes.add(asked, secret),
            (Op::ShowFilters(_), Answer::WantedFilters(wanted)) => {
                self.wanted_filters = Some(Some(*wanted));
            }
            (Op::ShowFilters(_), _) => self.wanted_filters = Some(None),
            (Op::GetPreimage(_), Answer::Refusal(refusal)) => {
                self.has_unwatched |= refusal.is_by(Rule::PreimageUnwatched);
            }
            // What was refused at an older tip may be answered now.
            (Op::ExtendHeaders(_), Answer::Done(_)) => self.desk.clear_retries(),
            (Op::ExtendHeaders(_), Answer::Refusal(refusal)) => {
                self.has_refused_headers |= refusal.retry;
            }
            _ => {}
        }
    }
}

/// Whether an operation is to sign a commitment of the peer that has no HTLC of this payment.
fn signs_without(op: &SignerOp, hash: &PaymentHash) -> bool {
    let Some(Op::SignCounterpartyCommitment(sign)) = &op.op else {
        return false;
    };
    CommitmentTransaction::read(&mut &sign.commitment[..]).is_ok_and(|commitment| {
        let mut htlcs = commitment.nondust_htlcs().iter();
        htlcs.all(|htlc| htlc.payment_hash != *hash)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use longhand_proto::signer::{
        Done, Refusal, SetupChannel, SignerAnswer, ValidateHolderCommitment,
    };

    use super::super::testing::{key, new_keys, reloaded};
    use super::*;
    use crate::wallet::new_wallet;

    const KEYS: KeysId = [1; 32];
    const CHANNEL: u128 = 5;

    fn load(journal: Journal) -> Remote {
        let wallet = Arc::new(Mutex::new(new_wallet()));
        Remote::load(key(1), Arc::new(journal), wallet).unwrap()
    }

    fn refusal(rule: &str, retry: bool) -> Answer {
        Answer::Refusal(Refusal {
            rule: rule.into(),
            message: "no".into(),
            retry,
        })
    }

    /// Answers the next batch, operation by operation.
    fn answer(remote: &Remote, answer: impl Fn(&Op) -> Answer) {
        let (keys, batch) = remote.next_batch().unwrap();
        let ops = batch.ops.iter().filter_map(|op| op.op.as_ref());
        let answers = ops.map(|op| SignerAnswer {
            answer: Some(answer(op)),
        });
        let answers = answers.collect();
        remote.take_reply(&keys, SignerReply { answers });
    }

    /// A phone that has given the keys `KEYS` for the channel `CHANNEL`.
    fn with_channel() -> Remote {
        let remote = load(Journal::default());
        remote.fill_pool(|| KEYS);
        answer(&remote, |_| Answer::NewChannelKeys(new_keys(KEYS, 7)));
        assert_eq!(remote.reserve(CHANNEL, key(2)), Some(KEYS));
        remote
    }

    fn validate() -> Op {
        Op::ValidateHolderCommitment(ValidateHolderCommitment::default())
    }

    #[test]
    fn an_operation_that_must_reach_the_phone_is_asked_across_restarts_until_it_is_answered() {
        let remote = with_channel();
        remote.must_reach_phone(KEYS, validate());

        let remote = load(reloaded(&remote.journal));
        assert!(remote.has_batch());
        answer(&remote, |_| Answer::Done(Done {}));

        // The keys were written before, and the operation is removed now.
        assert!(!load(reloaded(&remote.journal)).has_batch());
    }

    #[test]
    fn a_validated_commitment_lets_what_was_refused_for_now_be_asked_again() {
        let remote = with_channel();
        let sign = || Op::SignCounterpartyCommitment(Default::default());
        assert!(remote.ask(KEYS, sign()).is_none());
        answer(&remote, |_| refusal("not-yet", true));
        assert!(remote.ask(KEYS, sign()).is_none());
        assert!(!remote.has_batch());

        remote.must_reach_phone(KEYS, validate());
        answer(&remote, |_| Answer::Done(Done {}));
        assert!(remote.ask(KEYS, sign()).is_none());
        assert!(remote.has_batch());
    }

    #[test]
    fn a_channel_is_forgotten_unless_the_phone_must_learn_of_it() {
        let remote = with_channel();
        remote.must_reach_phone(KEYS, validate());
        remote.forget_channel(CHANNEL);
        assert_eq!(remote.keys_id_of(CHANNEL), Some(KEYS));

        answer(&remote, |_| Answer::Done(Done {}));
        remote.retain_channels(&HashSet::from([CHANNEL]));
        assert_eq!(remote.keys_id_of(CHANNEL), Some(KEYS));
        remote.retain_channels(&HashSet::new());
        assert_eq!(remote.keys_id_of(CHANNEL), None);
    }

    #[test]
    fn a_phone_with_another_ledger_refuses_the_channel_and_gets_no_keys_of_the_old_one() {
        let remote = with_channel();
        remote.fill_pool(|| [2; 32]);
        answer(&remote, |_| Answer::NewChannelKeys(new_keys([2; 32], 8)));
        remote.must_reach_phone(KEYS, Op::SetupChannel(SetupChannel::default()));
        answer(&remote, |_| refusal(Rule::SetupLedger.name(), false));

        assert_eq!(remote.setup_refusal(&KEYS), Some("no".into()));
        assert_eq!(remote.reserve(CHANNEL + 1, key(2)), None);
        assert!(!load(reloaded(&remote.journal)).has_batch());
    }

    #[test]
    fn the_secret_of_an_onion_goes_before_that_of_a_handshake_with_the_same_key() {
        let remote = load(Journal::default());
        let act = [&[0][..], &key(2).serialize(), &[7; 16]].concat();
        let act = PeerAct::read(&act, None).unwrap();
        assert_eq!(remote.prefetch_handshake(&act), Secret::Waiting);
        answer(&remote, |_| Answer::SharedSecret(vec![7; 32]));
        assert_eq!(remote.prefetch_handshake(&act), Secret::Ready);
        assert_eq!(remote.shared_secret(&key(2)), Some([7; 32]));

        remote.peel(&IncomingOnion {
            htlc: ([9; 32], 0),
            keys_id: KEYS,
            onion: &key(2),
            cltv_expiry: 100,
            update_add_htlc: vec![1],
        });
        assert!(remote.peels_pending());
        answer(&remote, |_| Answer::SharedSecret(vec![8; 32]));
        assert!(!remote.peels_pending());
        remote.retain_handshakes(&[]);
        assert_eq!(remote.shared_secret(&key(2)), Some([8; 32]));
    }

    #[test]
    fn a_phone_that_refuses_new_keys_is_asked_again_on_the_next_link() {
        let remote = load(Journal::default());
        remote.fill_pool(|| KEYS);
        answer(&remote, |_| refusal("rule", false));
        remote.fill_pool(|| [2; 32]);
        assert!(!remote.has_batch());
        remote.forget();
        remote.fill_pool(|| [3; 32]);
        assert!(remote.has_batch());
    }
}
