//! The operator's requests: [`Operator`] is called by an embedder, and by the API that `grpc` serves.

mod grpc;
mod hub;

use std::sync::{Arc, OnceLock, Weak};

use futures::Stream;
use longhand_chain::{Chain, Follower};
use longhand_proto::operator::*;
use longhand_proto::{Code, command};

pub(crate) use self::grpc::{OperatorApi, TokenCheck, bind_socket};
pub(crate) use self::hub::started;
use crate::Addresses;
use crate::apps::{self, Apps, By};
use crate::changes::{Changes, Kind};
use crate::clock::now_unix_s;
use crate::config::HostConfig;
use crate::health::Health;
use crate::hosted::{HostedNode, HostedNodes};
use crate::hub::Hub;
use crate::owners::{OwnerBook, OwnerError, OwnerRecord};
use crate::pairing_codes::PairingCodes;
use crate::phones::Phones;
use crate::tasks::Tasks;

/// The operator of a host, in its own process: the requests of the operator's API, in the same messages
/// (`operator.proto`). Does not keep the host running: once it has ended, every request is answered with
/// [`Code::HostStopped`].
#[derive(Clone)]
pub struct Operator(Weak<OperatorServices>);

/// The parts of a host that the operator's requests use.
pub(crate) struct OperatorServices {
    pub config: Arc<HostConfig>,
    pub codes: Arc<PairingCodes>,
    pub apps: Arc<Apps>,
    pub book: Arc<OwnerBook>,
    pub nodes: Arc<HostedNodes>,
    pub phones: Arc<Phones>,
    pub hub: Arc<Hub>,
    pub chain: Arc<Follower>,
    pub health: Arc<Health>,
    pub changes: Arc<Changes>,
    /// Where the host listens, once it does.
    pub addresses: Arc<OnceLock<Addresses>>,
    pub tasks: Arc<Tasks>,
}

/// The state of a node that cannot run.
const FAILED: &str = "failed";

/// Why the operator's request was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
#[non_exhaustive]
pub struct OperatorError {
    /// Stable; it has an action, see [`Code::action`].
    pub code: Code,
    /// One line for a person: what failed, why, what to do.
    pub message: String,
}

impl Operator {
    pub(crate) fn new(services: &Arc<OperatorServices>) -> Operator {
        Operator(Arc::downgrade(services))
    }

    /// The host's version, network and addresses, and how much of it runs.
    ///
    /// # Errors
    /// [`Code::HostStopped`].
    pub async fn status(&self) -> Result<StatusReply, OperatorError> {
        let services = self.services()?;
        let reserve = services.health.look_at_hub().await;
        let nodes = services.nodes.all();
        let count = |wanted: fn(&HostedNode) -> bool| {
            u32::try_from(nodes.iter().filter(|node| wanted(node)).count()).unwrap_or(u32::MAX)
        };
        let unreadable = u32::try_from(services.book.unreadable().len()).unwrap_or(u32::MAX);
        let hub = services.hub.node();
        let addresses = services.addresses.get();
        Ok(StatusReply {
            version: env!("CARGO_PKG_VERSION").into(),
            network: services.config.network.to_string(),
            block_height: services.chain.tip().map_or(0, |tip| tip.height),
            chain_reachable: services.chain.reachable(),
            hub_node_id: hub.map_or_else(Vec::new, |hub| hub.node_id().serialize().to_vec()),
            owners: count(|_| true).saturating_add(unreadable),
            nodes: count(|node| node.node().is_some()),
            links: count(HostedNode::is_linked),
            link_addresses: services.config.link.addresses.clone(),
            peer_address: addresses.map_or_else(String::new, |it| it.peer.to_string()),
            peer_onion_address: addresses
                .and_then(|it| it.peer_onion.clone())
                .unwrap_or_default(),
            problems: services
                .health
                .problems()
                .iter()
                .map(ToString::to_string)
                .collect(),
            tip_age_s: services.health.tip_age_s(),
            hub_reserve: reserve.map(|reserve| HubReserve {
                onchain_sat: reserve.onchain_sat,
                wanted_sat: reserve.wanted_sat,
                wanted_for_next_sat: reserve.wanted_for_next_sat,
            }),
            fee_rates: Some(view_fee_rates(services.chain.fee_rates())),
        })
    }

