//! Bitcoin Core's JSON-RPC as a [`crate::ChainSource`], for a real node and for `devnet`.
//!
//! The transport is `lightning-block-sync`'s RPC client. Added to it here: credentials from a cookie file that changes
//! when the node restarts, a check that the node is on our network, and errors with what to do.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::base64::Engine as _;
use bitcoin::base64::prelude::BASE64_STANDARD;
use bitcoin::block::Header;
use bitcoin::consensus::encode::{deserialize_hex, serialize_hex};
use bitcoin::hex::FromHex as _;
use bitcoin::{Amount, Block, BlockHash, Network, OutPoint, ScriptBuf, Transaction, TxOut, Txid};
use lightning_block_sync::http::HttpClientError;
use lightning_block_sync::rpc::{RpcClient, RpcClientError};
use longhand_base::text::excerpt;
use longhand_spv::filter::MAX_FILTER_BYTES;
use serde_json::{Value, json};

use crate::core_relay::{self, CoreAnswer, CoreMempool, code, explain};
use crate::{
    BlockFilter, BlockReader, BlockRef, ChainError, FeeRates, FeeSource, OutputLookup,
    SourceHealth, TransactionRelay,
};

/// Timeout of one call; Bitcoin Core can be slow while it flushes its caches.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The name that Bitcoin Core gives its index of compact filters.
const FILTER_INDEX: &str = "basic block filter index";

/// RPC credentials of a Bitcoin Core.
#[derive(Clone)]
pub enum BitcoindAuth {
    /// `rpcuser` and `rpcpassword` (or `rpcauth`).
    UserPassword {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// The `.cookie` file in the node's data directory; read again whenever the node refuses it.
    CookieFile(PathBuf),
}

impl std::fmt::Debug for BitcoindAuth {
    /// Shows no secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            BitcoindAuth::UserPassword { user, .. } => write!(f, "UserPassword({user})"),
            BitcoindAuth::CookieFile(path) => write!(f, "CookieFile({})", path.display()),
        }
    }
}

/// A Bitcoin Core, reached by JSON-RPC.
pub struct BitcoindSource {
    url: String,
    auth: BitcoindAuth,
    network: Network,
    /// Set when the node's network was checked.
    client: Mutex<Option<Arc<RpcClient>>>,
    /// Answers instead of a node.
    #[cfg(feature = "fuzzing")]
    stand_in: Option<Box<crate::fuzzing::StandIn>>,
}

impl BitcoindSource {
    /// A source at `url` (`http://host:port`) that must be on `network`. Connects to nothing yet: the node may be
    /// down. Its network is checked before the first call, and again after every time it could not be reached.
    pub fn new(url: impl Into<String>, auth: BitcoindAuth, network: Network) -> BitcoindSource {
        BitcoindSource {
            url: url.into().trim_end_matches('/').to_string(),
            auth,
            network,
            client: Mutex::new(None),
            #[cfg(feature = "fuzzing")]
            stand_in: None,
        }
    }

    /// A source whose node is `stand_in`.
    #[cfg(feature = "fuzzing")]
    pub fn answered_by(stand_in: Box<crate::fuzzing::StandIn>, network: Network) -> BitcoindSource {
        let auth = BitcoindAuth::UserPassword {
            user: String::new(),
            password: String::new(),
        };
        BitcoindSource {
            stand_in: Some(stand_in),
            ..BitcoindSource::new("http://stand-in", auth, network)
        }
    }

    /// Connects to the node now and checks its network.
    ///
    /// # Errors
    /// [`ChainError::Unreachable`], [`ChainError::Unauthorized`] or [`ChainError::WrongNetwork`].
    pub async fn verify(&self) -> Result<(), ChainError> {
        self.forget_client();
        self.client().await.map(|_| ())
    }

