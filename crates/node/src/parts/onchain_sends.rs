//! On-chain payments that the owner has asked for: signed, broadcast, replaced by others with higher fees (`replacements.rs`),
//! until they are confirmed.
//!
//! A payment is answered when the chain source has taken its transaction. One that the source refuses is sent again with each
//! block, and so it stays on record, until it is confirmed, replaced or abandoned.

use std::cmp::Reverse;
use std::collections::HashMap;

use bitcoin::address::NetworkUnchecked;
use bitcoin::{Address, Network, Psbt, Txid};
use longhand_base::text::excerpt;
use longhand_chain::BroadcastAnswer;
use longhand_proto::Code;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{self, Error, SendOnchain};
use longhand_proto::signer::sign_psbt::Purpose;
use prost::Message;

use crate::api::NodeError;
use crate::errors::{OTHER_PHONE_REASON, recorded};
use crate::machine::turn::Turn;
use crate::parts::replacements::{describe, outcome, package, take_back};
use crate::parts::wallet_signing::{Signed, sign};
use crate::parts::{feerates, reserve};
use crate::store::journal::Journal;
use crate::store::schema::{Send, is_of, key};
use crate::wallet::SendAmount;

/// The longest id of a payment.
const ID_BYTES: usize = 32;
/// A payment that is not signed for a day is not signed later: its owner has long forgotten it.
const SIGN_WITHIN_BLOCKS: u32 = 144;
/// Payments on record; those that are over are forgotten above it, the oldest first.
const KEPT: usize = 1_000;

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
    /// `BAD_ID`, `ADDRESS_MALFORMED`, `WRONG_NETWORK`, `AMOUNT_ZERO`, `FEERATE_OUT_OF_RANGE`, `NO_FEE_ESTIMATE`, or the wallet's; nothing is changed then.
    pub fn request(
        &mut self,
        turn: &Turn,
        request: SendOnchain,
        signer: &[u8],
    ) -> Result<Vec<u8>, Error> {
        if !(1..=ID_BYTES).contains(&request.id.len()) {
            return Err(Error::new(
                Code::BadId,
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
            address: request.address,
            amount_sat: if request.all { 0 } else { request.amount_sat },
            created_unix_s: turn.now.unix_s(),
            ..Send::default()
        };
        self.put(turn, send);
        self.forget_old(turn);
        Ok(request.id)
    }

    pub(super) fn get(&self, id: &[u8]) -> Option<&Send> {
        self.sends.get(id)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Send> {
        self.sends.values()
    }

    /// The reply to a payment, once the chain source has answered or it has failed.
    pub fn sent(&self, turn: &Turn, id: &[u8]) -> Option<Result<Reply, Error>> {
        let send = self.sends.get(id)?;
        if !send.failure.is_empty() {
            return Some(Err(recorded(&send.failure_code, send.failure.clone())));
        }
        if !send.is_abandoned {
            return outcome(turn, send);
        }
        // Whichever transaction confirms decides: until then the payment may still be made.
        let (code, message) = match describe(&**turn.wallet(), send).state() {
            command::send::State::Confirmed => return outcome(turn, send),
            command::send::State::Abandoned => (
                Code::Abandoned,
                "this payment was given up, and its coins are back in the wallet: ask again if you want it",
            ),
            _ => (
                Code::Abandoning,
                "this payment is being given up: `sends` shows what becomes of it; wait for a block",
            ),
        };
        Some(Err(Error::new(code, message)))
    }

    /// Whether the chain source's answer to this transaction is of interest: of those that are in no block.
    pub fn awaits_answer(&self, turn: &Turn, txid: Txid) -> bool {
        let text = txid.to_string();
        self.sends.values().any(|send| send.txid == text) && turn.wallet().is_pending(txid)
    }

    /// The chain source's answer to a broadcast.
    pub fn broadcast_answered(&mut self, turn: &Turn, txid: Txid, answer: &BroadcastAnswer) {
        let text = txid.to_string();
        let Some(send) = self.sends.values().find(|send| send.txid == text) else {
            return;
        };
        let (is_accepted, refusal) = match answer {
            BroadcastAnswer::Accepted => (true, String::new()),
            BroadcastAnswer::Refused(reason) => (false, excerpt(reason)),
        };
        if (is_accepted, &refusal) != (send.is_accepted, &send.refusal) {
            let send = Send {
                is_accepted,
                refusal,
                ..send.clone()
            };
            self.put(turn, send);
        }
    }

    /// The transaction that a child pays the fee of: the chain source takes both, or neither.
    pub fn parent_of(&self, txid: Txid) -> Option<Txid> {
        let text = txid.to_string();
        let child = self.sends.values().find(|send| send.txid == text)?;
        child.accelerates.parse().ok()
    }

    /// Broadcasts children that pay the fees of their parents again, each with its parent: alone the source takes neither.
    pub fn broadcast_children(&self, turn: &Turn) {
        let children = self
            .sends
            .values()
            .filter(|send| !send.accelerates.is_empty());
        for child in children {
            let txid = child.txid.parse().ok();
            let txid = txid.filter(|txid| turn.wallet().is_pending(*txid));
            let tx = txid.and_then(|txid| turn.wallet().transaction(txid));
            if let Some(tx) = tx {
                turn.ldk.broadcaster.push(package(turn, child, tx));
            }
        }
    }

    /// All payments, newest first.
    pub fn list(&self, turn: &Turn) -> Vec<command::Send> {
        let payments = self
            .sends
            .values()
            .filter(|send| send.accelerates.is_empty());
        let mut sends: Vec<&Send> = payments.collect();
        sends.sort_by_key(|send| Reverse(send.created_unix_s));
        let describe = |send: &&Send| describe(&**turn.wallet(), send);
        sends.iter().map(describe).collect()
    }

    /// Forgets the oldest payments that are over, above the number that is kept.
    fn forget_old(&mut self, turn: &Turn) {
        let excess = self.sends.len().saturating_sub(KEPT);
        if excess == 0 {
            return;
        }
        let wallet = turn.wallet();
        let is_over = |send: &&Send| {
            use command::send::State;
            let state = describe(&**wallet, send).state();
            matches!(state, State::Confirmed | State::Failed | State::Abandoned)
        };
        let mut over: Vec<&Send> = self.sends.values().filter(is_over).collect();
        over.sort_by_key(|send| (send.created_unix_s, send.asked_height));
        let over: Vec<Vec<u8>> = over
            .iter()
            .take(excess)
            .map(|send| send.id.clone())
            .collect();
        drop(wallet);
        for id in over {
            if let Some(send) = self.sends.remove(&id) {
                turn.journal.delete(send.key());
            }
        }
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
                self.fail(turn, send, Code::Expired, reason);
                continue;
            }
            match sign(turn, &psbt, purpose(&send), None) {
                Signed::Waiting => {}
                Signed::Failed(reason) => self.fail(turn, send, Code::SignerRefused, reason),
                Signed::Transaction(tx) => {
                    send.txid = tx.compute_txid().to_string();
                    turn.ldk.broadcaster.push(package(turn, &send, *tx));
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
            self.fail(turn, send, Code::PairingRenewed, OTHER_PHONE_REASON.into());
        }
    }

    /// Gives the coins back to the wallet.
    fn fail(&mut self, turn: &Turn, mut send: Send, code: Code, reason: String) {
        if let Ok(psbt) = Psbt::deserialize(&send.psbt) {
            turn.wallet().release(&psbt.unsigned_tx);
        }
        if let Some(earlier) = take_back(&send, code, &reason) {
            return self.put(turn, earlier);
        }
        send.failure_code = code.into();
        send.failure = reason;
        self.put(turn, send);
    }

    pub(super) fn put(&mut self, turn: &Turn, send: Send) {
        turn.journal.put(send.key(), send.encode_to_vec());
        self.sends.insert(send.id.clone(), send);
    }
}

/// Reads an address of this network.
///
/// # Errors
/// `ADDRESS_MALFORMED` or `WRONG_NETWORK`.
pub(crate) fn address(network: Network, text: &str) -> Result<Address, Error> {
    let address = text.parse::<Address<NetworkUnchecked>>().map_err(|_| {
        Error::new(
            Code::AddressMalformed,
            "this is not a bitcoin address: check it",
        )
    })?;
    address.require_network(network).map_err(|_| {
        let message = format!("the address is not one of {network}");
        Error::new(Code::WrongNetwork, message)
    })
}

/// A payment is compared with the owner's intent; a child that pays the fee of another pays nobody else.
fn purpose(send: &Send) -> Purpose {
    match send.accelerates.is_empty() {
        true => Purpose::Send,
        false => Purpose::Bump,
    }
}

fn build(turn: &Turn, request: &SendOnchain) -> Result<Psbt, Error> {
    let address = address(turn.config.network, &request.address)?;
    let amount = match (request.all, request.amount_sat) {
        (true, _) => SendAmount::All,
        (false, 0) => {
            return Err(Error::new(
                Code::AmountZero,
                "an amount above zero is needed",
            ));
        }
        (false, amount_sat) => SendAmount::Exact(amount_sat),
    };
    let feerate = feerates::chosen(turn, request.feerate_sat_per_kw)?;
    let keep = reserve::wanted_sat(turn, 0);
    let psbt = turn
        .wallet()
        .send(address.script_pubkey(), amount, feerate, keep);
    psbt.map_err(|error| Error::new(error.code(), error.to_string()))
}

#[cfg(test)]
#[path = "tests/onchain_sends.rs"]
mod tests;