    /// The changes of the host from now on, as they happen. The first message, `present`, is sent at once; whoever lists after it
    /// misses none. A reader that is more than 1,024 behind gets `missed` and should list again. The stream ends with the host.
    ///
    /// # Errors
    /// [`Code::HostStopped`].
    pub fn watch(&self) -> Result<impl Stream<Item = HostChange> + Send + use<>, OperatorError> {
        Ok(self.services()?.changes.watch())
    }

    /// Makes an owner, and the pairing code for the phone.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn create_owner(
        &self,
        request: CreateOwnerRequest,
    ) -> Result<PairingCode, OperatorError> {
        let services = self.services()?;
        let CreateOwnerRequest {
            name,
            pairing_expires_s,
            wake_url,
        } = request;
        let expires = services.expires(pairing_expires_s);
        uninterrupted(async move {
            let (owner, _) = services.book.create(&name, &wake_url, expires).await?;
            services
                .phones
                .add(owner.clone())
                .map_err(OwnerError::from)?;
            tracing::info!(owner = name, "an owner was made");
            services.changes.report(Kind::OwnerCreated, &name, "");
            services.pairing_code(&owner)
        })
        .await
    }

    /// A new code for an owner whose phone was lost, or whose code expired. The previous phone is shut out at once.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn renew_pairing(
        &self,
        request: RenewPairingRequest,
    ) -> Result<PairingCode, OperatorError> {
        let services = self.services()?;
        let expires = services.expires(request.pairing_expires_s);
        uninterrupted(async move {
            let (owner, _) = services.book.renew(&request.owner, expires).await?;
            tracing::info!(
                owner = owner.name,
                "a pairing code was renewed: the phone before is shut out"
            );
            services
                .changes
                .report(Kind::PairingRenewed, &owner.name, "");
            services.pairing_code(&owner)
        })
        .await
    }

    /// All owners, by name.
    ///
    /// # Errors
    /// [`Code::HostStopped`].
    pub async fn list_owners(&self) -> Result<ListOwnersReply, OperatorError> {
        let services = self.services()?;
        let readable = services.book.all().await;
        let readable = readable
            .into_iter()
            .map(|record| services.view_owner(record));
        let unreadable = services.book.unreadable().iter().map(|record| Owner {
            name: record.name.clone(),
            problem: record.to_string(),
            ..Owner::default()
        });
        let mut owners: Vec<_> = readable.chain(unreadable).collect();
        owners.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(ListOwnersReply { owners })
    }

    /// An owner's wake URLs; the request may change them.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn set_wake_url(
        &self,
        request: SetWakeUrlRequest,
    ) -> Result<SetWakeUrlReply, OperatorError> {
        let services = self.services()?;
        uninterrupted(async move {
            let url = request.wake_url.as_deref();
            let book = &services.book;
            let changed = book.set_wake_url(&request.owner, url, request.clear_phones);
            let owner = changed.await?;
            Ok(SetWakeUrlReply {
                wake_url: owner.wake_url.unwrap_or_default(),
                phone_wake_urls: owner.phone_wake_urls,
            })
        })
        .await
    }

    /// Connects an app to an owner's node, which may only read. Whoever has the words first is the app; the macaroon is for
    /// `apps.listen`.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn connect_app(
        &self,
        request: ConnectAppRequest,
    ) -> Result<ConnectedApp, OperatorError> {
        let services = self.services()?;
        let owner = services.book.named(&request.owner).await?;
        uninterrupted(async move {
            let rights = command::AppRights {
                read: true,
                ..command::AppRights::default()
            };
            let ConnectAppRequest {
                name,
                expires_unix_s,
                ..
            } = request;
            let (apps, by) = (&services.apps, By::Operator);
            let connected = apps.connect(&owner.id, by, &name, rights, expires_unix_s);
            let connected = connected.await.map_err(app_error)?;
            Ok(ConnectedApp {
                words: match connected.mailboxes.is_empty() {
                    true => String::new(),
                    false => connected.words,
                },
                mailboxes: connected.mailboxes,
                words_expire_unix_s: connected.words_expire_unix_s,
                macaroon: connected.macaroon,
            })
        })
        .await
    }

    /// An owner's apps.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn list_apps(
        &self,
        request: ListAppsRequest,
    ) -> Result<ListAppsReply, OperatorError> {
        let services = self.services()?;
        let owner = services.book.named(&request.owner).await?;
        Ok(view_apps(apps::shown(&owner)))
    }

    /// Disconnects an app of an owner's, whoever has connected it. Returns those that are left.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn disconnect_app(
        &self,
        request: DisconnectAppRequest,
    ) -> Result<ListAppsReply, OperatorError> {
        let services = self.services()?;
        let owner = services.book.named(&request.owner).await?;
        uninterrupted(async move {
            let left = services
                .apps
                .disconnect(&owner.id, By::Operator, &request.name);
            left.await.map(view_apps).map_err(app_error)
        })
        .await
    }

    /// Every node that runs, or cannot run, by the owner's name; with or without its phone.
    ///
    /// # Errors
    /// [`Code::HostStopped`].
    pub async fn list_nodes(&self) -> Result<ListNodesReply, OperatorError> {
        let services = self.services()?;
        let mut nodes = Vec::new();
        for record in services.book.unreadable() {
            nodes.push(failed_view(&record.name, Vec::new(), record.to_string()));
        }
        for hosted in services.nodes.all() {
            nodes.extend(view(&hosted).await);
        }
        nodes.sort_by(|a, b| a.owner.cmp(&b.owner));
        Ok(ListNodesReply { nodes })
    }

    /// An owner's node, with or without its phone.
    ///
    /// # Errors
    /// [`OperatorError`]; [`Code::NodeFailed`] with the reason when the node does not run.
    pub async fn get_node(&self, request: GetNodeRequest) -> Result<NodeView, OperatorError> {
        let hosted = self.services()?.node(&request.owner).await?;
        let not_running = || not_running(&hosted);
        view(&hosted)
            .await
            .filter(|view| view.problem.is_empty())
            .ok_or_else(not_running)
    }

    /// Begins a new count of [`NodeView::signer_chain`].
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn reset_signer_chain(
        &self,
        request: ResetSignerChainRequest,
    ) -> Result<ResetSignerChainReply, OperatorError> {
        let hosted = self.services()?.node(&request.owner).await?;
        let node = hosted.node().ok_or_else(|| not_running(&hosted))?;
        node.reset_signer_chain();
        Ok(ResetSignerChainReply {})
    }

    fn services(&self) -> Result<Arc<OperatorServices>, OperatorError> {
        let ended = || OperatorError::new(Code::HostStopped, "the host has stopped, or stops now");
        let services = self.0.upgrade();
        services
            .filter(|services| !services.tasks.is_stopping())
            .ok_or_else(ended)
    }
}

