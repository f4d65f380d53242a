//! Many Lightning nodes in one process, each with its keys on its owner's phone.
//!
//! [`Host::start`] opens the store, follows the chain, runs the hub and the owners' nodes, and
//! listens: for phones (links), for the hub's peers, for the operator and for Prometheus.
//! [`Host::embed`] is the same without anything that listens, for programs with a front door of their own: they
//! hand in connections, and are the host's [`Operator`] and its [`Outside`].
//!
//! - `owners`: the durable book of owners, pairing codes and registrations (checked in `registration`).
//! - `tenant`, `attach`, `links`: one owner at run time; a phone at its node; where phones come in.
//! - `shared`: what all tasks share; how nodes are started and listened to. `dialer`: how they reach peers.
//! - `hub`, `wake`: payments held for phones that are away, and calling those phones.
//! - `chain`: the chain source of the configuration.
//! - `outside`: peers and phones beyond this process. `serve`: the listeners.
//! - `operator` and its [`client`], `metrics`, [`config`], `files`: the operator's side.

mod attach;
mod chain;
pub mod client;
pub mod config;
mod dialer;
mod files;
mod graph;
mod hub;
mod links;
mod metrics;
mod operator;
mod outside;
mod owners;
mod registration;
mod serve;
mod shared;
mod tenant;
mod wake;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures::future::join_all;
use longhand_chain::{ChainError, ChainSource, Follower, FollowerConfig};
use longhand_link::{Address, Carrier, Carriers, CloseCode, LinkError, LinkKeypair};
use longhand_node::PeerStream;
use longhand_store::{Batch, SqliteStore, Store, StoreError, Write};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

#[cfg(feature = "fuzzing")]
pub mod fuzzing {
    //! Entries for fuzz targets.

    /// What is checked of a phone's registration before a node is built on it; else one line that says why not.
    pub fn check_registration(
        registration: &longhand_node::Registration,
        network: bitcoin::Network,
    ) -> Result<(), String> {
        let checked = crate::registration::check(registration, network);
        checked.map(drop).map_err(|refused| refused.to_string())
    }

    /// How often the hub was loaded again after a panic; `None` while it does not run.
    pub async fn hub_restarts(host: &crate::Host) -> Option<u32> {
        let overview = host.shared.hub()?.overview().await;
        overview.map(|overview| overview.restarts)
    }
}

pub use config::{ConfigError, HostConfig, OperatorListen};
pub use files::FileError;
pub use operator::{Operator, OperatorError};
pub use outside::{Joined, Outside, Sockets, WakeCall, WakeError, WakeReason};

use crate::metrics::{CountedStore, Metrics};
use crate::owners::{Owner, OwnerError, Owners};
use crate::serve::Listeners;
use crate::shared::Shared;
use crate::tenant::{Phase, Tenants};
use crate::wake::Wakes;

/// In the host's own namespace: the network that the database belongs to.
const NETWORK_KEY: &str = "network";
/// How long the nodes may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How long phones may take to hear that the host stops.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A running host. Dropping it ends it at once and without a word to anybody, as when the process is killed;
/// [`Host::stop`] is the polite way.
pub struct Host {
    shared: Arc<Shared>,
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
    /// For the operator.
    pub operator: OperatorListen,
    /// For Prometheus.
    pub metrics: Option<SocketAddr>,
}

impl Host {
    /// Starts a host on its own database and the chain source of its configuration.
    ///
    /// A chain source that is down is waited for: phones may attach meanwhile, and their commands answer
    /// `CHAIN_UNAVAILABLE`.
    ///
    /// # Errors
    /// [`HostError`]; nothing runs then.
    pub async fn start(config: HostConfig) -> Result<Host, HostError> {
        files::create_directory(&config.data_dir)?;
        let database: Arc<dyn Store> = Arc::new(SqliteStore::open(config.database_file())?);
        let source = chain::source(&config);
        let carriers = Carriers::default();
        let mut host = Host::start_with(config, database.clone(), source, &carriers).await?;
        host.database = Some(database);
        Ok(host)
    }

