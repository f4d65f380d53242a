//! What the phone was shown of each channel whose funding was proven to it, and what it has still to be shown: the values of `proven/` in
//! the store.

use std::collections::BTreeMap;

use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, OutPoint, Transaction, TxIn, Txid};

/// So long after a commitment is in a block the transactions are proven that spend its outputs: its HTLCs expire within 2,016 blocks, and
/// those that nobody has claimed long after that have no use for the phone.
pub(super) const KEPT_BLOCKS: u32 = 4_032;

/// Outputs of a commitment whose spends are noted: it has 966 HTLCs at most (BOLT 3), two balances and two anchors.
const MOST_SPENDS: usize = 1_000;

/// The length of a spend in a record: the output, the block, the txid, and whether it is proven.
const SPEND_BYTES: usize = 4 + 32 + 32 + 1;

/// The id of a channel's keys.
pub(super) type KeysId = [u8; 32];

/// A request for a proof that a transaction is in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ProofRequest {
    pub keys_id: KeysId,
    pub block: BlockHash,
    pub txid: Txid,
    pub(super) of: Of,
}

/// What the transaction is to the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Of {
    Funding(OutPoint),
    Close,
    /// It spends an output of the close.
    CloseSpend,
}

/// A channel whose funding was proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Proven {
    /// The block of the funding.
    pub(super) block: BlockHash,
    pub(super) outpoint: OutPoint,
    pub(super) close: Option<Close>,
}

/// A transaction in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InBlock {
    pub(super) block: BlockHash,
    pub(super) txid: Txid,
}

/// The transaction that spends the funding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Close {
    pub(super) at: InBlock,
    /// `None` for a cooperative close, and in a record that an earlier version has written.
    pub(super) commitment: Option<Commitment>,
}

/// What is known of a commitment that is in a block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Commitment {
    pub(super) height: u32,
    pub(super) is_proven: bool,
    /// By the number of the output, of which only one transaction in the chain can be the spend. They stay when they are proven, so that
    /// blocks that come again after a restart bring nothing new.
    pub(super) spends: BTreeMap<u32, Spend>,
}

/// The transaction that spends an output of a commitment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spend {
    pub(super) at: InBlock,
    pub(super) is_proven: bool,
}

impl ProofRequest {
    /// Whether an invoice may wait for it. A close with many HTLCs takes long, and no invoice names its channel.
    pub(super) fn is_awaited(&self) -> bool {
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
    pub(super) fn after(earlier: Option<Proven>, taken: &ProofRequest) -> Option<Proven> {
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
    pub(super) fn notice(
        &mut self,
        height: u32,
        block: BlockHash,
        transaction: &Transaction,
    ) -> bool {
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
    pub(super) fn unproven(&self, keys_id: KeysId) -> Vec<ProofRequest> {
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
    pub(super) fn is_over(&self, height: u32) -> bool {
        let close = self.close.as_ref();
        let commitment = close.and_then(|close| close.commitment.as_ref());
        commitment.is_some_and(|it| {
            let depth = height.saturating_sub(it.height);
            let is_proven = it.is_proven && it.spends.values().all(|spend| spend.is_proven);
            depth >= 2 * KEPT_BLOCKS || (is_proven && depth >= KEPT_BLOCKS)
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.block.as_byte_array().to_vec();
        bytes.extend(serialize(&self.outpoint));
        if let Some(close) = &self.close {
            bytes.extend(close.at.encode());
            bytes.extend(close.commitment.iter().flat_map(Commitment::encode));
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Proven> {
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
