//! Every satoshi, against the chain.
//!
//! The nodes' coins are followed through the blocks: what the faucet gave them is theirs, and so is every output of
//! a transaction that spends what is theirs (a channel's funding, change, what a closed channel pays, a sweep). A
//! transaction that also spends something else would mix their coins with others', and is an error. What the inputs
//! have more than the outputs went to a miner as fee. At the end every coin of theirs that is not spent must be one of:
//!
//! - **in a wallet**: together exactly what the nodes' wallets say that they have, or wait for;
//! - **the funding of an open channel**: exactly what both sides say is theirs, and what a commitment transaction takes
//!   away from them (BOLT 3): its fee, its two anchors of 330 sat, and one satoshi when both balances end in a part of a
//!   satoshi, because a commitment has whole ones only;
//! - **an anchor** of a commitment that was broadcast: 330 sat that nobody needed and anybody may take after 16 blocks.
//!
//! Payments and routing fees move satoshis between the nodes and stay in the sum. Coins that are still to be swept from
//! a closed channel would be none of these: the books are made when there are none.

use std::collections::HashMap;

use bitcoin::{Block, OutPoint, ScriptBuf, Transaction, TxOut, Txid};

/// Of each anchor output (BOLT 3).
pub(super) const ANCHOR_SAT: u64 = 330;
/// Of a commitment transaction with anchors and without HTLCs (BOLT 3, appendix A).
const COMMITMENT_WEIGHT: u64 = 1_124;

/// What a transaction of theirs is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Spends a funding output, as a commitment does (BOLT 3: the upper bytes of locktime and sequence).
    Commitment,
    /// Spends a funding output otherwise: both sides agreed.
    Cooperative,
    /// Anything else: a channel's funding, a sweep.
    Other,
}

/// A transaction that spends coins of theirs.
#[derive(Clone, Debug)]
pub(super) struct Spend {
    pub txid: Txid,
    pub kind: Kind,
    pub fee_sat: u64,
}

#[derive(Clone, Debug)]
struct Coin {
    output: TxOut,
    /// The kind of the transaction that made it; `None` for the faucet.
    made_by: Option<Kind>,
}

/// The nodes' coins after some blocks.
#[derive(Debug, Default)]
pub(super) struct Books {
    /// What the faucet gave.
    pub given_sat: u64,
    /// Not spent.
    coins: HashMap<OutPoint, Coin>,
    /// Everything they sent, in order.
    pub spends: Vec<Spend>,
}

/// An open channel as its two sides see it.
#[derive(Clone, Debug)]
pub(super) struct OpenChannel {
    pub funding: OutPoint,
    /// What each side has in whole satoshis, as its own commitment pays it.
    pub balances_sat: [u64; 2],
    /// Whether both balances end in a part of a satoshi.
    pub is_split_within_a_satoshi: bool,
    /// Of its commitment transactions.
    pub feerate_sat_per_kw: u64,
}

/// Where everything is. All in satoshis.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Balanced {
    pub given: u64,
    pub wallets: u64,
    pub channels: u64,
    /// What the commitments of open channels would take: fees, anchors, roundings.
    pub set_aside: u64,
    /// Of broadcast commitments.
    pub anchors: u64,
    pub fees: u64,
}

impl Books {
    /// Takes the next block. `given` are the outputs of the faucet's that are theirs: transaction and script.
    pub fn block(
        &mut self,
        block: &Block,
        given: &[(Txid, ScriptBuf)],
        fundings: &[OutPoint],
    ) -> Result<(), String> {
        for tx in &block.txdata {
            self.spend(tx, fundings)?;
            let txid = tx.compute_txid();
            let is_theirs = |output: &TxOut| {
                given
                    .iter()
                    .any(|(id, script)| *id == txid && *script == output.script_pubkey)
            };
            for (index, output) in tx.output.iter().enumerate().filter(|(_, o)| is_theirs(o)) {
                self.given_sat += output.value.to_sat();
                self.add(txid, index, output, None);
            }
        }
        Ok(())
    }

    fn add(&mut self, txid: Txid, index: usize, output: &TxOut, made_by: Option<Kind>) {
        let vout = u32::try_from(index).unwrap_or(u32::MAX);
        self.coins.insert(
            OutPoint { txid, vout },
            Coin {
                output: output.clone(),
                made_by,
            },
        );
    }

