//! Many Lightning nodes in one process, each with its keys on its owner's phone.
//!
//! [`Host::builder`] sets a host up. [`HostBuilder::start`] opens the store, follows the chain, runs the hub and the owners' nodes,
//! and listens: for phones (links), for the hub's peers, for the operator and for Prometheus.
//! [`HostBuilder::embed`] is the same without listeners, for programs that have listeners of their own: they hand in
//! connections, and are the host's [`Operator`] and its [`Network`].
//!
//! - `services`: the wiring: which part uses which. `tasks`: the tasks that end with the host.
//! - `owners`: the durable book of owners, pairing codes and registrations (checked in `registration`).
//! - `hosted`: the owners' nodes at run time. `starter` starts them and the hub, `watcher` watches them and the chain.
//! - `switchboard`: connections of nodes to their peers. `wake`: calls to phones, and payments held for them.
//! - `links`, `phones`, `commands`: connections of phones; a phone at its node (`phone_signer`); an owner's commands.
//! - `tor`: the Tor process, its onion services, and connections through it.
//! - `network`: peers and phones beyond this process. `serve`: the listeners.
//! - `builder`: how a host is set up. `descriptors`: the limit of file descriptors.
//! - `chain`: the chain source of the configuration.
//! - `hub`, `graph`: the hub's seed and node id; the network graph.
//! - `health`: the problems that the operator should know.
//! - `changes`: what has happened, for the operator.
//! - `operator` and its [`client`], `metrics`, [`config`], `files`: the operator's side.

mod apps;
mod builder;
mod chain;
mod changes;
pub mod client;
mod clock;
mod commands;
pub mod config;
mod descriptors;
mod files;
mod graph;
mod health;
mod hosted;
mod hub;
mod links;
mod meetings;
mod metrics;
mod network;
mod operator;
mod owners;
mod pairing_codes;
mod phone_signer;
mod phones;
mod registration;
mod serve;
mod services;
mod starter;
mod switchboard;
mod tasks;
mod tor;
mod wake;
mod watcher;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use longhand_base::settings::Settings as _;
use longhand_chain::{ChainError, ChainSource};
use longhand_link::{Address, Carrier, Carriers, DialOptions, LinkError};
use longhand_node::PeerStream;
use longhand_node::typed::Node;
use longhand_proto::Code;
use longhand_proto::operator::{CreateOwnerRequest, PairingCode};
use longhand_store::{Batch, Store, StoreError, Write};

#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    //! Entries for fuzz targets.

    /// Checks a phone's registration as the host does before it builds a node on it.
    ///
    /// # Errors
    /// The reason why it is refused, in one line.
    pub fn check_registration(
        registration: &longhand_node::Registration,
        network: bitcoin::Network,
    ) -> Result<(), String> {
        let checked = crate::registration::check(registration, network);
        checked.map(drop).map_err(|refused| refused.to_string())
    }

    /// How often the hub was loaded again after a panic; `None` while it does not run.
    pub async fn hub_restarts(host: &crate::Host) -> Option<u32> {
        let overview = host.services.hub.node()?.overview().await;
        overview.map(|overview| overview.restarts)
    }
}

pub use builder::HostBuilder;
pub use config::{ConfigError, HostConfig, OperatorListen};
pub use files::FileError;
pub use network::{
    DialFrom, Joined, Network, PeerDial, Reach, Sockets, WakeCall, WakeError, WakeFrom, WakeReason,
    WakeUrl,
};
pub use operator::{Operator, OperatorError};

use crate::metrics::{CountedStore, Metrics};
use crate::serve::Listeners;
use crate::services::Services;
use crate::tor::{OpenTor, Tor};

/// Key in the host's own namespace: the network that the database belongs to.
const NETWORK_KEY: &str = "network";

/// A running host. Dropping it ends it at once and sends nothing, as when the process is killed; [`Host::stop`] is the
/// orderly way.
pub struct Host {
    services: Arc<Services>,
    /// The store that the host opened itself, and closes when it stops.
    database: Option<Arc<dyn Store>>,
}

/// Where a host listens, with the ports that it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For phones, those of all carriers.
    pub link: Vec<Address>,
    /// For peers of the hub.
    pub peer: SocketAddr,
    /// The onion service for the hub's peers, `host:port`.
    pub peer_onion: Option<String>,
    /// For the operator.
    pub operator: OperatorListen,
    /// For Prometheus.
    pub metrics: Option<SocketAddr>,
    /// For apps on the operator's network.
    pub apps: Option<SocketAddr>,
}

