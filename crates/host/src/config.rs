//! How a host is set up: the configuration with its defaults, put together from a file, the environment and flags by
//! [`longhand_base::settings`]. `docs/host.example.toml` has the meaning of each key.

mod chain;
mod tor;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use bitcoin::Network;
use longhand_base::settings::Settings;
pub use longhand_base::settings::{ConfigError, LogConfig};
use longhand_link::{Address, AddressError, PairingCode};
use longhand_tor::{LINK_PORT, SCHEME};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

pub use self::chain::{BitcoindConfig, ChainConfig, ChainKind, EsploraConfig};
pub use self::tor::TorSettings;

/// Prefix of the host's environment variables.
pub const ENV_PREFIX: &str = "LONGHAND_HOST_";

/// All settings of a host. `HostConfig::default()` has the value of each key that is not given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HostConfig {
    /// Directory of all files of the host; made when it is missing, readable by its user alone.
    pub data_dir: PathBuf,
    /// The chain's network.
    pub network: Network,
    /// The chain source.
    pub chain: ChainConfig,
    /// Where phones attach.
    pub link: LinkConfig,
    /// The host's own node.
    pub hub: HubConfig,
    /// Where peers of the hub connect.
    pub peer: PeerConfig,
    /// Tor: onion services, and connections through it.
    pub tor: TorSettings,
    /// Where the operator's API listens.
    pub operator: OperatorConfig,
    /// Where metrics are read.
    pub metrics: MetricsConfig,
    /// Where apps call nodes beside Lightning Node Connect.
    pub apps: AppsConfig,
    /// How phones are woken.
    pub wake: WakeConfig,
    /// Log filter and format.
    pub log: LogConfig,
}

impl Default for HostConfig {
    fn default() -> HostConfig {
        HostConfig {
            data_dir: PathBuf::from("longhand-host"),
            network: Network::Regtest,
            chain: ChainConfig::default(),
            link: LinkConfig::default(),
            hub: HubConfig::default(),
            peer: PeerConfig::default(),
            tor: TorSettings::default(),
            operator: OperatorConfig::default(),
            metrics: MetricsConfig::default(),
            apps: AppsConfig::default(),
            wake: WakeConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// Links of phones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkConfig {
    /// One address for each port that takes in phones: `grpc://ip:port`, which takes WebSocket too, or
    /// `grpcs://ip:port?certificate=PATH&key=PATH` with TLS below the link's own encryption. See [`HostConfig::link_listen`].
    #[serde(deserialize_with = "list_of_addresses")]
    pub listen: Vec<String>,
    /// Addresses in pairing codes, as phones reach them; empty = those of the listeners. Those of `mailboxes` follow them.
    pub addresses: Vec<String>,
    /// Relays at which the host waits for its phones, as `mailbox+wss://host:port`: it dials them, so that it needs no open port.
    pub mailboxes: Vec<String>,
    /// A file with certificates (PEM) to trust at mailboxes, rather than the web's authorities; empty = none.
    pub mailbox_ca_file: PathBuf,
    /// Heartbeats on an idle link; dead after two missed.
    pub heartbeat_ms: u32,
    /// How long a lost link may stay away with everything kept.
    pub grace_ms: u64,
    /// How long a pairing code is taken.
    pub pairing_expires_s: u32,
}

impl Default for LinkConfig {
    fn default() -> LinkConfig {
        LinkConfig {
            listen: vec!["grpc://127.0.0.1:9750".into()],
            addresses: Vec::new(),
            mailboxes: Vec::new(),
            mailbox_ca_file: PathBuf::new(),
            heartbeat_ms: 10_000,
            grace_ms: 3_000,
            pairing_expires_s: 3_600,
        }
    }
}

/// The hub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HubConfig {
    /// Announced alias, at most 32 bytes.
    pub alias: String,
    /// Announced addresses, `host:port`.
    pub announce: Vec<String>,
    /// The file with the hub's seed; empty = `hub.seed` in the data directory.
    pub seed_file: PathBuf,
    /// How long a payment waits for a phone to wake up.
    pub hold_ms: u64,
    /// Kept on chain for each channel, to pay for its forced close; channels beyond that are refused. 0 = none is.
    pub reserve_sat_per_channel: u64,
}

impl Default for HubConfig {
    fn default() -> HubConfig {
        HubConfig {
            alias: "longhand".into(),
            announce: Vec::new(),
            seed_file: PathBuf::new(),
            hold_ms: 60_000,
            reserve_sat_per_channel: 10_000,
        }
    }
}

/// Lightning peers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeerConfig {
    /// Where the hub's peers connect.
    pub listen: SocketAddr,
    /// How long an outgoing connection may take.
    pub connect_timeout_ms: u64,
    /// Takes payments that no invoice asks for (keysend), for the hub and all owners.
    pub accept_keysend: bool,
    /// Networks that owners' nodes may dial beside the public internet, as `10.1.0.0/16`. On regtest they dial everywhere.
    pub allow_networks: Vec<ipnet::IpNet>,
}