    fn spend(&mut self, tx: &Transaction, fundings: &[OutPoint]) -> Result<(), String> {
        let spent: Vec<_> = tx
            .input
            .iter()
            .filter_map(|i| self.coins.remove(&i.previous_output))
            .collect();
        if spent.is_empty() {
            return Ok(());
        }
        let txid = tx.compute_txid();
        if spent.len() != tx.input.len() {
            return Err(format!(
                "{txid} spends coins that did not come from the faucet"
            ));
        }
        let kind = kind(tx, fundings);
        let taken: u64 = spent.iter().map(|coin| coin.output.value.to_sat()).sum();
        let paid: u64 = tx.output.iter().map(|output| output.value.to_sat()).sum();
        let fee_sat = taken
            .checked_sub(paid)
            .ok_or(format!("{txid} pays more than it takes"))?;
        self.spends.push(Spend {
            txid,
            kind,
            fee_sat,
        });
        for (index, output) in tx.output.iter().enumerate() {
            self.add(txid, index, output, Some(kind));
        }
        Ok(())
    }

    /// Commitments in the chain.
    pub fn commitments(&self) -> impl Iterator<Item = &Spend> {
        self.spends
            .iter()
            .filter(|spend| spend.kind == Kind::Commitment)
    }

    /// Holds the coins against what the nodes say: `wallets_sat` is what all wallets have and wait for. Fails with
    /// what does not add up.
    pub fn balance(mut self, wallets_sat: u64, open: &[OpenChannel]) -> Result<Balanced, String> {
        let mut balanced = Balanced {
            given: self.given_sat,
            ..Balanced::default()
        };
        for channel in open {
            let funding = channel.funding;
            let coin = self.coins.remove(&funding);
            let capacity = coin.ok_or(format!("{funding} is said to be open and is spent"))?;
            balanced.channels += channel.balances_sat.iter().sum::<u64>();
            balanced.set_aside += channel.set_aside(capacity.output.value.to_sat())?;
        }
        for coin in self.coins.into_values() {
            let sat = coin.output.value.to_sat();
            match coin.is_anchor() {
                true => balanced.anchors += sat,
                false => balanced.wallets += sat,
            }
        }
        balanced.fees = self.spends.iter().map(|spend| spend.fee_sat).sum();
        if balanced.wallets != wallets_sat {
            return Err(format!(
                "the wallets say {wallets_sat} sat, and in the chain they have {} sat",
                balanced.wallets
            ));
        }
        match balanced.sum() {
            sum if sum == balanced.given => Ok(balanced),
            sum => Err(format!(
                "{sum} sat were found of the {} sat given",
                balanced.given
            )),
        }
    }
}

impl Balanced {
    fn sum(&self) -> u64 {
        self.wallets + self.channels + self.set_aside + self.anchors + self.fees
    }
}

impl Coin {
    /// Anchors are the only outputs of a commitment with this amount and a script hash.
    fn is_anchor(&self) -> bool {
        self.made_by == Some(Kind::Commitment)
            && self.output.value.to_sat() == ANCHOR_SAT
            && self.output.script_pubkey.is_p2wsh()
    }
}

impl OpenChannel {
    /// What a commitment takes away from both sides: it must be exactly what lies between them and the capacity.
    fn set_aside(&self, capacity_sat: u64) -> Result<u64, String> {
        let fee = self.feerate_sat_per_kw * COMMITMENT_WEIGHT / 1_000;
        let rounding = u64::from(self.is_split_within_a_satoshi);
        let expected = fee + 2 * ANCHOR_SAT + rounding;
        let found = capacity_sat.checked_sub(self.balances_sat.iter().sum());
        match found {
            Some(found) if found == expected => Ok(expected),
            _ => Err(format!(
                "channel {} of {capacity_sat} sat: its sides say {:?} sat, and a commitment takes {expected} sat",
                self.funding, self.balances_sat
            )),
        }
    }
}

fn kind(tx: &Transaction, fundings: &[OutPoint]) -> Kind {
    let [input] = tx.input.as_slice() else {
        return Kind::Other;
    };
    let is_commitment = tx.lock_time.to_consensus_u32() >> 24 == 0x20
        && input.sequence.to_consensus_u32() >> 24 == 0x80;
    match (fundings.contains(&input.previous_output), is_commitment) {
        (false, _) => Kind::Other,
        (true, true) => Kind::Commitment,
        (true, false) => Kind::Cooperative,
    }
}
