//! Payments that wait in the mempool, or that it does not take: a higher fee for them (BIP 125, or CPFP), and giving them up.

use bitcoin::{Transaction, Txid};
use longhand_chain::BroadcastAnswer;
use longhand_proto::Code;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::send::State;
use longhand_proto::command::{self, Error, SentOnchain};
use prost::Message;

use crate::errors::recorded;
use crate::machine::turn::Turn;
use crate::parts::feerates;
use crate::parts::onchain_sends::{OnchainSends, address};
use crate::parts::openings::Openings;
use crate::store::schema::Send;
use crate::wallet::{OnchainWallet, Replacement, SendAmount, WalletError};

/// A replacement pays for its own relay: this much more than the one before, in satoshis per 1,000 weight units (BIP 125).
const RELAY_SAT_PER_KW: u32 = 250;

/// A replacement that was asked for: of the payment with this id, the one with this number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    id: Vec<u8>,
    number: u32,
}

impl Attempt {
    fn last_of(send: &Send) -> Attempt {
        Attempt {
            id: send.id.clone(),
            number: send.attempts,
        }
    }
}

impl OnchainSends {
    /// The owner's command: raises the fee of a payment, or of another unconfirmed transaction of the wallet's, such as the
    /// funding of a channel, whose txid the peer knows. Asked again, it is the same replacement.
    ///
    /// # Errors
    /// `TXID_MALFORMED`, `FEERATE_OUT_OF_RANGE`, `NOT_SIGNED_YET`, or the wallet's; nothing is changed then.
    pub fn bump(
        &mut self,
        turn: &Turn,
        request: &command::BumpTransaction,
        signer: &[u8],
    ) -> Result<Attempt, Error> {
        let txid = read_txid(&request.txid)?;
        let rate = request.feerate_sat_per_kw;
        let Some(send) = self.with_transaction(txid).cloned() else {
            return self.accelerate(turn, txid, rate, signer);
        };
        if send.replaced.contains(&txid.to_string()) {
            return Ok(Attempt::last_of(&send));
        }
        let by = match send.is_abandoned || !send.accelerates.is_empty() {
            true => Replacement::ToWallet,
            false => same_payment(turn, &send)?,
        };
        let next = Send {
            is_abandoned: send.is_abandoned,
            ..self.replacement(turn, &send, by, rate)?
        };
        Ok(self.ask(turn, next, signer))
    }

    /// The owner's command: replaces a payment, by whichever of its transactions it is named, by one that sends everything
    /// back to the wallet.
    ///
    /// # Errors
    /// As [`OnchainSends::bump`]; `NOT_A_PAYMENT` for any other transaction.
    pub fn abandon(
        &mut self,
        turn: &Turn,
        request: &command::AbandonTransaction,
        signer: &[u8],
    ) -> Result<Attempt, Error> {
        let txid = read_txid(&request.txid)?;
        let send = self.with_transaction(txid);
        let Some(send) = send.filter(|send| send.accelerates.is_empty()).cloned() else {
            let message = "only a payment can be abandoned: list them with `sends`; a channel's funding is bound to the channel";
            return Err(Error::new(Code::NotAPayment, message));
        };
        if send.is_abandoned {
            return Ok(Attempt::last_of(&send));
        }
        let rate = request.feerate_sat_per_kw;
        let next = Send {
            is_abandoned: true,
            ..self.replacement(turn, &send, Replacement::ToWallet, rate)?
        };
        Ok(self.ask(turn, next, signer))
    }

    /// The reply to a replacement, once the chain source has answered or it has failed.
    pub fn replaced(&self, turn: &Turn, attempt: &Attempt) -> Option<Result<Reply, Error>> {
        let send = self.get(&attempt.id)?;
        let has_failed = !send.replacement_failure_code.is_empty();
        if has_failed && send.attempts == attempt.number {
            let message = format!(
                "{}: the transaction {} is as it was",
                send.replacement_failure, send.txid
            );
            return Some(Err(recorded(&send.replacement_failure_code, message)));
        }
        // A first child has nothing to go back to.
        if !send.failure_code.is_empty() {
            return Some(Err(recorded(&send.failure_code, send.failure.clone())));
        }
        outcome(turn, send)
    }

