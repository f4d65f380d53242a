//! Counting signer round trips.
//!
//! A node counts the longest chain of signer batches of which each was sent only after the one before it was answered.
//! With phones that are far away ([`DISTANCE`]) all else is done long before their answers come, so that the protocol is
//! counted and not the machine.

use std::time::Duration;

use longhand_proto::operator::{NodeView, ResetSignerChainRequest};
use tokio::time::{Instant, sleep};

use crate::KitError;
use crate::operator::OperatorClient;

/// Between phones and host while round trips are counted, one way: as far as a mobile phone is.
pub const DISTANCE: Duration = Duration::from_millis(50);
/// A node whose phone was asked nothing for three round trips has settled.
const QUIET: Duration = DISTANCE.saturating_mul(6);

/// Counts the round trips to one owner's phone from now on.
pub struct Counter<'a> {
    operator: &'a OperatorClient,
    owner: &'a str,
}

impl<'a> Counter<'a> {
    /// Starts at zero, once the node has settled.
    ///
    /// # Errors
    /// When the host does not answer.
    pub async fn begin(
        operator: &'a OperatorClient,
        owner: &'a str,
    ) -> Result<Counter<'a>, KitError> {
        let counter = Counter { operator, owner };
        counter.settled().await?;
        let request = ResetSignerChainRequest {
            owner: owner.into(),
        };
        operator.client()?.reset_signer_chain(request).await?;
        Ok(counter)
    }

    /// The count at this moment.
    ///
    /// # Errors
    /// When the host does not answer.
    pub async fn now(&self) -> Result<u32, KitError> {
        Ok(self.operator.node(self.owner).await?.signer_chain)
    }

    /// The count once the node has settled.
    ///
    /// # Errors
    /// When the host does not answer.
    pub async fn settled(&self) -> Result<u32, KitError> {
        let mut last = self.operator.node(self.owner).await?;
        let mut since = Instant::now();
        while since.elapsed() < QUIET {
            sleep(DISTANCE / 10).await;
            let node = self.operator.node(self.owner).await?;
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
