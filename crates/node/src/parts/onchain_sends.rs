//! On-chain payments that the owner has asked for, until they are broadcast.

use std::collections::HashMap;

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Psbt};
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{Error, SendOnchain, SentOnchain};
use longhand_proto::signer::sign_psbt::Purpose;
use prost::Message;

use crate::api::NodeError;
use crate::errors::{OTHER_PHONE, OTHER_PHONE_REASON, bad_input};
use crate::machine::turn::Turn;
use crate::parts::wallet_signing::{Signed, sign};
use crate::parts::{feerates, reserve};
use crate::store::journal::Journal;
use crate::store::schema::{Send, is_of, key};
use crate::wallet::SendAmount;

/// The longest id of a payment.
const ID_BYTES: usize = 32;
/// A payment that is not signed for a day is not signed later: its owner has long forgotten it.
const SIGN_WITHIN_BLOCKS: u32 = 144;
/// Code of a payment that the phone does not sign.
const SIGNER_REFUSED: &str = "SIGNER_REFUSED";

/// See the module.
#[derive(Default)]
pub(crate) struct OnchainSends {
    sends: HashMap<Vec<u8>, Send>,
}

impl OnchainSends {
    /// Reads the records back.
    pub fn load(journal: &Journal) -> Result<OnchainSends, NodeError> {
        let bad = |_| NodeError::Load("a record of an on-chain payment".into());
        let stored = journal.loaded(key::SEND).into_iter();
        let sends = stored.map(|(_, bytes)| {
            let send = Send::decode(&bytes[..]).map_err(bad)?;
            Ok((send.id.clone(), send))
        });
        let sends = sends.collect::<Result<_, NodeError>>()?;
        Ok(OnchainSends { sends })
    }

    /// Builds a payment for the phone that is attached; the rest happens in [`OnchainSends::advance`]. Asked again with the same id, it is the same
    /// payment. Returns its id.
    ///
    /// # Errors
    /// `BAD_ID`, `BAD_ADDRESS`, `WRONG_NETWORK`, `BAD_AMOUNT`, `BAD_FEE_RATE`, `NO_FEE_ESTIMATE`, or the wallet's; nothing is changed then.
    pub fn request(
        &mut self,
        turn: &Turn,
        request: SendOnchain,
        signer: &[u8],
    ) -> Result<Vec<u8>, Error> {
        if !(1..=ID_BYTES).contains(&request.id.len()) {
            return Err(bad_input(
                "BAD_ID",
                "the payment needs an id of up to 32 bytes",
            ));
        }
        if self.sends.contains_key(&request.id) {
            return Ok(request.id);
        }
        let psbt = build(turn, &request)?;
        let fee_sat = psbt.fee().map_or(0, |fee| fee.to_sat());
        let send = Send {
            id: request.id.clone(),
            psbt: psbt.serialize(),
            fee_sat,
            asked_by: signer.to_vec(),
            asked_height: turn.height,
            ..Send::default()
        };
        self.put(turn, send);
        Ok(request.id)
    }

    /// The reply to a payment, once it is broadcast or has failed.
    pub fn sent(&self, id: &[u8]) -> Option<Result<Reply, Error>> {
        let send = self.sends.get(id)?;
        if !send.failure.is_empty() {
            let code = match &*send.failure_code {
                "" => SIGNER_REFUSED,
                code => code,
            };
            return Some(Err(bad_input(code, send.failure.clone())));
        }
        let sent = SentOnchain {
            txid: send.txid.clone(),
            fee_sat: send.fee_sat,
        };
        (!send.txid.is_empty()).then_some(Ok(Reply::SentOnchain(sent)))
    }

    /// Broadcasts those that are signed, and asks for the signatures of the others.
    pub fn advance(&mut self, turn: &Turn) {
        let sends = self.sends.values().filter(|send| send.is_under_way());
        let waiting: Vec<Send> = sends.cloned().collect();
        for mut send in waiting {
            let Ok(psbt) = Psbt::deserialize(&send.psbt) else {
                continue;
            };
            if send.asked_height > 0 && turn.height > send.asked_height + SIGN_WITHIN_BLOCKS {
                let reason = format!(
                    "the phone did not sign it within {SIGN_WITHIN_BLOCKS} blocks: nothing was spent; ask again if you \
                     want it"
                );
                self.fail(turn, send, "EXPIRED", reason);
                continue;
            }
            match sign(turn, &psbt, Purpose::Send, None) {
                Signed::Waiting => {}
                Signed::Failed(reason) => self.fail(turn, send, SIGNER_REFUSED, reason),
                Signed::Transaction(tx) => {
                    send.txid = tx.compute_txid().to_string();
                    turn.ldk.broadcaster.push(vec![*tx]);
                    self.put(turn, send);
                }
            }
        }
    }

    /// Another signer is attached: it signs nothing that it was not asked for.
    pub fn fail_of_others(&mut self, turn: &Turn, signer: &[u8]) {
        let sends = self.sends.values().filter(|send| send.is_under_way());
        let of_others = sends.filter(|send| !is_of(&send.asked_by, signer));
        let of_others: Vec<Send> = of_others.cloned().collect();
        for send in of_others {
            self.fail(turn, send, OTHER_PHONE, OTHER_PHONE_REASON.into());
        }
    }

    /// Gives the coins back to the wallet.
    fn fail(&mut self, turn: &Turn, mut send: Send, code: &str, reason: String) {
        if let Ok(psbt) = Psbt::deserialize(&send.psbt) {
            turn.wallet().release(&psbt.unsigned_tx);
        }
        send.failure_code = code.into();
        send.failure = reason;
        self.put(turn, send);
    }

    fn put(&mut self, turn: &Turn, send: Send) {
        turn.journal.put(send.key(), send.encode_to_vec());
        self.sends.insert(send.id.clone(), send);
    }
}

fn build(turn: &Turn, request: &SendOnchain) -> Result<Psbt, Error> {
    let address = request
        .address
        .parse::<Address<NetworkUnchecked>>()
        .map_err(|_| bad_input("BAD_ADDRESS", "this is not a bitcoin address: check it"))?;
    let network = turn.config.network;
    let address = address.require_network(network).map_err(|_| {
        let message = format!("the address is not one of {network}");
        bad_input("WRONG_NETWORK", message)
    })?;
    let amount = match (request.all, request.amount_sat) {
        (true, _) => SendAmount::All,
        (false, 0) => return Err(bad_input("BAD_AMOUNT", "an amount above zero is needed")),
        (false, amount_sat) => SendAmount::Exact(amount_sat),
    };
    let feerate = feerates::chosen(turn, request.feerate_sat_per_kw)?;
    let keep = reserve::wanted_sat(turn, 0);
    let psbt = turn
        .wallet()
        .send(address.script_pubkey(), amount, feerate, keep);
    psbt.map_err(|error| bad_input(error.code(), error.to_string()))
}

#[cfg(test)]
#[path = "tests/onchain_sends.rs"]
mod tests;
