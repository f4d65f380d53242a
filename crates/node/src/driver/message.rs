//! The driver's inbox: messages of the node's handles and of the driver's own tasks.

use std::sync::Arc;

use bitcoin::Txid;
use bitcoin::secp256k1::PublicKey;
use longhand_chain::{
    BroadcastAnswer, ChainError, FiltersReply, HeadersReply, ScanError, ScanReply,
};
use longhand_proto::command::{Command, CommandReply, Error};
use longhand_proto::signer::SignerReply;
use longhand_spv::Proof;
use tokio::sync::oneshot;

use crate::api::{Overview, PeerStream, SignerAway, SignerTransport};
use crate::ldk::socket::ConnectionId;
use crate::machine::input::{HubRequest, InvoiceRequest};
use crate::machine::output::{BatchTicket, HubAnswer};

/// See the module. Replies go to the senders; a sender that is dropped means that there is none.
pub(crate) enum Message {
    /// In a box because the largest message decides the size of every node's empty inbox.
    Command(Box<Command>, oneshot::Sender<CommandReply>),
    Invoice(InvoiceRequest, oneshot::Sender<CommandReply>),
    Overview(oneshot::Sender<Overview>),
    Hub(HubRequest, oneshot::Sender<Result<HubAnswer, Error>>),
    Attach(Arc<dyn SignerTransport>),
    Detach(oneshot::Sender<()>),
    SignerLost,
    SignerReply(BatchTicket, Result<SignerReply, SignerAway>),
    /// From a node of the same host, or from a stranger.
    Accept(Box<dyn PeerStream>, Option<PublicKey>),
    Broadcast(Txid, BroadcastAnswer),
    /// With the number of the request; in a box as a command is.
    Scanned(u64, Box<Result<ScanReply, ScanError>>),
    Headers(u64, Box<Result<HeadersReply, ChainError>>),
    Proof(u64, Box<Result<Proof, ChainError>>),
    Filters(u64, Box<Result<FiltersReply, ChainError>>),
    Dialed(PublicKey, std::io::Result<Box<dyn PeerStream>>),
    Peer(ConnectionId, PeerEvent),
    ResetSignerChain,
    FailHeld(PublicKey),
    Stop(oneshot::Sender<()>),
    #[cfg(feature = "testing")]
    Panic,
    #[cfg(feature = "testing")]
    PanicWhenAttached(u32),
}

/// An event of one connection.
pub(crate) enum PeerEvent {
    Bytes(Vec<u8>),
    Closed,
    /// Half of a full outbox is written.
    Writable,
}