fn app_error(error: command::Error) -> OperatorError {
    let code = error.code.parse().unwrap_or(Code::Internal);
    OperatorError::new(code, error.message)
}

fn view_apps(apps: command::Apps) -> ListAppsReply {
    let apps = apps.apps.into_iter().map(|app| {
        let rights = app.rights.unwrap_or_default();
        App {
            name: app.name,
            rights: rights.names().into_iter().map(String::from).collect(),
            expires_unix_s: app.expires_unix_s,
            is_paired: app.is_paired,
            by_operator: app.by_operator,
        }
    });
    ListAppsReply {
        apps: apps.collect(),
    }
}

impl OperatorServices {
    /// When a code made now expires, in seconds since 1970; 0 = the host's default.
    fn expires(&self, pairing_expires_s: u32) -> u64 {
        let seconds = match pairing_expires_s {
            0 => self.config.link.pairing_expires_s,
            given => given,
        };
        now_unix_s().saturating_add(seconds.into())
    }

    /// The code of a pairing that was just made.
    fn pairing_code(&self, owner: &OwnerRecord) -> Result<PairingCode, OperatorError> {
        let failed = |reason: String| OperatorError::new(Code::Config, reason);
        let pairing = owner.pairing.as_ref();
        let pairing = pairing.ok_or_else(|| failed("the owner has no pairing".into()))?;
        let code = self.codes.code(owner, pairing).to_text();
        let code = code.map_err(|e| failed(e.to_string()))?;
        let words_at = self.codes.words_at();
        let words = match words_at.is_empty() {
            true => String::new(),
            false => pairing.secret.words().words().to_string(),
        };
        Ok(PairingCode {
            owner: owner.name.clone(),
            code: code.to_string(),
            expires_unix_s: pairing.expires_unix_s,
            words,
            words_at,
        })
    }

