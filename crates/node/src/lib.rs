//! One Lightning node, on LDK, whose keys may live elsewhere.
//!
//! A [`Node`] is an actor around LDK's objects. It is given a [`longhand_store::Store`], a
//! [`longhand_chain::Chain`], a shared [`Graph`], a [`Dialer`] and either the seed of its own
//! keys or the [`Registration`] of an owner whose keys live on a phone. In the second
//! case a [`SignerTransport`] is attached whenever the phone is there, and taken away when it is not.
//!
//! Start reading at `actor.rs` (the loop and the order of things in one turn), then `keys/`
//! (the signer proxy), `gate.rs` (what waits for the phone), `peer.rs` (sockets).

mod actor;
mod agreed;
mod bumps;
mod chain_sync;
mod closed;
mod commands;
mod core;
mod deadlines;
mod events;
mod gate;
mod graph;
mod hex;
mod hold;
mod journal;
mod keys;
mod ldk;
mod logger;
mod onchain;
mod peer;
mod persister;
mod records;
mod spending;
mod sweeps;
mod wallet;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use async_trait::async_trait;
use bitcoin::Network;
use bitcoin::secp256k1::PublicKey;
use longhand_chain::Chain;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::error::Action;
use longhand_proto::command::{Command, CommandReply};
use longhand_proto::signer::{SignerBatch, SignerReply};
use longhand_store::Store;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::actor::{Actor, Input};
pub use crate::graph::Graph;
pub use crate::wallet::{
    BdkWallets, OnchainWallet, SendAmount, WalletChain, WalletCoins, WalletError, WalletFactory,
    WalletSetup, WalletSigning, WalletSpends, WalletTransactions,
};

/// Signs for a node: the phone at the other end of a link, or an engine in this process.
#[async_trait]
pub trait SignerTransport: Send + Sync + 'static {
    /// Answers every operation of `batch`, in order. Must give the same answers when asked again.
    ///
    /// The node polls it once in its own task, so that batches are begun in order; what takes long belongs in another.
    async fn sign(&self, batch: SignerBatch) -> Result<SignerReply, SignerAway>;
}

/// The signer went away before it answered; the node asks again when one is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the signer went away before it answered")]
pub struct SignerAway;

/// A connection to a peer, over whatever carries bytes.
pub trait PeerStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> PeerStream for T {}

/// Reaches peers for nodes.
#[async_trait]
pub trait Dialer: Send + Sync + 'static {
    /// Opens a byte stream to `node_id`. `address` is `host:port`; empty when the dialer should know (the hub).
    async fn dial(&self, node_id: PublicKey, address: &str)
    -> std::io::Result<Box<dyn PeerStream>>;
}

/// Reaches peers by TCP at the address that is given.
#[derive(Clone, Copy, Debug, Default)]
pub struct TcpDialer;

