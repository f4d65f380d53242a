//! devnet's JSON-RPC as seen by its clients: shapes, error codes, batches, credentials.

use bitcoin::base64::Engine as _;
use bitcoin::base64::prelude::BASE64_STANDARD;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::hashes::Hash as _;
use longhand_chain::Devnet;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::keys::{Key, output};

/// A plain HTTP client.
pub struct Rpc {
    addr: std::net::SocketAddr,
    auth: String,
}

impl Rpc {
    pub fn new(devnet: &Devnet) -> Rpc {
        Rpc {
            addr: devnet.rpc_addr(),
            auth: "devnet:devnet".into(),
        }
    }

    /// Status and body of the answer to `body`.
    pub async fn post(&self, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        let request = format!(
            "POST / HTTP/1.1\r\nHost: devnet\r\nConnection: close\r\nAuthorization: Basic {}\r\nContent-Length: {}\r\n\r\n{body}",
            BASE64_STANDARD.encode(&self.auth),
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    /// The result of a call.
    pub async fn ok(&self, method: &str, params: Value) -> Value {
        let (status, mut answer) = self.call(method, params).await;
        assert_eq!(status, 200, "{method}: {answer}");
        answer["result"].take()
    }

    /// Code and message of a call that fails.
    pub async fn error(&self, method: &str, params: Value) -> (i64, String) {
        let (_, answer) = self.call(method, params).await;
        let error = &answer["error"];
        assert!(error.is_object(), "{method} did not fail: {answer}");
        (
            error["code"].as_i64().unwrap(),
            error["message"].as_str().unwrap().into(),
        )
    }

    async fn call(&self, method: &str, params: Value) -> (u16, Value) {
        let request = json!({ "jsonrpc": "1.0", "id": 1, "method": method, "params": params });
        self.post(&request.to_string()).await
    }
}

#[tokio::test]
async fn bad_credentials_are_refused() {
    let devnet = Devnet::start_default().await.unwrap();
    let stranger = Rpc {
        addr: devnet.rpc_addr(),
        auth: "devnet:wrong".into(),
    };
    assert_eq!(stranger.post("{}").await, (401, Value::Null));
}

#[tokio::test]
async fn errors_have_bitcoin_cores_codes_and_statuses() {
    let devnet = Devnet::start_default().await.unwrap();
    let rpc = Rpc::new(&devnet);
    let (status, answer) = rpc.call("getinfo", json!([])).await;
    assert_eq!((status, &answer["error"]["code"]), (404, &json!(-32601)));
    assert_eq!(answer["error"]["message"], "Method not found");
    let (status, answer) = rpc.post("nonsense").await;
    assert_eq!((status, &answer["error"]["code"]), (500, &json!(-32700)));
    let (status, answer) = rpc.post("7").await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!(-32600)));
    let (status, answer) = rpc.call("getblockhash", json!([1_000_000])).await;
    assert_eq!((status, &answer["error"]["code"]), (500, &json!(-8)));
    let nothing = "00".repeat(32);
    assert_eq!(
        rpc.error("getblock", json!([nothing])).await,
        (-5, "Block not found".into())
    );
    assert_eq!(rpc.error("getblock", json!(["00"])).await.0, -8);
    assert_eq!(rpc.error("getrawtransaction", json!([nothing])).await.0, -5);
    assert_eq!(rpc.error("getmempoolentry", json!([nothing])).await.0, -5);
    assert_eq!(rpc.error("sendrawtransaction", json!(["00"])).await.0, -22);
    assert_eq!(
        rpc.error("generatetoaddress", json!([1, "bc1qnot"]))
            .await
            .0,
        -5
    );
    assert_eq!(rpc.error("getblockhash", json!({ "hight": 1 })).await.0, -8);
    assert_eq!(rpc.error("getblockhash", json!(["one"])).await.0, -3);
}