impl Host {
    /// Sets up a host, step by step.
    pub fn builder() -> HostBuilder {
        HostBuilder::new()
    }

    /// Starts a host on its own database and the chain source of its configuration.
    ///
    /// # Errors
    /// As [`HostBuilder::start`].
    pub async fn start(config: HostConfig) -> Result<Host, HostError> {
        Host::builder().config(config).start().await
    }

    /// Starts a host on a store, a chain source and carriers of the caller's: `link.listen` may have the schemes of `carriers`.
    ///
    /// # Errors
    /// As [`HostBuilder::start`].
    pub async fn start_with(
        config: HostConfig,
        store: Arc<dyn Store>,
        source: impl Into<ChainSource>,
        carriers: &Carriers,
    ) -> Result<Host, HostError> {
        let builder = Host::builder().config(config).store(store).chain(source);
        builder.carriers(carriers.clone()).start().await
    }

    async fn listen(
        mut config: HostConfig,
        store: Arc<dyn Store>,
        source: ChainSource,
        carriers: &Carriers,
        tor: Option<OpenTor>,
    ) -> Result<Host, HostError> {
        let client = tor.as_ref().map(|it| it.tor.clone());
        let listeners = Listeners::bind(&config, carriers, tor).await?;
        config.link.addresses = listeners.link_addresses(&config);
        if let Some(onion) = client.as_ref().and_then(|tor| tor.peer_address()) {
            config.hub.announce.push(onion);
        }
        let network = Arc::new(Sockets::through(&config, client.clone())?);
        let host = Host::assemble(config, store, source, network, client).await?;
        listeners.serve(&host.services);
        tracing::info!(addresses = ?host.addresses(), "the host listens");
        Ok(host)
    }

    /// Starts a host without listeners on a store and a chain source of the caller's, see [`HostBuilder::embed`].
    ///
    /// # Errors
    /// As [`HostBuilder::start`].
    pub async fn embed(
        config: HostConfig,
        store: Arc<dyn Store>,
        source: impl Into<ChainSource>,
        network: Arc<dyn Network>,
    ) -> Result<Host, HostError> {
        let builder = Host::builder().config(config).store(store).chain(source);
        builder.embed(network).await
    }

    async fn assemble(
        config: HostConfig,
        store: Arc<dyn Store>,
        source: ChainSource,
        network: Arc<dyn Network>,
        tor: Option<Arc<Tor>>,
    ) -> Result<Host, HostError> {
        config.check()?;
        files::create_directory(&config.data_dir)?;
        let metrics = Metrics::new();
        let store: Arc<dyn Store> = Arc::new(CountedStore::new(store, metrics.clone()));
        let epoch = store.take_lease(owners::NAMESPACE).await?;
        check_network(&config, &store, epoch).await?;
        chain::check(source.blocks.as_ref()).await?;
        let services = Services::load(config, store, epoch, source, network, metrics, tor).await?;
        // From here on, a start that fails ends everything that was begun.
        let host = Host {
            services: Arc::new(services),
            database: None,
        };
        let owners = host.services.book.all().await;
        host.services.begin(owners)?;
        tracing::info!(network = %host.services.config.network, "the host runs");
        Ok(host)
    }

    /// Where it listens; `None` when it is embedded.
    pub fn addresses(&self) -> Option<&Addresses> {
        self.services.addresses.get()
    }

    /// Takes a connection of a phone, before its handshake. Returns at once. Closes the connection when 256 others are
    /// in their handshakes: phones dial again.
    pub fn accept_link(&self, carrier: Carrier) {
        self.services.links.take(carrier);
    }

    /// Waits at a mailbox for the phones of all owners, for as long as the host runs and whatever becomes of the mailbox: the part
    /// of `link.mailboxes` that a host without listeners leaves to its program. The setting has to name a mailbox, or nobody is
    /// expected there.
    ///
    /// # Errors
    /// [`LinkError::Address`] when `mailbox` is no mailbox's address.
    pub fn wait_at(&self, mailbox: &Address, options: DialOptions) -> Result<(), LinkError> {
        serve::wait_at(&self.services, mailbox, options).map(drop)
    }

    /// Takes a connection of a peer of the hub. Closes it while the hub does not run: peers dial again.
    pub fn accept_peer(&self, stream: Box<dyn PeerStream>) {
        self.services.hub.accept(stream);
    }

