//! The operator's API: gRPC on a Unix socket, or on loopback with a token.

use std::path::Path;
use std::sync::Arc;

use bitcoin::hashes::cmp::fixed_time_eq;
use bitcoin::hashes::{Hash, sha256};
use longhand_chain::Chain;
use longhand_link::{PairingCode as LinkPairingCode, PairingSecret};
use longhand_proto::command::command::Command as Body;
use longhand_proto::command::command_reply::Reply;
use longhand_proto::command::{
    CloseChannel, ConnectPeer, GetBalance, ListChannels, NewAddress, OpenChannel, Pay,
};
use longhand_proto::operator::operator_server::Operator;
use longhand_proto::operator::*;
use tokio::net::UnixListener;
use tonic::service::Interceptor;
use tonic::{Request, Response, Status};
use zeroize::Zeroizing;

use crate::hub;
use crate::links::now_unix_s;
use crate::owners::{Owner as OwnerRecord, OwnerError};
use crate::shared::Shared;
use crate::tenant::Tenant;

type Answer<T> = Result<Response<T>, Status>;

/// The API's service.
pub(crate) struct OperatorApi(pub Arc<Shared>);

#[tonic::async_trait]
impl Operator for OperatorApi {
    async fn status(&self, _: Request<StatusRequest>) -> Answer<StatusReply> {
        let shared = &self.0;
        let tenants = shared.tenants.all();
        let count = |wanted: fn(&Tenant) -> bool| {
            u32::try_from(tenants.iter().filter(|tenant| wanted(tenant)).count())
                .unwrap_or(u32::MAX)
        };
        Ok(Response::new(StatusReply {
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
            link_addresses: shared.link_addresses.clone(),
            peer_address: shared.peer_address.to_string(),
        }))
    }

    async fn create_owner(&self, request: Request<CreateOwnerRequest>) -> Answer<PairingCode> {
        let CreateOwnerRequest {
            name,
            pairing_expires_s,
            wake_url,
        } = request.into_inner();
        let expires = self.expires(pairing_expires_s);
        let created = self.0.owners.create(&name, &wake_url, expires).await;
        let (owner, secret) = created.map_err(|e| status(&e))?;
        self.0.add_tenant(owner.clone()).map_err(|e| status(&e))?;
        tracing::info!(owner = name, "an owner was made");
        self.pairing_code(&owner, secret, expires)
    }

    async fn renew_pairing(&self, request: Request<RenewPairingRequest>) -> Answer<PairingCode> {
        let RenewPairingRequest {
            owner,
            pairing_expires_s,
        } = request.into_inner();
        let expires = self.expires(pairing_expires_s);
        let renewed = self.0.owners.renew(&owner, expires).await;
        let (owner, secret) = renewed.map_err(|e| status(&e))?;
        if let Some(tenant) = self.0.tenants.get(&owner.id) {
            tenant.set_owner(owner.clone());
        }
        tracing::info!(owner = owner.name, "a pairing code was renewed");
        self.pairing_code(&owner, secret, expires)
    }

    async fn list_owners(&self, _: Request<ListOwnersRequest>) -> Answer<ListOwnersReply> {
        let owners = self.0.owners.all().await.into_iter().map(|owner| Owner {
            paired: owner.phone.is_some(),
            node_id: owner
                .registration
                .as_ref()
                .map_or_else(Vec::new, |r| r.node_id.clone()),
            link_live: self
                .0
                .tenants
                .get(&owner.id)
                .is_some_and(|tenant| tenant.is_linked()),
            wake_url: owner.wake_url.unwrap_or_default(),
            name: owner.name,
        });
        Ok(Response::new(ListOwnersReply {
            owners: owners.collect(),
        }))
    }

    async fn list_nodes(&self, _: Request<ListNodesRequest>) -> Answer<ListNodesReply> {
        let mut nodes = Vec::new();
        for owner in self.0.owners.all().await {
            if let Some(tenant) = self.0.tenants.get(&owner.id) {
                nodes.extend(view(&tenant).await);
            }
        }
        Ok(Response::new(ListNodesReply { nodes }))
    }

    async fn get_node(&self, request: Request<GetNodeRequest>) -> Answer<NodeView> {
        let tenant = self.tenant(&request.into_inner().owner).await?;
        let not_running = || Status::failed_precondition("this owner's node does not run yet");
        view(&tenant)
            .await
            .map(Response::new)
            .ok_or_else(not_running)
    }

    async fn reset_signer_chain(
        &self,
        request: Request<ResetSignerChainRequest>,
    ) -> Answer<ResetSignerChainReply> {
        let tenant = self.tenant(&request.into_inner().owner).await?;
        let not_running = || Status::failed_precondition("this owner's node does not run yet");
        tenant.node().ok_or_else(not_running)?.reset_signer_chain();
        Ok(Response::new(ResetSignerChainReply {}))
    }