#[tokio::test]
async fn a_batch_is_answered_in_order_and_json_rpc_2_in_its_own_form() {
    let devnet = Devnet::start_default().await.unwrap();
    let rpc = Rpc::new(&devnet);
    let batch = json!([
        { "jsonrpc": "1.0", "id": 7, "method": "getblockcount", "params": [] },
        { "jsonrpc": "2.0", "id": 8, "method": "getblockhash", "params": { "height": 0 } },
        { "jsonrpc": "2.0", "id": 9, "method": "no" },
        { "jsonrpc": "2.0", "method": "getblockcount" },
    ]);
    let (status, answer) = rpc.post(&batch.to_string()).await;
    let genesis = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206";
    assert_eq!(status, 200);
    let expected = json!([
        { "result": 110, "error": null, "id": 7 },
        { "jsonrpc": "2.0", "result": genesis, "id": 8 },
        { "jsonrpc": "2.0", "error": { "code": -32601, "message": "Method not found" }, "id": 9 },
    ]);
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn the_first_calls_of_a_lightning_node_have_their_shapes() {
    let devnet = Devnet::start_default().await.unwrap();
    let rpc = Rpc::new(&devnet);
    let chain = rpc.ok("getblockchaininfo", json!([])).await;
    assert_eq!(chain["chain"], "regtest");
    assert_eq!(chain["blocks"], 110);
    assert_eq!(chain["bestblockhash"], json!(devnet.tip().hash));
    assert_eq!(
        (&chain["initialblockdownload"], &chain["pruned"]),
        (&json!(false), &json!(false))
    );
    // The genesis block counts for 2, as every block on regtest.
    assert_eq!(chain["chainwork"], json!(format!("{:064x}", 111 * 2)));
    let network = rpc.ok("getnetworkinfo", json!([])).await;
    assert_eq!(network["subversion"], "/Satoshi:29.0.0/");
    assert_eq!(network["relayfee"], 0.00001);
    let deployments = rpc.ok("getdeploymentinfo", json!([])).await;
    assert_eq!(deployments["deployments"]["taproot"]["active"], true);
    assert_eq!(rpc.ok("getzmqnotifications", json!([])).await, json!([]));
    let index = json!({ "synced": true, "best_block_height": 110 });
    let indices = json!({ "txindex": index, "basic block filter index": index });
    assert_eq!(rpc.ok("getindexinfo", json!([])).await, indices);
    let one = rpc.ok("getindexinfo", json!(["txindex"])).await;
    assert_eq!(one, json!({ "txindex": index }));
    let fee = rpc.ok("estimatesmartfee", json!([6, "CONSERVATIVE"])).await;
    assert_eq!(
        (&fee["feerate"], &fee["blocks"]),
        (&json!(0.00001), &json!(6))
    );
    assert_eq!(
        rpc.ok("getmempoolinfo", json!([])).await["mempoolminfee"],
        0.00001
    );
    assert!(rpc.ok("uptime", json!([])).await.is_u64());
    assert_eq!(
        rpc.ok("getmininginfo", json!([])).await["next"]["height"],
        111
    );
}

#[tokio::test]
async fn blocks_and_headers_have_their_shapes() {
    let devnet = Devnet::start_default().await.unwrap();
    let rpc = Rpc::new(&devnet);
    let key = Key::new(1);
    let funding = key.fund(&devnet, 100_000);
    let tx = key.spend(&funding, 500);
    devnet.submit(&tx).unwrap();
    let hash = devnet.mine_to_wallet(1).unwrap()[0];
    let block = devnet.block(&hash).unwrap();
    let height = devnet.tip().height;

    assert_eq!(
        rpc.ok("getblock", json!([hash, 0])).await,
        serialize_hex(&block)
    );
    assert_eq!(
        rpc.ok("getblockheader", json!([hash, false])).await,
        serialize_hex(&block.header)
    );
    let header = rpc.ok("getblockheader", json!([hash])).await;
    assert_eq!(header["height"], height);
    assert_eq!(header["confirmations"], 1);
    assert_eq!(
        header["previousblockhash"],
        json!(block.header.prev_blockhash)
    );
    assert_eq!(header["merkleroot"], json!(block.header.merkle_root));
    assert_eq!(header.get("nextblockhash"), None);
    let ids = rpc.ok("getblock", json!([hash])).await;
    assert_eq!(ids["tx"][1], json!(tx.compute_txid()));
    assert_eq!(ids["size"], block.total_size());
    let full = rpc.ok("getblock", json!([hash, 2])).await;
    assert_eq!(full["tx"][1]["hex"], serialize_hex(&tx));
    assert_eq!(full["tx"][1]["fee"], 0.000005);
    assert_eq!(full["tx"][1]["vin"][0]["txid"], json!(funding.0.txid));
    assert_eq!(
        full["tx"][1]["vout"][0]["scriptPubKey"]["address"],
        key.address().to_string()
    );
}

#[tokio::test]
async fn a_filter_of_a_block_has_its_shape_and_its_errors() {
    let devnet = Devnet::start_default().await.unwrap();
    let rpc = Rpc::new(&devnet);
    let hash = devnet.tip().hash;
    let basic = rpc.ok("getblockfilter", json!([hash, "basic"])).await;
    let fields = basic.as_object().unwrap();
    assert_eq!(fields.keys().collect::<Vec<_>>(), ["filter", "header"]);
    assert_eq!(basic["header"].as_str().unwrap().len(), 64);
    assert_eq!(rpc.ok("getblockfilter", json!([hash])).await, basic);
    let named = json!({ "blockhash": hash });
    assert_eq!(rpc.ok("getblockfilter", named).await, basic);

    let error = async |params| rpc.error("getblockfilter", params).await;
    let unknown = (-5, "Unknown filtertype".into());
    assert_eq!(error(json!([hash, "extended"])).await, unknown);
    let nothing = "00".repeat(32);
    let not_found = (-5, "Block not found".into());
    assert_eq!(error(json!([nothing])).await, not_found);
    assert_eq!(error(json!(["00"])).await.0, -8);
    assert_eq!(error(json!([hash, 0])).await.0, -3);
    devnet.reorg(1, vec![]).unwrap();
    let (code, message) = error(json!([hash])).await;
    assert_eq!(code, -5);
    assert!(message.starts_with("Filter not found."), "{message}");
}

#[tokio::test]
async fn transactions_are_found_in_mempool_block_and_index() {
    let devnet = Devnet::start_default().await.unwrap();
    let rpc = Rpc::new(&devnet);
    let key = Key::new(1);
    let funding = key.fund(&devnet, 100_000);
    let tx = key.spend(&funding, 500);
    let txid = devnet.submit(&tx).unwrap();
    let child = key.spend(&output(&tx, 0), 500);
    devnet.submit(&child).unwrap();

    assert_eq!(
        rpc.ok("getrawtransaction", json!([txid])).await,
        serialize_hex(&tx)
    );
    let pending = rpc.ok("getrawtransaction", json!([txid, 1])).await;
    assert_eq!(pending.get("blockhash"), None);
    let ids = rpc.ok("getrawmempool", json!([])).await;
    assert_eq!(ids, json!([txid, child.compute_txid()]));
    let entry = rpc.ok("getmempoolentry", json!([txid])).await;
    assert_eq!(
        (&entry["descendantcount"], &entry["ancestorcount"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(entry["fees"]["descendant"], 0.00001);
    let verbose = rpc.ok("getrawmempool", json!([true])).await;
    assert_eq!(verbose[txid.to_string()], entry);
    let spent = json!([[{ "txid": funding.0.txid, "vout": funding.0.vout }]]);
    let spender = rpc.ok("gettxspendingprevout", spent).await;
    assert_eq!(spender[0]["spendingtxid"], json!(txid));
    let spent = json!([funding.0.txid, funding.0.vout]);
    assert_eq!(rpc.ok("gettxout", spent.clone()).await, Value::Null);

    let hash = devnet.mine_to_wallet(1).unwrap()[0];
    let found = rpc.ok("getrawtransaction", json!([txid, true])).await;
    assert_eq!(
        (&found["blockhash"], &found["confirmations"]),
        (&json!(hash), &json!(1))
    );
    assert_eq!(
        rpc.ok("getrawtransaction", json!([txid, 0, hash])).await,
        serialize_hex(&tx)
    );
    let out = rpc.ok("gettxout", json!([child.compute_txid(), 0])).await;
    assert_eq!(
        (&out["confirmations"], &out["value"]),
        (&json!(1), &json!(0.00099))
    );
    let again = rpc
        .error("sendrawtransaction", json!([serialize_hex(&child)]))
        .await;
    assert_eq!(
        again,
        (-27, "Transaction outputs already in utxo set".into())
    );
}

#[tokio::test]
async fn the_chain_is_driven_over_rpc() {
    let devnet = Devnet::start_default().await.unwrap();
    let rpc = Rpc::new(&devnet);
    let address = Key::new(1).address().to_string();
    let txid = rpc.ok("devnet_faucet", json!([address, 0.5])).await;
    assert_eq!(rpc.ok("getrawmempool", json!([])).await, json!([txid]));
    let mined = rpc.ok("generatetoaddress", json!([2, address])).await;
    assert_eq!(rpc.ok("getbestblockhash", json!([])).await, mined[1]);
    assert_eq!(rpc.ok("getblockcount", json!([])).await, 112);

    rpc.ok("invalidateblock", json!([mined[0]])).await;
    assert_eq!(rpc.ok("getblockcount", json!([])).await, 110);
    assert_eq!(rpc.ok("getrawmempool", json!([])).await, json!([txid]));
    rpc.ok("reconsiderblock", json!([mined[0]])).await;
    assert_eq!(rpc.ok("getbestblockhash", json!([])).await, mined[1]);
    assert_eq!(rpc.ok("getrawmempool", json!([])).await, json!([]));

    let blocks = rpc.ok("devnet_reorg", json!([2])).await;
    assert_eq!(rpc.ok("getbestblockhash", json!([])).await, blocks[2]);
    let tips = rpc.ok("getchaintips", json!([])).await;
    let stale = json!({ "height": 112, "hash": mined[1], "branchlen": 2, "status": "valid-fork" });
    assert_eq!(tips[1], stale);
    assert_eq!(rpc.error("devnet_reorg", json!([1_000])).await.0, -8);
    assert_eq!(
        rpc.error("devnet_faucet", json!([address, 1_000_000]))
            .await
            .0,
        -6
    );
    assert_eq!(
        rpc.error("devnet_faucet", json!([address, 0.000001]))
            .await
            .0,
        -26
    );
}

#[tokio::test]
async fn the_consensus_library_judges_blocks() {
    let devnet = Devnet::start_default().await.unwrap();
    let rpc = Rpc::new(&devnet);
    let tip = devnet.tip();
    let mut greedy = devnet.block(&tip.hash).unwrap();
    greedy.header.prev_blockhash = tip.hash;
    greedy.header.time += 1;
    while greedy.header.validate_pow(greedy.header.target()).is_err() {
        greedy.header.nonce += 1;
    }
    // Its coinbase is for another height.
    let refused = rpc.ok("submitblock", json!([serialize_hex(&greedy)])).await;
    assert!(refused.is_string(), "{refused}");
    greedy.header.prev_blockhash = bitcoin::BlockHash::all_zeros();
    let refused = rpc.ok("submitblock", json!([serialize_hex(&greedy)])).await;
    assert!(refused.is_string(), "{refused}");
    assert_eq!(devnet.tip(), tip);
    let same = serialize_hex(&devnet.block(&tip.hash).unwrap());
    assert_eq!(rpc.ok("submitblock", json!([same])).await, "duplicate");
}