    /// Calls any method of the node; the result is that of `bitcoin-cli`.
    ///
    /// # Errors
    /// As the node reports them; codes -25 and -26 are [`ChainError::Rejected`], -5 and -8 [`ChainError::NotFound`].
    pub async fn call(&self, method: &str, params: &[Value]) -> Result<Value, ChainError> {
        self.request(method, params).await?.map_err(explain)
    }

    /// The node's answer, a result or an RPC error.
    async fn request(&self, method: &str, params: &[Value]) -> CoreAnswer<Value> {
        match self.request_once(method, params).await {
            // The node may have restarted and written a new cookie.
            Err(ChainError::Unauthorized) if matches!(self.auth, BitcoindAuth::CookieFile(_)) => {
                self.request_once(method, params).await
            }
            result => result,
        }
    }

    async fn request_once(&self, method: &str, params: &[Value]) -> CoreAnswer<Value> {
        let client = self.client().await?;
        let result = self.exchange(&client, method, params).await;
        if result.is_err() {
            self.forget_client();
        }
        result
    }

    async fn exchange(
        &self,
        client: &RpcClient,
        method: &str,
        params: &[Value],
    ) -> CoreAnswer<Value> {
        let error = match tokio::time::timeout(CALL_TIMEOUT, self.call_node(client, method, params))
            .await
        {
            Ok(Ok(value)) => return Ok(Ok(value)),
            Ok(Err(error)) => error,
            Err(_) => {
                return Err(self.unreachable(format!(
                    "no answer to {method} within {} s",
                    CALL_TIMEOUT.as_secs()
                )));
            }
        };
        match error {
            RpcClientError::Rpc(e) if e.code == code::IN_WARMUP => {
                Err(self.unreachable(format!("it is still starting: {}", excerpt(&e.message))))
            }
            RpcClientError::Rpc(e) => Ok(Err(e)),
            RpcClientError::Http(HttpClientError::Http(e))
                if e.status_code == 401 || e.status_code == 403 =>
            {
                Err(ChainError::Unauthorized)
            }
            // A busy node answers 503; a server that is no Bitcoin Core answers any status.
            RpcClientError::Http(HttpClientError::Http(e)) => {
                Err(self.unreachable(format!("HTTP status {}", e.status_code)))
            }
            RpcClientError::Http(HttpClientError::Transport(e)) => {
                Err(self.unreachable(excerpt(&e.to_string())))
            }
            RpcClientError::Http(HttpClientError::Parse(e)) => Err(malformed(&e)),
            RpcClientError::InvalidData(e) => Err(malformed(&e)),
        }
    }

    async fn call_node(
        &self,
        client: &RpcClient,
        method: &str,
        params: &[Value],
    ) -> Result<Value, RpcClientError> {
        #[cfg(feature = "fuzzing")]
        if let Some(stand_in) = &self.stand_in {
            return stand_in(method, params).into_result();
        }
        client.call_method(method, params).await
    }

    async fn client(&self) -> Result<Arc<RpcClient>, ChainError> {
        if let Some(client) = self.lock().as_ref() {
            return Ok(client.clone());
        }
        let client = Arc::new(RpcClient::new(&self.credentials()?, self.url.clone()));
        let info = self
            .exchange(&client, "getblockchaininfo", &[])
            .await?
            .map_err(explain)?;
        let found = text(&info, "chain")?;
        let expected = self.network.to_core_arg();
        if found != expected {
            return Err(ChainError::WrongNetwork {
                expected: expected.to_string(),
                found: excerpt(&found),
            });
        }
        *self.lock() = Some(client.clone());
        Ok(client)
    }

