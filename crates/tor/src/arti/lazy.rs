//! A client that starts with its first stream: a phone that has another way to its host needs none.

use async_trait::async_trait;
use tokio::sync::OnceCell;

use super::{Tor, TorConfig};
use crate::dial::{DialError, OnionDialer, OnionStream};
use crate::onion::{DiscoverySecret, OnionAddress};
use crate::progress::Progress;

/// See the module.
pub struct LazyTor {
    config: TorConfig,
    tor: OnceCell<Tor>,
}

impl LazyTor {
    /// Starts nothing, and makes no file yet.
    pub fn new(config: TorConfig) -> LazyTor {
        LazyTor {
            config,
            tor: OnceCell::new(),
        }
    }

    async fn tor(&self) -> Result<&Tor, DialError> {
        let config = &self.config;
        let started = self.tor.get_or_try_init(|| async { Tor::start(config) });
        let started = started.await;
        started.map_err(|error| DialError::Failed(error.to_string()))
    }
}

#[async_trait]
impl OnionDialer for LazyTor {
    async fn connect(
        &self,
        service: &OnionAddress,
        port: u16,
        discovery: Option<&DiscoverySecret>,
    ) -> Result<Box<dyn OnionStream>, DialError> {
        let tor = self.tor().await?;
        OnionDialer::connect(tor, service, port, discovery).await
    }

    fn progress(&self) -> Progress {
        self.tor.get().map_or_else(Progress::none, Tor::progress)
    }
}