    /// The operator's requests, in this process.
    pub fn operator(&self) -> Operator {
        self.services.operator()
    }

    /// Makes an owner, and the pairing code for the phone: [`Operator::create_owner`] without options. The owner's node is
    /// commanded by the phone alone.
    ///
    /// # Errors
    /// [`OperatorError`].
    pub async fn create_owner(&self, name: &str) -> Result<PairingCode, OperatorError> {
        let request = CreateOwnerRequest {
            name: name.into(),
            ..CreateOwnerRequest::default()
        };
        self.operator().create_owner(request).await
    }

    /// The hub, the host's own node, for its commands. Waits until it runs, which it does as soon as the chain source is
    /// reached.
    ///
    /// # Errors
    /// [`Code::NodeFailed`] when it cannot be started.
    pub async fn hub(&self) -> Result<Node, OperatorError> {
        Ok(operator::started(&self.services.hub).await?.into())
    }

    /// Stops: links are closed with `SHUTDOWN`, nodes write their last turn, and the database is closed if the host
    /// opened it itself. A store of the caller is closed by the caller.
    pub async fn stop(mut self) {
        tracing::info!("the host stops");
        self.services.stop().await;
        if let Some(database) = self.database.take()
            && let Err(error) = database.close().await
        {
            tracing::warn!(%error, "the database was not closed in order; all that was committed is in it");
        }
        tracing::info!("the host has stopped");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.services.abort();
    }
}

/// A database belongs to one network for ever.
async fn check_network(
    config: &HostConfig,
    store: &Arc<dyn Store>,
    epoch: u64,
) -> Result<(), HostError> {
    let network = config.network.to_string();
    match store.get(owners::NAMESPACE, NETWORK_KEY).await? {
        Some(found) if found == network.as_bytes() => Ok(()),
        Some(found) => Err(HostError::WrongNetwork {
            found: String::from_utf8_lossy(&found).into_owned(),
            expected: network,
        }),
        None => {
            let writes = vec![Write::Put(NETWORK_KEY.into(), network.into_bytes())];
            let namespace = owners::NAMESPACE.into();
            Ok(store
                .commit(Batch {
                    namespace,
                    epoch,
                    writes,
                })
                .await?)
        }
    }
}

/// Why a host does not start. Nothing of it runs then.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A secret file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The database belongs to another network.
    #[error(
        "the database belongs to {found}, the host is configured for {expected}: choose another data_dir"
    )]
    WrongNetwork {
        /// As in the database.
        found: String,
        /// As configured.
        expected: String,
    },
    /// The hub's seed is gone.
    #[error(
        "{0} is missing, and the database has a hub that was made with it: restore it from a backup"
    )]
    SeedMissing(PathBuf),
    /// The hub's seed is another one.
    #[error(
        "{0} is not the seed that the hub in the database was made with: restore the right one from a backup"
    )]
    SeedDiffers(PathBuf),
    /// The chain source is the wrong one.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} ({reason}): choose another {key}, or stop what uses it")]
    Listen {
        /// The setting.
        key: &'static str,
        /// As configured.
        address: String,
        /// The socket's error.
        reason: String,
    },
    /// The link cannot be set up.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// TLS for webhooks cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// The Tor process, or its port.
    #[error("Tor cannot be started: {0}")]
    Tor(String),
}

impl HostError {
    /// A stable code for programs.
    pub fn code(&self) -> Code {
        match self {
            HostError::Config(_) => Code::Config,
            HostError::Store(error) => error.code(),
            HostError::File(_) => Code::File,
            HostError::WrongNetwork { .. } => Code::WrongNetwork,
            HostError::SeedMissing(_) | HostError::SeedDiffers(_) => Code::HubSeed,
            HostError::Chain(ChainError::WrongNetwork { .. }) => Code::WrongNetwork,
            HostError::Chain(ChainError::Unauthorized) => Code::ChainUnauthorized,
            HostError::Chain(_) => Code::ChainUnavailable,
            HostError::Listen { .. } => Code::CannotListen,
            HostError::Link(LinkError::Tls(_)) => Code::Tls,
            HostError::Link(_) => Code::LinkFailed,
            HostError::Tls(_) => Code::Tls,
            HostError::Tor(_) => Code::Tor,
        }
    }
}

/// Whether this is a build for tests. A program for use refuses to be compiled with it.
pub const IS_FOR_TESTS: bool = cfg!(feature = "fuzzing");
