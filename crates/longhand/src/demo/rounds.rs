//! Counting signer round trips.
//!
//! A node counts the longest chain of batches of which each had to wait for the one before it. All that does not depend
//! on the phone is done long before its answers come, because the phones are some way off ([`DISTANCE`]); so what is
//! counted is the protocol and not the machine.

use std::time::{Duration, Instant};

use longhand::cast::{CastError, Host};
use longhand_proto::operator::{NodeView, ResetSignerChainRequest};

use super::world::DISTANCE;

/// A node whose phone was asked nothing for this long has settled: three round trips.
const QUIET: Duration = DISTANCE.saturating_mul(6);

/// Counts what one owner's phone is asked from now on.
pub(super) struct Counter<'a> {
    host: &'a Host,
    owner: &'a str,
}

impl<'a> Counter<'a> {
    /// Begins when nothing is under way.
    pub async fn begin(host: &'a Host, owner: &'a str) -> Result<Counter<'a>, CastError> {
        let counter = Counter { host, owner };
        counter.settled().await?;
        let request = ResetSignerChainRequest {
            owner: owner.into(),
        };
        host.client()?.reset_signer_chain(request).await?;
        Ok(counter)
    }

    /// The count at this moment.
    pub async fn now(&self) -> Result<u32, CastError> {
        Ok(self.host.node(self.owner).await?.signer_chain)
    }

    /// The count once nothing happens any more.
    pub async fn settled(&self) -> Result<u32, CastError> {
        let mut last = self.host.node(self.owner).await?;
        let mut since = Instant::now();
        while since.elapsed() < QUIET {
            tokio::time::sleep(DISTANCE / 10).await;
            let node = self.host.node(self.owner).await?;
            if counts(&node) != counts(&last) {
                since = Instant::now();
            }
            last = node;
        }
        Ok(last.signer_chain)
    }
}

fn counts(node: &NodeView) -> (u64, u32) {
    (node.signer_batches, node.signer_chain)
}