    /// Starts a host on a store, a chain source and carriers of the caller's: `link.listen` may have the schemes of `carriers`.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub async fn start_with(
        mut config: HostConfig,
        store: Arc<dyn Store>,
        source: impl Into<ChainSource>,
        carriers: &Carriers,
    ) -> Result<Host, HostError> {
        let source = source.into();
        files::create_directory(&config.data_dir)?;
        let listeners = Listeners::bind(&config, carriers).await?;
        config.link.addresses = listeners.link_addresses(&config);
        let outside = Arc::new(Sockets::new()?);
        let host = Host::embed(config, store, source, outside).await?;
        listeners.serve(&host.shared);
        tracing::info!(addresses = ?host.addresses(), "the host listens");
        Ok(host)
    }

    /// Starts a host that listens to nothing: connections are handed in ([`Host::accept_link`],
    /// [`Host::accept_peer`]), and what leaves the process goes through `outside`. Of the configuration it has no use
    /// for what listens; pairing codes have `link.addresses`, at which its phones are taken. In `data_dir` are the
    /// link's key and the hub's seed.
    ///
    /// # Errors
    /// As [`Host::start`].
    pub async fn embed(
        config: HostConfig,
        store: Arc<dyn Store>,
        source: impl Into<ChainSource>,
        outside: Arc<dyn Outside>,
    ) -> Result<Host, HostError> {
        let source = source.into();
        config.check()?;
        files::create_directory(&config.data_dir)?;
        let metrics = Metrics::new();
        let store: Arc<dyn Store> = Arc::new(CountedStore::new(store, metrics.clone()));
        let epoch = store.take_lease(owners::NAMESPACE).await?;
        check_network(&config, &store, epoch).await?;
        chain::check(source.blocks.as_ref()).await?;
        let tenants = Arc::new(Tenants::default());
        let on_change = Box::new({
            let tenants = tenants.clone();
            move |owner: &Owner| tenants.set_owner(owner)
        });
        let owners = Owners::load(store.clone(), epoch, config.network, on_change).await?;
        let hub_seed = hub::seed(&config, &store, epoch).await?;
        let link_key =
            LinkKeypair::from_bytes(*files::read_or_make_secret(&config.link_key_file())?);
        let poll_interval = Duration::from_millis(config.chain.poll_ms);
        let wakes = Wakes::new(config.wake.clone(), outside.clone(), metrics.clone());
        let (nobody, _) = links::conversation(&config)?;
        let (graph, graph_epoch) = graph::load(&store, config.network).await?;
        let shared = Arc::new(Shared {
            owners,
            tenants,
            chain: Arc::new(Follower::start(source, FollowerConfig { poll_interval })),
            graph: Arc::new(graph),
            graph_epoch,
            hub_seed,
            hub: watch::Sender::new(Phase::Waiting),
            held: hub::Held::new(Duration::from_millis(config.hub.hold_ms)),
            wakes: Arc::new(wakes),
            metrics,
            link_key,
            addresses: OnceLock::new(),
            outside,
            nobody,
            handshakes: links::handshakes(),
            starts: Shared::starts(),
            stopping: watch::Sender::new(false),
            tasks: Mutex::new(Some(JoinSet::new())),
            store,
            config,
        });
        // From here on, leaving early ends what was begun.
        let host = Host {
            shared,
            database: None,
        };
        let shared = &host.shared;
        for owner in shared.owners.all().await {
            shared.add_tenant(owner)?;
        }
        shared.spawn(shared::start_hub(shared.clone()));
        shared.spawn(shared::follow_chain(shared.clone()));
        shared.spawn(graph::keep(shared.clone()));
        tracing::info!(network = %shared.config.network, "the host runs");
        Ok(host)
    }

    /// Where it listens; `None` when it is embedded.
    pub fn addresses(&self) -> Option<&Addresses> {
        self.shared.addresses.get()
    }

    /// Takes a connection of a phone that has not proved yet who it is. Returns at once. Hangs up when 256 others have
    /// not either: phones come again.
    pub fn accept_link(&self, carrier: Carrier) {
        links::take(&self.shared, carrier);
    }

    /// Takes a connection of a peer of the hub. Hangs up while the hub does not run: peers come again.
    pub fn accept_peer(&self, stream: Box<dyn PeerStream>) {
        self.shared.take_peer(stream);
    }

    /// What the operator may ask, in this process.
    pub fn operator(&self) -> Operator {
        Operator(Arc::downgrade(&self.shared))
    }

    /// Stops: links are closed with `SHUTDOWN`, nodes write their last turn, and the database is closed if the host opened it
    /// itself. A store of the caller's is the caller's to close.
    pub async fn stop(mut self) {
        tracing::info!("the host stops");
        let shared = &self.shared;
        shared.stopping.send_replace(true);
        shared.wakes.stop();
        shared.held.stop();
        let tenants = shared.tenants.all();
        let links: Vec<_> = tenants
            .iter()
            .filter_map(|tenant| tenant.conversation.link())
            .collect();
        for tenant in &tenants {
            tenant
                .conversation
                .give_up(CloseCode::Shutdown, links::STOPPING);
        }
        let nodes = tenants
            .iter()
            .filter_map(|tenant| tenant.node())
            .chain(shared.hub());
        let stopped = join_all(nodes.map(|node| async move { node.stop().await }));
        if timeout(STOP_LIMIT, stopped).await.is_err() {
            tracing::warn!("some nodes did not stop in time; what they have said is in the store");
        }
        // So that the process does not end before its last words are on the wire.
        let told = join_all(links.iter().map(|link| link.ended()));
        let _ = timeout(LAST_WORDS, told).await;
        let tasks = shared.tasks().take();
        if let Some(mut tasks) = tasks {
            tasks.shutdown().await;
        }
        graph::save(shared).await;
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
        self.shared.kill();
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

/// Why a host does not start. Nothing was changed but what is named.
#[derive(Debug, thiserror::Error)]
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
        /// What the socket said.
        reason: String,
    },
    /// The link cannot be set up.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The owners' book cannot be read.
    #[error("{0}")]
    Owners(String),
    /// TLS for webhooks cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
}

impl HostError {
    /// A stable code for programs.
    pub fn code(&self) -> &'static str {
        match self {
            HostError::Config(_) => "CONFIG",
            HostError::Store(error) => error.code(),
            HostError::File(_) => "FILE",
            HostError::WrongNetwork { .. } => "WRONG_NETWORK",
            HostError::SeedMissing(_) | HostError::SeedDiffers(_) => "HUB_SEED",
            HostError::Chain(ChainError::WrongNetwork { .. }) => "WRONG_NETWORK",
            HostError::Chain(ChainError::Unauthorized) => "CHAIN_UNAUTHORIZED",
            HostError::Chain(_) => "CHAIN_UNAVAILABLE",
            HostError::Listen { .. } => "CANNOT_LISTEN",
            HostError::Link(_) => "LINK",
            HostError::Owners(_) => "DATABASE_FAILED",
            HostError::Tls(_) => "TLS",
        }
    }
}

impl From<OwnerError> for HostError {
    fn from(error: OwnerError) -> HostError {
        match error {
            OwnerError::Store(error) => HostError::Store(error),
            OwnerError::Link(error) => HostError::Link(error),
            other => HostError::Owners(other.to_string()),
        }
    }
}
