//! Everything that can happen to a machine. The time comes with each turn.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use bitcoin::Txid;
use bitcoin::secp256k1::PublicKey;
use lightning::types::payment::PaymentHash;
use longhand_chain::{
    BlockRef, BroadcastAnswer, ChainError, ChainEvent, FiltersReply, HeadersReply, ScanError,
    ScanReply,
};
use longhand_proto::command::{Command, Payment};
use longhand_proto::signer::SignerReply;
use longhand_spv::Proof;

use crate::api::{ForwardingFees, SignerAway};
use crate::ldk::socket::ConnectionId;
use crate::machine::output::{BatchTicket, RequestId};

/// See the module.
pub(crate) enum Input {
    /// In a box because the largest input decides the size of each.
    Command(RequestId, Box<Command>),
    Invoice(RequestId, InvoiceRequest),
    Overview(RequestId),
    Hub(RequestId, HubRequest),
    /// Nobody waits for the answer any more.
    RequestDropped(RequestId),
    /// The signer with this identity, which knows these blocks, is there; it takes the place of an earlier one.
    Attach(Vec<u8>, Vec<BlockRef>),
    Detach(RequestId),
    SignerLost,
    SignerReply(BatchTicket, Result<SignerReply, SignerAway>),
    PeerAccepted(NewConnection),
    PeerDialed(PublicKey, NewConnection),
    /// With the reason, for a person.
    DialFailed(PublicKey, String),
    PeerBytes(ConnectionId, Vec<u8>),
    PeerClosed(ConnectionId),
    /// A writer has room again; every turn looks for it.
    PeerWritable,
    Chain(ChainEvent),
    /// The chain source's answer to a broadcast that [`super::NodeMachine::awaits_answer`] asked for.
    Broadcast(Txid, BroadcastAnswer),
    /// The answer to the last request of [`super::NodeMachine::take_scan`]; in a box as a command is.
    Scanned(Box<Result<ScanReply, ScanError>>),
    /// The answer to the last request of [`super::NodeMachine::take_headers_request`].
    Headers(Box<Result<HeadersReply, ChainError>>),
    /// The answer to the last request of [`super::NodeMachine::take_proof_request`].
    Proof(Box<Result<Proof, ChainError>>),
    /// The answer to the last request of [`super::NodeMachine::take_filters_request`].
    Filters(Box<Result<FiltersReply, ChainError>>),
    /// Gossip was looked up in the chain and waits to be taken in.
    GossipChecked,
    /// A timer of [`super::NodeMachine::next_due`] has expired.
    TimerExpired,
    /// The records of [`super::NodeMachine::unread`], as the history has them.
    RecordsRead(Vec<(PaymentHash, Option<Payment>)>),
    ResetSignerChain,
    FailHeld(PublicKey),
    Stop,
    #[cfg(feature = "testing")]
    Panic,
    /// So many times when a signer is attached.
    #[cfg(feature = "testing")]
    PanicWhenAttached(u32),
}

/// An invoice of local keys; `amount_msat` 0 leaves the amount to the payer.
pub(crate) struct InvoiceRequest {
    pub amount_msat: u64,
    pub description: String,
    pub expiry_s: u32,
}

/// A request of a hub's operator.
pub(crate) enum HubRequest {
    Fees,
    SetFees(ForwardingFees),
    /// With the number of payments that are listed.
    Forwards(usize),
}

/// A byte stream to a peer.
pub(crate) struct NewConnection {
    /// The node of the same host at its other end, which still has to prove its id in the handshake.
    pub hosted: Option<PublicKey>,
    pub id: ConnectionId,
    /// Bytes given to its writer and not written yet.
    pub unwritten: Arc<AtomicUsize>,
}

impl Input {
    /// Whether the node may have something to do for a while. After a question, or a block without a transaction of its
    /// own, it has not.
    pub fn is_activity(&self) -> bool {
        match self {
            Input::Overview(_) | Input::Hub(..) | Input::RequestDropped(_) => false,
            Input::GossipChecked
            | Input::TimerExpired
            | Input::Scanned(_)
            | Input::Headers(_)
            | Input::Proof(_)
            | Input::Filters(_)
            | Input::Broadcast(..) => false,
            Input::Chain(ChainEvent::Connected { txs, .. }) => !txs.is_empty(),
            Input::Chain(ChainEvent::Disconnected { .. }) => true,
            Input::Chain(ChainEvent::Synced { .. }) => false,
            _ => true,
        }
    }

    /// Whether it may change which peers should be connected, or the node's state. Bytes and signatures are most of all
    /// inputs and seldom do; [`super::NodeMachine`] looks after those that do.
    pub fn may_change_peers(&self) -> bool {
        !matches!(
            self,
            Input::PeerBytes(..)
                | Input::SignerReply(..)
                | Input::GossipChecked
                | Input::Scanned(_)
                | Input::Headers(_)
                | Input::Proof(_)
                | Input::Filters(_)
                | Input::Broadcast(..)
        )
    }
}
