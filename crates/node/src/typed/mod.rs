//! A node's commands with types: [`Node`], and what it answers.
//!
//! For programs that run the node, or the host whose hub it is, in their own process. An owner commands the node from the
//! phone, whose library has the same commands and checks the host's answers.

mod answers;
mod error;

use std::time::Duration;

use bitcoin::address::NetworkUnchecked;
use bitcoin::secp256k1::PublicKey;
use bitcoin::{Address, Txid};
use lightning::ln::types::ChannelId;
use lightning_invoice::Bolt11Invoice;
use longhand_proto::command::command::Command as Body;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::payment::State;
use longhand_proto::command::{
    self as proto, AwaitChannel, AwaitPayment, CloseChannel, Command, ConnectPeer, GetBalance,
    ListChannels, NewAddress, Pay,
};

pub use answers::{Balance, Channel, Invoice, OpenChannel, OpenedChannel, Payment};
pub use error::CommandError;

use crate::api::Overview;

/// The interval at which [`Node::wait_until`] looks.
const LOOK: Duration = Duration::from_millis(50);

/// A node of this process, for its commands; clones are handles on the same one. It does not start or stop the node:
/// whoever runs it does.
///
/// Every command but [`Node::open_channel`], which begins another opening each time, may be given again after an error: [`CommandError`]
/// says whether that can help.
///
/// ```no_run
/// # async fn example(node: longhand_node::Node) -> Result<(), longhand_node::typed::CommandError> {
/// use longhand_node::typed::Node;
/// let node = Node::from(node);
/// println!("send coins to {}", node.new_address().await?);
/// node.wait_until(|now| now.onchain_sat > 0).await?;
/// let invoice = node.invoice(Some(10_000_000), "ten thousand satoshis", 3_600).await?;
/// println!("or pay {}", invoice.bolt11);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Node(crate::Node);

impl From<crate::Node> for Node {
    fn from(node: crate::Node) -> Node {
        Node(node)
    }
}

impl Node {
    /// The node's id.
    pub fn id(&self) -> PublicKey {
        self.0.node_id()
    }

    /// A snapshot of the node.
    ///
    /// # Errors
    /// `NODE_STOPPED`.
    pub async fn overview(&self) -> Result<Overview, CommandError> {
        let overview = self.0.overview().await;
        overview.ok_or_else(CommandError::stopped)
    }

    /// Returns the first snapshot of the node that `is_met` accepts, such as one with coins or with a usable channel.
    ///
    /// # Errors
    /// `NODE_STOPPED`.
    pub async fn wait_until(
        &self,
        is_met: impl Fn(&Overview) -> bool,
    ) -> Result<Overview, CommandError> {
        loop {
            let overview = self.overview().await?;
            if is_met(&overview) {
                return Ok(overview);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A new address of the node's on-chain wallet.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn new_address(&self) -> Result<Address, CommandError> {
        match self.ask(Body::NewAddress(NewAddress {})).await? {
            Reply::Address(made) => {
                let address: Result<Address<NetworkUnchecked>, _> = made.address.parse();
                // Of the node's own wallet, which has one network.
                address.map_or_else(|_| unexpected(), |address| Ok(address.assume_checked()))
            }
            _ => unexpected(),
        }
    }

    /// The node's balance.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn balance(&self) -> Result<Balance, CommandError> {
        match self.ask(Body::GetBalance(GetBalance {})).await? {
            Reply::Balance(balance) => Ok(balance.into()),
            _ => unexpected(),
        }
    }

    /// The node's channels, also those that are being opened; without those that were closed.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn channels(&self) -> Result<Vec<Channel>, CommandError> {
        match self.ask(Body::ListChannels(ListChannels {})).await? {
            Reply::Channels(list) => list.channels.into_iter().map(Channel::try_from).collect(),
            _ => unexpected(),
        }
    }

    /// Connects to a peer at `address` (`host:port`).
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn connect(&self, peer: PublicKey, address: &str) -> Result<(), CommandError> {
        let connect = ConnectPeer {
            node_id: peer.serialize().to_vec(),
            address: address.into(),
        };
        match self.ask(Body::ConnectPeer(connect)).await? {
            Reply::PeerConnected(_) => Ok(()),
            _ => unexpected(),
        }
    }

