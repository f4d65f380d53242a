//! The handle on a running node.

use std::sync::Arc;

use bitcoin::secp256k1::PublicKey;
use longhand_proto::Code;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{Command, CommandReply, Error};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::task::AbortHandle;

use crate::api::{
    ForwardingFees, Forwards, NodeConfig, NodeError, NodeEvent, Overview, PeerStream, Services,
    SignerTransport,
};
use crate::driver::Driver;
use crate::driver::message::Message;
use crate::errors::{error_reply, node_stopped};
use crate::machine::input::{HubRequest, InvoiceRequest};
use crate::machine::output::HubAnswer;

/// A handle on a running node; clones are handles on the same one. The node ends when it is stopped or the last handle
/// is gone.
#[derive(Clone)]
pub struct Node {
    node_id: PublicKey,
    inbox: mpsc::UnboundedSender<Message>,
    events: broadcast::Sender<NodeEvent>,
    running: Arc<Running>,
}

/// The driver's task, which ends with the last handle.
struct Running(AbortHandle);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Events a slow listener may fall behind. Every node pays for the room.
const EVENTS_KEPT: usize = 16;

impl Node {
    /// Loads the node from its namespace, or begins it there, and starts its task. The node is dormant until
    /// [`Node::attach`] (a node with local keys wakes at once). The chain's tip must be known.
    ///
    /// # Errors
    /// [`NodeError`] when stored state cannot be read, or store or chain source fail; nothing is changed then.
    pub async fn start(config: NodeConfig, services: Services) -> Result<Node, NodeError> {
        let (inbox, inputs) = mpsc::unbounded_channel();
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        let own = inbox.clone();
        let driver = Driver::new(config, services, inputs, own, events.clone()).await?;
        let node_id = driver.node_id();
        let running = Arc::new(Running(tokio::spawn(driver.run()).abort_handle()));
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
        let _ = self.inbox.send(Message::Attach(signer));
    }

    /// The phone asked to leave: finishes the step in hand, disconnects the peers and forgets the signer.
    /// Returns when that is done, or the node had to be loaded again, which detaches the signer too.
    pub async fn detach(&self) {
        let (done, wait) = oneshot::channel();
        if self.inbox.send(Message::Detach(done)).is_ok() {
            let _ = wait.await;
        }
    }

    /// The link is gone and did not come back within the grace: disconnects the peers at once.
    pub fn signer_lost(&self) {
        let _ = self.inbox.send(Message::SignerLost);
    }

    /// Carries out a command of the owner. Never waits for a signer that is not there.
    pub async fn command(&self, command: Command) -> CommandReply {
        let (reply, answer) = oneshot::channel();
        let _ = self.inbox.send(Message::Command(Box::new(command), reply));
        answer.await.unwrap_or_else(|_| self.not_answered())
    }

    /// Takes an incoming connection of a peer. Dropped while no signer is attached.
    pub fn accept(&self, stream: Box<dyn PeerStream>) {
        let _ = self.inbox.send(Message::Accept(stream, None));
    }

    /// Takes the connection of another node of the same host: the limits on peers without channels, which strangers can reach,
    /// are not for it. The handshake still has to prove that it is this node.
    pub fn accept_hosted(&self, node_id: PublicKey, stream: Box<dyn PeerStream>) {
        let _ = self.inbox.send(Message::Accept(stream, Some(node_id)));
    }

    /// A snapshot; `None` when the node has ended.
    pub async fn overview(&self) -> Option<Overview> {
        loop {
            let (reply, answer) = oneshot::channel();
            self.inbox.send(Message::Overview(reply)).ok()?;
            // Not answered: the question was lost with a turn that never happened.
            if let Ok(overview) = answer.await {
                return Some(overview);
            }
        }
    }

    /// Begins a new count of [`Overview::signer_chain`].
    pub fn reset_signer_chain(&self) {
        let _ = self.inbox.send(Message::ResetSignerChain);
    }

