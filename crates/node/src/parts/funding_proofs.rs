//! Proofs for the phone of what the chain has of its channels: that a funding is in a block, later the transaction that spends it, and when
//! that is a commitment, each transaction that spends an output of it. HTLCs of a channel without the first do not count there; by the last
//! the phone sees what became of those that were in the commitment.
//!
//! Proofs are made only while a phone is attached that follows the chain: each takes a whole block. The record of a channel is what the
//! phone has been shown of it, and what it has still to be shown. It is written when the phone has taken the proof of the funding, and
//! whenever a block has more. It stays until a cooperative close is proven, and after another close for [`KEPT_BLOCKS`]. What a
//! reorganisation has put into another block is proven again.
//!
//! A channel's proofs go one by one, in the order of the chain: the phone refuses one that spends a close which it has not seen. Spends are
//! noted from the close on nevertheless, since they may be in the same block, or come while the phone is away.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint, Transaction, TxIn, Txid};
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

/// So long an invoice waits for a proof, and for the headers before it: the source may be slow, or away.
const PATIENCE: Duration = Duration::from_secs(10);

/// So long after a commitment is in a block the transactions are proven that spend its outputs: its HTLCs expire within 2,016 blocks, and
/// those that nobody has claimed long after that have no use for the phone.
const KEPT_BLOCKS: u32 = 4_032;

/// Outputs of a commitment whose spends are noted: it has 966 HTLCs at most (BOLT 3), two balances and two anchors.
const MOST_SPENDS: usize = 1_000;

/// The length of a spend in a record: the output, the block, the txid, and whether it is proven.
const SPEND_BYTES: usize = 4 + 32 + 32 + 1;

/// The id of a channel's keys.
type KeysId = [u8; 32];

/// A request for a proof that a transaction is in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ProofRequest {
    pub keys_id: KeysId,
    pub block: BlockHash,
    pub txid: Txid,
    of: Of,
}

/// What the transaction is to the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Of {
    Funding(OutPoint),
    Close,
    /// It spends an output of the close.
    CloseSpend,
}

/// A channel whose funding was proven.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Proven {
    /// The block of the funding.
    block: BlockHash,
    outpoint: OutPoint,
    close: Option<Close>,
}

/// A transaction in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct InBlock {
    block: BlockHash,
    txid: Txid,
}

/// The transaction that spends the funding.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Close {
    at: InBlock,
    /// `None` for a cooperative close, and in a record that an earlier version has written.
    commitment: Option<Commitment>,
}

/// What is known of a commitment that is in a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Commitment {
    height: u32,
    is_proven: bool,
    /// By the number of the output, of which only one transaction in the chain can be the spend. They stay when they are proven, so that
    /// blocks that come again after a restart bring nothing new.
    spends: BTreeMap<u32, Spend>,
}

/// The transaction that spends an output of a commitment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Spend {
    at: InBlock,
    is_proven: bool,
}

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
    /// The source could not prove these, and is not asked again before the node is loaded again: it has pruned the block, say.
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

impl ProofRequest {
    /// Whether an invoice may wait for it. A close with many HTLCs takes long, and no invoice names its channel.
    fn is_awaited(&self) -> bool {
        self.of != Of::CloseSpend
    }

    fn at(&self) -> InBlock {
        InBlock {
            block: self.block,
            txid: self.txid,
        }
    }
}

impl Proven {
    /// The record after the phone has taken a proof; `None` when nothing more is to be proven.
    fn after(earlier: Option<Proven>, taken: &ProofRequest) -> Option<Proven> {
        if let Of::Funding(outpoint) = taken.of {
            let earlier = earlier.filter(|earlier| earlier.outpoint == outpoint);
            return Some(Proven {
                block: taken.block,
                outpoint,
                // A block may have had it while the phone looked at the proof.
                close: earlier.and_then(|earlier| earlier.close),
            });
        }
        let mut proven = earlier?;
        let close = proven.close.as_mut();
        let is_over = close.is_some_and(|close| close.taken(taken));
        (!is_over).then_some(proven)
    }

    /// Notes what a transaction of a block is to the channel. False when that is nothing new.
    fn notice(&mut self, height: u32, block: BlockHash, transaction: &Transaction) -> bool {
        let mut inputs = transaction.input.iter();
        if let Some(input) = inputs.find(|it| it.previous_output == self.outpoint) {
            return self.notice_close(Close::new(height, block, transaction, input));
        }
        let close = self.close.as_mut();
        close.is_some_and(|close| close.notice_spend(block, transaction))
    }

    /// The spends of a close that was in another block are in others too, and come again.
    fn notice_close(&mut self, close: Close) -> bool {
        let is_known = self.close.as_ref().is_some_and(|known| {
            known.at == close.at && known.commitment.is_some() == close.commitment.is_some()
        });
        if !is_known {
            self.close = Some(close);
        }
        !is_known
    }

    /// What the phone may be shown of the close now: that it is in a block, and afterwards its spends.
    fn unproven(&self, keys_id: KeysId) -> Vec<ProofRequest> {
        let Some(close) = &self.close else {
            return Vec::new();
        };
        let request = |at: InBlock, of| ProofRequest {
            keys_id,
            block: at.block,
            txid: at.txid,
            of,
        };
        match close.commitment.as_ref().filter(|it| it.is_proven) {
            Some(commitment) => {
                let spends = commitment.spends.values().filter(|it| !it.is_proven);
                let requests = spends.map(|spend| request(spend.at, Of::CloseSpend));
                requests.collect()
            }
            None => vec![request(close.at, Of::Close)],
        }
    }

