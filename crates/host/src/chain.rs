//! The host's chain source, as the configuration names it.

use std::sync::Arc;
use std::time::Duration;

use longhand_chain::{BitcoindAuth, BitcoindSource, BlockReader, ChainError, ChainSource};
use tokio::time::timeout;

use crate::HostError;
use crate::config::{BitcoindConfig, ChainKind, HostConfig};

/// Timeout of the first call at start; without an answer the host starts and waits for the source.
const FIRST_CALL: Duration = Duration::from_secs(5);

/// The source of `chain.kind`. Connects to nothing yet.
pub(crate) fn source(config: &HostConfig) -> ChainSource {
    match config.chain.kind {
        ChainKind::Bitcoind => Arc::new(bitcoind(&config.chain.bitcoind, config.network)).into(),
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
