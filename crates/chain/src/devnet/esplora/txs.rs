//! Answers about transactions, and new ones.

use std::sync::Arc;

use bitcoin::consensus::encode::{deserialize_hex, serialize, serialize_hex};
use bitcoin::hashes::{Hash as _, sha256d};
use bitcoin::{Amount, MerkleBlock, OutPoint, Transaction, TxOut, Txid};
use serde_json::{Value, json};

use super::super::chain::StoredBlock;
use super::super::rpc;
use super::super::state::State;
use super::json::{self, hash, number};
use super::{Answer, Body, Refused, View};

/// `POST /tx`.
pub(super) fn send(state: &mut State, body: &[u8]) -> Answer {
    let tx = Arc::new(transaction(std::str::from_utf8(body).unwrap_or_default())?);
    let sent = rpc::send(state, &tx, &rpc::Limits::default());
    let txid = sent.map_err(|error| refused("sendrawtransaction", &error))?;
    Ok(Body::Text(txid.to_string()))
}

/// `POST /txs/package`.
pub(super) fn send_package(state: &mut State, body: &[u8]) -> Answer {
    let texts: Vec<String> =
        serde_json::from_slice(body).map_err(|error| Refused::bad_request(error.to_string()))?;
    let txs = texts.iter().map(|text| transaction(text).map(Arc::new));
    let txs = txs.collect::<Result<Vec<_>, _>>()?;
    let answer = rpc::submit_package(state, &txs, Amount::ZERO);
    answer
        .map(Body::Json)
        .map_err(|error| refused("submitpackage", &error))
}

fn transaction(hex: &str) -> Result<Transaction, Refused> {
    let invalid = || rpc::RpcError {
        code: rpc::code::DESERIALIZATION_ERROR,
        message: "TX decode failed. Make sure the tx has at least one input.".into(),
    };
    deserialize_hex(hex.trim()).map_err(|_| refused("sendrawtransaction", &invalid()))
}

/// The text with which electrs passes on an error of Bitcoin Core.
fn refused(method: &str, error: &rpc::RpcError) -> Refused {
    let json = json!({ "code": error.code, "message": error.message });
    Refused::bad_request(format!("{method} RPC error {}: {json}", error.code))
}

impl View<'_> {
    /// `None` when there is no such path below a transaction's.
    pub(super) fn of_transaction(&self, text: &str, rest: &[&str]) -> Option<Answer> {
        let txid: Txid = match hash(text) {
            Ok(txid) => txid,
            Err(refused) => return Some(Err(refused)),
        };
        let block = self.state.chain.block_of(&txid);
        Some(match rest {
            ["status"] => Ok(Body::Json(json::status(block))),
            ["outspend", vout] => {
                number(vout).map(|vout| Body::Json(self.spend(&OutPoint::new(txid, vout))))
            }
            ["merkle-proof"] => self.merkle_proof(&txid),
            ["merkleblock-proof"] => self.merkle_block(&txid),
            [] | ["raw"] | ["hex"] | ["outspends"] => match self.find(&txid) {
                Some((tx, block)) => Ok(self.shown(&tx, block, rest.first().copied())),
                None => Err(Refused::not_found("Transaction not found")),
            },
            _ => return None,
        })
    }

    fn shown(&self, tx: &Transaction, block: Option<&StoredBlock>, form: Option<&str>) -> Body {
        match form {
            Some("raw") => Body::Bytes(serialize(tx)),
            Some("hex") => Body::Text(serialize_hex(tx)),
            Some("outspends") => {
                let txid = tx.compute_txid();
                let outpoints = (0..)
                    .zip(&tx.output)
                    .map(|(vout, _)| OutPoint::new(txid, vout));
                Body::Json(outpoints.map(|outpoint| self.spend(&outpoint)).collect())
            }
            _ => Body::Json(self.show(tx, block)),
        }
    }

    /// A transaction of the mempool, or of the best chain with its block.
    pub(super) fn find(&self, txid: &Txid) -> Option<(Arc<Transaction>, Option<&StoredBlock>)> {
        if let Some(entry) = self.state.pool.get(txid) {
            return Some((entry.tx.clone(), None));
        }
        let stored = self.state.chain.block_of(txid)?;
        let tx = stored
            .block
            .txdata
            .iter()
            .find(|tx| tx.compute_txid() == *txid)?;
        Some((Arc::new(tx.clone()), Some(stored)))
    }

    /// The JSON of a transaction.
    pub(super) fn show(&self, tx: &Transaction, block: Option<&StoredBlock>) -> Value {
        json::transaction(tx, &self.spent_by(tx, block), block)
    }

    /// The outputs that a transaction spends.
    pub(super) fn spent_by(&self, tx: &Transaction, block: Option<&StoredBlock>) -> Vec<TxOut> {
        rpc::spent_outputs(self.state, tx, block).unwrap_or_default()
    }

    /// Whether an output is spent, and by which transaction.
    fn spend(&self, outpoint: &OutPoint) -> Value {
        let in_pool = self.state.pool.spender(outpoint).map(|entry| {
            let mut inputs = (0..).zip(&entry.tx.input);
            let vin = inputs.find(|(_, input)| input.previous_output == *outpoint);
            (entry.txid, vin.map_or(0, |(vin, _)| vin))
        });
        match self.index.spender(outpoint).or(in_pool) {
            None => json!({ "spent": false }),
            Some((txid, vin)) => json!({
                "spent": true,
                "txid": txid,
                "vin": vin,
                "status": json::status(self.state.chain.block_of(&txid)),
            }),
        }
    }

    fn merkle_proof(&self, txid: &Txid) -> Answer {
        let stored = self.state.chain.block_of(txid).ok_or_else(unconfirmed)?;
        let txids: Vec<Txid> = stored
            .block
            .txdata
            .iter()
            .map(Transaction::compute_txid)
            .collect();
        let position = txids
            .iter()
            .position(|it| it == txid)
            .ok_or_else(unconfirmed)?;
        Ok(Body::Json(json!({
            "block_height": stored.height,
            "merkle": branch(&txids, position),
            "pos": position,
        })))
    }

    fn merkle_block(&self, txid: &Txid) -> Answer {
        let stored = self.state.chain.block_of(txid).ok_or_else(unconfirmed)?;
        let proof = MerkleBlock::from_block_with_predicate(&stored.block, |it| it == txid);
        Ok(Body::Text(serialize_hex(&proof)))
    }
}

/// The hashes that lead from a transaction to the merkle root, the deepest first.
fn branch(txids: &[Txid], position: usize) -> Vec<Txid> {
    let mut level: Vec<Txid> = txids.to_vec();
    let (mut at, mut branch) = (position, vec![]);
    while level.len() > 1 {
        if let (1, Some(last)) = (level.len() % 2, level.last().copied()) {
            level.push(last);
        }
        branch.extend(level.get(at ^ 1));
        let parents = level.chunks_exact(2).map(|pair| {
            let both = [pair[0].to_byte_array(), pair[1].to_byte_array()].concat();
            Txid::from_raw_hash(sha256d::Hash::hash(&both))
        });
        level = parents.collect();
        at /= 2;
    }
    branch
}

fn unconfirmed() -> Refused {
    Refused::not_found("Transaction not found or is unconfirmed")
}
