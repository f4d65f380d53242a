//! The calls of an Esplora server's REST, one method for each. Every answer is bounded in size and in time, and is read and
//! checked by `answers`.

use std::error::Error as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::consensus::encode::serialize_hex;
use bitcoin::{Block, BlockHash, Network, OutPoint, Transaction, Txid};
use lightning_block_sync::rpc::RpcError;
use longhand_base::text::excerpt;
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

use super::answers::{self, FeeEstimates, Spend};
use super::url::EsploraUrl;
use crate::core_relay::{CoreAnswer, code};
use crate::{BlockRef, ChainError};

/// Timeout of one call with its answer, of which the largest is a block.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Timeout of a connection, which may go through Tor.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest block or transaction, in bytes: a byte weighs at least one unit of the 4,000,000.
const MAX_BLOCK_BYTES: usize = 4_000_000;
/// The ids of all transactions of a block, as JSON: 67 bytes for each of at least 60 bytes that weigh four units.
const MAX_TXIDS_BYTES: usize = 2_000_000;
/// The answer to a package: a few lines for each of 25 transactions.
const MAX_PACKAGE_BYTES: usize = 1_000_000;
/// Any other answer.
const MAX_SMALL_BYTES: usize = 64 * 1024;

/// Gives the URL of the proxy to connect through, such as `socks5h://user:password@127.0.0.1:9050`. It is asked before
/// each call, since it may change.
pub type ProxyUrl = Arc<dyn Fn() -> String + Send + Sync>;

/// A client of an Esplora server. It keeps nothing but connections: each call is answered by the server.
///
/// What the server gives is checked wherever it proves itself: a header by its hash and work, a block by its header, a
/// transaction by its id. [`ChainError::False`] is an answer that is not what was asked for.
///
/// # Errors
/// Each call: [`ChainError::Unreachable`] when the server does not answer, or not now; [`ChainError::NotFound`];
/// [`ChainError::Malformed`] and [`ChainError::False`].
pub struct EsploraClient {
    url: EsploraUrl,
    network: Network,
    proxy: Option<ProxyUrl>,
    /// With the proxy that it connects through.
    http: Mutex<(Option<String>, Client)>,
}

impl EsploraClient {
    /// A client of the server at `url`, whose blocks have to be of `network`. Connects to nothing yet; with a proxy,
    /// nothing goes past it.
    ///
    /// # Errors
    /// [`ChainError::Unreachable`] when TLS cannot be set up, or the proxy's URL is none.
    pub fn new(
        url: EsploraUrl,
        network: Network,
        proxy: Option<ProxyUrl>,
    ) -> Result<EsploraClient, ChainError> {
        let through = proxy.as_ref().map(|proxy| proxy());
        let http = http(through.as_deref());
        let http = http.map_err(|error| unreachable(&url, cause(&error)))?;
        Ok(EsploraClient {
            url,
            network,
            proxy,
            http: Mutex::new((through, http)),
        })
    }

    /// The server's URL.
    pub fn url(&self) -> &EsploraUrl {
        &self.url
    }

    /// The network of its blocks.
    pub fn network(&self) -> Network {
        self.network
    }

    /// The hash of the best block that the server knows.
    pub async fn tip_hash(&self) -> Result<BlockHash, ChainError> {
        let body = self.get("/blocks/tip/hash", MAX_SMALL_BYTES).await?;
        answers::parsed(&body, "block hash")
    }

    /// The height of the best block. Between this call and [`EsploraClient::tip_hash`] the best block may change.
    pub async fn tip_height(&self) -> Result<u32, ChainError> {
        let body = self.get("/blocks/tip/height", MAX_SMALL_BYTES).await?;
        answers::parsed(&body, "height")
    }

    /// The hash of the block at a height of the best chain.
    pub async fn hash_at(&self, height: u32) -> Result<BlockHash, ChainError> {
        let body = self
            .get(&format!("/block-height/{height}"), MAX_SMALL_BYTES)
            .await?;
        answers::parsed(&body, "block hash")
    }

    /// The header of a block in the best chain. Most servers do not know a block that is no longer there.
    pub async fn header(&self, hash: &BlockHash) -> Result<Header, ChainError> {
        let body = self
            .get(&format!("/block/{hash}/header"), MAX_SMALL_BYTES)
            .await?;
        answers::header(&body, hash, self.network)
    }

    /// The height of a block, as the server says.
    pub async fn block_height(&self, hash: &BlockHash) -> Result<u32, ChainError> {
        let body = self.get(&format!("/block/{hash}"), MAX_SMALL_BYTES).await?;
        answers::block_height(&body, hash)
    }

    /// The height of a block in the best chain; `None` for one that is not there.
    pub async fn block_status(&self, hash: &BlockHash) -> Result<Option<u32>, ChainError> {
        let body = self
            .get(&format!("/block/{hash}/status"), MAX_SMALL_BYTES)
            .await?;
        answers::status(&body)
    }

    /// A whole block of the best chain.
    pub async fn block(&self, hash: &BlockHash) -> Result<Block, ChainError> {
        let body = self
            .get(&format!("/block/{hash}/raw"), MAX_BLOCK_BYTES)
            .await?;
        answers::block(&body, hash, self.network)
    }

    /// The ids of a block's transactions, in order, by its header.
    pub async fn txids(&self, header: &Header) -> Result<Vec<Txid>, ChainError> {
        let path = format!("/block/{}/txids", header.block_hash());
        answers::txids(&self.get(&path, MAX_TXIDS_BYTES).await?, header)
    }

    /// A transaction, in the mempool or in the best chain.
    pub async fn transaction(&self, txid: &Txid) -> Result<Transaction, ChainError> {
        let body = self
            .get(&format!("/tx/{txid}/raw"), MAX_BLOCK_BYTES)
            .await?;
        answers::transaction(&body, txid)
    }