    /// The record with a transaction in the place of its last one, which is not signed yet.
    fn replacement(
        &self,
        turn: &Turn,
        send: &Send,
        by: Replacement,
        feerate_sat_per_kw: u32,
    ) -> Result<Send, Error> {
        let txid = send.txid.parse().map_err(|_| {
            let message = "the phone has not signed this payment yet: it can be replaced once it is broadcast";
            Error::new(Code::NotSignedYet, message)
        })?;
        let rate = higher(turn, txid, feerate_sat_per_kw)?;
        let psbt = turn.wallet().replace(txid, by, rate).map_err(refusal)?;
        let mut next = Send {
            before: send.encode_to_vec(),
            psbt: psbt.serialize(),
            fee_sat: psbt.fee().map_or(0, |fee| fee.to_sat()),
            txid: String::new(),
            ..send.clone()
        };
        next.replaced.push(send.txid.clone());
        Ok(next)
    }

    fn accelerate(
        &mut self,
        turn: &Turn,
        txid: Txid,
        feerate_sat_per_kw: u32,
        signer: &[u8],
    ) -> Result<Attempt, Error> {
        let text = txid.to_string();
        let mut sends = self.all();
        if let Some(child) = sends.find(|send| send.accelerates == text && send.failure.is_empty())
        {
            return Ok(Attempt::last_of(child));
        }
        drop(sends);
        let rate = higher(turn, txid, feerate_sat_per_kw)?;
        let psbt = turn.wallet().accelerate(txid, rate).map_err(refusal)?;
        let child = Send {
            id: bitcoin::hashes::Hash::to_byte_array(txid).to_vec(),
            psbt: psbt.serialize(),
            fee_sat: psbt.fee().map_or(0, |fee| fee.to_sat()),
            created_unix_s: turn.now.unix_s(),
            accelerates: text,
            ..Send::default()
        };
        Ok(self.ask(turn, child, signer))
    }

    /// Puts a transaction on record that the phone is to sign.
    fn ask(&mut self, turn: &Turn, mut send: Send, signer: &[u8]) -> Attempt {
        send.attempts = send.attempts.saturating_add(1);
        send.is_accepted = false;
        send.refusal.clear();
        send.replacement_failure_code.clear();
        send.replacement_failure.clear();
        send.asked_by = signer.to_vec();
        send.asked_height = turn.height;
        let attempt = Attempt::last_of(&send);
        self.put(turn, send);
        attempt
    }

    /// The payment that has, or had, this transaction.
    fn with_transaction(&self, txid: Txid) -> Option<&Send> {
        let text = txid.to_string();
        self.all()
            .find(|send| send.txid == text || send.replaced.contains(&text))
    }
}

/// The chain source's answer to a broadcast, for the payment or the opening that has the transaction. It takes a child with
/// its parent, or neither.
pub(crate) fn answered(
    turn: &Turn,
    sends: &mut OnchainSends,
    openings: &mut Openings,
    txid: Txid,
    answer: &BroadcastAnswer,
) {
    sends.broadcast_answered(turn, txid, answer);
    for txid in sends.parent_of(txid).into_iter().chain([txid]) {
        openings.broadcast_answered(turn, txid, answer);
    }
}

/// The payment as it was before a replacement that was not signed, for this reason.
pub(super) fn take_back(send: &Send, code: Code, reason: &str) -> Option<Send> {
    match &send.before[..] {
        [] => None,
        before => Some(Send {
            attempts: send.attempts,
            replacement_failure_code: code.into(),
            replacement_failure: reason.to_owned(),
            ..Send::decode(before).ok()?
        }),
    }
}

