//! The follower: one task that polls a source for all nodes of a host.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bitcoin::Transaction;

use crate::{BlockRef, Chain, ChainError, ChainSource, FeeRates, Subscription, WatchList};

/// How a [`Follower`] is run.
#[derive(Clone, Debug)]
pub struct FollowerConfig {
    /// How often the source is asked for its tip.
    pub poll_interval: Duration,
}

impl Default for FollowerConfig {
    fn default() -> FollowerConfig {
        FollowerConfig {
            poll_interval: Duration::from_secs(1),
        }
    }
}

/// Follows one source for all nodes of a host. Dropping it ends every subscription.
pub struct Follower {
    source: Arc<dyn ChainSource>,
}

impl Follower {
    /// Starts to follow `source`; waits for it when it is down. Must be called within a tokio runtime.
    pub fn start(source: Arc<dyn ChainSource>, _config: FollowerConfig) -> Follower {
        Follower { source }
    }
    /// Polls the source now.
    pub fn poke(&self) {}
    /// Whether the source answered when it was last asked.
    pub fn reachable(&self) -> bool {
        false
    }
}

#[async_trait]
impl Chain for Follower {
    async fn subscribe(
        &self,
        _from: BlockRef,
        _initial: WatchList,
    ) -> Result<Subscription, ChainError> {
        Err(ChainError::NotFound("not yet".into()))
    }
    fn tip(&self) -> Option<BlockRef> {
        None
    }
    fn fee_rates(&self) -> FeeRates {
        FeeRates::FLOOR
    }
    fn broadcast(&self, _package: Vec<Transaction>) {}
    fn source(&self) -> Arc<dyn ChainSource> {
        self.source.clone()
    }
}
