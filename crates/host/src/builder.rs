//! Setting up a host, step by step.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use bitcoin::Network as Chain;
use longhand_chain::ChainSource;
use longhand_link::Carriers;
use longhand_store::{SqliteStore, Store};

use crate::config::{HostConfig, HubConfig};
use crate::network::Network;
use crate::tor::OpenTor;
use crate::{Host, HostError, chain, descriptors, files};

/// A host that is being set up: [`Host::builder`]. A setting that is not given has its default, which is that of
/// `docs/host.example.toml`: regtest, a database and secrets in `longhand-host`, the chain of a Bitcoin Core on this machine, phones on
/// port 9750 of loopback.
///
/// It runs in tokio's runtime, with several threads best: in one of a single thread (`current_thread`) all waits each hour while the network
/// graph is written, which has 100 MB on the public network.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use longhand_host::Host;
/// let host = Host::builder()
///     .network(bitcoin::Network::Signet)
///     .directory("/var/lib/longhand")
///     .phones_at(["grpc://0.0.0.0:9750"])
///     .configure(|config| config.chain.bitcoind.url = "http://10.0.0.2:38332".into())
///     .start()
///     .await?;
/// println!("{}", host.create_owner("alice").await?.code);
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing runs before `start` or `embed`"]
pub struct HostBuilder {
    config: HostConfig,
    store: Option<Arc<dyn Store>>,
    source: Option<ChainSource>,
    carriers: Carriers,
}

impl HostBuilder {
    pub(crate) fn new() -> HostBuilder {
        HostBuilder {
            config: HostConfig::default(),
            store: None,
            source: None,
            carriers: Carriers::default(),
        }
    }

    /// All settings at once, in place of those given before, such as of a file ([`HostConfig::load`]).
    pub fn config(mut self, config: HostConfig) -> HostBuilder {
        self.config = config;
        self
    }

    /// Changes any setting.
    pub fn configure(mut self, change: impl FnOnce(&mut HostConfig)) -> HostBuilder {
        change(&mut self.config);
        self
    }

    /// The chain's network. A database belongs to one network for ever.
    pub fn network(self, network: Chain) -> HostBuilder {
        self.configure(|config| config.network = network)
    }

    /// The directory of the host's files: its database, the link's key and the hub's seed.
    pub fn directory(self, directory: impl Into<PathBuf>) -> HostBuilder {
        self.configure(|config| config.data_dir = directory.into())
    }

    /// The addresses at which phones are served, such as `grpc://0.0.0.0:9750`. They are in pairing codes too, unless
    /// `link.addresses` has others.
    pub fn phones_at<A: Into<String>>(self, addresses: impl IntoIterator<Item = A>) -> HostBuilder {
        self.configure(|config| {
            config.link.listen = addresses.into_iter().map(Into::into).collect();
        })
    }

    /// The relays at which the host waits for phones, such as `mailbox+wss://relay.example`.
    pub fn mailboxes<A: Into<String>>(self, addresses: impl IntoIterator<Item = A>) -> HostBuilder {
        self.configure(|config| {
            config.link.mailboxes = addresses.into_iter().map(Into::into).collect();
        })
    }

    /// The host's own node.
    pub fn hub(self, hub: HubConfig) -> HostBuilder {
        self.configure(|config| config.hub = hub)
    }

    /// Listens on free ports of loopback, and serves no metrics: for tests and examples. Phones that were paired do not find the host
    /// again after a restart.
    pub fn on_free_ports(self) -> HostBuilder {
        self.phones_at(["grpc://127.0.0.1:0"]).configure(|config| {
            config.peer.listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
            config.metrics.listen.clear();
        })
    }

    /// A chain source in place of the Bitcoin Core of the configuration.
    pub fn chain(mut self, source: impl Into<ChainSource>) -> HostBuilder {
        self.source = Some(source.into());
        self
    }

    /// A store in place of the database in the host's directory. Its caller closes it after the host.
    pub fn store(mut self, store: Arc<dyn Store>) -> HostBuilder {
        self.store = Some(store);
        self
    }

    /// Kinds of carriers in place of the usual ones: addresses of phones may have their schemes.
    pub fn carriers(mut self, carriers: Carriers) -> HostBuilder {
        self.carriers = carriers;
        self
    }

    /// Starts the host, with listeners.
    ///
    /// A chain source that is down is waited for: phones may attach meanwhile, and their commands answer
    /// `CHAIN_UNAVAILABLE`.
    ///
    /// # Errors
    /// [`HostError`]; nothing runs then.
    pub async fn start(self) -> Result<Host, HostError> {
        files::create_directory(&self.config.data_dir)?;
        let (store, database) = self.open_store()?;
        // Before the Tor process, which inherits it.
        descriptors::raise_limit();
        let tor = OpenTor::open(&self.config).await?;
        let source = match self.source {
            Some(source) => source,
            None => chain::source(&self.config, tor.as_ref().map(|it| &it.tor)).await?,
        };
        let mut host = Host::listen(self.config, store, source, &self.carriers, tor).await?;
        host.database = database;
        Ok(host)
    }

    /// Starts the host without listeners: connections are handed in ([`Host::accept_link`], [`Host::accept_peer`]), and
    /// those that the host makes go through `network`. Of the configuration, the listeners' addresses are not used; pairing
    /// codes have `link.addresses`, at which its phones are taken.
    ///
    /// # Errors
    /// As [`HostBuilder::start`].
    pub async fn embed(self, network: Arc<dyn Network>) -> Result<Host, HostError> {
        files::create_directory(&self.config.data_dir)?;
        let (store, database) = self.open_store()?;
        let source = match self.source {
            Some(source) => source,
            None if self.config.tor.all_outgoing => return Err(HostError::Tor(
                "an embedded host has no Tor process, and its own chain source would not go through Tor: give it one".into(),
            )),
            None => chain::source(&self.config, None).await?,
        };
        let mut host = Host::assemble(self.config, store, source, network, None).await?;
        host.database = database;
        Ok(host)
    }

    /// The store, and the same again when the host has to close it.
    #[allow(clippy::type_complexity)]
    fn open_store(&self) -> Result<(Arc<dyn Store>, Option<Arc<dyn Store>>), HostError> {
        if let Some(store) = &self.store {
            return Ok((store.clone(), None));
        }
        let database: Arc<dyn Store> = Arc::new(SqliteStore::open(self.config.database_file())?);
        Ok((database.clone(), Some(database)))
    }
}