/// The result of a payment that has not failed, whatever became of it: a transaction of it is confirmed, or the chain source has
/// answered to the last one.
pub(super) fn outcome(turn: &Turn, send: &Send) -> Option<Result<Reply, Error>> {
    let mut txids = send.replaced.iter().chain([&send.txid]);
    let confirmed = txids.find(|txid| is_confirmed(&**turn.wallet(), txid));
    let sent = |txid: &str| {
        let sent = SentOnchain {
            txid: txid.to_owned(),
            fee_sat: send.fee_sat,
        };
        Some(Ok(Reply::SentOnchain(sent)))
    };
    match confirmed {
        Some(txid) => sent(txid),
        None if send.txid.is_empty() => None,
        None if !send.refusal.is_empty() => {
            let message = format!(
                "the chain source refuses the transaction {} ({}): it is sent again with each block; `bump` it, or \
                 `abandon` it",
                send.txid, send.refusal
            );
            Some(Err(Error::new(Code::RefusedByNetwork, message)))
        }
        None if send.is_accepted => sent(&send.txid),
        None => None,
    }
}

/// The transaction to broadcast, with the parent that it pays for.
pub(super) fn package(turn: &Turn, send: &Send, tx: Transaction) -> Vec<Transaction> {
    let parent = send.accelerates.parse().ok();
    let parent = parent.and_then(|txid| turn.wallet().transaction(txid));
    parent.into_iter().chain([tx]).collect()
}

/// A payment as its owner sees it.
pub(super) fn describe(wallet: &dyn OnchainWallet, send: &Send) -> command::Send {
    let mut txids = send.replaced.iter().chain([&send.txid]);
    let confirmed = txids.find(|txid| is_confirmed(wallet, txid));
    let last = match (&send.txid[..], send.replaced.last()) {
        ("", Some(replaced)) => replaced,
        _ => &send.txid,
    };
    let is_displaced = |txid: &str| txid.parse().is_ok_and(|txid| wallet.is_displaced(txid));
    let state = match confirmed {
        _ if !send.failure.is_empty() => State::Failed,
        Some(txid) if send.is_abandoned && *txid == send.txid => State::Abandoned,
        Some(_) => State::Confirmed,
        None if last.is_empty() => State::Unsigned,
        None if !send.txid.is_empty() && is_displaced(&send.txid) => State::Conflicted,
        None if send.is_abandoned => State::Abandoning,
        None => State::Pending,
    };
    let problem = match send.failure.is_empty() {
        true if confirmed.is_some() => "",
        true => &send.refusal,
        false => &send.failure,
    };
    command::Send {
        id: send.id.clone(),
        txid: confirmed.unwrap_or(last).clone(),
        address: send.address.clone(),
        amount_sat: send.amount_sat,
        fee_sat: send.fee_sat,
        state: state.into(),
        created_unix_s: send.created_unix_s,
        replaced_txids: send.replaced.clone(),
        problem: problem.to_owned(),
    }
}

fn is_confirmed(wallet: &dyn OnchainWallet, txid: &str) -> bool {
    txid.parse().is_ok_and(|txid| wallet.is_confirmed(txid))
}

fn same_payment(turn: &Turn, send: &Send) -> Result<Replacement, Error> {
    if send.address.is_empty() {
        let message =
            "this payment is of an earlier version, which did not keep its address: wait for it";
        return Err(Error::new(Code::NotReplaceable, message));
    }
    let script = address(turn.config.network, &send.address)?.script_pubkey();
    let amount = match send.amount_sat {
        0 => SendAmount::All,
        sat => SendAmount::Exact(sat),
    };
    Ok(Replacement::Payment(script, amount))
}

/// The owner's fee rate, or one that is high enough to replace the transaction.
fn higher(turn: &Turn, txid: Txid, given: u32) -> Result<u32, Error> {
    if let Some(given) = feerates::checked(given)? {
        return Ok(given);
    }
    let now = turn.wallet().feerate_of(txid);
    let now = now.ok_or_else(|| refusal(WalletError::NotReplaceable))?;
    let least = now.saturating_add(RELAY_SAT_PER_KW.max(now / 4));
    Ok(least.max(turn.ldk.fees.rates().normal))
}

fn read_txid(text: &str) -> Result<Txid, Error> {
    let bad = |_| {
        Error::new(
            Code::TxidMalformed,
            "a txid has 64 hexadecimal digits: copy it from `sends`",
        )
    };
    text.parse().map_err(bad)
}

fn refusal(error: WalletError) -> Error {
    Error::new(error.code(), error.to_string())
}

#[cfg(test)]
#[path = "tests/replacements.rs"]
mod tests;
