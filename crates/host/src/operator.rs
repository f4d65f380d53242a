//! What the operator of a host may ask: [`Operator`] is called by an embedder, and by the API that `grpc` serves.

mod grpc;

use std::sync::{Arc, Weak};

use longhand_chain::Chain;
use longhand_link::{PairingCode as LinkPairingCode, PairingSecret};
use longhand_node::Node;
use longhand_proto::command::command::Command as Body;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::error::Action;
use longhand_proto::command::{
    self, CloseChannel, ConnectPeer, GetBalance, ListChannels, NewAddress, OpenChannel, Pay,
};
use longhand_proto::operator::*;

pub(crate) use self::grpc::{OperatorApi, TokenCheck, bind_socket};
use crate::hub;
use crate::links::now_unix_s;
use crate::owners::{Owner as OwnerRecord, OwnerError};
use crate::shared::{Shared, soon};
use crate::tenant::{Phase, Tenant};

/// The operator of a host, in its own process: what the operator's API offers, in the same messages
/// (`operator.proto`). Does not keep the host: once that has ended, everything is answered with
/// [`OperatorError::Unavailable`].
#[derive(Clone)]
pub struct Operator(pub(crate) Weak<Shared>);

/// Why the operator's request was not carried out. One line for a person; where a command of the hub failed, the
/// command's stable code stands before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    /// The request is wrong: nothing was changed.
    #[error("{0}")]
    Invalid(String),
    /// There is no such owner.
    #[error("{0}")]
    NotFound(String),
    /// There is one already.
    #[error("{0}")]
    Exists(String),
    /// Something else has to happen first: a phone that pairs, or comes back.
    #[error("{0}")]
    NotNow(String),
    /// It may work in a while.
    #[error("{0}")]
    Unavailable(String),
    /// It was tried, and failed for good.
    #[error("{0}")]
    Failed(String),
    /// The host itself failed.
    #[error("{0}")]
    Internal(String),
}

impl Operator {
    /// What the host is and how much of it runs.
    ///
    /// # Errors
    /// [`OperatorError::Unavailable`].
    pub async fn status(&self) -> Result<StatusReply, OperatorError> {
        let shared = self.host()?;
        let tenants = shared.tenants.all();
        let count = |wanted: fn(&Tenant) -> bool| {
            u32::try_from(tenants.iter().filter(|tenant| wanted(tenant)).count())
                .unwrap_or(u32::MAX)
        };
        Ok(StatusReply {
            version: env!("CARGO_PKG_VERSION").into(),
            network: shared.config.network.to_string(),
            block_height: shared.chain.tip().map_or(0, |tip| tip.height),
            chain_reachable: shared.chain.reachable(),
            hub_node_id: shared
                .hub_node_id()
                .map_or_else(Vec::new, |id| id.serialize().to_vec()),
            owners: count(|_| true),
            nodes: count(|tenant| tenant.node().is_some()),
            links: count(Tenant::is_linked),
            link_addresses: shared.config.link.addresses.clone(),
            peer_address: shared
                .addresses
                .get()
                .map_or_else(String::new, |addresses| addresses.peer.to_string()),
        })
    }