impl Default for PeerConfig {
    fn default() -> PeerConfig {
        PeerConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 9735)),
            connect_timeout_ms: 10_000,
            accept_keysend: false,
            allow_networks: Vec::new(),
        }
    }
}

/// The operator's API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OperatorConfig {
    /// `unix:PATH` (relative to the data directory), or a loopback address, which then asks for a token.
    pub listen: String,
    /// The file with the token; empty = `operator.token` in the data directory.
    pub token_file: PathBuf,
}

impl Default for OperatorConfig {
    fn default() -> OperatorConfig {
        OperatorConfig {
            listen: "unix:operator.sock".into(),
            token_file: PathBuf::new(),
        }
    }
}

/// Where an operator's API listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OperatorListen {
    /// A Unix socket.
    Unix(PathBuf),
    /// Loopback TCP.
    Tcp(SocketAddr),
}

/// Prometheus metrics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Where `/metrics` is served over HTTP; empty = nowhere.
    pub listen: String,
}

impl Default for MetricsConfig {
    fn default() -> MetricsConfig {
        MetricsConfig {
            listen: "127.0.0.1:9751".into(),
        }
    }
}

/// lnd's RPC, for tools on the operator's network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AppsConfig {
    /// `grpc://127.0.0.1:port`, or `grpcs://ip:port?certificate=PATH&key=PATH`; empty = nowhere.
    pub listen: String,
}

/// Waking phones by webhook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WakeConfig {
    /// How many blocks before the deadline of an HTLC the phone is called.
    pub before_blocks: u32,
    /// Pause after the first call; each further pause is twice as long.
    pub first_pause_ms: u64,
    /// The longest pause.
    pub max_pause_ms: u64,
    /// How long the webhook may take to answer.
    pub timeout_ms: u64,
    /// The most calls of one owner's phone for payments that the hub holds, in an hour. Those for deadlines are not limited.
    pub per_hour: u32,
}

impl Default for WakeConfig {
    fn default() -> WakeConfig {
        WakeConfig {
            before_blocks: 72,
            first_pause_ms: 2_000,
            max_pause_ms: 60_000,
            timeout_ms: 10_000,
            per_hour: 60,
        }
    }
}

/// Reads `link.listen`, which was a single address without a scheme in earlier versions.
fn list_of_addresses<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Vec::deserialize(from).map_err(|_| {
        let expected = "a list of addresses with schemes, such as [\"grpc://127.0.0.1:9750\"]";
        D::Error::custom(format!("link.listen is {expected}"))
    })
}

/// A password that is not shown in logs. Zeroized when dropped.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Password(Zeroizing<String>);

impl Password {
    /// The password itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Password {
    fn from(text: String) -> Password {
        Password(Zeroizing::new(text))
    }
}

