//! The devnet's JSON-RPC: bodies of requests, at a chain of a few blocks with a transaction in its mempool.
//!
//! As long as a request only reads, the chain is kept for the next input; one that changed it is followed by a new chain.

use std::cell::RefCell;

use bitcoin::{Amount, BlockHash, Txid};
use longhand_chain::{Devnet, DevnetConfig};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// Enough for one coin that can be spent.
const PREMINE: u32 = 102;
/// Requests that may mine more blocks are not tried, for time.
const BLOCKS: i64 = 4;

struct Chain {
    devnet: Devnet,
    runtime: Runtime,
    tip: BlockHash,
    mempool: Vec<Txid>,
}

impl Chain {
    fn new() -> Chain {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let config = DevnetConfig {
            premine: PREMINE,
            ..DevnetConfig::default()
        };
        let devnet = runtime.block_on(Devnet::start(config));
        let devnet = devnet.expect("a devnet starts");
        let address = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
        let address = address.parse::<bitcoin::Address<_>>().unwrap();
        devnet
            .faucet(&address.assume_checked(), Amount::from_sat(100_000))
            .expect("the faucet has a coin");
        let mut chain = Chain {
            tip: devnet.tip().hash,
            mempool: Vec::new(),
            devnet,
            runtime,
        };
        chain.mempool = chain.mempool();
        chain
    }

    fn mempool(&self) -> Vec<Txid> {
        let txs = self.devnet.mempool();
        txs.iter().map(|tx| tx.compute_txid()).collect()
    }

    fn is_as_it_was(&self) -> bool {
        self.devnet.tip().hash == self.tip && self.mempool() == self.mempool
    }
}

thread_local! {
    static CHAIN: RefCell<Option<Chain>> = const { RefCell::new(None) };
}

fn with_chain<T>(work: impl FnOnce(&Chain) -> T) -> T {
    CHAIN.with_borrow_mut(|kept| {
        let chain = kept.take().unwrap_or_else(Chain::new);
        let done = work(&chain);
        match chain.is_as_it_was() {
            true => *kept = Some(chain),
            false => chain.runtime.block_on(chain.devnet.shutdown()),
        }
        done
    })
}

/// Tries one input.
pub fn run(data: &[u8]) {
    let request = serde_json::from_slice::<Value>(data);
    if request.as_ref().is_ok_and(takes_long) {
        return;
    }
    let (status, body) = with_chain(|chain| chain.devnet.answer_rpc(data));
    let Some(body) = body else {
        return assert_eq!(status, 204);
    };
    let answer: Value = serde_json::from_str(&body).expect("an answer is JSON");
    match (request, &answer) {
        (Ok(Value::Array(asked)), Value::Array(answers)) => {
            assert!(answers.len() <= asked.len() && answers.iter().all(is_answer));
        }
        (_, one) => assert!(is_answer(one), "{one}"),
    }
}

fn is_answer(answer: &Value) -> bool {
    let error = answer.get("error").filter(|error| !error.is_null());
    let named = error.is_none_or(|e| e["code"].is_i64() && e["message"].is_string());
    named && (error.is_some() || answer.get("result").is_some())
}

/// Whether something in the request asks for many blocks.
fn takes_long(request: &Value) -> bool {
    match request {
        Value::Array(requests) => requests.len() > 8 || requests.iter().any(takes_long),
        Value::Object(request) => {
            let mines = request.get("method").and_then(Value::as_str);
            let mines = mines.is_some_and(|m| m.contains("generate") || m.contains("reorg"));
            mines && request.get("params").is_some_and(has_large_number)
        }
        _ => false,
    }
}

fn has_large_number(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_i64().is_some_and(|number| number > BLOCKS),
        Value::Array(values) => values.iter().any(has_large_number),
        Value::Object(values) => values.values().any(has_large_number),
        _ => false,
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let address = "bcrt1qw508d6qejxtdg4y5r3zarvary0c5xw7kygt080";
    // Regtest's first block, its transaction, and one that spends what is not there.
    let genesis = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206";
    let coinbase = "4a5e1e4baab89f3a32518a88c31bc87f618f76673e2cc77ab2127b7afdeda33b";
    let raw = "0200000001aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa0000000000fdffffff0110270000000000001600140000000000000000000000000000000000000000aa000000";
    let calls = [
        ("getblockchaininfo", json!([])),
        ("getdeploymentinfo", json!([genesis])),
        ("getnetworkinfo", json!([])),
        ("getmininginfo", json!([])),
        ("getindexinfo", json!(["txindex"])),
        ("uptime", json!([])),
        ("validateaddress", json!([address])),
        ("estimatesmartfee", json!([6, "economical"])),
        ("generatetoaddress", json!([1, address])),
        ("generateblock", json!([address, [raw]])),
        ("devnet_faucet", json!([address, 0.001])),
        ("devnet_reorg", json!([2])),
        ("devnet_setminetimer", json!([0])),
        ("getbestblockhash", json!([])),
        ("getblockcount", json!([])),
        ("getblockhash", json!({ "height": 0 })),
        ("getblockheader", json!([genesis, true])),
        ("getblock", json!([genesis, 2])),
        ("getchaintips", json!([])),
        ("submitblock", json!(["00"])),
        ("invalidateblock", json!([genesis])),
        ("reconsiderblock", json!([genesis])),
        ("getrawtransaction", json!([coinbase, 2, genesis])),
        ("decoderawtransaction", json!([raw])),
        ("sendrawtransaction", json!([raw, "0.1", 0])),
        ("testmempoolaccept", json!([[raw], 0])),
        ("submitpackage", json!([[raw, raw], 0.5, 0.1])),
        ("gettxout", json!([coinbase, 0, true])),
        (
            "gettxspendingprevout",
            json!([[{ "txid": coinbase, "vout": 0 }]]),
        ),
        ("getrawmempool", json!([true])),
        ("getrawmempool", json!([false, true])),
        ("getmempoolentry", json!([coinbase])),
        ("getmempoolancestors", json!([coinbase, true])),
        ("getmempooldescendants", json!([coinbase, true])),
        ("getmempoolinfo", json!([])),
        ("nosuchmethod", json!([])),
    ];
    let mut bodies: Vec<Value> = calls
        .iter()
        .map(|(method, params)| json!({ "id": 1, "method": method, "params": params }))
        .collect();
    bodies.push(json!([
        { "jsonrpc": "2.0", "id": "a", "method": "getblockcount" },
        { "jsonrpc": "2.0", "method": "getblockcount" },
        7,
    ]));
    bodies
        .iter()
        .map(|body| body.to_string().into_bytes())
        .collect()
}