    /// Makes an owner, and the pairing code for the phone.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn create_owner(
        &self,
        request: CreateOwnerRequest,
    ) -> Result<PairingCode, OperatorError> {
        let shared = self.host()?;
        let CreateOwnerRequest {
            name,
            pairing_expires_s,
            wake_url,
        } = request;
        let expires = expires(&shared, pairing_expires_s);
        to_its_end(async move {
            let (owner, secret) = shared.owners.create(&name, &wake_url, expires).await?;
            shared.add_tenant(owner.clone())?;
            tracing::info!(owner = name, "an owner was made");
            pairing_code(&shared, &owner, secret, expires)
        })
        .await
    }

    /// A new code for an owner whose phone was lost, or whose code expired. The phone before is shut out at once.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn renew_pairing(
        &self,
        request: RenewPairingRequest,
    ) -> Result<PairingCode, OperatorError> {
        let shared = self.host()?;
        let expires = expires(&shared, request.pairing_expires_s);
        to_its_end(async move {
            let (owner, secret) = shared.owners.renew(&request.owner, expires).await?;
            tracing::info!(
                owner = owner.name,
                "a pairing code was renewed: the phone before is shut out"
            );
            pairing_code(&shared, &owner, secret, expires)
        })
        .await
    }

    /// All owners, by name.
    ///
    /// # Errors
    /// [`OperatorError::Unavailable`].
    pub async fn list_owners(&self) -> Result<ListOwnersReply, OperatorError> {
        let shared = self.host()?;
        let owners = shared.owners.all().await.into_iter().map(|owner| Owner {
            paired: owner.phone.is_some(),
            node_id: owner
                .registration
                .as_ref()
                .map_or_else(Vec::new, |r| r.node_id.clone()),
            link_live: shared
                .tenants
                .get(&owner.id)
                .is_some_and(|tenant| tenant.is_linked()),
            wake_url: owner.wake_url.unwrap_or_default(),
            name: owner.name,
        });
        Ok(ListOwnersReply {
            owners: owners.collect(),
        })
    }

    /// What can be said of every node that runs, with or without its phone.
    ///
    /// # Errors
    /// [`OperatorError::Unavailable`].
    pub async fn list_nodes(&self) -> Result<ListNodesReply, OperatorError> {
        let shared = self.host()?;
        let mut nodes = Vec::new();
        for owner in shared.owners.all().await {
            if let Some(tenant) = shared.tenants.get(&owner.id) {
                nodes.extend(view(&tenant).await);
            }
        }
        Ok(ListNodesReply { nodes })
    }

    /// What can be said of an owner's node, with or without its phone.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn get_node(&self, request: GetNodeRequest) -> Result<NodeView, OperatorError> {
        let tenant = tenant(&*self.host()?, &request.owner).await?;
        view(&tenant).await.ok_or_else(|| not_running(&tenant))
    }

    /// Begins a new count of [`NodeView::signer_chain`].
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn reset_signer_chain(
        &self,
        request: ResetSignerChainRequest,
    ) -> Result<ResetSignerChainReply, OperatorError> {
        let tenant = tenant(&*self.host()?, &request.owner).await?;
        tenant
            .node()
            .ok_or_else(|| not_running(&tenant))?
            .reset_signer_chain();
        Ok(ResetSignerChainReply {})
    }

    /// A new address of the hub's on-chain wallet.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn hub_address(&self) -> Result<HubAddressReply, OperatorError> {
        match self.ask_hub(Body::NewAddress(NewAddress {})).await? {
            Reply::Address(made) => Ok(HubAddressReply {
                address: made.address,
            }),
            _ => Err(hub::unexpected()),
        }
    }

    /// What the hub has.
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
            _ => Err(hub::unexpected()),
        }
    }

    /// Opens a channel of the hub with an owner whose phone is there, or with any node.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn hub_open_channel(
        &self,
        request: HubOpenChannelRequest,
    ) -> Result<HubOpenChannelReply, OperatorError> {
        let invalid = |text: &str| Err(OperatorError::Invalid(text.into()));
        let counterparty_node_id = match (request.owner.as_str(), request.node_id.as_slice()) {
            ("", []) => return invalid("give an owner or a node id"),
            ("", node_id) => node_id.to_vec(),
            (name, []) => owner_to_open_with(&*self.host()?, name).await?,
            _ => return invalid("give an owner or a node id, not both"),
        };
        let open = OpenChannel {
            id: random_id()?,
            counterparty_node_id,
            address: request.address,
            amount_sat: request.amount_sat,
            announced: request.announced,
            push_msat: request.push_msat,
        };
        match self.ask_hub(Body::OpenChannel(open)).await? {
            Reply::OpenedChannel(opened) => Ok(HubOpenChannelReply {
                channel_id: opened.channel_id,
                funding_outpoint: opened.funding_outpoint,
            }),
            _ => Err(hub::unexpected()),
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
        let close = CloseChannel { channel_id, force };
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
            bolt11: invoice.map_err(OperatorError::of_command)?,
        })
    }

    /// Pays from the hub, and waits for the payment's end.
    ///
    /// # Errors
    /// [`OperatorError`]; [`OperatorError::Failed`] when the payment failed.
    pub async fn hub_pay(&self, request: HubPayRequest) -> Result<HubPayReply, OperatorError> {
        let HubPayRequest {
            bolt11,
            amount_msat,
            max_fee_msat,
        } = request;
        let pay = Pay {
            bolt11,
            amount_msat,
            max_fee_msat,
        };
        let hub = self.hub()?;
        let payment = hub::pay(&hub, pay).await?;
        Ok(HubPayReply {
            payment_hash: payment.payment_hash,
            preimage: payment.preimage,
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

    /// The hub's channels.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn hub_channels(&self) -> Result<HubChannelsReply, OperatorError> {
        let Reply::Channels(list) = self.ask_hub(Body::ListChannels(ListChannels {})).await? else {
            return Err(hub::unexpected());
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

    fn host(&self) -> Result<Arc<Shared>, OperatorError> {
        let ended = || OperatorError::Unavailable("the host has stopped, or stops now".into());
        let shared = self.0.upgrade();
        shared
            .filter(|shared| !*shared.stopping.borrow())
            .ok_or_else(ended)
    }

    fn hub(&self) -> Result<Node, OperatorError> {
        hub::running(&*self.host()?)
    }

    async fn ask_hub(&self, body: Body) -> Result<Reply, OperatorError> {
        hub::ask(&self.hub()?, body).await
    }
}

/// Goes on when who asked leaves: what is durable has to count, too.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, OperatorError>> + Send + 'static,
) -> Result<T, OperatorError> {
    let ended = tokio::spawn(work).await;
    ended.unwrap_or_else(|error| Err(OperatorError::Internal(error.to_string())))
}

/// When a code made now expires; 0 = the host's default.
fn expires(shared: &Shared, pairing_expires_s: u32) -> u64 {
    let seconds = match pairing_expires_s {
        0 => shared.config.link.pairing_expires_s,
        given => given,
    };
    now_unix_s().saturating_add(seconds.into())
}

fn pairing_code(
    shared: &Shared,
    owner: &OwnerRecord,
    secret: PairingSecret,
    expires_unix_s: u64,
) -> Result<PairingCode, OperatorError> {
    let code = LinkPairingCode {
        addresses: shared.config.link.addresses.clone(),
        host: shared.link_key.public(),
        owner: owner.id,
        secret,
        expires_unix_s,
    };
    let text = code
        .to_text()
        .map_err(|e| OperatorError::NotNow(e.to_string()))?;
    Ok(PairingCode {
        owner: owner.name.clone(),
        code: text.to_string(),
        expires_unix_s,
    })
}

async fn tenant(shared: &Shared, name: &str) -> Result<Arc<Tenant>, OperatorError> {
    let owner = shared.owners.named(name).await?;
    let missing = || OperatorError::Internal("the owner is not set up: restart the host".into());
    shared.tenants.get(&owner.id).ok_or_else(missing)
}

/// The node id of an owner whose phone is there, without which no channel opens.
async fn owner_to_open_with(shared: &Shared, name: &str) -> Result<Vec<u8>, OperatorError> {
    let not_now = |text: &str| OperatorError::NotNow(text.into());
    let tenant = tenant(shared, name).await?;
    let owner = tenant.owner();
    let node_id = owner
        .registration
        .filter(|_| owner.phone.is_some())
        .map(|r| r.node_id)
        .ok_or_else(|| not_now("this owner has no phone that is paired: give out a code"))?;
    match *tenant.attached.borrow() {
        true => Ok(node_id),
        false => Err(not_now(
            "SIGNER_AWAY: the owner's phone is away: try again when it is attached",
        )),
    }
}

/// What can be said of a node with or without its phone; `None` when it does not run, or is being loaded again.
async fn view(tenant: &Tenant) -> Option<NodeView> {
    let overview = soon(tenant.node()?.overview()).await?;
    Some(NodeView {
        owner: tenant.name.clone(),
        node_id: overview.node_id.serialize().to_vec(),
        state: overview.state.to_string(),
        channels: overview.channels,
        usable_channels: overview.usable_channels,
        lightning_msat: overview.lightning_msat,
        onchain_sat: overview.onchain_sat,
        onchain_pending_sat: overview.onchain_pending_sat,
        closing_sat: overview.closing_sat,
        restarts_after_panic: overview.restarts,
        signer_chain: overview.signer_chain,
        signer_batches: overview.signer_batches,
        peers: overview.peers,
        pending_htlcs: overview.pending_htlcs,
        deadline_height: overview.earliest_deadline.unwrap_or(0),
    })
}

fn not_running(tenant: &Tenant) -> OperatorError {
    OperatorError::NotNow(match &*tenant.phase.borrow() {
        Phase::Failed(reason) => format!("this owner's node does not run: {reason}"),
        _ => "this owner's node does not run yet".into(),
    })
}

fn random_id() -> Result<Vec<u8>, OperatorError> {
    let mut id = vec![0; 16];
    let random = getrandom::fill(&mut id);
    random
        .map(|()| id)
        .map_err(|e| OperatorError::Internal(format!("no randomness: {e}")))
}

impl OperatorError {
    /// A command's error for the operator: its code stands before its message.
    pub(crate) fn of_command(error: command::Error) -> OperatorError {
        let text = format!("{}: {}", error.code, error.message);
        match error.action() {
            Action::FixInput => OperatorError::Invalid(text),
            Action::Retry => OperatorError::Unavailable(text),
            Action::WaitForPhone => OperatorError::NotNow(text),
            Action::GiveUp | Action::Unspecified => OperatorError::Failed(text),
        }
    }
}

impl From<OwnerError> for OperatorError {
    fn from(error: OwnerError) -> OperatorError {
        let text = error.to_string();
        match error {
            OwnerError::NameTaken(_) => OperatorError::Exists(text),
            OwnerError::BadName(_) | OwnerError::BadWakeUrl(_) => OperatorError::Invalid(text),
            OwnerError::Unknown(_) => OperatorError::NotFound(text),
            OwnerError::Store(error) if error.is_transient() => OperatorError::Unavailable(text),
            _ => OperatorError::Internal(text),
        }
    }
}
