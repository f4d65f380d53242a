//! The host's side of Tor. Tor itself runs in a process of its own (`longhand-tor`), because it may end the process that it runs in:
//! that ends the carrier for some seconds, and nothing else of the host.
//!
//! - `process`: starts the process. `session`: what is said to it, and what it reports.
//! - `arrivals`: connections of clients of the host's onion services.
//! - `clients`: who finds them, with restricted discovery.
//! - `forward`: a port of this machine that leads to one place through Tor.

mod arrivals;
pub(crate) mod clients;
mod forward;
mod process;
mod session;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use longhand_base::text::is_onion;
use longhand_link::carrier::System;
use longhand_link::{Address, Connect};
use longhand_tor::control::{Secret, Service};
use longhand_tor::{DiscoveryKey, LINK_PORT, OnionAddress, OnionSeed, PEER_PORT, Progress, SCHEME};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_socks::tcp::Socks5Stream;

pub(crate) use self::arrivals::{Arrivals, Arriving};
pub(crate) use self::process::{Launch, Program};
use crate::config::HostConfig;
use crate::network::is_public;
use crate::{HostError, files};

/// The id of the onion service for the hub's peers; those for phones are numbered from 0.
const PEERS: u32 = u32::MAX;
/// How long the process may take to end.
const STOP: Duration = Duration::from_secs(2);

/// Tor, as the host uses it. Dropping it ends the process.
pub(crate) struct Tor {
    shared: Arc<Shared>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    all_outgoing: bool,
    has_links: bool,
    has_peers: bool,
    is_restricted: bool,
}

/// What the supervisor shares with the users of Tor.
struct Shared {
    key: OnionSeed,
    /// Of the process that runs now: each has another.
    secret: Arc<Mutex<Secret>>,
    state: watch::Sender<TorState>,
    /// The services that the process should serve.
    services: watch::Sender<HashMap<u32, Service>>,
    is_stopping: watch::Sender<bool>,
    /// For a connection through Tor.
    limit: Duration,
}

/// The state of the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TorState {
    /// Where it takes connections of the host; `None` while it does not run.
    pub socks: Option<SocketAddr>,
    /// How far it has come.
    pub progress: Progress,
    /// Why it ended the last time.
    pub failure: Option<String>,
    /// Times that it ended without being stopped.
    pub ends: u64,
    /// The host stops, and the process has ended.
    pub has_stopped: bool,
}

impl TorState {
    fn new() -> TorState {
        TorState {
            socks: None,
            progress: Progress::none(),
            failure: None,
            ends: 0,
            has_stopped: false,
        }
    }

    /// Why connections through Tor fail now, if they do.
    pub fn problem(&self) -> Option<String> {
        match (&self.socks, &self.failure) {
            (None, Some(failure)) => Some(format!("its process does not run: {failure}")),
            _ if !self.progress.is_ready() => Some(self.progress.to_string()),
            _ => None,
        }
    }
}

/// Tor that has been started, and the connections of its onion services.
pub(crate) struct OpenTor {
    pub tor: Arc<Tor>,
    pub arrivals: Arrivals,
}

impl OpenTor {
    /// Starts Tor as it is configured, and takes the connections of its onion services; `None` when it is not enabled. The key of
    /// all onion services is `tor.key` in the data directory.
    pub async fn open(config: &HostConfig) -> std::result::Result<Option<OpenTor>, HostError> {
        if !config.tor.enabled {
            return Ok(None);
        }
        let launch = Program::of(config)?;
        Ok(Some(OpenTor::with(config, Box::new(launch)).await?))
    }