impl From<Password> for String {
    /// Serialized without its content: a configuration that is written out is for people to read.
    fn from(_: Password) -> String {
        String::new()
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "hidden" })
    }
}

impl Settings for HostConfig {
    const PROGRAM: &'static str = "the host";
    const ENV_PREFIX: &'static str = ENV_PREFIX;
    const EXAMPLE: &'static str = "docs/host.example.toml";
    const RENAMED: &'static [(&'static str, &'static str)] = &chain::RENAMED;

    fn check(&self) -> Result<(), ConfigError> {
        let invalid = |text: &str| Err(ConfigError::Invalid(text.into()));
        self.operator_listen()?;
        self.metrics_listen()?;
        self.apps_listen()?;
        self.link_listen()?;
        self.chain.esplora_url()?;
        let link = &self.link;
        self.link_mailboxes()?;
        let tor = self.tor.takes_links().then(longest_tor_address);
        let addresses = [&link.addresses[..], &link.mailboxes[..], tor.as_slice()].concat();
        if let Some(setting) = self.tor.without_effect() {
            let text =
                format!("{setting} is set and has no effect: set tor.enabled too, or leave it out");
            return Err(ConfigError::Invalid(text));
        }
        if !PairingCode::has_room_for(&addresses) {
            return invalid(
                "link.addresses and link.mailboxes do not fit into a pairing code: give fewer, or shorter ones",
            );
        }
        if self.chain.fallback_feerate_sat_per_vb > chain::MAX_FALLBACK_SAT_PER_VB {
            return Err(ConfigError::Invalid(format!(
                "chain.fallback_feerate_sat_per_vb is above {}: look at the unit",
                chain::MAX_FALLBACK_SAT_PER_VB
            )));
        }
        if self.hub.alias.len() > 32 {
            return invalid("hub.alias is longer than the 32 bytes that BOLT 7 has for it");
        }
        let positive = [
            ("chain.poll_ms", self.chain.poll_ms),
            ("link.heartbeat_ms", link.heartbeat_ms.into()),
            ("link.pairing_expires_s", link.pairing_expires_s.into()),
            ("peer.connect_timeout_ms", self.peer.connect_timeout_ms),
            ("tor.connect_timeout_ms", self.tor.connect_timeout_ms),
            ("wake.first_pause_ms", self.wake.first_pause_ms),
            ("wake.max_pause_ms", self.wake.max_pause_ms),
            ("wake.timeout_ms", self.wake.timeout_ms),
            ("wake.per_hour", self.wake.per_hour.into()),
        ];
        match positive.iter().find(|(_, value)| *value == 0) {
            Some((key, _)) => Err(ConfigError::Invalid(format!(
                "{key} is 0: give it at least 1"
            ))),
            None => Ok(()),
        }
    }
}

