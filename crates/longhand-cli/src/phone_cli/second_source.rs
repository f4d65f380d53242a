//! The owner's second source (`longhand phone limits second_source`), over the clients of chain sources.

use std::sync::Arc;

use async_trait::async_trait;
use bitcoin::block::Header;
use bitcoin::{Network, OutPoint};
use longhand_chain::{BitcoindAuth, BitcoindSource, BlockReader, EsploraClient, Spend};
use longhand_phone::source::{OutputState, SecondSource};
use serde_json::json;

/// The source at a URL of the phone's limits.
pub(super) fn make(url: &str, network: Network) -> Result<Arc<dyn SecondSource>, String> {
    match url.strip_prefix("core+") {
        Some(url) => Ok(Arc::new(core(url, network)?)),
        None => {
            let url = url.parse().map_err(|error| format!("{error}"))?;
            let client = EsploraClient::new(url, network, None);
            Ok(Arc::new(Esplora(
                client.map_err(|error| error.to_string())?,
            )))
        }
    }
}

struct Esplora(EsploraClient);

#[async_trait]
impl SecondSource for Esplora {
    fn place(&self) -> String {
        self.0.url().to_string()
    }

    async fn height(&self) -> Result<u32, String> {
        self.0.tip_height().await.map_err(|error| error.to_string())
    }

    async fn header_at(&self, height: u32) -> Result<Header, String> {
        let read = async {
            let hash = self.0.hash_at(height).await?;
            self.0.header(&hash).await
        };
        read.await.map_err(|error| error.to_string())
    }

    async fn state_of(&self, outpoint: OutPoint) -> Result<OutputState, String> {
        match self.0.spend(&outpoint).await {
            Ok(Spend::Confirmed(txid)) => Ok(OutputState::Spent(txid)),
            Ok(Spend::Unconfirmed) => Ok(OutputState::Spending),
            Ok(Spend::None) => Ok(OutputState::Unspent),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A Bitcoin Core, which does not say by which transaction an output is spent.
struct Core {
    place: String,
    source: BitcoindSource,
}

fn core(url: &str, network: Network) -> Result<Core, String> {
    let wrong = || {
        "a Bitcoin Core is given as core+http://user:password@address:port: see `longhand phone limits`".to_owned()
    };
    let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
    let (login, address) = rest.rsplit_once('@').ok_or_else(wrong)?;
    let (user, password) = login.split_once(':').ok_or_else(wrong)?;
    let auth = BitcoindAuth::UserPassword {
        user: user.to_owned(),
        password: password.to_owned(),
    };
    let place = format!("http://{address}");
    Ok(Core {
        source: BitcoindSource::new(&place, auth, network),
        place,
    })
}

#[async_trait]
impl SecondSource for Core {
    fn place(&self) -> String {
        self.place.clone()
    }

    async fn height(&self) -> Result<u32, String> {
        let tip = self.source.tip().await;
        tip.map(|tip| tip.height).map_err(|error| error.to_string())
    }

    async fn header_at(&self, height: u32) -> Result<Header, String> {
        let headers = self.source.headers(height, 1).await;
        let headers = headers.map_err(|error| error.to_string())?;
        headers.first().copied().ok_or_else(|| "no header".into())
    }

    async fn state_of(&self, outpoint: OutPoint) -> Result<OutputState, String> {
        let is_there = async |with_mempool: bool| {
            let params = [
                json!(outpoint.txid),
                json!(outpoint.vout),
                json!(with_mempool),
            ];
            let found = self.source.call("gettxout", &params).await;
            let found = found.map(|found| !found.is_null());
            found.map_err(|error| error.to_string())
        };
        Ok(match (is_there(false).await?, is_there(true).await?) {
            (false, _) => OutputState::Spent(None),
            (true, false) => OutputState::Spending,
            (true, true) => OutputState::Unspent,
        })
    }
}