    async fn hub_address(&self, _: Request<HubAddressRequest>) -> Answer<HubAddressReply> {
        match hub::ask(&self.0, Body::NewAddress(NewAddress {})).await? {
            Reply::Address(made) => Ok(Response::new(HubAddressReply {
                address: made.address,
            })),
            _ => Err(hub::unexpected()),
        }
    }

    async fn hub_balance(&self, _: Request<HubBalanceRequest>) -> Answer<HubBalanceReply> {
        match hub::ask(&self.0, Body::GetBalance(GetBalance {})).await? {
            Reply::Balance(balance) => Ok(Response::new(HubBalanceReply {
                onchain_confirmed_sat: balance.onchain_confirmed_sat,
                onchain_pending_sat: balance.onchain_pending_sat,
                lightning_msat: balance.lightning_msat,
                closing_sat: balance.closing_sat,
            })),
            _ => Err(hub::unexpected()),
        }
    }

    async fn hub_open_channel(
        &self,
        request: Request<HubOpenChannelRequest>,
    ) -> Answer<HubOpenChannelReply> {
        let request = request.into_inner();
        let counterparty_node_id = match (request.owner.as_str(), request.node_id.as_slice()) {
            ("", []) => return Err(Status::invalid_argument("give an owner or a node id")),
            ("", node_id) => node_id.to_vec(),
            (name, []) => self.owner_to_open_with(name).await?,
            _ => {
                return Err(Status::invalid_argument(
                    "give an owner or a node id, not both",
                ));
            }
        };
        let open = OpenChannel {
            id: random_id()?,
            counterparty_node_id,
            address: request.address,
            amount_sat: request.amount_sat,
            announced: request.announced,
            push_msat: request.push_msat,
        };
        match hub::ask(&self.0, Body::OpenChannel(open)).await? {
            Reply::OpenedChannel(opened) => Ok(Response::new(HubOpenChannelReply {
                channel_id: opened.channel_id,
                funding_outpoint: opened.funding_outpoint,
            })),
            _ => Err(hub::unexpected()),
        }
    }

    async fn hub_close_channel(
        &self,
        request: Request<HubCloseChannelRequest>,
    ) -> Answer<HubCloseChannelReply> {
        let HubCloseChannelRequest { channel_id, force } = request.into_inner();
        hub::ask(
            &self.0,
            Body::CloseChannel(CloseChannel { channel_id, force }),
        )
        .await?;
        Ok(Response::new(HubCloseChannelReply {}))
    }

    async fn hub_invoice(&self, request: Request<HubInvoiceRequest>) -> Answer<HubInvoiceReply> {
        let HubInvoiceRequest {
            amount_msat,
            description,
            expiry_s,
        } = request.into_inner();
        let invoice = hub::running(&self.0)?
            .invoice(amount_msat, &description, expiry_s)
            .await;
        let bolt11 = invoice.map_err(|e| hub::status(&e))?;
        Ok(Response::new(HubInvoiceReply { bolt11 }))
    }

    async fn hub_pay(&self, request: Request<HubPayRequest>) -> Answer<HubPayReply> {
        let HubPayRequest {
            bolt11,
            amount_msat,
            max_fee_msat,
        } = request.into_inner();
        let payment = hub::pay(
            &self.0,
            Pay {
                bolt11,
                amount_msat,
                max_fee_msat,
            },
        )
        .await?;
        Ok(Response::new(HubPayReply {
            payment_hash: payment.payment_hash,
            preimage: payment.preimage,
            fee_msat: payment.fee_msat,
        }))
    }

    async fn hub_connect(&self, request: Request<HubConnectRequest>) -> Answer<HubConnectReply> {
        let HubConnectRequest { node_id, address } = request.into_inner();
        hub::ask(&self.0, Body::ConnectPeer(ConnectPeer { node_id, address })).await?;
        Ok(Response::new(HubConnectReply {}))
    }

    async fn hub_channels(&self, _: Request<HubChannelsRequest>) -> Answer<HubChannelsReply> {
        let Reply::Channels(list) = hub::ask(&self.0, Body::ListChannels(ListChannels {})).await?
        else {
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
        });
        Ok(Response::new(HubChannelsReply {
            channels: channels.collect(),
        }))
    }
}

impl OperatorApi {
    /// When a code made now expires; 0 = the host's default.
    fn expires(&self, pairing_expires_s: u32) -> u64 {
        let seconds = match pairing_expires_s {
            0 => self.0.config.link.pairing_expires_s,
            given => given,
        };
        now_unix_s().saturating_add(seconds.into())
    }

