//! A Tor client in this process.

mod clock;
mod dormancy;
mod lazy;
mod service;
mod tcp;

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use arti_client::config::{CfgPath, TorClientConfigBuilder};
use arti_client::isolation::IsolationHelper;
use arti_client::{
    BootstrapBehavior, DataStream, DormantMode, ErrorKind, HasKind, KeystoreSelector, StreamPrefs,
    TorClient,
};
use async_trait::async_trait;
use futures::{FutureExt, StreamExt};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tor_hscrypto::pk::{HsClientDescEncSecretKey, HsId};
use tor_llcrypto::pk::curve25519;
use tor_rtcompat::{PreferredRuntime, RuntimeSubstExt};

use self::clock::ClockCheck;
pub use self::dormancy::Use;
use self::dormancy::Users;
pub use self::lazy::LazyTor;
pub use self::service::{Arrived, OnionService, ServiceState};
use self::tcp::NoDelay;
use crate::dial::{DialError, OnionDialer, OnionStream};
use crate::onion::{DiscoverySecret, OnionAddress};
use crate::progress::{Observed, Progress, progress};

type Runtime = tor_rtcompat::CompoundRuntime<
    PreferredRuntime,
    PreferredRuntime,
    PreferredRuntime,
    NoDelay,
    PreferredRuntime,
    PreferredRuntime,
    PreferredRuntime,
>;

/// Settings of a client.
#[derive(Clone, Debug)]
pub struct TorConfig {
    /// Where the directory of relays, the guards, and the keys of onion services are kept; made when it is missing. One process at a
    /// time.
    pub directory: PathBuf,
    /// A file of Arti's configuration (TOML), for another network than the public one.
    pub network_file: Option<PathBuf>,
    /// Whether it serves onion services: their keys are stored, and its circuits have guards at each hop (vanguards), since whoever
    /// makes an onion service build circuits can otherwise find its guard.
    pub is_service: bool,
}

/// Why a client cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorError {
    /// The configuration or the network file.
    #[error("Tor cannot be set up: {0}")]
    Config(String),
    /// Arti's state, or the runtime.
    #[error("Tor cannot be started: {0}")]
    Start(String),
    /// An onion service.
    #[error("an onion service cannot be served: {0}")]
    Service(String),
}

/// A Tor client. Clones share it.
///
/// It connects to the network with its first stream, or with [`Tor::bootstrap`], and sleeps when it has had no use for a while.
#[derive(Clone)]
pub struct Tor {
    client: Arc<TorClient<Runtime>>,
    users: Users,
    clock: ClockCheck,
}

impl Tor {
    /// Starts a client. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// [`TorError`]: the files cannot be used, or another process uses them.
    pub fn start(config: &TorConfig) -> Result<Tor, TorError> {
        let start = |error: &dyn std::error::Error| TorError::Start(chain(error));
        let runtime = PreferredRuntime::current().map_err(|e| start(&e))?;
        let config = read_config(config)?;
        let directory = config.dir_mgr_config();
        let directory = directory.map_err(|error| TorError::Config(chain(&error)))?;
        let client = TorClient::with_runtime(runtime.with_tcp_provider(NoDelay))
            .config(config)
            .bootstrap_behavior(BootstrapBehavior::OnDemand)
            .create_unbootstrapped()
            .map_err(|e| start(&e))?;
        let users = Users::none();
        let sleeper = Arc::downgrade(&client);
        users.watch(move |sleeps| {
            let client = sleeper.upgrade();
            let mode = match sleeps {
                true => DormantMode::Soft,
                false => DormantMode::Normal,
            };
            client.map(|client| client.set_dormant(mode)).is_some()
        });
        let clock = ClockCheck::default();
        let relays = directory.fallbacks().iter().cloned().collect();
        clock.watch(Arc::downgrade(&client), &users, relays);
        Ok(Tor {
            client,
            users,
            clock,
        })
    }

    /// Loads the directory, so that the first stream does not wait for it.
    ///
    /// # Errors
    /// Why it has given up; it may be called again.
    pub async fn bootstrap(&self) -> Result<(), TorError> {
        let _awake = self.keep_awake();
        let done = self.client.bootstrap().await;
        done.map_err(|error| TorError::Start(chain(&error)))
    }

    /// Does not sleep before this is dropped.
    pub fn keep_awake(&self) -> Use {
        self.users.enter()
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        progress(&self.observe())
    }

    /// Opens a stream to `host:port`, a name or an address of any kind: one attempt. Streams of different `isolation` never share a
    /// circuit, so that an exit cannot see that they are of the same machine.
    ///
    /// # Errors
    /// [`DialError`].
    pub async fn connect(
        &self,
        host: &str,
        port: u16,
        isolation: &str,
    ) -> Result<TorStream, DialError> {
        let in_use = self.users.enter();
        let mut prefs = StreamPrefs::new();
        prefs.set_isolation(Isolation(isolation.into()));
        let opened = self.client.connect_with_prefs((host, port), &prefs).await;
        let stream = opened.map_err(|error| match error.kind() {
            ErrorKind::OnionServiceMissingClientAuth | ErrorKind::OnionServiceWrongClientAuth => {
                DialError::NotAClient
            }
            _ => DialError::Failed(chain(&error)),
        })?;
        Ok(TorStream {
            stream,
            _in_use: in_use,
        })
    }