    /// Opens a channel. Returns when its funding is broadcast; [`Node::usable`] waits for the rest.
    ///
    /// A signer of one's own signs the funding of a channel only when it was given the intent before.
    ///
    /// # Errors
    /// [`CommandError`]. The opening may go on after an error that says to try again: look at [`Node::channels`] first.
    pub async fn open_channel(&self, open: OpenChannel) -> Result<OpenedChannel, CommandError> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(|_| CommandError::unexpected("no randomness"))?;
        match self.ask(Body::OpenChannel(open.into_command(id))).await? {
            Reply::OpenedChannel(opened) => OpenedChannel::read(id, opened),
            _ => unexpected(),
        }
    }

    /// Returns when a channel can carry payments, which takes some blocks.
    ///
    /// # Errors
    /// [`CommandError`], also when the opening has failed.
    pub async fn usable(&self, opened: &OpenedChannel) -> Result<Channel, CommandError> {
        let id = opened.id.to_vec();
        match self.ask(Body::AwaitChannel(AwaitChannel { id })).await? {
            Reply::Channel(channel) => channel.try_into(),
            _ => unexpected(),
        }
    }

    /// Closes a channel together with the peer, or without it by `force`. Returns the closing transaction, if it is known
    /// already.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn close_channel(
        &self,
        channel: &ChannelId,
        force: bool,
    ) -> Result<Option<Txid>, CommandError> {
        let close = CloseChannel {
            channel_id: channel.0.to_vec(),
            force,
            ..CloseChannel::default()
        };
        match self.ask(Body::CloseChannel(close)).await? {
            Reply::ClosingChannel(closing) => Ok(closing.txid.parse().ok()),
            _ => unexpected(),
        }
    }

    /// A BOLT 11 invoice over `amount_msat`, or over any amount. For nodes whose keys are in this process, such as a hub: for
    /// others the signer makes it.
    ///
    /// # Errors
    /// [`CommandError`].
    pub async fn invoice(
        &self,
        amount_msat: Option<u64>,
        description: &str,
        expiry_s: u32,
    ) -> Result<Invoice, CommandError> {
        let amount_msat = amount_msat.unwrap_or(0);
        let bolt11 = self.0.invoice(amount_msat, description, expiry_s).await?;
        let signed: Bolt11Invoice = bolt11.parse().or_else(|_| unexpected())?;
        Ok(Invoice::new(bolt11, &signed))
    }

    /// Pays an invoice, and returns when it is paid. `amount_msat` is for an invoice without an amount; `max_fee_msat` is the
    /// most that routing may cost, 1 % and 50 sat without it.
    ///
    /// When the future is dropped the payment goes on. The same invoice is not paid twice.
    ///
    /// # Errors
    /// [`CommandError`]; [`CommandError::PaymentFailed`] when it is not paid and will not be.
    pub async fn pay(
        &self,
        bolt11: &str,
        amount_msat: Option<u64>,
        max_fee_msat: Option<u64>,
    ) -> Result<Payment, CommandError> {
        let pay = Pay {
            bolt11: bolt11.into(),
            amount_msat: amount_msat.unwrap_or(0),
            max_fee_msat,
        };
        let mut payment = self.payment(Body::Pay(pay)).await?;
        loop {
            match payment.state() {
                State::Succeeded => return payment.try_into(),
                State::Failed => return Err(CommandError::PaymentFailed(payment.failure)),
                State::Pending | State::Unknown => {}
            }
            let payment_hash = payment.payment_hash;
            let wait = Body::AwaitPayment(AwaitPayment { payment_hash });
            payment = self.payment(wait).await?;
        }
    }

    async fn payment(&self, body: Body) -> Result<proto::Payment, CommandError> {
        match self.ask(body).await? {
            Reply::Payment(payment) => Ok(payment),
            _ => unexpected(),
        }
    }

    async fn ask(&self, body: Body) -> Result<Reply, CommandError> {
        let command = Command {
            command: Some(body),
        };
        match self.0.command(command).await.reply {
            Some(Reply::Error(error)) => Err(error.into()),
            Some(reply) => Ok(reply),
            None => unexpected(),
        }
    }
}

fn unexpected<T>() -> Result<T, CommandError> {
    let message = "the node gave an answer of another kind: report this";
    Err(CommandError::unexpected(message))
}
