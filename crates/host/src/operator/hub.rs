//! The operator's requests to the hub.

use longhand_node::typed::{self, CommandError};
use longhand_node::{Forward, Node};
use longhand_proto::Code;
use longhand_proto::command::command::Command as Body;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::payment::State as PaymentState;
use longhand_proto::command::{
    self, AbandonTransaction, BumpTransaction, CloseChannel, Command, ConnectPeer, GetBalance,
    ListChannels, ListPayments, ListSends, NewAddress, OpenChannel, Payment, SendOnchain,
};
use longhand_proto::operator::*;

use super::{Operator, OperatorError, OperatorServices};
use crate::hosted::Phase;
use crate::hub::Hub;

/// Payments that are listed when no number is asked for, and the most that are.
const LISTED: u32 = 100;
const MOST_LISTED: u32 = 1_000;

impl Operator {
    /// A new address of the hub's on-chain wallet.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn hub_address(&self) -> Result<HubAddressReply, OperatorError> {
        match self.ask_hub(Body::NewAddress(NewAddress {})).await? {
            Reply::Address(made) => Ok(HubAddressReply {
                address: made.address,
            }),
            _ => Err(unexpected()),
        }
    }

    /// The hub's balance.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn hub_balance(&self) -> Result<HubBalanceReply, OperatorError> {
        match self.ask_hub(Body::GetBalance(GetBalance {})).await? {
            Reply::Balance(balance) => Ok(HubBalanceReply {
                onchain_confirmed_sat: balance.onchain_confirmed_sat,
                onchain_pending_sat: balance.onchain_pending_sat,
                lightning_msat: balance.lightning_msat,
                closing_sat: balance.closing_sat,
            }),
            _ => Err(unexpected()),
        }
    }

    /// Opens a channel of the hub with an owner whose phone is attached, or with any node.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn hub_open_channel(
        &self,
        request: HubOpenChannelRequest,
    ) -> Result<HubOpenChannelReply, OperatorError> {
        let invalid = |text| Err(OperatorError::new(Code::OperatorInput, text));
        let counterparty_node_id = match (request.owner.as_str(), request.node_id.as_slice()) {
            ("", []) => return invalid("give an owner or a node id"),
            ("", node_id) => node_id.to_vec(),
            (name, []) => owner_to_open_with(&*self.services()?, name).await?,
            _ => return invalid("give an owner or a node id, not both"),
        };
        let open = OpenChannel {
            id: random_id()?,
            counterparty_node_id,
            address: request.address,
            amount_sat: request.amount_sat,
            announced: request.announced,
            push_msat: request.push_msat,
            feerate_sat_per_kw: request.feerate_sat_per_kw,
        };
        match self.ask_hub(Body::OpenChannel(open)).await? {
            Reply::OpenedChannel(opened) => Ok(HubOpenChannelReply {
                channel_id: opened.channel_id,
                funding_outpoint: opened.funding_outpoint,
            }),
            _ => Err(unexpected()),
        }
    }

    /// Closes a channel of the hub.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn hub_close_channel(
        &self,
        request: HubCloseChannelRequest,
    ) -> Result<HubCloseChannelReply, OperatorError> {
        let HubCloseChannelRequest { channel_id, force } = request;
        let close = CloseChannel {
            channel_id,
            force,
            ..CloseChannel::default()
        };
        self.ask_hub(Body::CloseChannel(close)).await?;
        Ok(HubCloseChannelReply {})
    }

    /// A BOLT 11 invoice of the hub; an amount of 0 leaves it to the payer.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn hub_invoice(
        &self,
        request: HubInvoiceRequest,
    ) -> Result<HubInvoiceReply, OperatorError> {
        let HubInvoiceRequest {
            amount_msat,
            description,
            expiry_s,
        } = request;
        let hub = self.hub()?;
        let invoice = hub.invoice(amount_msat, &description, expiry_s).await;
        Ok(HubInvoiceReply {
            bolt11: invoice.map_err(OperatorError::from)?,
        })
    }

    /// Pays from the hub, and waits for the payment's end.
    ///
    /// # Errors
    /// [`OperatorError`]; [`Code::PaymentFailed`] when the payment failed.
    pub async fn hub_pay(&self, request: HubPayRequest) -> Result<HubPayReply, OperatorError> {
        let HubPayRequest {
            bolt11,
            amount_msat,
            max_fee_msat,
        } = request;
        let hub = typed::Node::from(self.hub()?);
        let amount_msat = (amount_msat > 0).then_some(amount_msat);
        let payment = hub.pay(&bolt11, amount_msat, max_fee_msat).await?;
        Ok(HubPayReply {
            payment_hash: payment.payment_hash.0.to_vec(),
            preimage: payment.preimage.0.to_vec(),
            fee_msat: payment.fee_msat,
        })
    }

    /// Connects the hub to a peer.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn hub_connect(
        &self,
        request: HubConnectRequest,
    ) -> Result<HubConnectReply, OperatorError> {
        let HubConnectRequest { node_id, address } = request;
        let connect = ConnectPeer { node_id, address };
        self.ask_hub(Body::ConnectPeer(connect)).await?;
        Ok(HubConnectReply {})
    }

    /// Sends from the hub's on-chain wallet, and returns when the transaction is broadcast. The reserve for the hub's
    /// channels stays.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn hub_send(&self, request: HubSendRequest) -> Result<HubSendReply, OperatorError> {
        let HubSendRequest {
            address,
            amount_sat,
            all,
            feerate_sat_per_kw,
            id,
        } = request;
        if all && amount_sat > 0 {
            let text = "give an amount or ask for all, not both";
            return Err(OperatorError::new(Code::OperatorInput, text));
        }
        let send = SendOnchain {
            id: if id.is_empty() { random_id()? } else { id },
            address,
            amount_sat,
            all,
            feerate_sat_per_kw,
        };
        self.hub_sent(Body::SendOnchain(send)).await
    }

    /// The hub's on-chain payments, newest first.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn hub_sends(&self) -> Result<HubSendsReply, OperatorError> {
        match self.ask_hub(Body::ListSends(ListSends {})).await? {
            Reply::Sends(list) => Ok(HubSendsReply {
                sends: list.sends.into_iter().map(view_send).collect(),
            }),
            _ => Err(unexpected()),
        }
    }

    /// Raises the fee of an unconfirmed payment, or of the funding of a channel.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn hub_bump(
        &self,
        request: HubReplaceRequest,
    ) -> Result<HubSendReply, OperatorError> {
        let bump = BumpTransaction {
            txid: request.txid,
            feerate_sat_per_kw: request.feerate_sat_per_kw,
        };
        self.hub_sent(Body::BumpTransaction(bump)).await
    }

    /// Sends an unconfirmed payment back to the hub's wallet instead.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn hub_abandon(
        &self,
        request: HubReplaceRequest,
    ) -> Result<HubSendReply, OperatorError> {
        let abandon = AbandonTransaction {
            txid: request.txid,
            feerate_sat_per_kw: request.feerate_sat_per_kw,
        };
        self.hub_sent(Body::AbandonTransaction(abandon)).await
    }

    async fn hub_sent(&self, command: Body) -> Result<HubSendReply, OperatorError> {
        match self.ask_hub(command).await? {
            Reply::SentOnchain(sent) => Ok(HubSendReply {
                txid: sent.txid,
                fee_sat: sent.fee_sat,
            }),
            _ => Err(unexpected()),
        }
    }

    /// The fees that the hub takes for forwarding, after those that are given were set.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn hub_fees(&self, request: HubFeesRequest) -> Result<HubFeesReply, OperatorError> {
        let hub = self.hub()?;
        let mut fees = hub.forwarding_fees().await.map_err(OperatorError::from)?;
        if request.base_msat.is_some() || request.proportional_millionths.is_some() {
            fees.base_msat = request.base_msat.unwrap_or(fees.base_msat);
            fees.proportional_millionths = request
                .proportional_millionths
                .unwrap_or(fees.proportional_millionths);
            let set = hub.set_forwarding_fees(fees).await;
            set.map_err(OperatorError::from)?;
            tracing::info!(
                base_msat = fees.base_msat,
                proportional_millionths = fees.proportional_millionths,
                "the fees for forwarding were set"
            );
        }
        Ok(HubFeesReply {
            base_msat: fees.base_msat,
            proportional_millionths: fees.proportional_millionths,
        })
    }

    /// Payments that the hub made or received itself.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn hub_payments(
        &self,
        request: HubPaymentsRequest,
    ) -> Result<HubPaymentsReply, OperatorError> {
        let list = ListPayments {
            limit: u32::try_from(limit(request.limit)).unwrap_or(u32::MAX),
            ..ListPayments::default()
        };
        let Reply::Payments(list) = self.ask_hub(Body::ListPayments(list)).await? else {
            return Err(unexpected());
        };
        Ok(HubPaymentsReply {
            payments: list.payments.into_iter().map(view_payment).collect(),
            has_more: !list.next.is_empty(),
        })
    }

    /// Payments that the hub forwarded.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn hub_forwards(
        &self,
        request: HubForwardsRequest,
    ) -> Result<HubForwardsReply, OperatorError> {
        let forwards = self.hub()?.forwards(limit(request.limit)).await;
        let forwards = forwards.map_err(OperatorError::from)?;
        Ok(HubForwardsReply {
            count: forwards.count,
            amount_msat: forwards.amount_msat,
            fee_msat: forwards.fee_msat,
            forwards: forwards.newest.into_iter().map(view_forward).collect(),
        })
    }

    /// The hub's channels.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn hub_channels(&self) -> Result<HubChannelsReply, OperatorError> {
        let Reply::Channels(list) = self.ask_hub(Body::ListChannels(ListChannels {})).await? else {
            return Err(unexpected());
        };
        let channels = list.channels.into_iter().map(|channel| HubChannel {
            channel_id: channel.channel_id,
            counterparty_node_id: channel.counterparty_node_id,
            funding_outpoint: channel.funding_outpoint,
            capacity_sat: channel.capacity_sat,
            balance_msat: channel.balance_msat,
            usable: channel.usable,
            announced: channel.announced,
            ready: channel.ready,
            pending_htlcs: channel.pending_htlcs,
        });
        Ok(HubChannelsReply {
            channels: channels.collect(),
        })
    }

    fn hub(&self) -> Result<Node, OperatorError> {
        running(&self.services()?.hub)
    }

    async fn ask_hub(&self, body: Body) -> Result<Reply, OperatorError> {
        ask(&self.hub()?, body).await
    }
}

