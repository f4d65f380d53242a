//! Proofs for the phone of what the chain has of its channels: that a funding is in a block, later the transaction that spends it, and when
//! that is a commitment, each transaction that spends an output of it. HTLCs of a channel without the first do not count there; by the last
//! the phone sees what became of those that were in the commitment.
//!
//! Proofs are made only while a phone is attached that follows the chain: each takes a whole block. The record of a channel is what the
//! phone has been shown of it, and what it has still to be shown. It is written when the phone has taken the proof of the funding, and
//! whenever a block has more. It stays until a cooperative close is proven, and after another close for 4,032 blocks, or twice as many when
//! the phone was not shown all of it ([`records`]). What a reorganisation has put into another block is proven again.
//!
//! A channel's proofs go one by one, in the order of the chain: the phone refuses one that spends a close which it has not seen. Spends are
//! noted from the close on nevertheless, since they may be in the same block, or come while the phone is away.

mod records;

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use bitcoin::{BlockHash, Transaction};
use lightning::chain::Confirm;
use lightning::ln::channel_state::ChannelDetails;
use longhand_chain::{ChainError, Proof};
use longhand_proto::signer::ProveTransaction;
use longhand_proto::signer::signer_op::Op;

use crate::api::NodeError;
use crate::keys::remote::Remote;
use crate::machine::turn::Turn;
use crate::store::journal::Journal;
use crate::store::schema::{self, key};

pub(crate) use records::ProofRequest;
use records::{KeysId, Of, Proven};

/// So long an invoice waits for a proof, and for the headers before it: the source may be slow, or away.
const PATIENCE: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Default)]
pub(crate) struct FundingProofs {
    /// By channel, see the module.
    proven: BTreeMap<KeysId, Proven>,
    /// One of a channel at most; the last goes first.
    due: Vec<ProofRequest>,
    /// See [`FundingProofs::awaited_until`].
    awaited_until: Option<Instant>,
    /// At the chain.
    asked: Option<ProofRequest>,
    /// At the phone, one of a channel. One that it refuses for good stays here, and so is not shown again while it is attached.
    shown: Vec<ProofRequest>,
    /// Shown to a phone that was gone before it took them. They come after others of their channel: one that every phone refuses must not
    /// keep those back for ever.
    put_off: HashSet<ProofRequest>,
    /// The source could not prove these, and is not asked again while this phone is attached: it has pruned the block, say.
    failed: HashSet<ProofRequest>,
}

impl FundingProofs {
    /// Reads back what was proven.
    ///
    /// # Errors
    /// [`NodeError::Load`] when a record cannot be read.
    pub fn load(journal: &Journal) -> Result<FundingProofs, NodeError> {
        let unreadable = || NodeError::Load("the record of a channel's proof".into());
        let mut loaded = FundingProofs::default();
        for (name, bytes) in journal.loaded(key::PROVEN) {
            let keys_id = schema::proven_keys_id(&name).ok_or_else(unreadable)?;
            let proven = Proven::decode(&bytes).ok_or_else(unreadable)?;
            loaded.proven.insert(keys_id, proven);
        }
        Ok(loaded)
    }

    /// Another phone than before is attached: it was shown nothing.
    pub fn forget(&mut self, journal: &Journal) {
        for keys_id in std::mem::take(&mut self.proven).into_keys() {
            journal.delete(schema::proven_key(&keys_id));
        }
        self.put_off.clear();
    }

