//! The host's chain source, as the configuration names it.

use std::sync::Arc;
use std::time::Duration;

use longhand_base::text::is_onion;
use longhand_chain::{
    BitcoindAuth, BitcoindSource, BlockReader, ChainError, ChainSource, EsploraClient,
    EsploraSource, EsploraUrl, ProxyUrl,
};
use tokio::time::timeout;

use crate::HostError;
use crate::config::{BitcoindConfig, ChainKind, ConfigError, HostConfig};
use crate::files::FileError;
use crate::tor::Tor;

/// Timeout of the first call at start; without an answer the host starts and waits for the source.
const FIRST_CALL: Duration = Duration::from_secs(5);

/// The source of `chain.kind`. Connects to nothing yet.
pub(crate) async fn source(
    config: &HostConfig,
    tor: Option<&Arc<Tor>>,
) -> Result<ChainSource, HostError> {
    match config.chain.kind {
        ChainKind::Bitcoind => {
            let mut bitcoind_config = config.chain.bitcoind.clone();
            if let Some(tor) = tor {
                bitcoind_config.url = through_tor(tor, bitcoind_config.url).await?;
            }
            Ok(Arc::new(bitcoind(&bitcoind_config, config.network)).into())
        }
        ChainKind::Esplora => Ok(Arc::new(esplora(config, tor)?).into()),
    }
}

/// The Esplora server. Its client speaks SOCKS itself, so that its name stays in its certificate.
fn esplora(config: &HostConfig, tor: Option<&Arc<Tor>>) -> Result<EsploraSource, HostError> {
    let Some(url) = config.chain.esplora_url()? else {
        return Err(ConfigError::Invalid("chain.kind is not \"esplora\"".into()).into());
    };
    let proxy = tor.filter(|tor| tor.carries(url.host())).map(proxy);
    check_onion(&url, proxy.is_some())?;
    let client = EsploraClient::new(url, config.network, proxy)?;
    let file = config.headers_file();
    let unusable = |error: std::io::Error| FileError::Io {
        path: file.clone(),
        reason: error.to_string(),
    };
    Ok(EsploraSource::with_headers_file(client, &file).map_err(unusable)?)
}

/// The session's password changes when the Tor process starts again.
fn proxy(tor: &Arc<Tor>) -> ProxyUrl {
    let tor = tor.clone();
    Arc::new(move || tor.proxy_url("chain"))
}

/// A name under `.onion` is never sent to name servers (RFC 7686).
fn check_onion(url: &EsploraUrl, is_through_tor: bool) -> Result<(), ConfigError> {
    match is_onion(url.host()) && !is_through_tor {
        true => Err(ConfigError::Invalid(
            "chain.esplora.url is an onion service: set tor.enabled too".into(),
        )),
        false => Ok(()),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn the_name_of_an_onion_service_is_not_given_to_name_servers() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = HostConfig {
            data_dir: dir.path().to_owned(),
            ..HostConfig::default()
        };
        config.chain.kind = ChainKind::Esplora;
        config.chain.esplora.url = "http://abcdefghij.onion/api".into();
        let refused = source(&config, None).await.err().unwrap().to_string();
        assert!(refused.contains("set tor.enabled too"), "{refused}");
        config.chain.esplora.url = "http://127.0.0.1:3000".into();
        source(&config, None).await.unwrap();
        assert!(config.headers_file().exists());
    }
}