/// How many entries are listed. A reply has to fit into a gRPC message.
fn limit(asked: u32) -> usize {
    let limit = if asked == 0 {
        LISTED
    } else {
        asked.min(MOST_LISTED)
    };
    usize::try_from(limit).unwrap_or(usize::MAX)
}

fn view_payment(payment: Payment) -> HubPayment {
    let state = match payment.state() {
        PaymentState::Succeeded => "succeeded",
        PaymentState::Failed => "failed",
        PaymentState::Pending | PaymentState::Unknown => "pending",
    };
    HubPayment {
        payment_hash: payment.payment_hash,
        outbound: payment.outbound,
        amount_msat: payment.amount_msat,
        fee_msat: payment.fee_msat,
        state: state.into(),
        created_unix_s: payment.created_unix_s,
        failure: payment.failure,
    }
}

fn view_forward(forward: Forward) -> HubForward {
    HubForward {
        unix_s: forward.unix_s,
        from_channel_id: forward.from_channel_id,
        from_node_id: forward.from_node_id,
        to_channel_id: forward.to_channel_id,
        to_node_id: forward.to_node_id,
        amount_msat: forward.amount_msat,
        fee_msat: forward.fee_msat,
        claimed_on_chain: forward.claimed_on_chain,
    }
}

/// The hub, or why it does not run.
fn running(hub: &Hub) -> Result<Node, OperatorError> {
    match hub.phase() {
        Phase::Running(node) => Ok(node),
        Phase::Failed(reason) => Err(OperatorError::new(
            Code::NodeFailed,
            format!("the hub does not run: {reason}"),
        )),
        Phase::Waiting | Phase::Unregistered => Err(OperatorError::new(
            Code::ChainUnavailable,
            "the host has not reached its chain source yet: try again in a while",
        )),
    }
}

