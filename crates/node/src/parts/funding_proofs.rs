//! Proofs for the phone of what the chain has of its channels: that a funding is in a block, and later the transaction that spends it. HTLCs of
//! a channel without the first do not count there.
//!
//! Proofs are made only while a phone is attached that follows the chain: each takes a whole block. The record of a channel is what the
//! phone has been shown of it; it is written when the phone has answered, and stays until the close is proven. A funding that a
//! reorganisation has put into another block is proven again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint, Transaction, Txid};
use lightning::chain::Confirm;
use lightning::ln::channel_state::ChannelDetails;
use longhand_chain::{ChainError, Proof};
use longhand_proto::signer::ProveTransaction;
use longhand_proto::signer::signer_op::Op;

use crate::api::NodeError;
use crate::machine::turn::Turn;
use crate::store::journal::Journal;
use crate::store::schema::{self, key};

/// So long an invoice waits for a proof, and for the headers before it: the source may be slow, or away.
const PATIENCE: Duration = Duration::from_secs(10);

/// The id of a channel's keys.
type KeysId = [u8; 32];

/// A request for a proof that a transaction is in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProofRequest {
    pub keys_id: KeysId,
    pub block: BlockHash,
    pub txid: Txid,
    of: Of,
}

/// What the transaction is to the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Of {
    Funding(OutPoint),
    Spend,
}

/// A channel whose funding was proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Proven {
    /// The block of the funding.
    block: BlockHash,
    outpoint: OutPoint,
    /// The transaction that spends the outpoint, and its block: to be proven.
    spend: Option<(BlockHash, Txid)>,
}

/// See the module.
#[derive(Default)]
pub(crate) struct FundingProofs {
    /// By channel, until its close is proven.
    proven: BTreeMap<KeysId, Proven>,
    due: Vec<ProofRequest>,
    /// See [`FundingProofs::awaited_until`].
    awaited_until: Option<Instant>,
    /// At the chain.
    asked: Option<ProofRequest>,
    /// At the phone.
    shown: Vec<ProofRequest>,
    /// The source could not prove these, and is not asked again before the node is loaded again: it has pruned the block, say.
    failed: Vec<ProofRequest>,
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
    }

    /// A block has these transactions: notes which of them close a channel.
    pub fn block_connected<'a>(
        &mut self,
        journal: &Journal,
        block: BlockHash,
        transactions: impl Iterator<Item = &'a Transaction>,
    ) {
        for transaction in transactions {
            for (keys_id, proven) in &mut self.proven {
                let mut inputs = transaction.input.iter();
                if inputs.any(|input| input.previous_output == proven.outpoint) {
                    proven.spend = Some((block, transaction.compute_txid()));
                    journal.put(schema::proven_key(keys_id), proven.encode());
                }
            }
        }
    }

    /// The node is at the chain's tip, or a phone that follows the chain is attached: looks what is to be proven to it.
    pub fn look(&mut self, turn: &Turn) {
        let Some(remote) = turn.remote() else { return };
        self.due.clear();
        for (keys_id, proven) in &self.proven {
            if let Some((block, txid)) = proven.spend {
                self.due.push(ProofRequest {
                    keys_id: *keys_id,
                    block,
                    txid,
                    of: Of::Spend,
                });
            }
        }
        let confirmed = turn.ldk.manager.get_relevant_txids();
        for channel in turn.channels() {
            let keys_id = remote.keys_id_of(channel.user_channel_id);
            let funding = channel.funding_txo.map(|it| it.into_bitcoin_outpoint());
            let Some((keys_id, outpoint)) = keys_id.zip(funding) else {
                continue;
            };
            let block = confirmed
                .iter()
                .find_map(|(txid, _, block)| block.filter(|_| *txid == outpoint.txid));
            let known = self.proven.get(&keys_id).map(|proven| proven.block);
            if let Some(block) = block.filter(|block| known != Some(*block)) {
                self.due.push(ProofRequest {
                    keys_id,
                    block,
                    txid: outpoint.txid,
                    of: Of::Funding(outpoint),
                });
            }
        }
        let (shown, failed) = (&self.shown, &self.failed);
        self.due
            .retain(|due| !shown.contains(due) && !failed.contains(due));
        if !self.due.is_empty() {
            self.awaited_until = Some(turn.now.instant + PATIENCE);
        }
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
        let is_under_way = self.asked.is_some() || !self.due.is_empty() || !self.shown.is_empty();
        self.awaited_until.filter(|_| is_under_way)
    }

    /// The proofs take too long.
    pub fn wait_no_longer(&mut self) {
        self.awaited_until = None;
    }

    /// The phone is gone: what it has not answered is shown to the next.
    pub fn signer_lost(&mut self) {
        self.due.clear();
        self.shown.clear();
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
                    self.failed.push(asked);
                }
            }
        }
    }

    /// Records what the phone has taken since.
    pub fn take_accepted(&mut self, turn: &Turn) {
        let Some(remote) = turn.remote() else { return };
        for keys_id in remote.take_proven() {
            let at = self.shown.iter().position(|it| it.keys_id == keys_id);
            let Some(shown) = at.map(|at| self.shown.swap_remove(at)) else {
                continue;
            };
            let key = schema::proven_key(&keys_id);
            match shown.of {
                Of::Funding(outpoint) => {
                    let proven = Proven {
                        block: shown.block,
                        outpoint,
                        spend: None,
                    };
                    turn.journal.put(key, proven.encode());
                    self.proven.insert(keys_id, proven);
                }
                Of::Spend => {
                    turn.journal.delete(key);
                    self.proven.remove(&keys_id);
                }
            }
        }
    }
}

impl Proven {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.block.as_byte_array().to_vec();
        bytes.extend(serialize(&self.outpoint));
        if let Some((block, txid)) = &self.spend {
            bytes.extend(block.as_byte_array());
            bytes.extend(txid.as_byte_array());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Proven> {
        let (block, rest) = bytes.split_at_checked(32)?;
        let (outpoint, spend) = rest.split_at_checked(36)?;
        let spend = match spend {
            [] => None,
            spend => {
                let (block, txid) = spend.split_at_checked(32)?;
                Some((
                    BlockHash::from_slice(block).ok()?,
                    Txid::from_slice(txid).ok()?,
                ))
            }
        };
        Some(Proven {
            block: BlockHash::from_slice(block).ok()?,
            outpoint: deserialize(outpoint).ok()?,
            spend,
        })
    }
}
