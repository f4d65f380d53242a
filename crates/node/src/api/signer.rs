//! A node's way to its signer.

use async_trait::async_trait;
use bitcoin::BlockHash;
use longhand_proto::signer::{SignerBatch, SignerReply};

/// Carries batches to a node's signer: the phone at the other end of a link, or an engine in this process.
#[async_trait]
pub trait SignerTransport: Send + Sync + 'static {
    /// Answers every operation of `batch`, in order. Must give the same answers when asked again.
    ///
    /// The node polls it once in its own task, so that batches are begun in order; long work belongs in another task.
    async fn sign(&self, batch: SignerBatch) -> Result<SignerReply, SignerAway>;

    /// Which of the owner's phones this is, such as its link key. A command that waits for a signature fails when another
    /// phone is attached: that phone must not sign what it was not asked for. Empty when there is one signer only.
    fn identity(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Blocks of the best chain that the signer knows, from its tip down, the last one its checkpoint: the node shows it those that follow.
    /// Heights and hashes, `longhand_spv::Headers::locator`; empty for a signer that follows no chain.
    fn known_blocks(&self) -> Vec<(u32, BlockHash)> {
        Vec::new()
    }
}

/// The signer went away before it answered; the node asks again when one is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signer went away before it answered")]
pub struct SignerAway;
