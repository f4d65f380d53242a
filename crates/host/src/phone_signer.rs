//! The phone as its node's signer, over whichever of its links is live.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bitcoin::BlockHash;
use bitcoin::hashes::Hash;
use longhand_link::{CloseCode, LinkError, LinkKey};
use longhand_node::{SignerAway, SignerTransport};
use longhand_proto::Code;
use longhand_proto::signer::{KnownBlocks, SignerBatch, SignerReply};
use longhand_proto::{BadReply, read_reply};
use prost::Message;

use crate::hosted::HostedNode;
use crate::metrics::{Metrics, seconds_since};

/// The kind of the signer's requests on a link.
const SIGNER: &str = "signer";
/// Pause before a phone that takes no more requests is asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// Asks one phone.
pub(crate) struct PhoneSigner {
    node: Arc<HostedNode>,
    /// The only phone that is asked, also when another phone's link is live.
    phone: LinkKey,
    metrics: Metrics,
}

#[async_trait]
impl SignerTransport for PhoneSigner {
    fn identity(&self) -> Vec<u8> {
        self.phone.0.to_vec()
    }

    fn known_blocks(&self) -> Vec<(u32, BlockHash)> {
        let greeting = self.node.conversation.greeting();
        let known = KnownBlocks::decode(&greeting[..]).unwrap_or_default();
        let blocks = known.blocks.iter();
        let blocks = blocks.map(|it| Some((it.height, BlockHash::from_slice(&it.hash).ok()?)));
        blocks.collect::<Option<_>>().unwrap_or_default()
    }

    async fn sign(&self, batch: SignerBatch) -> Result<SignerReply, SignerAway> {
        let payload = batch.encode_to_vec();
        let started = Instant::now();
        let answer = self.ask(payload).await?;
        self.metrics.signer_seconds.observe(seconds_since(started));
        self.metrics.signer_ops.inc_by(batch.ops.len() as u64);
        read_reply(&batch, &answer).map_err(|bad| {
            self.drop_link(match bad {
                BadReply::TooLong | BadReply::TooMany => {
                    "its answer to a signer batch has more than was asked for"
                }
                BadReply::Unreadable => "its answer to a signer batch cannot be read",
            })
        })
    }
}

impl PhoneSigner {
    pub fn new(node: &Arc<HostedNode>, phone: LinkKey, metrics: &Metrics) -> PhoneSigner {
        PhoneSigner {
            node: node.clone(),
            phone,
            metrics: metrics.clone(),
        }
    }

    /// Sends the request until there is an answer or no phone: the operations may be repeated any number of times.
    async fn ask(&self, payload: Vec<u8>) -> Result<Vec<u8>, SignerAway> {
        loop {
            if !self.node.is_phone(&self.phone) {
                return Err(SignerAway);
            }
            match self
                .node
                .conversation
                .request(SIGNER, payload.clone())
                .await
            {
                Ok(answer) => return Ok(answer),
                Err(LinkError::Restarted) => {}
                Err(LinkError::Refused { code, .. }) if code == Code::Busy => {
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                Err(LinkError::Down(_)) => return Err(SignerAway),
                Err(error) => return Err(self.drop_link(&error.to_string())),
            }
        }
    }

    /// Closes the link of a phone that gives no valid answer, which counts as away; it may connect again.
    fn drop_link(&self, why: &str) -> SignerAway {
        tracing::warn!(why, "the phone did not sign; its link is closed");
        if self.node.is_phone(&self.phone) {
            self.node.conversation.give_up(CloseCode::Protocol, why);
        }
        SignerAway
    }
}
