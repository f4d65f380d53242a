//! For fuzz targets: a stand-in for a Bitcoin Core, with its answers as the RPC client returns them and without a socket,
//! and the reading of an Esplora server's answers.

use lightning_block_sync::http::{HttpClientError, HttpError};
use lightning_block_sync::rpc::{RpcClientError, RpcError};
use serde_json::Value;

pub use crate::esplora::fuzzing::{EsploraAnswer, QUESTIONS, esplora_answer};

/// Answers a method with its parameters. See [`crate::BitcoindSource::answered_by`].
pub type StandIn = dyn Fn(&str, &[Value]) -> NodeAnswer + Send + Sync;

/// The answer to one call.
#[derive(Clone, Debug)]
pub enum NodeAnswer {
    /// A result.
    Result(Value),
    /// An RPC error.
    Error {
        /// As in `rpc/protocol.h`.
        code: i64,
        /// Its text.
        message: String,
    },
    /// An HTTP status without JSON.
    Status(u16),
    /// A body that is not JSON-RPC.
    Unreadable,
}

impl NodeAnswer {
    pub(crate) fn into_result(self) -> Result<Value, RpcClientError> {
        match self {
            NodeAnswer::Result(value) => Ok(value),
            NodeAnswer::Error { code, message } => {
                Err(RpcClientError::Rpc(RpcError { code, message }))
            }
            NodeAnswer::Status(status) => {
                let error = HttpError {
                    status_code: status.into(),
                    contents: Vec::new(),
                };
                Err(RpcClientError::Http(HttpClientError::Http(error)))
            }
            NodeAnswer::Unreadable => {
                let what = "expected JSON".to_string();
                Err(RpcClientError::InvalidData(what))
            }
        }
    }
}