    /// Makes this client one of those that can find a service with restricted discovery. In memory alone.
    fn add_discovery(&self, service: &OnionAddress, secret: &DiscoverySecret) {
        let service = HsId::from(*service.public_key());
        let selector = KeystoreSelector::Primary;
        // A phone that was paired anew has another key; the one from before is of no use.
        let _ = self.client.remove_service_discovery_key(selector, service);
        let key = curve25519::StaticSecret::from(*secret.expose());
        let key = HsClientDescEncSecretKey::from(key);
        if let Err(error) = self
            .client
            .insert_service_discovery_key(selector, service, key)
        {
            tracing::debug!("a discovery key was not taken: {}", chain(&error));
        }
    }

    fn observe(&self) -> Observed {
        let status = self.client.bootstrap_status();
        let blocked = status.blocked();
        let clock = self.clock.last();
        Observed {
            relays_answer: self.is_connected(),
            is_ready: status.ready_for_traffic(),
            fraction: status.as_frac(),
            certificates_expired: clock.refuses_certificates,
            clock_ahead_s: clock.ahead_s,
            blocked: blocked.map(|it| it.message().to_string()),
        }
    }

    /// The latest state of the connections to relays; a new subscriber gets it at once.
    fn is_connected(&self) -> bool {
        let state = self.client.chanmgr().ok().and_then(|channels| {
            let mut states = channels.bootstrap_events();
            states.next().now_or_never().flatten()
        });
        state.is_some_and(|state| state.usable())
    }
}

fn read_config(config: &TorConfig) -> Result<arti_client::TorClientConfig, TorError> {
    let failed = |error: String| TorError::Config(error);
    let text = match &config.network_file {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| failed(format!("{}: {error}", path.display())))?,
        None => String::new(),
    };
    let mut table: toml::Table = text
        .parse()
        .map_err(|e: toml::de::Error| failed(e.to_string()))?;
    let defaults: toml::Table = match config.is_service {
        true => SERVICE,
        false => CLIENT,
    }
    .parse()
    .map_err(|e: toml::de::Error| failed(e.to_string()))?;
    for (section, values) in defaults {
        table.entry(section).or_insert(values);
    }
    let builder = TorClientConfigBuilder::deserialize(toml::Value::Table(table));
    let mut builder = builder.map_err(|error| failed(error.to_string()))?;
    let path = |name: &str| CfgPath::new_literal(config.directory.join(name));
    builder.storage().state_dir(path("state"));
    builder.storage().cache_dir(path("cache"));
    builder.build().map_err(|error| failed(chain(&error)))
}

/// Of a client: no key of it is on disk, and it builds no circuit before it is asked to.
const CLIENT: &str = r#"
[storage.keystore.primary]
kind = "ephemeral"
[preemptive_circuits]
initial_predicted_ports = []
disable_at_threshold = 0
[system.memory]
max = "64 MiB"
"#;

/// Of a host. `full` vanguards are for services that live for long.
const SERVICE: &str = r#"
[vanguards]
mode = "full"
[preemptive_circuits]
initial_predicted_ports = []
disable_at_threshold = 0
[system.memory]
max = "256 MiB"
"#;

/// Streams with the same name may share a circuit.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Isolation(String);

impl IsolationHelper for Isolation {
    fn compatible_same_type(&self, other: &Self) -> bool {
        self == other
    }

    fn join_same_type(&self, other: &Self) -> Option<Self> {
        self.compatible_same_type(other).then(|| self.clone())
    }
}

/// Circuits of phones' links: one service, one client.
const LINK: &str = "link";

#[async_trait]
impl OnionDialer for Tor {
    async fn connect(
        &self,
        service: &OnionAddress,
        port: u16,
        discovery: Option<&DiscoverySecret>,
    ) -> Result<Box<dyn OnionStream>, DialError> {
        if let Some(discovery) = discovery {
            self.add_discovery(service, discovery);
        }
        let stream = Tor::connect(self, &service.to_string(), port, LINK).await?;
        Ok(Box::new(stream))
    }

    fn progress(&self) -> Progress {
        Tor::progress(self)
    }
}

/// A stream through Tor. Written bytes leave when it is flushed, or a cell is full.
pub struct TorStream {
    stream: DataStream,
    _in_use: Use,
}

impl AsyncRead for TorStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.stream), cx, buffer)
    }
}

impl AsyncWrite for TorStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.stream), cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.stream), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.stream), cx)
    }
}

/// An error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text.replace('\n', " ")
}
