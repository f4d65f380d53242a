//! An Esplora server as a [`crate::ChainSource`].
//!
//! - `client`: the calls of its REST. `url`: where it is.
//! - `answers`: reads and checks what it answers, without I/O.
//! - `seen`: the headers of the blocks that were read last, since the server knows only those of the best chain.

mod answers;
mod client;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod seen;
mod url;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use bitcoin::block::Header;
use bitcoin::blockdata::constants::genesis_block;
use bitcoin::hashes::Hash as _;
use bitcoin::{Block, BlockHash, Network, OutPoint, Transaction, TxOut, Txid};
use serde_json::Value;

pub use self::answers::{FeeEstimates, Spend};
pub use self::client::{EsploraClient, ProxyUrl};
use self::seen::Seen;
pub use self::url::{EsploraUrl, EsploraUrlError};
use crate::core_relay::{self, CoreAnswer, CoreMempool};
use crate::{
    BlockReader, BlockRef, ChainError, FeeRates, FeeSource, OutputLookup, SourceHealth,
    TransactionRelay,
};

/// Headers that are read back from a best block: more than any reorganisation of the last years has replaced.
const READ_BACK: u32 = 12;
/// Attempts to read the best block, when another one takes its place meanwhile.
const TIP_ATTEMPTS: u32 = 3;

/// An Esplora server. Its network is checked before the first call, and again after every time it could not be reached.
pub struct EsploraSource {
    client: EsploraClient,
    /// The server's network was checked.
    is_checked: AtomicBool,
    /// The best block that was seen last.
    tip: Mutex<Option<Tip>>,
    seen: Seen,
}

#[derive(Clone, Copy)]
struct Tip {
    block: BlockRef,
    /// The time in its header, in seconds since 1970.
    unix_s: u32,
}

impl EsploraSource {
    /// A source that keeps the headers of the last blocks in memory. Connects to nothing yet: the server may be down.
    pub fn new(client: EsploraClient) -> EsploraSource {
        EsploraSource {
            client,
            is_checked: AtomicBool::new(false),
            tip: Mutex::new(None),
            seen: Seen::default(),
        }
    }

    /// As [`EsploraSource::new`], with the headers in a file too (some 170 to 340 kB). A node whose last block leaves
    /// the best chain while its host is stopped needs them: the server does not know that block then.
    ///
    /// # Errors
    /// When the file cannot be read or written.
    pub fn with_headers_file(client: EsploraClient, path: &Path) -> std::io::Result<EsploraSource> {
        let seen = Seen::open(path)?;
        Ok(EsploraSource {
            seen,
            ..EsploraSource::new(client)
        })
    }

