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
pub const ANCHOR_SAT: u64 = 330;
/// Of a commitment transaction with anchors and without HTLCs (BOLT 3, appendix A).
const COMMITMENT_WEIGHT: u64 = 1_124;

/// What a transaction of theirs is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Spends a funding output, as a commitment does (BOLT 3: the upper bytes of locktime and sequence).
    Commitment,
    /// Spends a funding output otherwise: both sides agreed.
    Cooperative,
    /// Anything else: a channel's funding, a sweep.
    Other,
}

/// A transaction that spends coins of theirs.
#[derive(Clone, Debug)]
pub struct Spend {
    /// Its id.
    pub txid: Txid,
    /// What it is.
    pub kind: Kind,
    /// What its inputs have more than its outputs.
    pub fee_sat: u64,
}

#[derive(Clone, Debug)]
struct Coin {
    output: TxOut,
    /// The kind of the transaction that made it; `None` for the faucet.
    made_by: Option<Kind>,
}

/// The nodes' coins after some blocks.
#[derive(Clone, Debug, Default)]
pub struct Books {
    /// What the faucet gave.
    pub given_sat: u64,
    /// Not spent.
    coins: HashMap<OutPoint, Coin>,
    /// Everything they sent, in order.
    pub spends: Vec<Spend>,
}

/// An open channel as its two sides see it.
#[derive(Clone, Debug)]
pub struct OpenChannel {
    /// The output that both sides hold together.
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
pub struct Balanced {
    /// By the faucet.
    pub given: u64,
    /// On chain, to be spent.
    pub wallets: u64,
    /// What both sides have in open channels.
    pub channels: u64,
    /// What the commitments of open channels would take: fees, anchors, roundings.
    pub set_aside: u64,
    /// Of broadcast commitments.
    pub anchors: u64,
    /// Of all transactions in the chain.
    pub fees: u64,
}

/// What does not add up.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("{}", .lines.join("; "))]
pub struct Unbalanced {
    /// Satoshis that are not where they are said to be.
    pub sat: u64,
    /// Each fault, for a person.
    pub lines: Vec<String>,
}

impl Books {
    /// Takes the next block. `given` are the outputs of the faucet's that are theirs: transaction and script.
    ///
    /// # Errors
    /// When a transaction takes their coins together with others', or pays more than it takes.
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

    /// Transactions in the chain that spent a funding output with the agreement of both sides.
    pub fn cooperative_closes(&self) -> impl Iterator<Item = &Spend> {
        self.spends
            .iter()
            .filter(|spend| spend.kind == Kind::Cooperative)
    }