    /// The node of the owner with this name.
    async fn node(&self, name: &str) -> Result<Arc<HostedNode>, OperatorError> {
        let record = self.book.named(name).await?;
        let missing =
            || OperatorError::new(Code::Internal, "the owner is not set up: restart the host");
        self.nodes.get(&record.id).ok_or_else(missing)
    }

    fn view_owner(&self, record: OwnerRecord) -> Owner {
        let hosted = self.nodes.get(&record.id);
        let registration = record.registration;
        Owner {
            paired: record.phone.is_some(),
            node_id: registration.map_or_else(Vec::new, |r| r.node_id),
            link_live: hosted.as_ref().is_some_and(|hosted| hosted.is_linked()),
            wake_url: record.wake_url.unwrap_or_default(),
            phone_wake_urls: record.phone_wake_urls,
            problem: hosted.and_then(|it| it.failure()).unwrap_or_default(),
            name: record.name,
        }
    }
}

/// Runs to its end when the caller is dropped: a change that is durable must take effect too.
async fn uninterrupted<T: Send + 'static>(
    work: impl Future<Output = Result<T, OperatorError>> + Send + 'static,
) -> Result<T, OperatorError> {
    let ended = tokio::spawn(work).await;
    ended.unwrap_or_else(|error| Err(OperatorError::new(Code::Internal, error.to_string())))
}

/// A node that runs, or cannot; `None` when it has not started yet, or is being loaded again.
async fn view(hosted: &HostedNode) -> Option<NodeView> {
    if let Some(reason) = hosted.failure() {
        let node_id = hosted.record().registration.map(|r| r.node_id);
        return Some(failed_view(
            &hosted.name,
            node_id.unwrap_or_default(),
            reason,
        ));
    }
    let overview = hosted.overview().await?;
    Some(NodeView {
        owner: hosted.name.clone(),
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
        problem: String::new(),
    })
}

fn view_fee_rates(rates: longhand_chain::FeeRates) -> FeeRates {
    FeeRates {
        urgent: rates.urgent,
        normal: rates.normal,
        background: rates.background,
        minimum: rates.minimum,
        is_estimate: rates.is_estimate,
    }
}

/// A node that cannot run.
fn failed_view(owner: &str, node_id: Vec<u8>, problem: String) -> NodeView {
    NodeView {
        owner: owner.into(),
        node_id,
        state: FAILED.into(),
        problem,
        ..NodeView::default()
    }
}

fn not_running(hosted: &HostedNode) -> OperatorError {
    match hosted.failure() {
        Some(reason) => OperatorError::new(
            Code::NodeFailed,
            format!("this owner's node does not run: {reason}"),
        ),
        None => OperatorError::new(
            Code::NodeNotRunning,
            "this owner's node does not run yet: try again in a while",
        ),
    }
}

impl OperatorError {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> OperatorError {
        OperatorError {
            code,
            message: message.into(),
        }
    }
}

impl From<command::Error> for OperatorError {
    fn from(error: command::Error) -> OperatorError {
        let code = Code::from_name(&error.code).unwrap_or(Code::Unnamed);
        OperatorError::new(code, error.message)
    }
}

impl From<OwnerError> for OperatorError {
    fn from(error: OwnerError) -> OperatorError {
        OperatorError::new(error.code(), error.to_string())
    }
}