impl HostConfig {
    /// As [`Settings::load`].
    ///
    /// # Errors
    /// [`ConfigError`], which names the file or variable and the key.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: impl IntoIterator<Item = (String, String)>,
    ) -> Result<HostConfig, ConfigError> {
        Settings::load(file, env, flags)
    }

    /// Where carriers take in phones; at least one address, a mailbox, or Tor. Which schemes there are is known to the host's
    /// [`longhand_link::Carriers`].
    pub fn link_listen(&self) -> Result<Vec<Address>, ConfigError> {
        let listen = &self.link.listen;
        if listen.is_empty() && self.link.mailboxes.is_empty() && !self.tor.takes_links() {
            let text = "link.listen is empty: give at least one address, such as grpc://127.0.0.1:9750, a mailbox in \
                        link.mailboxes, or tor.enabled";
            return Err(ConfigError::Invalid(text.into()));
        }
        addresses("link.listen", listen)
    }

    /// The mailboxes at which the host waits for its phones.
    pub fn link_mailboxes(&self) -> Result<Vec<Address>, ConfigError> {
        let mailboxes = addresses("link.mailboxes", &self.link.mailboxes)?;
        for (index, mailbox) in mailboxes.iter().enumerate() {
            let at = mailbox.authority();
            // `mailbox+ws` and `mailbox+wss`, but not `lnc+grpc`.
            let place = |it: &Address| {
                let kind = it.scheme().split('+').next().map(str::to_owned);
                (kind, it.authority().to_owned())
            };
            if mailboxes
                .iter()
                .take(index)
                .any(|it| place(it) == place(mailbox))
            {
                // Both would attach the same streams, and take them from each other.
                let text =
                    format!("link.mailboxes has {at} twice: give one address for each mailbox");
                return Err(ConfigError::Invalid(text));
            }
        }
        Ok(mailboxes)
    }

    /// Where the operator's API listens.
    pub fn operator_listen(&self) -> Result<OperatorListen, ConfigError> {
        if let Some(path) = self.operator.listen.strip_prefix("unix:") {
            return Ok(OperatorListen::Unix(self.data_dir.join(path)));
        }
        let invalid = || {
            ConfigError::Invalid(format!(
                "operator.listen is {:?}: give unix:PATH, or a loopback address with a port",
                self.operator.listen
            ))
        };
        let address: SocketAddr = self.operator.listen.parse().map_err(|_| invalid())?;
        match address.ip().is_loopback() {
            true => Ok(OperatorListen::Tcp(address)),
            false => Err(invalid()),
        }
    }

    /// Where metrics are served, if anywhere.
    pub fn metrics_listen(&self) -> Result<Option<SocketAddr>, ConfigError> {
        let text = &self.metrics.listen;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| {
            ConfigError::Invalid(format!(
                "metrics.listen is {text:?}: give an address and a port"
            ))
        })
    }

    /// Where apps call nodes beside Lightning Node Connect, if anywhere.
    pub fn apps_listen(&self) -> Result<Option<Address>, ConfigError> {
        let text = &self.apps.listen;
        if text.is_empty() {
            return Ok(None);
        }
        let address = text.parse().map(Some);
        address.map_err(|error: AddressError| {
            ConfigError::Invalid(format!("apps.listen is {text:?}: {error}"))
        })
    }

    /// The file with the hub's seed.
    pub fn hub_seed_file(&self) -> PathBuf {
        self.file_or(&self.hub.seed_file, "hub.seed")
    }

    /// The file with the operator's token.
    pub fn operator_token_file(&self) -> PathBuf {
        self.file_or(&self.operator.token_file, "operator.token")
    }

    /// The file with the headers of the last blocks, which an Esplora server does not know once they have left the chain.
    pub fn headers_file(&self) -> PathBuf {
        self.data_dir.join("esplora.headers")
    }

    /// The file with the host's static key for links.
    pub fn link_key_file(&self) -> PathBuf {
        self.data_dir.join("link.key")
    }

    /// The file with the key of the onion services.
    pub fn tor_key_file(&self) -> PathBuf {
        self.data_dir.join("tor.key")
    }

    /// The database.
    pub fn database_file(&self) -> PathBuf {
        self.data_dir.join("host.db")
    }

    fn file_or(&self, configured: &Path, default: &str) -> PathBuf {
        match configured.as_os_str().is_empty() {
            true => self.data_dir.join(default),
            false => configured.to_owned(),
        }
    }
}

/// An address as long as that of an onion service.
fn longest_tor_address() -> String {
    format!("{SCHEME}://{}.onion:{LINK_PORT}", "a".repeat(56))
}

/// The addresses of a setting.
fn addresses(key: &str, texts: &[String]) -> Result<Vec<Address>, ConfigError> {
    let parse = |text: &String| {
        text.parse().map_err(|error: AddressError| {
            ConfigError::Invalid(format!("{key} has {text:?}: {error}"))
        })
    };
    texts.iter().map(parse).collect()
}

#[cfg(test)]
mod tests;