    /// Connects to the server now and checks its network.
    ///
    /// # Errors
    /// [`ChainError::Unreachable`] or [`ChainError::WrongNetwork`].
    pub async fn verify(&self) -> Result<(), ChainError> {
        let found = match self.client.hash_at(0).await {
            // Nothing else has no first block.
            Err(ChainError::NotFound(_)) => {
                return Err(ChainError::Unreachable {
                    url: self.client.url().to_string(),
                    reason: "there is no Esplora server at this path".into(),
                });
            }
            found => found?,
        };
        let expected = self.client.network();
        if genesis_block(expected).block_hash() != found {
            return Err(ChainError::WrongNetwork {
                expected: expected.to_core_arg().into(),
                found: network_of(&found).into(),
            });
        }
        self.is_checked.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// The client, once the server's network is checked.
    async fn ready(&self) -> Result<&EsploraClient, ChainError> {
        if !self.is_checked.load(Ordering::Relaxed) {
            self.verify().await?;
        }
        Ok(&self.client)
    }

    /// A server that could not be reached may be another one when it is back.
    fn noted<T>(&self, answer: Result<T, ChainError>) -> Result<T, ChainError> {
        if matches!(answer, Err(ChainError::Unreachable { .. })) {
            self.is_checked.store(false, Ordering::Relaxed);
        }
        answer
    }

    async fn read_tip(&self) -> Result<Tip, ChainError> {
        let client = self.ready().await?;
        let hash = client.tip_hash().await?;
        let known = self.known_tip().filter(|tip| tip.block.hash == hash);
        if let Some(tip) = known {
            return Ok(tip);
        }
        let header = client.header(&hash).await?;
        let (unix_s, height) = (header.time, client.block_height(&hash).await?);
        self.read_back(&header, height).await?;
        let tip = Tip {
            block: BlockRef { height, hash },
            unix_s,
        };
        *self.tip.lock().unwrap_or_else(PoisonError::into_inner) = Some(tip);
        Ok(tip)
    }

    /// Reads the headers from the best block back to one that was read, since a node may begin at any of them.
    async fn read_back(&self, tip: &Header, tip_height: u32) -> Result<(), ChainError> {
        let (mut header, mut height) = (*tip, tip_height);
        for _ in 0..READ_BACK {
            if self.seen.get(&header.block_hash()).is_some() {
                break;
            }
            self.seen.read(&header, height, tip_height);
            let Some(before) = height.checked_sub(1) else {
                break;
            };
            (header, height) = (self.client.header(&header.prev_blockhash).await?, before);
        }
        Ok(())
    }

    fn known_tip(&self) -> Option<Tip> {
        *self.tip.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read_header(&self, hash: &BlockHash) -> Result<(Header, u32), ChainError> {
        if let Some(seen) = self.seen.get(hash) {
            return Ok(seen);
        }
        let client = self.ready().await?;
        Ok((client.header(hash).await?, client.block_height(hash).await?))
    }

    async fn read_block(&self, hash: &BlockHash) -> Result<Block, ChainError> {
        let client = self.ready().await?;
        let block = client.block(hash).await?;
        let parent = block.header.prev_blockhash;
        let mut height = 0;
        if parent != BlockHash::all_zeros() {
            let (before, at) = self.read_header(&parent).await?;
            height = at.saturating_add(1);
            answers::check_difficulty(&block.header, &before, height, client.network())?;
        }
        let tip_height = self.known_tip().map_or(0, |tip| tip.block.height);
        self.seen.read(&block.header, height, tip_height);
        Ok(block)
    }

    async fn read_txids(&self, height: u32) -> Result<Option<Vec<Txid>>, ChainError> {
        let client = self.ready().await?;
        let hash = match client.hash_at(height).await {
            Ok(hash) => hash,
            Err(ChainError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let header = client.header(&hash).await?;
        client.txids(&header).await.map(Some)
    }

    async fn read_unspent(&self, outpoint: &OutPoint) -> Result<Option<TxOut>, ChainError> {
        let client = self.ready().await?;
        let tx = match client.transaction(&outpoint.txid).await {
            Ok(tx) => tx,
            Err(ChainError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error),
        };
        let output = usize::try_from(outpoint.vout)
            .ok()
            .and_then(|vout| tx.output.get(vout));
        // Bitcoin Core does not count those as unspent.
        let Some(output) = output.filter(|output| !output.script_pubkey.is_op_return()) else {
            return Ok(None);
        };
        if client.confirmation(&outpoint.txid).await?.is_none() {
            return Ok(None);
        }
        let is_spent = matches!(client.spend(outpoint).await?, Spend::Confirmed(_));
        Ok((!is_spent).then(|| output.clone()))
    }
}

/// The name of the network whose first block this is.
fn network_of(genesis: &BlockHash) -> &'static str {
    let known = [
        Network::Bitcoin,
        Network::Testnet,
        Network::Testnet4,
        Network::Signet,
        Network::Regtest,
    ];
    let network = known
        .into_iter()
        .find(|it| genesis_block(*it).block_hash() == *genesis);
    network.map_or("an unknown network", |network| network.to_core_arg())
}

#[async_trait]
impl BlockReader for EsploraSource {
    async fn tip(&self) -> Result<BlockRef, ChainError> {
        let mut attempt = 1;
        loop {
            match self.noted(self.read_tip().await) {
                Err(ChainError::NotFound(_)) if attempt < TIP_ATTEMPTS => attempt += 1,
                read => return read.map(|tip| tip.block),
            }
        }
    }

    async fn header(&self, hash: &BlockHash) -> Result<(Header, u32), ChainError> {
        self.noted(self.read_header(hash).await)
    }

    async fn hash_at(&self, height: u32) -> Result<BlockHash, ChainError> {
        let client = self.ready().await?;
        self.noted(client.hash_at(height).await)
    }

    /// Only blocks of the best chain.
    async fn block(&self, hash: &BlockHash) -> Result<Block, ChainError> {
        self.noted(self.read_block(hash).await)
    }

    /// The time of the best block; a server does not say whether it is catching up.
    async fn health(&self) -> Result<SourceHealth, ChainError> {
        let tip_unix_s = self.known_tip().map(|tip| tip.unix_s);
        Ok(SourceHealth {
            tip_unix_s,
            lacks_filters: true,
            ..SourceHealth::default()
        })
    }
}

#[async_trait]
impl FeeSource for EsploraSource {
    /// A server does not give the minimum of its mempool: it is taken to be the floor.
    async fn fee_rates(&self) -> Result<FeeRates, ChainError> {
        let estimates = self.noted(self.ready().await?.fee_estimates().await)?;
        let [urgent, normal, background] = [2, 6, 144].map(|blocks| estimates.within(blocks));
        let minimum = FeeRates::FLOOR.minimum;
        Ok(FeeRates::estimated(urgent, normal, background, minimum))
    }
}

#[async_trait]
impl TransactionRelay for EsploraSource {
    async fn broadcast(&self, package: &[Transaction]) -> Result<(), ChainError> {
        self.noted(core_relay::broadcast(self, package).await)
    }
}

#[async_trait]
impl OutputLookup for EsploraSource {
    async fn block_txids(&self, height: u32) -> Result<Option<Vec<Txid>>, ChainError> {
        self.noted(self.read_txids(height).await)
    }

    async fn unspent(&self, outpoint: &OutPoint) -> Result<Option<TxOut>, ChainError> {
        self.noted(self.read_unspent(outpoint).await)
    }
}

/// Bitcoin Core behind the server.
#[async_trait]
impl CoreMempool for EsploraSource {
    async fn send_raw(&self, tx: &Transaction) -> CoreAnswer<()> {
        self.ready().await?.send(tx).await
    }

    async fn submit_package(&self, package: &[Transaction]) -> CoreAnswer<Value> {
        self.ready().await?.send_package(package).await
    }

    async fn knows(&self, txid: &Txid) -> Result<bool, ChainError> {
        match self.ready().await?.transaction(txid).await {
            Ok(_) => Ok(true),
            Err(ChainError::NotFound(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