    async fn with(
        config: &HostConfig,
        launch: Box<dyn Launch>,
    ) -> std::result::Result<OpenTor, HostError> {
        let key_file = config.tor_key_file();
        let key = OnionSeed::from(files::read_or_make_secret(&key_file)?);
        let secret = Secret::from_bytes(*files::random_secret(&key_file)?);
        let secret = Arc::new(Mutex::new(secret));
        let shared = Arc::new(Shared {
            key,
            secret: secret.clone(),
            state: watch::Sender::new(TorState::new()),
            services: watch::Sender::new(HashMap::new()),
            is_stopping: watch::Sender::new(false),
            limit: Duration::from_millis(config.tor.connect_timeout_ms),
        });
        let arrivals = Arrivals::bind(secret).await;
        let arrivals = arrivals.map_err(|error| HostError::Tor(error.to_string()))?;
        let setup = session::setup(config, shared.secret(), arrivals.address());
        let supervisor = session::supervise(launch, setup, shared.clone());
        let tor = Tor {
            tasks: Mutex::new(vec![tokio::spawn(supervisor)]),
            all_outgoing: config.tor.all_outgoing,
            has_links: config.tor.links,
            has_peers: config.tor.peers,
            is_restricted: config.tor.restricted_discovery,
            shared,
        };
        tor.serve_first();
        Ok(OpenTor {
            tor: Arc::new(tor),
            arrivals,
        })
    }

    /// The address of the first onion service for phones.
    pub fn link_address(&self) -> Option<Address> {
        self.tor.link_address(0)?.parse().ok()
    }
}

impl Tor {
    /// With restricted discovery a service is served once its first client is known.
    fn serve_first(&self) {
        if self.has_links && !self.is_restricted {
            self.serve_links(0, None);
        }
        if self.has_peers {
            self.serve(PEERS, "peers", PEER_PORT, None);
        }
    }

    /// Serves the `number`th onion service for phones, to these clients or to everybody.
    pub fn serve_links(&self, number: u32, clients: Option<Vec<DiscoveryKey>>) {
        self.serve(number, &links_purpose(number), LINK_PORT, clients);
    }

    fn serve(&self, id: u32, purpose: &str, port: u16, clients: Option<Vec<DiscoveryKey>>) {
        let service = Service {
            id,
            seed: self.shared.key.derive(purpose),
            port,
            clients,
        };
        self.shared.services.send_if_modified(|services| {
            let before = services.insert(id, service.clone());
            before.as_ref() != Some(&service)
        });
    }

    /// Whether only clients find the services for phones.
    pub fn is_restricted(&self) -> bool {
        self.has_links && self.is_restricted
    }

    /// The address of the `number`th onion service for phones, in pairing codes; `None` without such services.
    pub fn link_address(&self, number: u32) -> Option<String> {
        let onion = self.links_onion(number);
        self.has_links
            .then(|| format!("{SCHEME}://{onion}:{LINK_PORT}"))
    }

    /// The onion address of the `number`th service for phones.
    pub fn links_onion(&self, number: u32) -> OnionAddress {
        self.shared.key.derive(&links_purpose(number)).address()
    }

    /// The address that the hub announces (BOLT 7), `host:port`.
    pub fn peer_address(&self) -> Option<String> {
        let onion = self.shared.key.derive("peers").address();
        self.has_peers.then(|| format!("{onion}:{PEER_PORT}"))
    }

    /// How long a connection through Tor may take.
    pub fn limit(&self) -> Duration {
        self.shared.limit
    }

    /// The state of the process, now and from now on.
    pub fn state(&self) -> watch::Receiver<TorState> {
        self.shared.state.subscribe()
    }

    /// For connections through Tor whose exits cannot see that they are of the same machine as those with another `isolation`.
    pub fn connector(&self, isolation: &str) -> TorConnector {
        TorConnector {
            shared: self.shared.clone(),
            isolation: isolation.into(),
        }
    }

    /// For mailboxes. Each connection has the streams of all owners, who share its circuit.
    pub fn mailbox_connector(self: &Arc<Self>) -> Arc<dyn Connect> {
        Arc::new(Outgoing(self.clone()))
    }

    /// Where a library that speaks SOCKS itself finds it, with the session's password: not for logs. While Tor does not run it leads
    /// nowhere: a connection must not go past Tor.
    pub fn proxy_url(&self, isolation: &str) -> String {
        const NOWHERE: &str = "127.0.0.1:1";
        let socks = self.shared.socks();
        let at = socks.map_or_else(|_| NOWHERE.into(), |socks| socks.to_string());
        let password = self.shared.secret().password();
        format!("socks5h://{isolation}:{}@{at}", *password)
    }

