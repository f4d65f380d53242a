//! Esplora's REST over HTTP: its paths, shapes and status codes as of electrs, the server behind Blockstream's explorer, as
//! far as devnet implements them. Here are the server and the list of paths; `blocks`, `txs`, `scripts` and `pool` have
//! the answers, `json` the shapes they share, and `index` the transactions of each script.
//!
//! As with electrs, a block that is no longer in the best chain is not known.

mod blocks;
mod index;
mod json;
mod pool;
mod scripts;
mod txs;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State as Extract};
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

use self::index::Index;
use self::json::number;
use super::Shared;
use super::state::State;

/// More than 25 transactions of the largest size that is relayed, in hexadecimal.
const MAX_BODY_BYTES: usize = 0x0200_0000;

/// The body of an answer.
enum Body {
    Text(String),
    Bytes(Vec<u8>),
    Json(Value),
}

/// Why a request is not answered.
struct Refused {
    status: StatusCode,
    text: String,
}

type Answer = Result<Body, Refused>;

impl Refused {
    fn bad_request(text: impl Into<String>) -> Refused {
        Refused {
            status: StatusCode::BAD_REQUEST,
            text: text.into(),
        }
    }

    fn not_found(text: impl Into<String>) -> Refused {
        Refused {
            status: StatusCode::NOT_FOUND,
            text: text.into(),
        }
    }
}

/// What answers are made from.
struct View<'a> {
    state: &'a State,
    /// As of the state's chain.
    index: &'a Index,
}

struct Server {
    shared: Arc<Shared>,
    index: Mutex<Index>,
}

/// Serves until `stopped`.
pub(super) fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    stopped: watch::Receiver<bool>,
) -> impl Future<Output = ()> + use<> {
    let index = Mutex::default();
    let router = Router::new()
        .fallback(handle)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(Arc::new(Server { shared, index }));
    super::listen::serve(listener, router, stopped, "Esplora")
}

async fn handle(
    Extract(server): Extract<Arc<Server>>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    // Validation takes its time; the runtime's other tasks go on.
    let answer = move || server.answer(&method, uri.path(), &body);
    let typed = |kind: &'static str| [(header::CONTENT_TYPE, kind)];
    match tokio::task::spawn_blocking(answer).await {
        Ok(Ok(Body::Text(text))) => (typed("text/plain"), text).into_response(),
        Ok(Ok(Body::Bytes(bytes))) => (typed("application/octet-stream"), bytes).into_response(),
        Ok(Ok(Body::Json(json))) => (typed("application/json"), json.to_string()).into_response(),
        Ok(Err(Refused { status, text })) => (status, typed("text/plain"), text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

impl Server {
    fn answer(&self, method: &Method, path: &str, body: &[u8]) -> Answer {
        let mut state = self.shared.state();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        tracing::trace!(%method, path, "devnet esplora");
        match (method.as_str(), &parts[..]) {
            ("POST", ["tx"]) => txs::send(&mut state, body),
            ("POST", ["txs", "package"]) => txs::send_package(&mut state, body),
            ("GET", parts) => {
                let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
                index.follow(&state.chain);
                let view = View {
                    state: &state,
                    index: &index,
                };
                view.answer(parts).unwrap_or_else(|| no_such_path(path))
            }
            _ => no_such_path(path),
        }
    }
}

fn no_such_path(path: &str) -> Answer {
    Err(Refused::not_found(format!(
        "endpoint does not exist {path:?}"
    )))
}

impl View<'_> {
    /// `None` when there is no such path.
    fn answer(&self, parts: &[&str]) -> Option<Answer> {
        Some(match parts {
            ["blocks", "tip", "hash"] => Ok(Body::Text(self.state.chain.tip().hash.to_string())),
            ["blocks", "tip", "height"] => {
                Ok(Body::Text(self.state.chain.tip().height.to_string()))
            }
            ["blocks"] => self.recent_blocks(self.state.chain.tip().height),
            ["blocks", start] => number(start).and_then(|start| self.recent_blocks(start)),
            ["block-height", height] => number(height).and_then(|it| self.hash_at(it)),
            ["block", hash, rest @ ..] => return self.of_block(hash, rest),
            ["tx", txid, rest @ ..] => return self.of_transaction(txid, rest),
            ["address", _, ..] | ["scripthash", _, ..] => return self.of_script(parts),
            ["mempool", rest @ ..] => return self.of_pool(rest),
            ["fee-estimates"] => Ok(Body::Json(pool::fee_estimates(self.state.fee_rates()))),
            _ => return None,
        })
    }
}
