//! Answers about the transactions of a script, which is given by its hash or its address.

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Network, OutPoint, Transaction, TxOut, Txid};
use serde_json::{Value, json};

use super::super::mempool::Entry;
use super::index::{ScriptHash, script_hash};
use super::json::status;
use super::{Answer, Body, Refused, View};

/// Transactions of the mempool in one answer, and of the chain.
const MOST_IN_POOL: usize = 50;
const MOST_IN_CHAIN: usize = 25;

/// What a script has received and spent.
#[derive(Default)]
struct Sums {
    txs: usize,
    funded: usize,
    funded_sat: u64,
    spent: usize,
    spent_sat: u64,
}

impl View<'_> {
    /// `None` when there is no such path below a script's.
    pub(super) fn of_script(&self, parts: &[&str]) -> Option<Answer> {
        let [kind, id, rest @ ..] = parts else {
            return None;
        };
        let script = match parse(kind, id) {
            Ok(script) => script,
            Err(refused) => return Some(Err(refused)),
        };
        let txs = match rest {
            [] => return Some(Ok(Body::Json(self.sums(kind, id, &script)))),
            ["utxo"] => return Some(Ok(Body::Json(self.utxos(&script)))),
            ["txs"] => {
                let in_pool = self.in_pool(&script);
                let in_pool = in_pool.into_iter().take(MOST_IN_POOL);
                in_pool
                    .map(|entry| self.show(&entry.tx, None))
                    .chain(self.page(&script, None))
                    .collect()
            }
            ["txs", "mempool"] => {
                let in_pool = self.in_pool(&script);
                let in_pool = in_pool.into_iter().take(MOST_IN_POOL);
                in_pool.map(|entry| self.show(&entry.tx, None)).collect()
            }
            ["txs", "chain"] => self.page(&script, None),
            ["txs", "chain", last] => self.page(&script, last.parse().ok()),
            _ => return None,
        };
        Some(Ok(Body::Json(Value::Array(txs))))
    }

    /// Transactions of the chain, the newest first: those after `last`.
    fn page(&self, script: &ScriptHash, last: Option<Txid>) -> Vec<Value> {
        let mut txids = self.index.history(script).iter().rev();
        if let Some(last) = last {
            // Goes to the one after it.
            txids.by_ref().find(|txid| **txid == last);
        }
        let found = txids.take(MOST_IN_CHAIN).filter_map(|txid| self.find(txid));
        found.map(|(tx, block)| self.show(&tx, block)).collect()
    }

    /// Transactions of the mempool, the newest first.
    fn in_pool(&self, script: &ScriptHash) -> Vec<&Entry> {
        let mut entries = self.state.pool.in_order();
        entries.retain(|entry| {
            let spent = self.spent_by(&entry.tx, None);
            let mut all = entry.tx.output.iter().chain(&spent);
            all.any(|output| is_to(output, script))
        });
        entries.reverse();
        entries
    }

    fn sums(&self, kind: &str, id: &str, script: &ScriptHash) -> Value {
        let (mut chain, mut pool) = (Sums::default(), Sums::default());
        for (tx, block) in self
            .index
            .history(script)
            .iter()
            .filter_map(|txid| self.find(txid))
        {
            chain.add(&tx, &self.spent_by(&tx, block), script);
        }
        for entry in self.in_pool(script) {
            pool.add(&entry.tx, &self.spent_by(&entry.tx, None), script);
        }
        json!({ kind: id, "chain_stats": chain.show(), "mempool_stats": pool.show() })
    }

    /// Outputs that nothing spends, of the chain and of the mempool.
    fn utxos(&self, script: &ScriptHash) -> Value {
        let in_chain = self
            .index
            .history(script)
            .iter()
            .filter_map(|txid| self.find(txid));
        let in_pool = self
            .in_pool(script)
            .into_iter()
            .map(|entry| (entry.tx.clone(), None));
        let mut utxos = vec![];
        for (tx, block) in in_chain.chain(in_pool) {
            let txid = tx.compute_txid();
            for (vout, output) in (0..).zip(&tx.output).filter(|(_, it)| is_to(it, script)) {
                let outpoint = OutPoint::new(txid, vout);
                let spender = self.state.pool.spender(&outpoint);
                if self.index.spender(&outpoint).is_none() && spender.is_none() {
                    let value = output.value.to_sat();
                    let status = status(block);
                    utxos.push(
                        json!({ "txid": txid, "vout": vout, "status": status, "value": value }),
                    );
                }
            }
        }
        Value::Array(utxos)
    }
}

impl Sums {
    fn add(&mut self, tx: &Transaction, spent: &[TxOut], script: &ScriptHash) {
        self.txs += 1;
        for output in tx.output.iter().filter(|output| is_to(output, script)) {
            self.funded += 1;
            self.funded_sat = self.funded_sat.saturating_add(output.value.to_sat());
        }
        for output in spent.iter().filter(|output| is_to(output, script)) {
            self.spent += 1;
            self.spent_sat = self.spent_sat.saturating_add(output.value.to_sat());
        }
    }

    fn show(&self) -> Value {
        json!({
            "tx_count": self.txs,
            "funded_txo_count": self.funded,
            "funded_txo_sum": self.funded_sat,
            "spent_txo_count": self.spent,
            "spent_txo_sum": self.spent_sat,
        })
    }
}

fn is_to(output: &TxOut, script: &ScriptHash) -> bool {
    script_hash(&output.script_pubkey) == *script
}

fn parse(kind: &str, id: &str) -> Result<ScriptHash, Refused> {
    if kind == "scripthash" {
        return id
            .parse()
            .map_err(|_| Refused::bad_request("Invalid scripthash"));
    }
    let address: Address<NetworkUnchecked> = id
        .parse()
        .map_err(|_| Refused::bad_request("Invalid address"))?;
    let address = address.require_network(Network::Regtest);
    let address = address.map_err(|_| Refused::bad_request("Address on invalid network"))?;
    Ok(script_hash(&address.script_pubkey()))
}
