//! Bitcoin Core's JSON-RPC over HTTP: its methods, shapes and error codes, as far as devnet implements them. Here are
//! the envelope and the list of methods; `node`, `blocks`, `txs` and `pool` have the methods.

mod blocks;
mod convert;
mod node;
mod params;
mod pool;
mod txs;

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State as Extract};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bitcoin::base64::Engine as _;
use bitcoin::base64::prelude::BASE64_STANDARD;
use bitcoin::hashes::{Hash as _, sha256};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub(super) use self::blocks::{block, block_filter, block_hash};
use self::params::Params;
pub(super) use self::txs::{Limits, send, spent_outputs, submit_package};
use super::Shared;
use super::state::State;

/// Bitcoin Core's limit.
const MAX_BODY_BYTES: usize = 0x0200_0000;

/// Error codes (`rpc/protocol.h`).
pub(super) mod code {
    pub const INVALID_REQUEST: i64 = -32_600;
    pub const METHOD_NOT_FOUND: i64 = -32_601;
    pub const PARSE_ERROR: i64 = -32_700;
    pub const MISC_ERROR: i64 = -1;
    pub const TYPE_ERROR: i64 = -3;
    pub const INVALID_ADDRESS_OR_KEY: i64 = -5;
    pub const INSUFFICIENT_FUNDS: i64 = -6;
    pub const INVALID_PARAMETER: i64 = -8;
    pub const DATABASE_ERROR: i64 = -20;
    pub const DESERIALIZATION_ERROR: i64 = -22;
    pub const VERIFY_ERROR: i64 = -25;
    pub const VERIFY_REJECTED: i64 = -26;
    pub const ALREADY_IN_UTXO_SET: i64 = -27;
}

/// The RPC error of a method.
#[derive(Debug)]
pub(super) struct RpcError {
    pub(super) code: i64,
    pub(super) message: String,
}

impl RpcError {
    fn new(code: i64, message: impl Into<String>) -> RpcError {
        RpcError {
            code,
            message: message.into(),
        }
    }
}

impl From<super::DevnetError> for RpcError {
    fn from(error: super::DevnetError) -> RpcError {
        use super::DevnetError as E;
        let code = match &error {
            E::Rejected(_) => code::VERIFY_REJECTED,
            E::Block(_) => code::VERIFY_ERROR,
            E::Faucet { .. } => code::INSUFFICIENT_FUNDS,
            E::Invalid(_) => code::INVALID_PARAMETER,
            E::Data(_) | E::Kernel(_) | E::Bind { .. } | E::Clock { .. } => code::DATABASE_ERROR,
        };
        RpcError::new(code, error.to_string())
    }
}

type Answer = Result<Value, RpcError>;

/// One call of a method.
struct Call<'a> {
    state: &'a mut State,
    shared: &'a Shared,
    params: Params,
}