    fn forget_client(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<RpcClient>>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn credentials(&self) -> Result<String, ChainError> {
        let plain = match &self.auth {
            BitcoindAuth::UserPassword { user, password } => format!("{user}:{password}"),
            // A node that is not running has no cookie.
            BitcoindAuth::CookieFile(path) => std::fs::read_to_string(path)
                .map_err(|e| self.unreachable(format!("cookie file {}: {e}", path.display())))?,
        };
        Ok(BASE64_STANDARD.encode(plain.trim()))
    }

    fn unreachable(&self, reason: String) -> ChainError {
        ChainError::Unreachable {
            url: crate::source::without_credentials(&self.url),
            reason,
        }
    }

    async fn plain_header(&self, hash: &BlockHash) -> Result<Header, ChainError> {
        let hex = self
            .call("getblockheader", &[json!(hash), json!(false)])
            .await?;
        let header: Header = decode(&hex, "header")?;
        if header.block_hash() != *hash {
            return Err(ChainError::Malformed(format!(
                "another header than that of {hash}"
            )));
        }
        Ok(header)
    }

    /// Satoshis per 1,000 weight units within `blocks`, when the node has an estimate.
    async fn estimate(&self, blocks: u32) -> Result<Option<u32>, ChainError> {
        let answer = self.call("estimatesmartfee", &[json!(blocks)]).await?;
        answer.get("feerate").map(sat_per_kw).transpose()
    }
}

#[async_trait]
impl CoreMempool for BitcoindSource {
    async fn send_raw(&self, tx: &Transaction) -> CoreAnswer<()> {
        let answer = self
            .request("sendrawtransaction", &[json!(serialize_hex(tx))])
            .await?;
        Ok(answer.map(drop))
    }

    async fn submit_package(&self, package: &[Transaction]) -> CoreAnswer<Value> {
        let hex: Vec<String> = package.iter().map(serialize_hex).collect();
        self.request("submitpackage", &[json!(hex)]).await
    }

