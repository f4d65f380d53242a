//! Errors of chain sources.

/// Why a chain source could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// The source cannot be reached now; the follower waits and tries again.
    #[error(
        "the chain source at {url} cannot be reached ({reason}): check that it runs; waiting for it"
    )]
    Unreachable {
        /// Its URL, without credentials.
        url: String,
        /// The error of the socket.
        reason: String,
    },
    /// Wrong user, password or cookie.
    #[error(
        "the chain source refused the credentials: check user and password, or the cookie file"
    )]
    Unauthorized,
    /// The source is on another network.
    #[error("the chain source is on {found}, this host is configured for {expected}")]
    WrongNetwork {
        /// The network of the configuration.
        expected: String,
        /// The network that the source reports.
        found: String,
    },
    /// The mempool of the source rejects a transaction.
    #[error("the transaction was refused: {reason}")]
    Rejected {
        /// As the source words it; for people only.
        reason: String,
        /// True when no later block can make the transaction valid, so that it need not be sent again.
        is_final: bool,
    },
    /// The source does not know the block, header, height or transaction.
    #[error("the chain source does not know {0}")]
    NotFound(String),
    /// The source has deleted the block's content.
    #[error("the chain source has pruned the block: use one that keeps its blocks (prune=0)")]
    Pruned,
    /// The source has no compact filters (BIP 157): not an Esplora server, and a Bitcoin Core only when it is told to.
    #[error(
        "the chain source has no compact filters of blocks: start Bitcoin Core with blockfilterindex=1"
    )]
    NoFilters,
    /// The source's answer is not well-formed.
    #[error("the chain source gave an answer that cannot be read: {0}")]
    Malformed(String),
    /// The source's answer is false: another block than the one that was asked for, say.
    #[error("the chain source gave a false answer: {0}")]
    False(String),
}

impl ChainError {
    /// True when the source as a whole cannot be used now; false when only this one request failed.
    pub fn is_source_unavailable(&self) -> bool {
        matches!(
            self,
            ChainError::Unreachable { .. }
                | ChainError::Unauthorized
                | ChainError::WrongNetwork { .. }
        )
    }
}
