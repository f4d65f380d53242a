//! The on-chain wallet.

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use tonic::Status;

use super::{ACCOUNT, check_account, int, refuse};
use crate::call::Messages;
use crate::node::{self, AddressKind, Change, Node, SendCoins};
use crate::proto::lnrpc::{
    AddressType, GetTransactionsRequest, NewAddressRequest, NewAddressResponse, OutputDetail,
    SendCoinsRequest, SendCoinsResponse, Transaction, TransactionDetails, WalletAccountBalance,
    WalletBalanceRequest, WalletBalanceResponse,
};
use crate::status::bad_input;

/// The most transactions of one reply.
const MOST: usize = 1_000;

pub(super) async fn balance(
    node: Arc<dyn Node>,
    asked: WalletBalanceRequest,
) -> Result<WalletBalanceResponse, Status> {
    check_account(&asked.account)?;
    let balance = node.balance().await?;
    let (confirmed, unconfirmed) = (
        int(balance.onchain_confirmed_sat),
        int(balance.onchain_unconfirmed_sat),
    );
    let account = WalletAccountBalance {
        confirmed_balance: confirmed,
        unconfirmed_balance: unconfirmed,
    };
    Ok(WalletBalanceResponse {
        total_balance: confirmed.saturating_add(unconfirmed),
        confirmed_balance: confirmed,
        unconfirmed_balance: unconfirmed,
        account_balance: HashMap::from([(ACCOUNT.into(), account)]),
        locked_balance: 0,
        reserved_balance_anchor_chan: int(balance.onchain_reserved_sat),
    })
}

/// Newest first, as lnd lists them. An end below the start turns the order round, as there.
pub(super) async fn transactions(
    node: Arc<dyn Node>,
    asked: GetTransactionsRequest,
) -> Result<TransactionDetails, Status> {
    check_account(&asked.account)?;
    let (start, end) = (i64::from(asked.start_height), i64::from(asked.end_height));
    // 0 and 0 = all.
    let with_unconfirmed = end == -1 || (start == 0 && end == 0);
    let (low, high) = match (start, end) {
        (0, 0) => (0, i64::MAX),
        (start, -1) => (start, i64::MAX),
        (start, end) => (start.min(end), start.max(end)),
    };
    let is_wanted = |it: &node::Transaction| match it.block_height {
        0 => with_unconfirmed,
        height => (low..=high).contains(&i64::from(height)),
    };
    let mut all = node.transactions().await?;
    all.retain(is_wanted);
    // Those without a block are the newest.
    let place = |it: &node::Transaction| match it.block_height {
        0 => u32::MAX,
        height => height,
    };
    all.sort_by_key(|it| std::cmp::Reverse((place(it), it.unix_s)));
    if end != -1 && end < start {
        all.reverse();
    }
    let limit = match usize::try_from(asked.max_transactions) {
        Ok(limit @ 1..MOST) => limit,
        _ => MOST,
    };
    let offset = usize::try_from(asked.index_offset).unwrap_or(usize::MAX);
    let page = all.into_iter().skip(offset).take(limit).map(message);
    let transactions: Vec<Transaction> = page.collect();
    let count = transactions.len() as u64;
    let first = u64::from(asked.index_offset);
    Ok(TransactionDetails {
        transactions,
        first_index: first,
        last_index: first + count.saturating_sub(1),
    })
}

pub(super) async fn subscribe(
    node: Arc<dyn Node>,
    _: GetTransactionsRequest,
) -> Result<Messages<Transaction>, Status> {
    let changes = node.changes().filter_map(async |change| match change {
        Ok(Change::Transaction(seen)) => Some(Ok(message(*seen))),
        Ok(Change::Invoice(_)) => None,
        Err(error) => Some(Err(error.into())),
    });
    Ok(changes.boxed())
}

fn message(seen: node::Transaction) -> Transaction {
    let details = (0..).zip(&seen.outputs).map(|(nth, output)| OutputDetail {
        address: output.address.clone(),
        output_index: nth,
        amount: int(output.amount_sat),
        is_our_address: output.is_own,
    });
    let addresses = seen.outputs.iter().map(|output| output.address.clone());
    Transaction {
        output_details: details.collect(),
        dest_addresses: addresses.filter(|it| !it.is_empty()).collect(),
        tx_hash: seen.txid,
        amount: seen.amount_sat,
        num_confirmations: i32::try_from(seen.confirmations).unwrap_or(i32::MAX),
        block_hash: seen.block_hash,
        block_height: i32::try_from(seen.block_height).unwrap_or(i32::MAX),
        time_stamp: int(seen.unix_s),
        total_fees: int(seen.fee_sat),
        raw_tx_hex: String::new(),
        label: seen.label,
    }
}

pub(super) async fn new_address(
    node: Arc<dyn Node>,
    asked: NewAddressRequest,
) -> Result<NewAddressResponse, Status> {
    check_account(&asked.account)?;
    let kind = match AddressType::try_from(asked.r#type) {
        Ok(AddressType::WitnessPubkeyHash | AddressType::UnusedWitnessPubkeyHash) => {
            AddressKind::Segwit
        }
        Ok(AddressType::TaprootPubkey | AddressType::UnusedTaprootPubkey) => AddressKind::Taproot,
        Ok(AddressType::NestedPubkeyHash | AddressType::UnusedNestedPubkeyHash) | Err(_) => {
            return Err(bad_input(
                "unsupported address type: ask for WITNESS_PUBKEY_HASH",
            ));
        }
    };
    let address = node.new_address(kind).await?;
    Ok(NewAddressResponse { address })
}

pub(super) async fn send(
    node: Arc<dyn Node>,
    asked: SendCoinsRequest,
) -> Result<SendCoinsResponse, Status> {
    let txid = node.send_coins(checked(asked)?).await?;
    Ok(SendCoinsResponse { txid })
}

/// Which coins are spent is left to the node, which spends unconfirmed ones of its own alone.
fn checked(asked: SendCoinsRequest) -> Result<SendCoins, Status> {
    refuse(!asked.outpoints.is_empty(), "outpoints")?;
    refuse(asked.min_confs > 1, "min_confs")?;
    let amount_sat = match (u64::try_from(asked.amount), asked.send_all) {
        (Ok(0), true) => None,
        (Ok(amount @ 1..), false) => Some(amount),
        (_, true) => {
            return Err(bad_input(
                "amount set while SendAll is active: give one of them",
            ));
        }
        (_, false) => return Err(bad_input("amount has to be above 0")),
    };
    let older = u64::try_from(asked.sat_per_byte);
    let older = older.map_err(|_| bad_input("sat_per_byte is below 0"))?;
    let target = u32::try_from(asked.target_conf);
    let target = target.map_err(|_| bad_input("target_conf is below 0"))?;
    let rate = match (asked.sat_per_vbyte, older) {
        (rate, 0) | (0, rate) => rate,
        _ => {
            return Err(bad_input(
                "sat_per_vbyte and sat_per_byte: give one of them",
            ));
        }
    };
    if rate != 0 && target != 0 {
        return Err(bad_input("sat_per_vbyte and target_conf: give one of them"));
    }
    Ok(SendCoins {
        address: asked.addr,
        amount_sat,
        sat_per_vbyte: Some(rate).filter(|it| *it != 0),
        confirmation_target: Some(target).filter(|it| *it != 0),
    })
}