/// The hub, once its start has ended.
pub(crate) async fn started(hub: &Hub) -> Result<Node, OperatorError> {
    hub.started_or_failed().await;
    running(hub)
}

/// Gives the hub a command for the operator.
async fn ask(hub: &Node, body: Body) -> Result<Reply, OperatorError> {
    let command = Command {
        command: Some(body),
    };
    match hub.command(command).await.reply {
        Some(Reply::Error(error)) => Err(error.into()),
        Some(reply) => Ok(reply),
        None => Err(unexpected()),
    }
}

/// The node id of an owner whose phone is attached, without which no channel opens.
async fn owner_to_open_with(
    services: &OperatorServices,
    name: &str,
) -> Result<Vec<u8>, OperatorError> {
    let node = services.node(name).await?;
    let record = node.record();
    let node_id = record
        .registration
        .filter(|_| record.phone.is_some())
        .map(|r| r.node_id)
        .ok_or_else(|| {
            let message = "this owner has no phone that is paired: give out a code";
            OperatorError::new(Code::OwnerNotPaired, message)
        })?;
    match *node.attached.borrow() {
        true => Ok(node_id),
        false => Err(OperatorError::new(
            Code::SignerAway,
            "the owner's phone is away: try again when it is attached",
        )),
    }
}

fn random_id() -> Result<Vec<u8>, OperatorError> {
    let mut id = vec![0; 16];
    let random = getrandom::fill(&mut id);
    random
        .map(|()| id)
        .map_err(|e| OperatorError::new(Code::Internal, format!("no randomness: {e}")))
}

/// The reply was of another kind than the command asks for.
fn unexpected() -> OperatorError {
    OperatorError::new(
        Code::Internal,
        "the hub gave an answer of another kind: report this",
    )
}

fn view_send(send: command::Send) -> HubOnchainSend {
    HubOnchainSend {
        state: send.state().as_str_name().to_ascii_lowercase(),
        txid: send.txid,
        address: send.address,
        amount_sat: send.amount_sat,
        fee_sat: send.fee_sat,
        created_unix_s: send.created_unix_s,
        replaced_txids: send.replaced_txids,
        problem: send.problem,
    }
}

impl From<CommandError> for OperatorError {
    fn from(error: CommandError) -> OperatorError {
        match error {
            CommandError::WaitForSigner(error)
            | CommandError::FixInput(error)
            | CommandError::Retry(error)
            | CommandError::GiveUp(error) => error.into(),
            failed => OperatorError::new(Code::PaymentFailed, failed.to_string()),
        }
    }
}