#[async_trait]
impl Dialer for TcpDialer {
    async fn dial(&self, _: PublicKey, address: &str) -> std::io::Result<Box<dyn PeerStream>> {
        let stream = tokio::net::TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// What a host knows of an owner's keys: public ones, and those that cannot spend.
pub type Registration = longhand_proto::command::Register;

/// Where a node's keys are.
pub enum Keys {
    /// On the owner's phone.
    Remote(Box<Registration>),
    /// Here: 32 bytes from which LDK's `KeysManager` and the on-chain wallet derive. For hubs.
    Local(zeroize::Zeroizing<[u8; 32]>),
}

/// How one node is run.
pub struct NodeConfig {
    /// The node's namespace in the store; never shared.
    pub namespace: String,
    /// The chain's network.
    pub network: Network,
    /// Where the keys are.
    pub keys: Keys,
    /// The host's hub, which owners' nodes use by default; `None` for the hub itself.
    pub hub: Option<PublicKey>,
    /// Takes in gossip, forwards payments and announces channels.
    pub is_hub: bool,
    /// Announced as the alias of a hub.
    pub alias: String,
    /// Addresses announced by a hub, `host:port`.
    pub announce: Vec<String>,
    /// Makes the on-chain wallet; [`BdkWallets`] by default.
    pub wallets: Arc<dyn WalletFactory>,
}

impl NodeConfig {
    /// An owner's node, without a hub and not announced. Change the fields for anything else.
    pub fn new(namespace: impl Into<String>, network: Network, keys: Keys) -> NodeConfig {
        NodeConfig {
            namespace: namespace.into(),
            network,
            keys,
            hub: None,
            is_hub: false,
            alias: String::new(),
            announce: Vec::new(),
            wallets: Arc::new(BdkWallets),
        }
    }
}

/// What a node is built on.
#[derive(Clone)]
pub struct Services {
    /// Keeps all that must outlive the process.
    pub store: Arc<dyn Store>,
    /// The chain.
    pub chain: Arc<dyn Chain>,
    /// The network graph and scores, shared by all nodes of the host.
    pub graph: Arc<Graph>,
    /// Reaches peers.
    pub dialer: Arc<dyn Dialer>,
}

/// The life of a node (see the design's picture).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No signer: the chain is watched, read-only calls work.
    Dormant,
    /// A signer is there; peers are being connected.
    Waking,
    /// Every channel's peer is connected and reestablished (or there is none).
    Active,
}

/// What a node tells its host.
#[derive(Clone, Debug)]
pub enum NodeEvent {
    /// The state changed.
    State(State),
    /// Payments to these peers wait at the hub because they are not connected. Told as they come, and again with each block.
    PaymentsHeld(Vec<PeerNeeded>),
    /// The signer is needed before this height, for an HTLC in flight. Told with each block, however far away it is.
    SignerNeeded {
        /// The HTLC's deadline.
        deadline_height: u32,
    },
    /// These peers are needed, for HTLCs that they were sent, and are not connected. Told with each block, however far away
    /// their heights are: a node that went away before it heard of an HTLC does not know of it.
    PeersNeeded(Vec<PeerNeeded>),
    /// An HTLC that was the owner's is lost: the signer was not there to claim it, and the peer has taken it back.
    HtlcLost {
        /// Of its payment.
        payment_hash: [u8; 32],
        /// What is lost.
        amount_msat: u64,
        /// Height before which it had to be claimed.
        deadline_height: u32,
    },
    /// A panic was caught; the node was loaded again from its store.
    Restarted,
    /// The node has ended by itself, and another attempt would fail too: its store is damaged, say, or belongs to another host
    /// now. The text is the error, for the operator.
    Failed(String),
}

/// A peer of a hub's that should wake up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerNeeded {
    /// Its node.
    pub node_id: PublicKey,
    /// Height before which it has to be there.
    pub deadline_height: u32,
}

/// What can be said of a node without its signer.
#[derive(Clone, Debug)]
pub struct Overview {
    /// The node's id.
    pub node_id: PublicKey,
    /// Where in its life it is.
    pub state: State,
    /// Channels, whatever their state.
    pub channels: u32,
    /// Channels that can carry a payment now.
    pub usable_channels: u32,
    /// Connected peers.
    pub peers: u32,
    /// Spendable in channels.
    pub lightning_msat: u64,
    /// In the on-chain wallet, confirmed.
    pub onchain_sat: u64,
    /// In the on-chain wallet, not confirmed.
    pub onchain_pending_sat: u64,
    /// From closed channels, not swept.
    pub closing_sat: u64,
    /// HTLCs in flight that both sides are committed to (BOLT 2).
    pub pending_htlcs: u32,
    /// Next height before which an HTLC in flight needs the signer.
    pub earliest_deadline: Option<u32>,
    /// Times a panic was caught.
    pub restarts: u32,
    /// Signer batches since the start, and the longest run of them that waited for each other since the last
    /// [`Node::reset_signer_chain`].
    pub signer_batches: u64,
    /// See `signer_batches`.
    pub signer_chain: u32,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Dormant => "dormant",
            State::Waking => "waking",
            State::Active => "active",
        })
    }
}

/// A handle on a running node; clones are handles on the same one. The node ends when it is stopped or the last handle
/// is gone.
#[derive(Clone)]
pub struct Node {
    node_id: PublicKey,
    inbox: mpsc::UnboundedSender<Input>,
    events: broadcast::Sender<NodeEvent>,
    running: Arc<Running>,
}

/// The actor's task, which ends with the last handle.
struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Events a slow listener may fall behind. Every node pays for the room.
const EVENTS_KEPT: usize = 16;

impl Node {
    /// Loads the node from its namespace, or begins it there, and starts its actor. The node is dormant until
    /// [`Node::attach`] (a node with local keys wakes at once). The chain's tip must be known.
    ///
    /// # Errors
    /// [`NodeError::Load`] when stored state cannot be read; nothing is changed then.
    pub async fn start(config: NodeConfig, services: Services) -> Result<Node, NodeError> {
        let (inbox, inputs) = mpsc::unbounded_channel();
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        let restarts = Arc::new(AtomicU32::new(0));
        let config = Arc::new(config);
        let own = inbox.clone();
        let actor = Actor::new(config, services, inputs, own, events.clone(), restarts).await?;
        let node_id = actor.node_id();
        let running = Arc::new(Running(tokio::spawn(actor.run()).abort_handle()));
        Ok(Node {
            node_id,
            inbox,
            events,
            running,
        })
    }