    /// Whether all of the close is proven that was noted, and it is so deep at this height that nothing more of it is. For a phone that does
    /// not come, or takes no proof, it is kept twice as long.
    fn is_over(&self, height: u32) -> bool {
        let close = self.close.as_ref();
        let commitment = close.and_then(|close| close.commitment.as_ref());
        commitment.is_some_and(|it| {
            let depth = height.saturating_sub(it.height);
            let is_proven = it.is_proven && it.spends.values().all(|spend| spend.is_proven);
            depth >= 2 * KEPT_BLOCKS || (is_proven && depth >= KEPT_BLOCKS)
        })
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.block.as_byte_array().to_vec();
        bytes.extend(serialize(&self.outpoint));
        if let Some(close) = &self.close {
            bytes.extend(close.at.encode());
            bytes.extend(close.commitment.iter().flat_map(Commitment::encode));
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Proven> {
        let (block, rest) = bytes.split_at_checked(32)?;
        let (outpoint, close) = rest.split_at_checked(36)?;
        let close = match close {
            [] => None,
            close => Some(Close::decode(close)?),
        };
        Some(Proven {
            block: BlockHash::from_slice(block).ok()?,
            outpoint: deserialize(outpoint).ok()?,
            close,
        })
    }
}

impl Close {
    /// `input` is the one that spends the funding.
    fn new(height: u32, block: BlockHash, transaction: &Transaction, input: &TxIn) -> Close {
        let commitment = Commitment {
            height,
            ..Commitment::default()
        };
        let txid = transaction.compute_txid();
        Close {
            at: InBlock { block, txid },
            commitment: is_commitment(transaction, input).then_some(commitment),
        }
    }

    /// Notes a transaction that spends outputs of a commitment. False when that is nothing new.
    fn notice_spend(&mut self, block: BlockHash, transaction: &Transaction) -> bool {
        let Some(commitment) = &mut self.commitment else {
            return false;
        };
        let spent = transaction.input.iter().map(|it| it.previous_output);
        let spent: Vec<OutPoint> = spent.filter(|it| it.txid == self.at.txid).collect();
        if spent.is_empty() {
            return false;
        }
        let txid = transaction.compute_txid();
        let mut is_new = false;
        for outpoint in spent {
            is_new |= commitment.add(outpoint.vout, InBlock { block, txid });
        }
        is_new
    }

    /// The phone has taken the proof of it, or of a spend. True for a cooperative close: nothing more of it is proven. A reorganisation may
    /// have put another transaction into its place meanwhile, which is proven next.
    fn taken(&mut self, taken: &ProofRequest) -> bool {
        let is_this = self.at == taken.at();
        let Some(commitment) = &mut self.commitment else {
            return is_this;
        };
        commitment.is_proven |= is_this;
        for spend in commitment.spends.values_mut() {
            spend.is_proven |= spend.at == taken.at();
        }
        false
    }

    fn decode(bytes: &[u8]) -> Option<Close> {
        let (at, commitment) = bytes.split_at_checked(64)?;
        let commitment = match commitment {
            [] => None,
            commitment => Some(Commitment::decode(commitment)?),
        };
        Some(Close {
            at: InBlock::decode(at)?,
            commitment,
        })
    }
}

impl Commitment {
    /// Notes the transaction that spends an output. False when it is known, or there are too many.
    fn add(&mut self, output: u32, at: InBlock) -> bool {
        let known = self.spends.get(&output);
        let is_known = known.is_some_and(|known| known.at == at);
        let has_no_room = known.is_none() && self.spends.len() >= MOST_SPENDS;
        if is_known || has_no_room {
            return false;
        }
        let is_proven = false;
        self.spends.insert(output, Spend { at, is_proven });
        true
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = self.height.to_be_bytes().to_vec();
        bytes.push(self.is_proven.into());
        for (output, spend) in &self.spends {
            bytes.extend(output.to_be_bytes());
            bytes.extend(spend.at.encode());
            bytes.push(spend.is_proven.into());
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Commitment> {
        let (height, rest) = bytes.split_first_chunk()?;
        let (is_proven, spends) = rest.split_first()?;
        let spends = spends.chunks(SPEND_BYTES).map(|spend| {
            let (output, rest) = spend.split_first_chunk()?;
            let (is_proven, at) = rest.split_last()?;
            let spend = Spend {
                at: InBlock::decode(at)?,
                is_proven: flag(*is_proven)?,
            };
            Some((u32::from_be_bytes(*output), spend))
        });
        Some(Commitment {
            height: u32::from_be_bytes(*height),
            is_proven: flag(*is_proven)?,
            spends: spends.collect::<Option<_>>()?,
        })
    }
}

impl InBlock {
    fn encode(&self) -> [u8; 64] {
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(self.block.as_byte_array());
        bytes[32..].copy_from_slice(self.txid.as_byte_array());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<InBlock> {
        let (block, txid) = bytes.split_at_checked(32)?;
        Some(InBlock {
            block: BlockHash::from_slice(block).ok()?,
            txid: Txid::from_slice(txid).ok()?,
        })
    }
}

fn flag(byte: u8) -> Option<bool> {
    match byte {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// Whether the transaction that spends a funding is a commitment: it hides its number in these fields, with these upper bits (BOLT 3).
fn is_commitment(transaction: &Transaction, input: &TxIn) -> bool {
    let lock_time = transaction.lock_time.to_consensus_u32();
    lock_time >> 24 == 0x20 && input.sequence.to_consensus_u32() >> 24 == 0x80
}

#[cfg(test)]
#[path = "tests/funding_proofs.rs"]
mod tests;