    /// A port of this machine that leads to `host:port` through Tor, for as long as this Tor lives.
    pub async fn forward(&self, host: &str, port: u16, isolation: &str) -> Result<SocketAddr> {
        let (address, task) = forward::listen(self.connector(isolation), host, port).await?;
        let tasks = self.tasks.lock();
        tasks.unwrap_or_else(PoisonError::into_inner).push(task);
        Ok(address)
    }

    /// Whether a connection to this host goes through Tor: always to onion services, and if configured to all but this machine and
    /// private addresses, which no exit reaches.
    pub fn carries(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.');
        is_onion(host) || (self.all_outgoing && !is_local(host))
    }

    /// Ends the process, in order if it does so in time.
    pub async fn stop(&self) {
        self.shared.is_stopping.send_replace(true);
        let mut state = self.state();
        let ended = state.wait_for(|state| state.has_stopped);
        let _ = timeout(2 * STOP, ended).await;
    }
}

impl Drop for Tor {
    fn drop(&mut self) {
        let tasks = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner);
        for task in tasks {
            task.abort();
        }
    }
}

/// Whether a host is this machine, or has a private address. A name is neither, but `localhost`: looking it up here would show it.
fn is_local(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    match host.parse::<IpAddr>() {
        Ok(address) => !is_public(address.to_canonical()),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

fn links_purpose(number: u32) -> String {
    format!("links {number}")
}

/// Opens connections through Tor that may share circuits with each other.
#[derive(Clone)]
pub(crate) struct TorConnector {
    shared: Arc<Shared>,
    isolation: String,
}

impl TorConnector {
    fn failed(&self, error: &str) -> Error {
        let state = self.shared.state.borrow();
        let reason = state.problem().unwrap_or_else(|| error.to_owned());
        Error::new(
            ErrorKind::HostUnreachable,
            format!("not reached over Tor: {reason}"),
        )
    }
}

#[async_trait]
impl Connect for TorConnector {
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream> {
        let socks = self.shared.socks()?;
        // A name may end with the dot of the root (RFC 1034, 3.1), which Tor does not take.
        let host = host.trim_end_matches('.');
        let connecting = async {
            // The process may have just died.
            let stream = TcpStream::connect(socks).await;
            let stream = stream.map_err(|error| self.failed(&error.to_string()))?;
            stream.set_nodelay(true)?;
            let password = self.shared.secret().password();
            let opened = Socks5Stream::connect_with_password_and_socket(
                stream,
                (host, port),
                &self.isolation,
                &password,
            );
            let opened = opened
                .await
                .map_err(|error| self.failed(&error.to_string()))?;
            Ok(opened.into_inner())
        };
        let connected = timeout(self.shared.limit, connecting).await;
        connected.unwrap_or_else(|_| Err(self.failed("it does not answer")))
    }
}

/// Connects through Tor where [`Tor::carries`] says so, and directly elsewhere.
struct Outgoing(Arc<Tor>);

#[async_trait]
impl Connect for Outgoing {
    async fn connect(&self, host: &str, port: u16) -> Result<TcpStream> {
        if self.0.carries(host) {
            return self.0.connector("mailbox").connect(host, port).await;
        }
        System.connect(host, port).await
    }
}

impl Shared {
    fn secret(&self) -> Secret {
        let secret = self.secret.lock();
        secret.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_secret(&self, secret: &Secret) {
        let mut current = self.secret.lock().unwrap_or_else(PoisonError::into_inner);
        *current = secret.clone();
    }

    fn socks(&self) -> Result<SocketAddr> {
        let state = self.state.borrow();
        state.socks.ok_or_else(|| {
            let problem = state.problem().unwrap_or_default();
            Error::new(
                ErrorKind::NotConnected,
                format!("not reached over Tor: {problem}"),
            )
        })
    }
}
