//! The host's chain source, as the configuration names it.

use std::sync::Arc;
use std::time::Duration;

use longhand_chain::{BitcoindAuth, BitcoindSource, BlockReader, ChainError, ChainSource};
use tokio::time::timeout;

use crate::HostError;
use crate::config::{BitcoindConfig, ChainKind, HostConfig};
use crate::tor::Tor;

/// Timeout of the first call at start; without an answer the host starts and waits for the source.
const FIRST_CALL: Duration = Duration::from_secs(5);

/// The source of `chain.kind`. Connects to nothing yet.
pub(crate) async fn source(
    config: &HostConfig,
    tor: Option<&Tor>,
) -> Result<ChainSource, HostError> {
    match config.chain.kind {
        ChainKind::Bitcoind => {
            let mut bitcoind_config = config.chain.bitcoind.clone();
            if let Some(tor) = tor {
                bitcoind_config.url = through_tor(tor, bitcoind_config.url).await?;
            }
            Ok(Arc::new(bitcoind(&bitcoind_config, config.network)).into())
        }
    }
}

/// The URL by which the source at `url` is reached through Tor, if it should be. The RPC client dials itself: it gets a port of this
/// machine.
async fn through_tor(tor: &Tor, url: String) -> Result<String, HostError> {
    let Ok(mut parsed) = reqwest::Url::parse(&url) else {
        return Ok(url);
    };
    let host = parsed.host_str().unwrap_or_default().to_owned();
    if host.is_empty() || !tor.carries(&host) {
        return Ok(url);
    }
    let port = parsed.port_or_known_default().unwrap_or(80);
    let failed = |error: std::io::Error| HostError::Tor(error.to_string());
    let near = tor.forward(&host, port, "chain").await.map_err(failed)?;
    let set = parsed.set_ip_host(near.ip()).is_ok() && parsed.set_port(Some(near.port())).is_ok();
    match set {
        true => Ok(parsed.to_string()),
        false => Err(HostError::Tor(
            "chain.bitcoind.url is no URL of a host".into(),
        )),
    }
}

fn bitcoind(config: &BitcoindConfig, network: bitcoin::Network) -> BitcoindSource {
    let auth = match config.cookie_file.as_os_str().is_empty() {
        false => BitcoindAuth::CookieFile(config.cookie_file.clone()),
        true => BitcoindAuth::UserPassword {
            user: config.user.clone(),
            password: config.password.expose().to_owned(),
        },
    };
    BitcoindSource::new(config.url.clone(), auth, network)
}

/// Refuses a source on another network or with wrong credentials. A source that is down is waited for later.
pub(crate) async fn check(blocks: &dyn BlockReader) -> Result<(), HostError> {
    match timeout(FIRST_CALL, blocks.tip()).await {
        Ok(Err(error @ (ChainError::WrongNetwork { .. } | ChainError::Unauthorized))) => {
            Err(error.into())
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, "the nodes start when the chain source is there");
            Ok(())
        }
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}