    fn pairing_code(
        &self,
        owner: &OwnerRecord,
        secret: PairingSecret,
        expires_unix_s: u64,
    ) -> Answer<PairingCode> {
        let code = LinkPairingCode {
            addresses: self.0.link_addresses.clone(),
            host: self.0.link_key.public(),
            owner: owner.id,
            secret,
            expires_unix_s,
        };
        let text = code
            .to_text()
            .map_err(|e| Status::failed_precondition(e.to_string()))?;
        Ok(Response::new(PairingCode {
            owner: owner.name.clone(),
            code: text.to_string(),
            expires_unix_s,
        }))
    }

    async fn tenant(&self, name: &str) -> Result<Arc<Tenant>, Status> {
        let owner = self.0.owners.named(name).await.map_err(|e| status(&e))?;
        let missing = || Status::internal("the owner is not set up: restart the host");
        self.0.tenants.get(&owner.id).ok_or_else(missing)
    }

    /// The node id of an owner whose phone is there, without which no channel opens.
    async fn owner_to_open_with(&self, name: &str) -> Result<Vec<u8>, Status> {
        let tenant = self.tenant(name).await?;
        let unregistered = || Status::failed_precondition("this owner has not paired a phone yet");
        let node_id = tenant
            .owner()
            .registration
            .map(|r| r.node_id)
            .ok_or_else(unregistered)?;
        match *tenant.attached.borrow() {
            true => Ok(node_id),
            false => Err(Status::failed_precondition(
                "SIGNER_AWAY: the owner's phone is away: try again when it is attached",
            )),
        }
    }
}

/// What can be said of a node with or without its phone; `None` when it does not run.
async fn view(tenant: &Tenant) -> Option<NodeView> {
    let overview = tenant.node()?.overview().await?;
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
    })
}

fn random_id() -> Result<Vec<u8>, Status> {
    let mut id = vec![0; 16];
    let random = getrandom::fill(&mut id);
    random
        .map(|()| id)
        .map_err(|e| Status::internal(format!("no randomness: {e}")))
}

fn status(error: &OwnerError) -> Status {
    let text = error.to_string();
    match error {
        OwnerError::NameTaken(_) => Status::already_exists(text),
        OwnerError::BadName(_) | OwnerError::BadWakeUrl(_) => Status::invalid_argument(text),
        OwnerError::Unknown(_) => Status::not_found(text),
        OwnerError::Store(_) => Status::unavailable(text),
        _ => Status::internal(text),
    }
}

/// Lets calls with the right token through.
#[derive(Clone)]
pub(crate) struct TokenCheck {
    /// Hashed, so that comparing takes as long whatever was sent.
    expected: [u8; 32],
}

impl TokenCheck {
    pub fn new(token: &Zeroizing<[u8; 32]>) -> TokenCheck {
        let text = Zeroizing::new(crate::files::to_hex(token.as_ref()));
        TokenCheck {
            expected: sha256::Hash::hash(text.as_bytes()).to_byte_array(),
        }
    }
}

impl Interceptor for TokenCheck {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let header = request
            .metadata()
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        let token = header
            .and_then(|value| value.strip_prefix("Bearer "))
            .unwrap_or_default();
        let given = sha256::Hash::hash(token.as_bytes()).to_byte_array();
        match fixed_time_eq(&given, &self.expected) {
            true => Ok(request),
            false => Err(Status::unauthenticated(
                "the token is missing or wrong: see operator.token",
            )),
        }
    }
}

/// Binds the socket for its owner alone; takes the place of one that a crash left behind.
pub(crate) fn bind_socket(path: &Path) -> std::io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    let in_use = std::os::unix::net::UnixStream::connect(path).is_ok();
    if in_use {
        return Err(std::io::ErrorKind::AddrInUse.into());
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn only_the_whole_token_opens() {
        let token = Zeroizing::new([0xab; 32]);
        let right = format!("Bearer {}", "ab".repeat(32));
        let headers: [(Option<&str>, bool); 6] = [
            (Some(&right), true),
            (Some(&right[..right.len() - 1]), false),
            (Some(&right["Bearer ".len()..]), false),
            (Some("Bearer "), false),
            (Some(""), false),
            (None, false),
        ];
        for (header, opens) in headers {
            let mut request = Request::new(());
            if let Some(header) = header {
                request
                    .metadata_mut()
                    .insert("authorization", header.parse().unwrap());
            }
            assert_eq!(
                TokenCheck::new(&token).call(request).is_ok(),
                opens,
                "{header:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_socket_of_a_crash_is_replaced_and_a_live_one_is_not() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("operator.sock");
        let first = bind_socket(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let second = bind_socket(&path).unwrap_err();
        assert_eq!(second.kind(), std::io::ErrorKind::AddrInUse);
        drop(first);
        bind_socket(&path).unwrap();
    }
}