    /// Holds the coins against what the nodes say: `wallets_sat` is what all wallets have and wait for.
    ///
    /// # Errors
    /// All that does not add up.
    pub fn balance(
        mut self,
        wallets_sat: u64,
        open: &[OpenChannel],
    ) -> Result<Balanced, Unbalanced> {
        let mut balanced = Balanced {
            given: self.given_sat,
            ..Balanced::default()
        };
        let mut off = Unbalanced::default();
        for channel in open {
            balanced.channels += channel.balances_sat.iter().sum::<u64>();
            match self.coins.remove(&channel.funding) {
                Some(coin) => {
                    let capacity_sat = coin.output.value.to_sat();
                    balanced.set_aside += channel.set_aside(capacity_sat, &mut off);
                }
                None => off.add(
                    channel.balances_sat.iter().sum(),
                    format!("{} is said to be open and is spent", channel.funding),
                ),
            }
        }
        for coin in self.coins.into_values() {
            let sat = coin.output.value.to_sat();
            match coin.is_anchor() {
                true => balanced.anchors += sat,
                false => balanced.wallets += sat,
            }
        }
        balanced.fees = self.spends.iter().map(|spend| spend.fee_sat).sum();
        let (found, said) = (balanced.wallets, wallets_sat);
        if found != said {
            let line =
                format!("the wallets say {said} sat, and in the chain they have {found} sat");
            off.add(found.abs_diff(said), line);
        }
        let (sum, given) = (balanced.sum(), balanced.given);
        if off.lines.is_empty() && sum != given {
            let line = format!("{sum} sat were found of the {given} sat given");
            off.add(sum.abs_diff(given), line);
        }
        match off.lines.is_empty() {
            true => Ok(balanced),
            false => Err(off),
        }
    }
}

impl Balanced {
    fn sum(&self) -> u64 {
        self.wallets + self.channels + self.set_aside + self.anchors + self.fees
    }
}

impl Unbalanced {
    fn add(&mut self, sat: u64, line: String) {
        self.sat += sat;
        self.lines.push(line);
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
    fn set_aside(&self, capacity_sat: u64, off: &mut Unbalanced) -> u64 {
        let fee = self.feerate_sat_per_kw * COMMITMENT_WEIGHT / 1_000;
        let rounding = u64::from(self.is_split_within_a_satoshi);
        let expected = fee + 2 * ANCHOR_SAT + rounding;
        let sum = self.balances_sat.iter().sum::<u64>() + expected;
        if sum != capacity_sat {
            let line = format!(
                "channel {} of {capacity_sat} sat: its sides say {:?} sat, and a commitment takes {expected} sat",
                self.funding, self.balances_sat
            );
            off.add(sum.abs_diff(capacity_sat), line);
        }
        expected
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use bitcoin::absolute::LockTime;
    use bitcoin::hashes::Hash;
    use bitcoin::{Amount, Sequence, TxIn, Witness, block, transaction};

    use super::*;

    const CAPACITY: u64 = 100_000;
    /// 253 sat per 1,000 weight units of a commitment.
    const COMMITMENT_FEE: u64 = 284;

    fn tx(inputs: &[OutPoint], outputs: &[(u64, ScriptBuf)]) -> Transaction {
        let input = inputs.iter().map(|&previous_output| TxIn {
            previous_output,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        });
        let output = outputs.iter().map(|(sat, script_pubkey)| TxOut {
            value: Amount::from_sat(*sat),
            script_pubkey: script_pubkey.clone(),
        });
        Transaction {
            version: transaction::Version::TWO,
            lock_time: LockTime::ZERO,
            input: input.collect(),
            output: output.collect(),
        }
    }

    fn commitment(inputs: &[OutPoint], outputs: &[(u64, ScriptBuf)]) -> Transaction {
        let mut tx = tx(inputs, outputs);
        tx.lock_time = LockTime::from_consensus(0x2012_3456);
        tx.input[0].sequence = Sequence(0x8065_4321);
        tx
    }

    fn block(txdata: Vec<Transaction>) -> Block {
        let header = block::Header {
            version: block::Version::TWO,
            prev_blockhash: bitcoin::BlockHash::all_zeros(),
            merkle_root: bitcoin::TxMerkleNode::all_zeros(),
            time: 0,
            bits: bitcoin::CompactTarget::default(),
            nonce: 0,
        };
        Block { header, txdata }
    }

    fn p2wpkh() -> ScriptBuf {
        ScriptBuf::new_p2wpkh(&bitcoin::WPubkeyHash::all_zeros())
    }

    fn p2wsh() -> ScriptBuf {
        ScriptBuf::new_p2wsh(&bitcoin::WScriptHash::all_zeros())
    }

    fn out(tx: &Transaction, vout: u32) -> OutPoint {
        OutPoint {
            txid: tx.compute_txid(),
            vout,
        }
    }

    /// 150,000 sat given, of which a channel of 100,000 is funded with a fee of 200.
    struct Begun {
        books: Books,
        gift: Transaction,
        funding: Transaction,
    }

    fn begun() -> Begun {
        let elsewhere = OutPoint {
            txid: Txid::all_zeros(),
            vout: 7,
        };
        let gift = tx(&[elsewhere], &[(9_000, p2wsh()), (150_000, p2wpkh())]);
        let funding = tx(&[out(&gift, 1)], &[(CAPACITY, p2wsh()), (49_800, p2wpkh())]);
        let mut books = Books::default();
        let given = [(gift.compute_txid(), p2wpkh())];
        let txs = vec![gift.clone(), funding.clone()];
        books
            .block(&block(txs), &given, &[out(&funding, 0)])
            .unwrap();
        Begun {
            books,
            gift,
            funding,
        }
    }

    fn open(funding: &Transaction, balances_sat: [u64; 2], split: bool) -> OpenChannel {
        OpenChannel {
            funding: out(funding, 0),
            balances_sat,
            is_split_within_a_satoshi: split,
            feerate_sat_per_kw: 253,
        }
    }

    #[test]
    fn an_open_channel_and_the_change_make_up_what_was_given() {
        let Begun { books, funding, .. } = begun();
        let ours = CAPACITY - 30_000 - COMMITMENT_FEE - 660;
        let balanced = books
            .balance(49_800, &[open(&funding, [ours, 30_000], false)])
            .unwrap();
        let expected = Balanced {
            given: 150_000,
            wallets: 49_800,
            channels: ours + 30_000,
            set_aside: COMMITMENT_FEE + 660,
            anchors: 0,
            fees: 200,
        };
        assert_eq!(balanced, expected);
    }

    #[test]
    fn a_satoshi_that_is_split_between_the_sides_is_in_neither_balance() {
        let balances = [CAPACITY - 30_001 - COMMITMENT_FEE - 660, 30_000];
        let Begun { books, funding, .. } = begun();
        assert!(
            books
                .balance(49_800, &[open(&funding, balances, true)])
                .is_ok()
        );
        let Begun { books, funding, .. } = begun();
        let off = books.balance(49_800, &[open(&funding, balances, false)]);
        assert_eq!(off.unwrap_err().sat, 1);
    }

    #[test]
    fn one_satoshi_more_or_less_in_a_wallet_is_noticed() {
        for wallets_sat in [49_799, 49_801] {
            let Begun { books, funding, .. } = begun();
            let ours = CAPACITY - 30_000 - COMMITMENT_FEE - 660;
            let channel = open(&funding, [ours, 30_000], false);
            let off = books.balance(wallets_sat, &[channel]).unwrap_err();
            assert_eq!(off.sat, 1);
            assert!(off.to_string().contains("49800"), "{off}");
        }
    }

    #[test]
    fn a_forced_close_leaves_its_anchors_and_pays_its_fees() {
        let Begun {
            mut books, funding, ..
        } = begun();
        let outputs = [
            (330, p2wsh()),
            (330, p2wsh()),
            (30_000, p2wsh()),
            (69_056, p2wsh()),
        ];
        let closed = commitment(&[out(&funding, 0)], &outputs);
        let sweep = tx(&[out(&closed, 2), out(&closed, 3)], &[(98_900, p2wpkh())]);
        let fundings = [out(&funding, 0)];
        books
            .block(&block(vec![closed.clone()]), &[], &fundings)
            .unwrap();
        books.block(&block(vec![sweep]), &[], &fundings).unwrap();
        let commitments: Vec<_> = books.commitments().map(|spend| spend.txid).collect();
        assert_eq!(commitments, [closed.compute_txid()]);
        let balanced = books.balance(49_800 + 98_900, &[]).unwrap();
        assert_eq!((balanced.anchors, balanced.fees), (660, 200 + 284 + 156));
    }

    #[test]
    fn closing_together_is_no_commitment() {
        let Begun {
            mut books, funding, ..
        } = begun();
        let closed = tx(&[out(&funding, 0)], &[(99_500, p2wpkh())]);
        books
            .block(&block(vec![closed]), &[], &[out(&funding, 0)])
            .unwrap();
        assert_eq!(books.commitments().count(), 0);
        assert_eq!(books.cooperative_closes().count(), 1);
        assert_eq!(books.balance(49_800 + 99_500, &[]).unwrap().fees, 700);
    }

    #[test]
    fn a_channel_that_is_said_to_be_open_must_not_be_spent() {
        let Begun {
            mut books, funding, ..
        } = begun();
        let closed = tx(&[out(&funding, 0)], &[(99_500, p2wpkh())]);
        books.block(&block(vec![closed]), &[], &[]).unwrap();
        assert!(
            books
                .balance(149_300, &[open(&funding, [0, 0], false)])
                .is_err()
        );
    }

    #[test]
    fn coins_of_others_do_not_mix_with_theirs() {
        let Begun {
            mut books,
            gift,
            funding,
        } = begun();
        let mixed = tx(&[out(&funding, 1), out(&gift, 0)], &[(1_000, p2wpkh())]);
        assert!(books.block(&block(vec![mixed]), &[], &[]).is_err());
    }
}
