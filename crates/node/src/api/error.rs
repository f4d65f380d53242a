//! Errors of a node as a whole; those of its commands are [`longhand_proto::command::Error`].

/// Why a node could not be started, or has ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// A stored record cannot be read back.
    #[error(
        "the node's stored state cannot be read ({0}): restore it from a backup, do not delete it"
    )]
    Load(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] longhand_store::StoreError),
    /// The chain source failed.
    #[error(transparent)]
    Chain(#[from] longhand_chain::ChainError),
}

impl NodeError {
    /// Whether another attempt may succeed later, without a person who acts.
    pub fn is_transient(&self) -> bool {
        match self {
            NodeError::Load(_) => false,
            NodeError::Store(error) => error.is_transient(),
            NodeError::Chain(_) => true,
        }
    }
}