    /// The node's events, from now on.
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
    ) -> Result<String, Error> {
        let (reply, answer) = oneshot::channel();
        let description = description.to_owned();
        let request = InvoiceRequest {
            amount_msat,
            description,
            expiry_s,
        };
        let _ = self.inbox.send(Message::Invoice(request, reply));
        match answer.await.unwrap_or_else(|_| self.not_answered()).reply {
            Some(Reply::UnsignedInvoice(invoice)) => Ok(invoice.hrp),
            Some(Reply::Error(error)) => Err(error),
            _ => Err(Error::new(Code::Internal, "the node gave no invoice")),
        }
    }

    /// The fees that a hub takes for forwarding payments.
    ///
    /// # Errors
    /// `NOT_A_HUB`, or that the node has ended.
    pub async fn forwarding_fees(&self) -> Result<ForwardingFees, Error> {
        match self.ask_hub(HubRequest::Fees).await? {
            HubAnswer::Fees(fees) => Ok(fees),
            HubAnswer::Forwards(_) => Err(other_answer()),
        }
    }

    /// Sets the fees of all channels of a hub, and of those to come. Peers get them as a `channel_update` (BOLT 7); for a
    /// while payments at the earlier fees are forwarded too.
    ///
    /// # Errors
    /// `BAD_FEES`, `NOT_A_HUB`, or that the node has ended.
    pub async fn set_forwarding_fees(&self, fees: ForwardingFees) -> Result<(), Error> {
        self.ask_hub(HubRequest::SetFees(fees)).await.map(drop)
    }

    /// The payments that a hub has forwarded, with up to `limit` of the newest one by one.
    ///
    /// # Errors
    /// `NOT_A_HUB`, or that the node has ended.
    pub async fn forwards(&self, limit: usize) -> Result<Forwards, Error> {
        match self.ask_hub(HubRequest::Forwards(limit)).await? {
            HubAnswer::Forwards(forwards) => Ok(forwards),
            HubAnswer::Fees(_) => Err(other_answer()),
        }
    }

    async fn ask_hub(&self, request: HubRequest) -> Result<HubAnswer, Error> {
        let (reply, answer) = oneshot::channel();
        let _ = self.inbox.send(Message::Hub(request, reply));
        answer.await.unwrap_or_else(|_| Err(self.no_answer()))
    }

    /// Gives up payments held for a peer that is away.
    pub fn fail_held(&self, node_id: PublicKey) {
        let _ = self.inbox.send(Message::FailHeld(node_id));
    }

    /// Disconnects peers, writes what is to be written and ends its task.
    pub async fn stop(&self) {
        let (done, wait) = oneshot::channel();
        if self.inbox.send(Message::Stop(done)).is_ok() {
            let _ = wait.await;
        }
    }

    /// Ends its task at once and sends nothing more, as if the process was killed: a turn that is not committed yet may
    /// become durable all the same, but nothing of it is sent.
    pub fn kill(&self) {
        self.running.0.abort();
    }

    fn not_answered(&self) -> CommandReply {
        error_reply(self.no_answer())
    }

    fn no_answer(&self) -> Error {
        if self.inbox.is_closed() {
            node_stopped()
        } else {
            Error::new(
                Code::NodeRestarted,
                "the node met an internal error and was loaded again: try again",
            )
        }
    }

    /// Makes the node's next turn panic, to see that its neighbours do not notice.
    #[cfg(feature = "testing")]
    pub fn panic_for_test(&self) {
        let _ = self.inbox.send(Message::Panic);
    }

    /// Makes the node panic so many times when a signer is attached, as LDK might whose state is as it is.
    #[cfg(feature = "testing")]
    pub fn panic_when_attached_for_test(&self, times: u32) {
        let _ = self.inbox.send(Message::PanicWhenAttached(times));
    }
}

fn other_answer() -> Error {
    let message = "the node gave an answer of another kind: report this";
    Error::new(Code::Internal, message)
}