    /// The node's id.
    pub fn node_id(&self) -> PublicKey {
        self.node_id
    }

    /// Gives the node a signer; it connects its peers and goes on with what waits. Replaces an earlier signer.
    pub fn attach(&self, signer: Arc<dyn SignerTransport>) {
        let _ = self.inbox.send(Input::Attach(signer));
    }

    /// The phone asked to leave: finishes the step in hand, disconnects the peers and forgets the signer.
    /// Returns when that is done.
    pub async fn detach(&self) {
        let (done, wait) = oneshot::channel();
        if self.inbox.send(Input::Detach(done)).is_ok() {
            let _ = wait.await;
        }
    }

    /// The link is gone and did not come back within the grace: disconnects the peers at once.
    pub fn signer_lost(&self) {
        let _ = self.inbox.send(Input::SignerLost);
    }

    /// Carries out a command of the owner. Never waits for a signer that is not there.
    pub async fn command(&self, command: Command) -> CommandReply {
        let (reply, answer) = oneshot::channel();
        let _ = self.inbox.send(Input::Command(Box::new(command), reply));
        answer.await.unwrap_or_else(|_| self.not_answered())
    }

    /// Takes an incoming connection of a peer. Dropped while no signer is attached.
    pub fn accept(&self, stream: Box<dyn PeerStream>) {
        let _ = self.inbox.send(Input::Accept(stream));
    }

    /// A snapshot; `None` when the node has ended.
    pub async fn overview(&self) -> Option<Overview> {
        loop {
            let (reply, answer) = oneshot::channel();
            self.inbox.send(Input::Overview(reply)).ok()?;
            // Not answered: the question was lost with a turn that never happened.
            if let Ok(overview) = answer.await {
                return Some(overview);
            }
        }
    }

    /// Begins a new count of [`Overview::signer_chain`].
    pub fn reset_signer_chain(&self) {
        let _ = self.inbox.send(Input::ResetSignerChain);
    }

    /// What the node has to tell, from now on.
    pub fn events(&self) -> broadcast::Receiver<NodeEvent> {
        self.events.subscribe()
    }

    /// A BOLT 11 invoice signed with local keys; an amount of 0 leaves it to the payer. Owners' phones sign
    /// their own.
    ///
    /// # Errors
    /// A [`longhand_proto::command::Error`] for people and programs.
    pub async fn invoice(
        &self,
        amount_msat: u64,
        description: &str,
        expiry_s: u32,
    ) -> Result<String, longhand_proto::command::Error> {
        let (reply, answer) = oneshot::channel();
        let description = description.to_owned();
        let _ = self.inbox.send(Input::Invoice {
            amount_msat,
            description,
            expiry_s,
            reply,
        });
        match answer.await.unwrap_or_else(|_| self.not_answered()).reply {
            Some(Reply::UnsignedInvoice(invoice)) => Ok(invoice.hrp),
            Some(Reply::Error(error)) => Err(error),
            _ => Err(commands::error(
                "INTERNAL",
                Action::Retry,
                "the node gave no invoice",
            )),
        }
    }

    /// Gives up payments held for a peer that is away.
    pub fn fail_held(&self, node_id: PublicKey) {
        let _ = self.inbox.send(Input::FailHeld(node_id));
    }

    /// Disconnects peers, writes what is to be written and ends the actor.
    pub async fn stop(&self) {
        let (done, wait) = oneshot::channel();
        if self.inbox.send(Input::Stop(done)).is_ok() {
            let _ = wait.await;
        }
    }

    /// Ends the actor at once and without a word, as if the process was killed: a turn that is not committed yet may
    /// become durable all the same, but nobody hears of it.
    pub fn kill(&self) {
        self.running.0.abort();
    }

    fn not_answered(&self) -> CommandReply {
        commands::refused(if self.inbox.is_closed() {
            commands::error(
                "NODE_STOPPED",
                Action::Retry,
                "the node has stopped: try again when the host is back",
            )
        } else {
            commands::error(
                "NODE_RESTARTED",
                Action::Retry,
                "the node met an internal error and was loaded again: try again",
            )
        })
    }

    /// Makes the node's next turn panic, to see that its neighbours do not notice.
    #[cfg(feature = "testing")]
    pub fn panic_for_test(&self) {
        let _ = self.inbox.send(Input::Panic);
    }

    /// Makes the node panic so many times when a signer is attached, as LDK might whose state is as it is.
    #[cfg(feature = "testing")]
    pub fn panic_when_attached_for_test(&self, times: u32) {
        let _ = self.inbox.send(Input::PanicWhenAttached(times));
    }
}

/// Why a node could not start or do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// What is stored cannot be read back.
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