    async fn knows(&self, txid: &Txid) -> Result<bool, ChainError> {
        match self.call("getrawtransaction", &[json!(txid)]).await {
            Ok(_) => Ok(true),
            Err(ChainError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[async_trait]
impl BlockReader for BitcoindSource {
    async fn tip(&self) -> Result<BlockRef, ChainError> {
        let info = self.call("getblockchaininfo", &[]).await?;
        let height = number(&info, "blocks")?;
        Ok(BlockRef {
            height,
            hash: parse(&text(&info, "bestblockhash")?, "bestblockhash")?,
        })
    }

    async fn header(&self, hash: &BlockHash) -> Result<(Header, u32), ChainError> {
        // Two calls: the verbose form has the height, and the hex form is the header itself, checked by its hash.
        let verbose = self
            .call("getblockheader", &[json!(hash), json!(true)])
            .await?;
        let header = self.plain_header(hash).await?;
        Ok((header, number(&verbose, "height")?))
    }

    async fn headers(&self, from: u32, count: u32) -> Result<Vec<Header>, ChainError> {
        let last = from.saturating_add(count.saturating_sub(1));
        let mut hash = self.hash_at(last).await?;
        let mut headers = Vec::new();
        // From the last one down, since each names the one before it: one call a header.
        for _ in 0..count {
            let header = self.plain_header(&hash).await?;
            hash = header.prev_blockhash;
            headers.push(header);
        }
        headers.reverse();
        Ok(headers)
    }

    async fn hash_at(&self, height: u32) -> Result<BlockHash, ChainError> {
        let answer = self.call("getblockhash", &[json!(height)]).await?;
        let hash = answer
            .as_str()
            .ok_or_else(|| ChainError::Malformed("getblockhash without a hash".into()))?;
        parse(hash, "block hash")
    }

    async fn block(&self, hash: &BlockHash) -> Result<Block, ChainError> {
        let block: Block = decode(
            &self.call("getblock", &[json!(hash), json!(0)]).await?,
            "block",
        )?;
        if block.block_hash() != *hash || !block.check_merkle_root() {
            return Err(ChainError::Malformed(format!("another block than {hash}")));
        }
        Ok(block)
    }

    /// Asks for `blockfilterindex`.
    async fn filter(&self, hash: &BlockHash) -> Result<BlockFilter, ChainError> {
        let params = [json!(hash), json!("basic")];
        read_filter(&self.call("getblockfilter", &params).await?)
    }

    async fn health(&self) -> Result<SourceHealth, ChainError> {
        let info = self.call("getblockchaininfo", &[]).await?;
        let indexes = self.call("getindexinfo", &[]).await;
        Ok(SourceHealth {
            lacks_filters: indexes.is_ok_and(|indexes| !has_filters(&indexes)),
            ..health_of(&info)
        })
    }
}

/// Whether `getindexinfo` has the index of filters, and it is complete.
fn has_filters(indexes: &Value) -> bool {
    let index = indexes.get(FILTER_INDEX);
    let is_synced = index.and_then(|index| index.get("synced")?.as_bool());
    is_synced.unwrap_or(false)
}

/// The answer to `getblockfilter`.
fn read_filter(answer: &Value) -> Result<BlockFilter, ChainError> {
    let hex = text(answer, "filter")?;
    if hex.len() > 2 * MAX_FILTER_BYTES {
        return Err(malformed("a filter of a block that is too long"));
    }
    Ok(BlockFilter {
        filter: Vec::from_hex(&hex).map_err(|e| malformed(&format!("filter: {e}")))?,
        header: parse(&text(answer, "header")?, "filter header")?,
    })
}

/// The state that `getblockchaininfo` reports. A field that is missing, as in an old version, is not known.
fn health_of(info: &Value) -> SourceHealth {
    let is = |field| info.get(field).and_then(Value::as_bool).unwrap_or(false);
    // Since version 23 there is the tip's own time; the median of the last 11 blocks is about an hour earlier.
    let time = number(info, "time").or_else(|_| number(info, "mediantime"));
    SourceHealth {
        tip_unix_s: time.ok(),
        is_initial_download: is("initialblockdownload"),
        is_pruned: is("pruned"),
        lacks_filters: false,
    }
}

#[async_trait]
impl FeeSource for BitcoindSource {
    async fn fee_rates(&self) -> Result<FeeRates, ChainError> {
        let mempool = self.call("getmempoolinfo", &[]).await?;
        let minimum = match mempool.get("mempoolminfee") {
            Some(rate) => sat_per_kw(rate)?,
            None => FeeRates::FLOOR.minimum,
        };
        let background = self.estimate(144).await?;
        let normal = self.estimate(6).await?;
        let urgent = self.estimate(2).await?;
        Ok(FeeRates::estimated(urgent, normal, background, minimum))
    }
}

#[async_trait]
impl TransactionRelay for BitcoindSource {
    async fn broadcast(&self, package: &[Transaction]) -> Result<(), ChainError> {
        core_relay::broadcast(self, package).await
    }
}

#[async_trait]
impl OutputLookup for BitcoindSource {
    async fn unspent(&self, outpoint: &OutPoint) -> Result<Option<TxOut>, ChainError> {
        let params = [json!(outpoint.txid), json!(outpoint.vout), json!(false)];
        let answer = self.call("gettxout", &params).await?;
        if answer.is_null() {
            return Ok(None);
        }
        let value = answer.get("value").map(amount).transpose()?;
        let script = answer
            .get("scriptPubKey")
            .map(|script| text(script, "hex"))
            .transpose()?;
        match (value, script) {
            (Some(value), Some(hex)) => {
                let script_pubkey =
                    ScriptBuf::from_hex(&hex).map_err(|e| ChainError::Malformed(e.to_string()))?;
                Ok(Some(TxOut {
                    value,
                    script_pubkey,
                }))
            }
            _ => Err(ChainError::Malformed(
                "gettxout without value and script".into(),
            )),
        }
    }

    async fn block_txids(&self, height: u32) -> Result<Option<Vec<Txid>>, ChainError> {
        let hash = match self.hash_at(height).await {
            Ok(hash) => hash,
            Err(ChainError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let block = self.call("getblock", &[json!(hash), json!(1)]).await?;
        let malformed = || ChainError::Malformed("getblock without transaction ids".into());
        let txids = block.get("tx").and_then(Value::as_array);
        let txids = txids.ok_or_else(malformed)?.iter();
        let txids = txids.map(|txid| parse(txid.as_str().ok_or_else(malformed)?, "txid"));
        txids.collect::<Result<_, _>>().map(Some)
    }
}

/// Bitcoin Core gives fee rates in BTC per 1,000 virtual bytes, which are 4,000 weight units.
fn sat_per_kw(rate: &Value) -> Result<u32, ChainError> {
    u32::try_from(amount(rate)?.to_sat().div_ceil(4))
        .map_err(|_| ChainError::Malformed("a fee rate too large".into()))
}

fn amount(value: &Value) -> Result<Amount, ChainError> {
    let btc = value
        .as_f64()
        .ok_or_else(|| ChainError::Malformed("an amount that is no number".into()))?;
    Amount::from_btc(btc).map_err(|e| ChainError::Malformed(format!("an amount: {e}")))
}

fn text(object: &Value, field: &str) -> Result<String, ChainError> {
    let value = object.get(field).and_then(Value::as_str);
    value
        .map(str::to_string)
        .ok_or_else(|| ChainError::Malformed(format!("no text {field}")))
}

fn number(object: &Value, field: &str) -> Result<u32, ChainError> {
    let value = object
        .get(field)
        .and_then(Value::as_u64)
        .and_then(|n| u32::try_from(n).ok());
    value.ok_or_else(|| ChainError::Malformed(format!("no number {field}")))
}

fn parse<T: std::str::FromStr>(text: &str, what: &str) -> Result<T, ChainError> {
    text.parse()
        .map_err(|_| malformed(&format!("{what} {text:?}")))
}

fn decode<T: bitcoin::consensus::Decodable>(value: &Value, what: &str) -> Result<T, ChainError> {
    let hex = value
        .as_str()
        .ok_or_else(|| ChainError::Malformed(format!("{what} is no hex")))?;
    deserialize_hex(hex).map_err(|e| malformed(&format!("{what}: {e}")))
}

/// An answer that cannot be read, with as much of it as fits into a line.
fn malformed(text: &str) -> ChainError {
    ChainError::Malformed(excerpt(text))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_state_of_a_core_is_read_and_what_is_missing_is_not_known() {
        let info = json!({ "time": 1_700_000_000, "initialblockdownload": true, "pruned": true });
        let health = health_of(&info);
        assert_eq!(health.tip_unix_s, Some(1_700_000_000));
        assert!(health.is_initial_download && health.is_pruned);
        assert_eq!(health_of(&json!({})), SourceHealth::default());
        let index = |synced: bool| json!({ FILTER_INDEX: { "synced": synced } });
        assert!(has_filters(&index(true)));
        assert!(!has_filters(&index(false)) && !has_filters(&json!({})));
    }

    #[test]
    fn a_filter_is_read_and_one_that_is_too_long_or_no_hex_is_refused() {
        let header = format!("{:064x}", 7);
        let answer = |filter: &str| json!({ "filter": filter, "header": header });
        let read = read_filter(&answer("019dfca8")).unwrap();
        assert_eq!(read.filter, [0x01, 0x9d, 0xfc, 0xa8]);
        // As Bitcoin Core shows hashes: the last byte first.
        assert_eq!(read.header.to_string(), header);
        assert_eq!(read.header[0], 7);

        let longest = "00".repeat(MAX_FILTER_BYTES);
        assert!(read_filter(&answer(&longest)).is_ok());
        let no_header = json!({ "filter": "00", "header": "00" });
        for bad in [
            answer(&(longest + "00")),
            answer("0g"),
            answer("0"),
            no_header,
        ] {
            let refused = read_filter(&bad);
            assert!(matches!(refused, Err(ChainError::Malformed(_))));
        }
    }
}
