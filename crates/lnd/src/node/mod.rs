//! The node that answers: the trait that its host implements, and the types around it.
//!
//! Amounts have their unit in the name. Times are seconds since 1970. Hashes and node ids are bytes; transaction ids and
//! outpoints are text in display form, as apps read them.

mod data;
mod page;

use async_trait::async_trait;
use futures::stream::BoxStream;
use thiserror::Error;

pub use data::*;
pub use page::{Page, index_of, position_of};

/// A node, for one app of its owner. The app's macaroon has let the call in, and its fields have the form and length that they can have;
/// all other checks are the node's and its phone's.
///
/// A call that is not answered any more is dropped: the app has gone. A question to the phone that is still open is then
/// withdrawn; a payment that has begun goes on.
#[async_trait]
pub trait Node: Send + Sync {
    /// For `GetInfo`.
    ///
    /// # Errors
    /// [`NodeError`], here and below.
    async fn info(&self) -> Result<Info, NodeError>;

    /// For `ChannelBalance` and `WalletBalance`.
    async fn balance(&self) -> Result<Balance, NodeError>;

    /// All channels that are not closed, those being opened and closed too.
    async fn channels(&self) -> Result<Vec<Channel>, NodeError>;

    /// Closed channels, oldest first.
    async fn closed_channels(&self) -> Result<Vec<ClosedChannel>, NodeError>;

    /// What the network's graph knows of a node (33 bytes); `None` when it does not know the node.
    async fn lightning_node(&self, node_id: [u8; 33]) -> Result<Option<LightningNode>, NodeError>;

    /// A page of invoices, open, paid and expired ones; those that nobody can pay any more may be left out.
    async fn invoices(&self, page: Page, open_only: bool) -> Result<Vec<Invoice>, NodeError>;

    /// One invoice.
    async fn invoice(&self, payment_hash: [u8; 32]) -> Result<Option<Invoice>, NodeError>;

    /// Makes an invoice. The phone signs it.
    async fn add_invoice(&self, new: NewInvoice) -> Result<Invoice, NodeError>;

    /// A page of outgoing payments.
    async fn payments(&self, page: Page, succeeded_only: bool) -> Result<Vec<Payment>, NodeError>;

    /// Asks the phone for a payment. Returns when the payment has begun, with its states from then on; the last one is
    /// [`PaymentState::Succeeded`] or [`PaymentState::Failed`], and the stream ends after it. Dropping the stream does not end the
    /// payment.
    async fn pay(&self, pay: Pay) -> Result<Updates<Payment>, NodeError>;

    /// The states of a payment from now on, as of [`Node::pay`]; `None` when there is no such payment.
    async fn track(&self, payment_hash: [u8; 32]) -> Result<Option<Updates<Payment>>, NodeError>;

    /// Transactions of the on-chain wallet, oldest first.
    async fn transactions(&self) -> Result<Vec<Transaction>, NodeError>;

    /// A new address of the on-chain wallet. [`NodeError::BadInput`] for a kind that the wallet does not have.
    async fn new_address(&self, kind: AddressKind) -> Result<String, NodeError>;

    /// Asks the phone for an on-chain payment, and returns its transaction id when it is broadcast.
    async fn send_coins(&self, send: SendCoins) -> Result<String, NodeError>;

    /// The accounts of the on-chain wallet, for `WalletKit.ListAccounts`. No keys that can spend.
    async fn accounts(&self) -> Result<Vec<Account>, NodeError>;

    /// Changes from now on. An error ends the stream, such as [`NodeError::Busy`] for a reader that is too slow.
    fn changes(&self) -> Updates<Change>;
}

/// States as they change.
pub type Updates<T> = BoxStream<'static, Result<T, NodeError>>;

/// For an app: one line each, without secrets. Apps get gRPC's code that the case names, and the line.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeError {
    /// Nothing was done: the call needs the phone, which is not connected. `UNAVAILABLE`.
    #[error("the owner's phone is away: {0}")]
    PhoneAway(String),
    /// The owner, or a rule of the phone's signer, said no. `PERMISSION_DENIED`.
    #[error("the owner's phone refused: {0}")]
    Refused(String),
    /// The owner did not answer in the time that the app gave, and the question was withdrawn. `DEADLINE_EXCEEDED`.
    #[error("the owner did not answer on the phone in time: {0}")]
    NotAnswered(String),
    /// The request cannot be carried out as it is. `INVALID_ARGUMENT`.
    #[error("{0}")]
    BadInput(String),
    /// There is no such thing. `NOT_FOUND`.
    #[error("{0}")]
    NotFound(String),
    /// As lnd says it. `ALREADY_EXISTS`.
    #[error("invoice is already paid")]
    AlreadyPaid,
    /// As lnd says it. `ALREADY_EXISTS`.
    #[error("payment is in transition")]
    InFlight,
    /// The funds, channels or limits do not allow it. `FAILED_PRECONDITION`.
    #[error("{0}")]
    NotPossible(String),
    /// Too much is asked for at once. `RESOURCE_EXHAUSTED`.
    #[error("{0}")]
    Busy(String),
    /// The node does not run now, or its chain source is not reached. `UNAVAILABLE`.
    #[error("{0}")]
    NotRunning(String),
    /// This node cannot do it at all. `UNIMPLEMENTED`.
    #[error("{0}")]
    Unsupported(String),
    /// An error of ours. `INTERNAL`.
    #[error("{0}")]
    Internal(String),
}
