//! Answers about the mempool and fee rates.

use bitcoin::{Amount, Txid};
use serde_json::{Map, Value, json};

use super::super::policy::sat_per_kvb;
use super::{Answer, Body, View};
use crate::FeeRates;

/// Transactions in the list of recent ones.
const MOST_RECENT: usize = 10;

impl View<'_> {
    /// `None` when there is no such path below the mempool's.
    pub(super) fn of_pool(&self, rest: &[&str]) -> Option<Answer> {
        let pool = &self.state.pool;
        let answer = match rest {
            [] => {
                let all = pool.all();
                json!({
                    "count": all.count,
                    "vsize": all.vsize,
                    "total_fee": all.fee_sat,
                    // Blocks of a devnet are never full.
                    "fee_histogram": [],
                })
            }
            ["txids"] => {
                let txids = pool.in_order().into_iter().map(|entry| entry.txid);
                json!(txids.collect::<Vec<Txid>>())
            }
            ["recent"] => {
                let newest = pool.in_order().into_iter().rev().take(MOST_RECENT);
                let show = |entry: &super::super::mempool::Entry| {
                    let value: Amount = entry.tx.output.iter().map(|output| output.value).sum();
                    json!({
                        "txid": entry.txid,
                        "fee": entry.fee_sat,
                        "vsize": entry.vsize,
                        "value": value.to_sat(),
                    })
                };
                newest.map(show).collect()
            }
            _ => return None,
        };
        Some(Ok(Body::Json(answer)))
    }
}

/// Satoshis per virtual byte by target, in blocks; empty without an estimate.
pub(super) fn fee_estimates(rates: FeeRates) -> Value {
    let mut estimates = Map::new();
    for target in (1..=25)
        .chain([144, 504, 1_008])
        .filter(|_| rates.is_estimate)
    {
        let sat_per_kw = match target {
            1..=2 => rates.urgent,
            3..=6 => rates.normal,
            _ => rates.background,
        };
        let sat_per_vb = sat_per_kvb(sat_per_kw) as f64 / 1_000.0;
        estimates.insert(target.to_string(), json!(sat_per_vb));
    }
    Value::Object(estimates)
}
