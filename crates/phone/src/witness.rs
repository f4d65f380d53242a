//! A second pair of eyes on a signer's answers.

use longhand_proto::signer::SignerOp;
use longhand_proto::signer::signer_answer::Answer;

/// Observes all answers of one phone's signer that could cost money, through all its restarts, such as an audit of what a signer must
/// never sign, which does not rely on the signer's own ledger.
///
/// An answer waits for the ledger. A phone that dies during the write does not know whether it is durable; the next one that is made
/// of the same files does. So a witness keeps an answer until it is reported to be durable, or not to be.
pub trait Witness: Send + Sync + 'static {
    /// The signer has made this answer. It may be sent when the ledger is durable up to record number `version`.
    fn made(&self, said: Said<'_>, version: u64);

    /// The ledger is durable up to record `version`, and the answers that depend on it are sent next.
    fn durable(&self, version: u64);

    /// The signer was restored from the disk, where the ledger ends at record `version`. Answers that depend on it count as sent, since
    /// the signer acts as if they were. Answers that depend on more were never sent, and never will be.
    fn restored(&self, version: u64);
}

/// See [`Witness::made`].
#[derive(Clone, Copy, Debug)]
pub enum Said<'a> {
    /// An answer to the node.
    Answer(&'a SignerOp, &'a Answer),
    /// A signed invoice, for its payer.
    Invoice {
        /// SHA-256 of the preimage.
        payment_hash: [u8; 32],
        /// 0 = any amount.
        amount_msat: u64,
    },
}