    /// The block of the best chain that has a transaction, as the server says.
    pub async fn confirmation(&self, txid: &Txid) -> Result<Option<BlockRef>, ChainError> {
        let body = self
            .get(&format!("/tx/{txid}/status"), MAX_SMALL_BYTES)
            .await?;
        answers::confirmation(&body)
    }

    /// Whether an output is spent, as the server says. It says so too of an output that does not exist.
    pub async fn spend(&self, outpoint: &OutPoint) -> Result<Spend, ChainError> {
        let path = format!("/tx/{}/outspend/{}", outpoint.txid, outpoint.vout);
        answers::spend(&self.get(&path, MAX_SMALL_BYTES).await?)
    }

    /// Fee rates as the server estimates them; none when it has no estimates.
    pub async fn fee_estimates(&self) -> Result<FeeEstimates, ChainError> {
        match self.get("/fee-estimates", MAX_SMALL_BYTES).await {
            Ok(body) => answers::fee_estimates(&body),
            Err(ChainError::NotFound(_)) => Ok(FeeEstimates::default()),
            Err(error) => Err(error),
        }
    }

    /// Broadcasts a transaction: the answer of Bitcoin Core behind the server.
    pub(crate) async fn send(&self, tx: &Transaction) -> CoreAnswer<()> {
        let (status, body) = self.post("/tx", serialize_hex(tx), MAX_SMALL_BYTES).await?;
        match status {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST => return Ok(Err(answers::refusal(&body))),
            status => return Err(self.status(status)),
        }
        let (txid, expected) = (answers::parsed::<Txid>(&body, "txid")?, tx.compute_txid());
        match txid == expected {
            true => Ok(Ok(())),
            false => Err(answers::untrue(&format!(
                "{txid} for the transaction {expected}"
            ))),
        }
    }

    /// Broadcasts a package: the whole answer of Bitcoin Core's `submitpackage`. Older servers take none.
    pub(crate) async fn send_package(&self, package: &[Transaction]) -> CoreAnswer<Value> {
        let txs: Vec<String> = package.iter().map(serialize_hex).collect();
        let body = json!(txs).to_string();
        let (status, body) = self.post("/txs/package", body, MAX_PACKAGE_BYTES).await?;
        match status {
            StatusCode::OK => answers::json(&body, "the result of a package").map(Ok),
            StatusCode::BAD_REQUEST => Ok(Err(answers::refusal(&body))),
            StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED => {
                let message =
                    "the Esplora server takes no packages, and not each transaction alone";
                let code = code::MISC_ERROR;
                Ok(Err(RpcError {
                    code,
                    message: message.into(),
                }))
            }
            status => Err(self.status(status)),
        }
    }

    async fn get(&self, path: &str, limit: usize) -> Result<Vec<u8>, ChainError> {
        let request = self.http()?.get(self.url.at(path));
        match self.exchange(request, path, limit).await? {
            (StatusCode::OK, body) => Ok(body),
            (StatusCode::NOT_FOUND, _) => Err(ChainError::NotFound(excerpt(path))),
            (status, _) => Err(self.status(status)),
        }
    }

    async fn post(
        &self,
        path: &str,
        body: String,
        limit: usize,
    ) -> Result<(StatusCode, Vec<u8>), ChainError> {
        let request = self.http()?.post(self.url.at(path)).body(body);
        self.exchange(request, path, limit).await
    }

    async fn exchange(
        &self,
        request: RequestBuilder,
        path: &str,
        limit: usize,
    ) -> Result<(StatusCode, Vec<u8>), ChainError> {
        let lost = |error: reqwest::Error| unreachable(&self.url, cause(&error));
        let mut response: Response = request.send().await.map_err(lost)?;
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(lost)? {
            if body.len().saturating_add(piece.len()) > limit {
                return Err(answers::untrue(&format!(
                    "more than {limit} bytes to {path}"
                )));
            }
            body.extend_from_slice(&piece);
        }
        Ok((response.status(), body))
    }

    /// A server that is busy or limits its users answers 429 or 503; one that is no Esplora server answers any status.
    fn status(&self, status: StatusCode) -> ChainError {
        let reason = match status.is_redirection() {
            true => "it refers to another address: give that one".into(),
            false => format!("HTTP status {}", status.as_u16()),
        };
        unreachable(&self.url, reason)
    }

    /// The HTTP client, through the proxy as it is now.
    fn http(&self) -> Result<Client, ChainError> {
        let through = self.proxy.as_ref().map(|proxy| proxy());
        let mut current = self.http.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 != through {
            let http = http(through.as_deref());
            let http = http.map_err(|error| unreachable(&self.url, cause(&error)))?;
            *current = (through, http);
        }
        Ok(current.1.clone())
    }
}

/// An HTTP client. Redirects are not followed, and the environment's proxies are not used.
fn http(proxy: Option<&str>) -> reqwest::Result<Client> {
    let mut builder = Client::builder()
        .no_proxy()
        .redirect(Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(CALL_TIMEOUT)
        .user_agent("longhand");
    if let Some(proxy) = proxy {
        builder = builder.proxy(reqwest::Proxy::all(proxy)?);
    }
    builder.build()
}

/// What is behind an error, in one line, without a URL, which may have a password.
fn cause(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return format!("no answer within {} s", CALL_TIMEOUT.as_secs());
    }
    let Some(mut deepest) = error.source() else {
        return "no answer".into();
    };
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    excerpt(&deepest.to_string())
}

fn unreachable(url: &EsploraUrl, reason: String) -> ChainError {
    ChainError::Unreachable {
        url: url.to_string(),
        reason,
    }
}
