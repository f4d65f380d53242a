//! Transactions of channels in blocks, proven with merkle branches.

use bitcoin::{Amount, OutPoint, TxOut};
use longhand_proto::signer::ProveTransaction;
use longhand_spv::{Proof, ProofError, Proven};

use super::KeysId;
use crate::commitment::funding_script;
use crate::engine::Signer;
use crate::ledger::{Channel, InBlock};
use crate::rules::{Refused, Rule};

/// A transaction, and what its proof shows.
pub(crate) struct ChainProof<'a> {
    pub keys_id: KeysId,
    pub channel: &'a Channel,
    pub shown: Result<Proven, ProofError>,
    /// `None` when it is not the channel's.
    pub role: Option<Role>,
}

/// What a transaction is to a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It has the funding output.
    Funding,
    /// It spends the funding output.
    Spend,
    /// It spends outputs of the transaction that closed the channel: these, which have HTLCs, and perhaps others.
    OfClose(Vec<OutPoint>),
}

impl ChainProof<'_> {
    /// What is put on record; `None` when nothing was shown.
    pub fn in_block(&self) -> Option<InBlock> {
        let proven = self.shown.as_ref().ok()?;
        Some(InBlock {
            txid: proven.txid,
            block: proven.block,
            height: proven.height,
        })
    }
}

impl Signer {
    pub(super) fn read_proof(
        &self,
        keys_id: KeysId,
        op: &ProveTransaction,
    ) -> Result<ChainProof<'_>, Refused> {
        let channel = self.channel(&keys_id)?;
        let proof = Proof::decode(&op.proof);
        let proof = proof.map_err(|error| Refused::new(Rule::Proof, error.to_string()))?;
        Ok(ChainProof {
            keys_id,
            channel,
            role: role(&proof, channel),
            shown: proof.verify(self.headers()),
        })
    }
}

fn role(proof: &Proof, channel: &Channel) -> Option<Role> {
    let parameters = &channel.parameters;
    let outpoint = parameters.funding_outpoint?.into_bitcoin_outpoint();
    let transaction = &proof.transaction;
    let mut inputs = transaction.input.iter();
    if inputs.any(|input| input.previous_output == outpoint) {
        return Some(Role::Spend);
    }
    let funding = TxOut {
        value: Amount::from_sat(parameters.channel_value_satoshis),
        script_pubkey: funding_script(parameters)?.to_p2wsh(),
    };
    let output = transaction.output.get(usize::try_from(outpoint.vout).ok()?);
    let is_funding = transaction.compute_txid() == outpoint.txid && output == Some(&funding);
    if is_funding {
        return Some(Role::Funding);
    }
    of_close(proof, channel)
}

fn of_close(proof: &Proof, channel: &Channel) -> Option<Role> {
    let close = channel.spend?.txid;
    let spent = proof.transaction.input.iter();
    let spent = spent.map(|input| input.previous_output);
    let spent: Vec<OutPoint> = spent.filter(|output| output.txid == close).collect();
    if spent.is_empty() {
        return None;
    }
    let htlcs = channel.closed_htlcs(close).into_iter().flatten();
    let htlcs = htlcs.map(|it| it.output);
    Some(Role::OfClose(
        htlcs.filter(|output| spent.contains(output)).collect(),
    ))
}
