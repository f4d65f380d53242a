//! On-chain payments.

use longhand_base::text::plain;
use longhand_proto::command as proto;
use serde::{Deserialize, Serialize};

/// A transaction that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentOnchain {
    /// The transaction id in display form.
    pub txid: String,
    /// Its fee.
    pub fee_sat: u64,
}

/// The owner's on-chain payments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sends {
    /// Newest first.
    pub sends: Vec<OnchainSend>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnchainSend {
    /// Its transaction; empty until the phone has signed one.
    pub txid: String,
    /// The payee's.
    pub address: String,
    /// 0 = all that there was.
    pub amount_sat: u64,
    /// Of the transaction.
    pub fee_sat: u64,
    /// `unsigned`, `pending`, `confirmed`, `failed`, `conflicted`, `abandoning` or `abandoned`.
    pub state: String,
    /// When it was asked for, in seconds since 1970.
    pub created_unix_s: u64,
    /// Transactions for it that were replaced, oldest first.
    pub replaced_txids: Vec<String>,
    /// Why the chain source refuses it, or why it failed; empty without a problem.
    pub problem: String,
}

impl From<proto::Send> for OnchainSend {
    fn from(send: proto::Send) -> OnchainSend {
        OnchainSend {
            txid: plain(&send.txid),
            address: plain(&send.address),
            amount_sat: send.amount_sat,
            fee_sat: send.fee_sat,
            state: send.state().as_str_name().to_ascii_lowercase(),
            created_unix_s: send.created_unix_s,
            replaced_txids: send.replaced_txids.iter().map(|txid| plain(txid)).collect(),
            problem: plain(&send.problem),
        }
    }
}