/// A method: its name, the names of its parameters in order, and its function.
type Method = (&'static str, &'static [&'static str], fn(Call) -> Answer);

const METHODS: &[Method] = &[
    ("getblockchaininfo", &[], node::getblockchaininfo),
    ("getdeploymentinfo", &["blockhash"], node::getdeploymentinfo),
    ("getnetworkinfo", &[], node::getnetworkinfo),
    ("getpeerinfo", &[], |_| Ok(json!([]))),
    ("getconnectioncount", &[], |_| Ok(json!(0))),
    ("getmininginfo", &[], node::getmininginfo),
    ("getindexinfo", &["index_name"], node::getindexinfo),
    ("getzmqnotifications", &[], |_| Ok(json!([]))),
    ("uptime", &[], node::uptime),
    ("validateaddress", &["address"], node::validateaddress),
    (
        "estimatesmartfee",
        &["conf_target", "estimate_mode"],
        node::estimatesmartfee,
    ),
    (
        "generatetoaddress",
        &["nblocks", "address", "maxtries"],
        node::generatetoaddress,
    ),
    (
        "generateblock",
        &["output", "transactions", "submit"],
        node::generateblock,
    ),
    ("devnet_faucet", &["address", "amount"], node::devnet_faucet),
    ("devnet_reorg", &["depth"], node::devnet_reorg),
    (
        "devnet_setminetimer",
        &["seconds"],
        node::devnet_setminetimer,
    ),
    ("getbestblockhash", &[], blocks::getbestblockhash),
    ("getblockcount", &[], blocks::getblockcount),
    ("getblockhash", &["height"], blocks::getblockhash),
    (
        "getblockheader",
        &["blockhash", "verbose"],
        blocks::getblockheader,
    ),
    ("getblock", &["blockhash", "verbosity"], blocks::getblock),
    (
        "getblockfilter",
        &["blockhash", "filtertype"],
        blocks::getblockfilter,
    ),
    ("getchaintips", &[], blocks::getchaintips),
    ("submitblock", &["hexdata", "dummy"], blocks::submitblock),
    ("invalidateblock", &["blockhash"], blocks::invalidateblock),
    ("reconsiderblock", &["blockhash"], blocks::reconsiderblock),
    (
        "getrawtransaction",
        &["txid", "verbosity", "blockhash"],
        txs::getrawtransaction,
    ),
    (
        "decoderawtransaction",
        &["hexstring", "iswitness"],
        txs::decoderawtransaction,
    ),
    (
        "sendrawtransaction",
        &["hexstring", "maxfeerate", "maxburnamount"],
        txs::sendrawtransaction,
    ),
    (
        "testmempoolaccept",
        &["rawtxs", "maxfeerate"],
        txs::testmempoolaccept,
    ),
    (
        "submitpackage",
        &["package", "maxfeerate", "maxburnamount"],
        txs::submitpackage,
    ),
    ("gettxout", &["txid", "n", "include_mempool"], txs::gettxout),
    (
        "gettxspendingprevout",
        &["outputs"],
        pool::gettxspendingprevout,
    ),
    (
        "getrawmempool",
        &["verbose", "mempool_sequence"],
        pool::getrawmempool,
    ),
    ("getmempoolentry", &["txid"], pool::getmempoolentry),
    (
        "getmempoolancestors",
        &["txid", "verbose"],
        pool::getmempoolancestors,
    ),
    (
        "getmempooldescendants",
        &["txid", "verbose"],
        pool::getmempooldescendants,
    ),
    ("getmempoolinfo", &[], pool::getmempoolinfo),
];

/// Serves until `stopped`.
pub(super) fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    user: &str,
    password: &str,
    stopped: watch::Receiver<bool>,
) -> impl Future<Output = ()> + use<> {
    let credentials = digest(format!("{user}:{password}").as_bytes());
    let server = Arc::new(Server {
        shared,
        credentials,
    });
    let wrong_verb = || async {
        (
            StatusCode::METHOD_NOT_ALLOWED,
            "JSONRPC server handles only POST requests",
        )
    };
    let router = Router::new()
        .route("/", post(handle).fallback(wrong_verb))
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(server);
    super::listen::serve(listener, router, stopped, "RPC")
}

struct Server {
    shared: Arc<Shared>,
    credentials: sha256::Hash,
}

fn digest(bytes: &[u8]) -> sha256::Hash {
    sha256::Hash::hash(bytes)
}

async fn handle(
    Extract(server): Extract<Arc<Server>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if !is_authorized(&server.credentials, &headers) {
        return (
            StatusCode::UNAUTHORIZED,
            [(header::WWW_AUTHENTICATE, "Basic realm=\"jsonrpc\"")],
        )
            .into_response();
    }
    // Validation takes its time; the runtime's other tasks go on.
    let answered = tokio::task::spawn_blocking(move || answer(&server.shared, &body)).await;
    match answered {
        Ok((status, Some(body))) => (
            status,
            [(header::CONTENT_TYPE, "application/json")],
            format!("{body}\n"),
        )
            .into_response(),
        Ok((status, None)) => status.into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

fn is_authorized(credentials: &sha256::Hash, headers: &HeaderMap) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let given = given
        .and_then(|value| value.strip_prefix("Basic "))
        .and_then(|text| BASE64_STANDARD.decode(text.trim()).ok());
    // Digests are compared, so that the time it takes does not depend on the password.
    given.is_some_and(|given| digest(&given) == *credentials)
}

/// As [`answer`], for fuzz targets.
#[cfg(feature = "fuzzing")]
pub(super) fn answer_body(shared: &Shared, body: &[u8]) -> (u16, Option<String>) {
    let (status, body) = answer(shared, body);
    (status.as_u16(), body.map(|body| body.to_string()))
}

/// The HTTP status and body for one request or a batch.
fn answer(shared: &Shared, body: &[u8]) -> (StatusCode, Option<Value>) {
    match serde_json::from_slice::<Value>(body) {
        Err(_) => {
            let error = RpcError::new(code::PARSE_ERROR, "Parse error");
            (
                StatusCode::INTERNAL_SERVER_ERROR,
                Some(reply(&Value::Null, false, Err(error)).1),
            )
        }
        Ok(Value::Array(batch)) => {
            let replies: Vec<Value> = batch
                .iter()
                .filter_map(|one| answer_one(shared, one).1)
                .collect();
            (StatusCode::OK, Some(Value::Array(replies)))
        }
        Ok(request) => answer_one(shared, &request),
    }
}

fn answer_one(shared: &Shared, request: &Value) -> (StatusCode, Option<Value>) {
    let is_v2 = request.get("jsonrpc").and_then(Value::as_str) == Some("2.0");
    let id = request.get("id");
    let result = dispatch(shared, request);
    // A notification (JSON-RPC 2.0) has no id and gets no answer.
    if is_v2 && id.is_none() && request.is_object() {
        return (StatusCode::NO_CONTENT, None);
    }
    let (status, body) = reply(id.unwrap_or(&Value::Null), is_v2, result);
    (status, Some(body))
}

fn reply(id: &Value, is_v2: bool, result: Answer) -> (StatusCode, Value) {
    match (result, is_v2) {
        (Ok(result), true) => (
            StatusCode::OK,
            json!({ "jsonrpc": "2.0", "result": result, "id": id }),
        ),
        (Ok(result), false) => (
            StatusCode::OK,
            json!({ "result": result, "error": null, "id": id }),
        ),
        (Err(e), true) => (
            StatusCode::OK,
            json!({ "jsonrpc": "2.0", "error": { "code": e.code, "message": e.message }, "id": id }),
        ),
        (Err(e), false) => {
            let status = match e.code {
                code::INVALID_REQUEST => StatusCode::BAD_REQUEST,
                code::METHOD_NOT_FOUND => StatusCode::NOT_FOUND,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (
                status,
                json!({ "result": null, "error": { "code": e.code, "message": e.message }, "id": id }),
            )
        }
    }
}

fn dispatch(shared: &Shared, request: &Value) -> Answer {
    let invalid = |message: &str| RpcError::new(code::INVALID_REQUEST, message);
    let request = request
        .as_object()
        .ok_or_else(|| invalid("Invalid Request object"))?;
    let name = request
        .get("method")
        .ok_or_else(|| invalid("Missing method"))?;
    let name = name
        .as_str()
        .ok_or_else(|| invalid("Method must be a string"))?;
    let found = METHODS.iter().find(|(known, _, _)| *known == name);
    let (_, names, method) =
        found.ok_or_else(|| RpcError::new(code::METHOD_NOT_FOUND, "Method not found"))?;
    let params = Params::new(request.get("params"), names)?;
    tracing::trace!(method = name, "devnet rpc");
    method(Call {
        state: &mut shared.state(),
        shared,
        params,
    })
}