    /// A block has these transactions, in this order: notes which of them close a channel, or spend an output of a close.
    pub fn block_connected<'a>(
        &mut self,
        journal: &Journal,
        (height, block): (u32, BlockHash),
        transactions: impl Iterator<Item = &'a Transaction>,
    ) {
        let transactions: Vec<&Transaction> = transactions.collect();
        for (keys_id, proven) in &mut self.proven {
            let mut is_new = false;
            for transaction in &transactions {
                is_new |= proven.notice(height, block, transaction);
            }
            if is_new {
                journal.put(schema::proven_key(keys_id), proven.encode());
            }
        }
    }

    /// Drops the records of channels that were closed long before `height`. A phone that was away all the time is shown the close first.
    pub fn forget_deep(&mut self, journal: &Journal, height: u32) {
        self.proven.retain(|keys_id, proven| {
            let is_over = proven.is_over(height);
            if is_over {
                journal.delete(schema::proven_key(keys_id));
            }
            !is_over
        });
    }

    /// The node is at the chain's tip, a phone that follows the chain is attached, or has taken a proof: looks what is to be proven to it.
    pub fn look(&mut self, turn: &Turn) {
        let Some(remote) = turn.remote() else { return };
        let fundings = self.fundings(turn, remote);
        self.due = self.closings(&fundings);
        self.due.extend(fundings);
        if self.due.iter().any(ProofRequest::is_awaited) {
            self.awaited_until = Some(turn.now.instant + PATIENCE);
        }
    }

    /// Fundings of open channels that the phone was not shown where they are now.
    fn fundings(&self, turn: &Turn, remote: &Remote) -> Vec<ProofRequest> {
        let confirmed = turn.ldk.manager.get_relevant_txids();
        let unproven = |channel: ChannelDetails| {
            let keys_id = remote.keys_id_of(channel.user_channel_id)?;
            let outpoint = channel.funding_txo?.into_bitcoin_outpoint();
            let mut confirmed = confirmed.iter();
            let block =
                confirmed.find_map(|(txid, _, block)| block.filter(|_| *txid == outpoint.txid))?;
            let known = self.proven.get(&keys_id).map(|proven| proven.block);
            let request = ProofRequest {
                keys_id,
                block,
                txid: outpoint.txid,
                of: Of::Funding(outpoint),
            };
            let is_tried = self.failed.contains(&request)
                || self.shown.contains(&request)
                || self.asked == Some(request);
            (known != Some(block) && !is_tried).then_some(request)
        };
        turn.channels().into_iter().filter_map(unproven).collect()
    }

    /// What is to be proven next of each closed channel, unless the phone has not answered the last, or a funding comes first.
    fn closings(&self, fundings: &[ProofRequest]) -> Vec<ProofRequest> {
        let has_funding = |keys_id: &KeysId| fundings.iter().any(|it| it.keys_id == *keys_id);
        let closed = self.proven.iter().filter(|(id, _)| !has_funding(id));
        let next = closed.filter_map(|(keys_id, proven)| {
            let unproven = proven.unproven(*keys_id);
            let mut under_way = self.shown.iter().chain(&self.asked);
            if under_way.any(|it| unproven.contains(it)) {
                return None;
            }
            let provable = unproven.into_iter().filter(|it| !self.failed.contains(it));
            provable.min_by_key(|it| self.put_off.contains(it))
        });
        next.collect()
    }

    /// Whether the phone was shown where the channel's funding is in the chain.
    pub fn is_shown(&self, turn: &Turn, channel: &ChannelDetails) -> bool {
        let remote = turn.remote();
        let keys_id = remote.and_then(|remote| remote.keys_id_of(channel.user_channel_id));
        let Some(proven) = keys_id.and_then(|keys_id| self.proven.get(&keys_id)) else {
            return false;
        };
        let confirmed = turn.ldk.manager.get_relevant_txids();
        let mut confirmed = confirmed.iter();
        confirmed
            .any(|(txid, _, block)| *txid == proven.outpoint.txid && *block == Some(proven.block))
    }

    /// Until when an invoice waits for the proof of a channel that it is to name; `None` when no proof is on its way.
    pub fn awaited_until(&self) -> Option<Instant> {
        let mut under_way = self.asked.iter().chain(&self.due).chain(&self.shown);
        let is_under_way = under_way.any(ProofRequest::is_awaited);
        self.awaited_until.filter(|_| is_under_way)
    }

    /// The proofs take too long.
    pub fn wait_no_longer(&mut self) {
        self.awaited_until = None;
    }

    /// The phone is gone: what it has not answered is shown to the next.
    pub fn signer_lost(&mut self) {
        self.due.clear();
        self.asked = None;
        self.put_off.extend(self.shown.drain(..));
        // The source may have them by then.
        self.failed.clear();
    }

    /// The next request, to be answered with [`FundingProofs::answered`].
    pub fn request(&mut self) -> Option<ProofRequest> {
        if self.asked.is_some() {
            return None;
        }
        self.asked = self.due.pop();
        self.asked
    }

    /// The chain has answered the last request.
    pub fn answered(&mut self, turn: &Turn, proof: Result<Proof, ChainError>) {
        let (Some(asked), Some(remote)) = (self.asked.take(), turn.remote()) else {
            return;
        };
        match proof {
            Ok(proof) => {
                let proof = proof.encode();
                remote.show_proof(
                    asked.keys_id,
                    Op::ProveTransaction(ProveTransaction { proof }),
                );
                self.shown.retain(|shown| shown.keys_id != asked.keys_id);
                self.shown.push(asked);
            }
            Err(error) => {
                tracing::warn!(%error, txid = %asked.txid, "a transaction of a channel cannot be proven to the phone");
                if !error.is_source_unavailable() {
                    self.failed.insert(asked);
                    // Another of the channel can perhaps be proven.
                    self.look(turn);
                }
            }
        }
    }

    /// Records what the phone has taken since.
    pub fn take_accepted(&mut self, turn: &Turn) {
        let Some(remote) = turn.remote() else { return };
        let channels = remote.take_proven();
        for keys_id in &channels {
            let at = self.shown.iter().position(|it| it.keys_id == *keys_id);
            if let Some(at) = at {
                let taken = self.shown.swap_remove(at);
                self.put_off.remove(&taken);
                self.accepted(&turn.journal, &taken);
            }
        }
        // The channel's next may follow at once.
        if !channels.is_empty() {
            self.look(turn);
        }
    }

    fn accepted(&mut self, journal: &Journal, taken: &ProofRequest) {
        let key = schema::proven_key(&taken.keys_id);
        let earlier = self.proven.remove(&taken.keys_id);
        match Proven::after(earlier, taken) {
            Some(proven) => {
                journal.put(key, proven.encode());
                self.proven.insert(taken.keys_id, proven);
            }
            None => journal.delete(key),
        }
    }
}

#[cfg(test)]
#[path = "tests/funding_proofs.rs"]
mod tests;
